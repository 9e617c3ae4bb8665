"""Sources for tasks of any kind: noised rows of a tensor, with their clean targets (docs/method.md#noise)."""

from __future__ import annotations

import torch
from torch import Tensor

from ajest.diffusion.batch import Batch
from ajest.diffusion.denoising import LogNormal, edm_weight
from ajest.runtime.seeding import substream

_UNIT = 16  # normals that torch's CPU generator makes at a time: a draw of fewer is no prefix of a longer one


def normals(n: int, shape: tuple[int, ...], stream: torch.Generator) -> Tensor:
    """Standard normal rows, shape (n, *shape), on the stream's device; fewer rows are a prefix of more."""
    rows = -(-n // _UNIT) * _UNIT
    return torch.randn(rows, *shape, generator=stream, device=stream.device)[:n]


class TensorSource:
    """Draws `x = x0 + sigma eps`, x0 uniformly with replacement; `id` is its place among the rows. The target is x0, so
    that the target of the score is `(x0 - x) / sigma^2`: as noisy as any real data set's.

    Row, level and lost labels are drawn on the CPU, so that all devices see the same; eps is drawn where it is used.

    Args:
        x: the clean examples, shape (N, ...).
        noise: distribution of the noise levels.
        sigma_data: standard deviation of the data, for the loss weight.
        label: class of each, shape (N,), int64, or None.
        device: where batches are wanted.
        label_dropout: share of examples whose label is -1, which is none.
    """

    def __init__(
        self,
        x: Tensor,
        noise: LogNormal,
        sigma_data: float = 1.0,
        label: Tensor | None = None,
        device: torch.device | str = "cpu",
        label_dropout: float = 0.0,
    ) -> None:
        self.noise, self.sigma_data, self.label_dropout = noise, sigma_data, label_dropout
        self.device = torch.device(device)
        self._x = x.to(self.device)
        self._label = label

    def draw(self, count: int, generator: torch.Generator, eps: torch.Generator | None = None) -> Batch:
        which, level, lost = (substream(generator) for _ in range(3))
        index = torch.randint(len(self._x), (count,), generator=which)
        sigma = self.noise(normals(count, (1,), level)[:, 0]).to(self.device)
        x0 = self._x[index.to(self.device)]
        noise = normals(count, tuple(x0.shape[1:]), substream(generator if eps is None else eps, self.device))
        label = None if self._label is None else self._label[index]
        if label is not None and self.label_dropout:
            label = torch.where(torch.rand(count, generator=lost) < self.label_dropout, -1, label)
        return Batch(
            x=torch.addcmul(x0, sigma.view(-1, *[1] * (x0.dim() - 1)), noise),
            sigma=sigma,
            weight=edm_weight(sigma, self.sigma_data),
            id=index.to(self.device),
            target=x0,
            label=None if label is None else label.to(self.device),
        )

    def complete(self, batch: Batch) -> Batch:
        """The batch as it is: the target is the clean vector itself."""
        return batch
