"""Noised examples of the tree with their exact targets (docs/method.md#tree)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ajest.diffusion.batch import Batch
from ajest.diffusion.denoising import LogNormal, score_weight
from ajest.runtime.counter import CounterStream, Rows, normal, numbers_of, uniform
from ajest.runtime.transfer import to_device

from .distribution import TreeDistribution

_ROW = 8  # random numbers per example: two normals for the point, two for eps, one for sigma, one uniform


class TreeSource:
    """Draws `x = x0 + sigma eps`; `id` is the index of the Gaussian that x0 came from.

    Args:
        distribution: the tree, on the device where batches are wanted.
        noise: distribution of the noise levels.
    """

    def __init__(self, distribution: TreeDistribution, noise: LogNormal) -> None:
        self.distribution, self.noise = distribution, noise

    def draw(self, count: int, generator: torch.Generator, eps: torch.Generator | None = None) -> Batch:
        # One row of numbers an example, so that a smaller draw is a prefix of a larger one (16 numbers are the
        # unit in which torch's CPU generator makes normals).
        rows = -(-count * _ROW // 16) * 16 // _ROW
        numbers = torch.randn(rows, _ROW, generator=generator)[:count]
        if eps is not None:
            numbers[:, 2:4] = torch.randn(rows, _ROW, generator=eps)[:count, 2:4]
        (numbers,) = to_device(self.device, numbers)
        sigma = self.noise(numbers[:, 4])
        uniform = torch.special.ndtr(numbers[:, 5])
        x, index = self.distribution.sample(uniform, numbers[:, :4], sigma)
        return Batch(x=x, sigma=sigma, weight=score_weight(sigma), id=index)

    @property
    def device(self) -> torch.device:
        """Where batches are."""
        return self.distribution.device

    def outline(self, rows: Rows, stream: CounterStream) -> Batch:
        uniform_, sigma, _ = self._numbers(numbers_of(rows, self.device), stream)
        index = self.distribution.component(uniform_)
        return Batch(x=sigma.new_empty(len(rows), 0), sigma=sigma, weight=score_weight(sigma), id=index)

    def draw_rows(self, rows: Rows, stream: CounterStream, eps: CounterStream) -> Batch:
        numbers = numbers_of(rows, self.device)
        uniform_, sigma, point = self._numbers(numbers, stream)
        x, index = self.distribution.sample(uniform_, torch.cat([point, eps.normals(numbers, (2,))], 1), sigma)
        return Batch(x=x, sigma=sigma, weight=score_weight(sigma), id=index)

    def _numbers(self, rows: Tensor, stream: CounterStream) -> tuple[Tensor, Tensor, Tensor]:
        """(a uniform number for the Gaussian, the noise level, two normal numbers for the point)."""
        words = stream.words(rows, 8)
        normals = normal(words[:, :4])
        return uniform(words[:, 4]), self.noise(normals[:, 2]), normals[:, :2]

    def complete(self, batch: Batch) -> Batch:
        return replace(batch, target=self.distribution.denoise(batch.x, batch.sigma))
