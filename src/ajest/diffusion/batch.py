"""The one kind of thing that flows through everything: a batch of noised examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Noised examples `x = x0 + sigma * eps` with what a denoiser should answer.

    Noise belongs to the batch, so learner and reference cannot disagree about it (docs/method.md#flow).

    Attributes:
        x: noised examples, shape (n, ...).
        sigma: noise level of each example, shape (n,), positive, in units of the data.
        weight: loss weight of each example, shape (n,).
        id: a stable number of the clean example, shape (n,), int64.
        target: what the denoiser should return, shape of `x`; None until a source has completed the batch.
        label: class label or embedding of each example, shape (n, ...), or None where there is none.
    """

    x: Tensor
    sigma: Tensor
    weight: Tensor
    id: Tensor
    target: Tensor | None = None
    label: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        mapped: dict[str, Any] = {k: None if v is None else function(v) for k, v in parts.items()}
        return Batch(**mapped)

    def __getitem__(self, index: Tensor | slice) -> Batch:
        """The examples at `index` (a slice, or an int64 or bool tensor)."""
        return self._map(lambda part: part[index])

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device."""
        return self._map(lambda part: part.to(device, non_blocking=True))

    def split(self, size: int) -> Iterator[Batch]:
        """Consecutive views of at most `size` examples."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


class Source(Protocol):
    """Where noised examples come from: the only thing that differs between one task and another."""

    def draw(self, count: int, generator: torch.Generator, eps: torch.Generator | None = None) -> Batch:
        """Draw `count` noised examples with generators on the CPU. A smaller count gives a prefix of a larger one.

        Args:
            count: how many.
            generator: for the examples, their noise levels and their noise.
            eps: for the noise alone, in place of `generator`: the same examples at the same levels, noised anew.
        """
        ...

    def complete(self, batch: Batch) -> Batch:
        """The batch with its target. Apart from `draw`, because on some tasks the target is the costly part."""
        ...
