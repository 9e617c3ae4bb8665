"""Noised examples of the tree with their exact targets (docs/method.md#tree)."""

from __future__ import annotations

from dataclasses import replace

import torch

from ajest.diffusion.batch import Batch
from ajest.diffusion.denoising import LogNormal, score_weight

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
        numbers = numbers.to(self.distribution.device)
        sigma = self.noise(numbers[:, 4])
        uniform = torch.special.ndtr(numbers[:, 5])
        x, index = self.distribution.sample(uniform, numbers[:, :4], sigma)
        return Batch(x=x, sigma=sigma, weight=score_weight(sigma), id=index)

    def complete(self, batch: Batch) -> Batch:
        return replace(batch, target=self.distribution.denoise(batch.x, batch.sigma))
