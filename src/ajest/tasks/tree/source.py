"""Noised examples of the tree, with exact targets or clean ones (docs/method.md#tree)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ajest.diffusion.batch import Batch
from ajest.diffusion.denoising import Denoiser, LogNormal, score_weight
from ajest.diffusion.noising.ingredients import Ingredients, Target
from ajest.runtime.counter import CounterStream, Rows, normal, numbers_of, uniform
from ajest.runtime.transfer import to_device

from .distribution import TreeDistribution

_ROW = 8  # random numbers per example: two normals for the point, two for eps, one for sigma, one uniform


class TreeSource:
    """Draws `x = x0 + sigma eps`; `id` is the index of the Gaussian that x0 came from.

    Args:
        distribution: the tree, on the device where batches are wanted.
        noise: distribution of the noise levels.
        sigma_data: standard deviation of the data, for arms that weight or noise in its units.
        target: the exact posterior mean, or the clean example "x0", which is all that real data have.
    """

    def __init__(
        self, distribution: TreeDistribution, noise: LogNormal, sigma_data: float = 0.5, target: Target = "exact"
    ) -> None:
        self.distribution, self.noise, self.sigma_data, self.own_target = distribution, noise, sigma_data, target
        self.exact: Denoiser | None = distribution.denoise
        self.device = distribution.device

    def draw(self, count: int, generator: torch.Generator, eps: torch.Generator | None = None) -> Batch:
        return self._noised(self.ingredients(count, generator, eps))

    def ingredients(self, count: int, generator: torch.Generator, eps: torch.Generator | None = None) -> Ingredients:
        # One row of numbers an example, so that a smaller draw is a prefix of a larger one (16 numbers are the
        # unit in which torch's CPU generator makes normals).
        rows = -(-count * _ROW // 16) * 16 // _ROW
        numbers = torch.randn(rows, _ROW, generator=generator)[:count]
        if eps is not None:
            numbers[:, 2:4] = torch.randn(rows, _ROW, generator=eps)[:count, 2:4]
        (numbers,) = to_device(self.device, numbers)
        x0, index = self.distribution.clean(torch.special.ndtr(numbers[:, 5]), numbers[:, :2])
        return Ingredients(x0, numbers[:, 2:4], numbers[:, 4], index)

    def outline(self, rows: Rows, stream: CounterStream) -> Batch:
        parts = self.ingredients_of(rows, stream, None)
        sigma = self.noise(parts.normal)
        return Batch(x=parts.x0, sigma=sigma, weight=self.weight(sigma), id=parts.id)

    def draw_rows(self, rows: Rows, stream: CounterStream, eps: CounterStream) -> Batch:
        return self._noised(self.ingredients_of(rows, stream, eps))

    def ingredients_of(self, rows: Rows, stream: CounterStream, eps: CounterStream | None) -> Ingredients:
        numbers = numbers_of(rows, self.device)
        words = stream.words(numbers, 8)  # four for two normal numbers of the point and one of the level, one uniform
        normals, uniform_ = normal(words[:, :4]), uniform(words[:, 4])
        if eps is None:
            nothing = normals[:, :0]
            return Ingredients(nothing, nothing, normals[:, 2], self.distribution.component(uniform_))
        x0, index = self.distribution.clean(uniform_, normals[:, :2])
        return Ingredients(x0, eps.normals(numbers, (2,)), normals[:, 2], index)

    def weight(self, sigma: Tensor) -> Tensor:
        return score_weight(sigma)

    def _noised(self, parts: Ingredients) -> Batch:
        sigma = self.noise(parts.normal)
        x = parts.x0 + sigma[:, None] * parts.eps
        target = parts.x0 if self.own_target == "x0" else None
        return Batch(x=x, sigma=sigma, weight=self.weight(sigma), id=parts.id, target=target)

    def complete(self, batch: Batch) -> Batch:
        if batch.target is not None:
            return batch
        return replace(batch, target=self.distribution.denoise(batch.x, batch.sigma))
