"""The one kind of thing that flows through everything: a batch of noised examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor

from ajest.runtime.counter import CounterStream, Rows, numbers_of


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
        ahead = torch.device(device).type != "cpu"  # from which numbers could be read before they are there
        return self._map(lambda part: part.to(device, non_blocking=ahead))

    def split(self, size: int) -> Iterator[Batch]:
        """Consecutive views of at most `size` examples."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def whole(self) -> Batch:
        """The batch with all that was put off, see `DeferredBatch`."""
        return self


class DeferredBatch(Batch):
    """Examples of which ids, noise levels, weights and labels are known; `x` and `target` are drawn when asked for.

    Processes that train together each draw what they score or train on, and know of the rest what choosing takes.

    Args:
        rows: their numbers in the super-batch.
        known: the batch as `RowSource.outline` gives it.
        draw: the examples of some rows.
    """

    def __init__(self, rows: Rows, known: Batch, draw: Callable[[Rows], Batch]) -> None:
        own = {"rows": rows, "known": known, "draw": draw}
        own |= {name: getattr(known, name) for name in ("sigma", "weight", "id", "label")}
        for name, value in own.items():
            object.__setattr__(self, name, value)

    rows: Rows
    known: Batch
    draw: Callable[[Rows], Batch]

    @cached_property
    def _drawn(self) -> Batch:
        return self.draw(self.rows)

    @property
    def x(self) -> Tensor:
        return self._drawn.x

    @property
    def target(self) -> Tensor | None:
        return self._drawn.target

    def __len__(self) -> int:
        return len(self.id)

    def __getitem__(self, index: Tensor | slice) -> Batch:
        consecutive = isinstance(index, slice) and isinstance(self.rows, range)
        rows: Any = self.rows if consecutive else numbers_of(self.rows, self.id.device)
        return DeferredBatch(rows[index], self.known[index], self.draw)

    def to(self, device: torch.device | str) -> Batch:
        return self.whole().to(device)

    def whole(self) -> Batch:
        return self._drawn


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


class RowSource(Source, Protocol):
    """A source that also draws examples by their numbers, where they are needed (docs/method.md#drawing).

    Example i follows from the stream and from i alone: each process draws its own, and any draws what another drew.

    Attributes:
        device: where batches are.
    """

    device: torch.device

    def outline(self, rows: Rows, stream: CounterStream) -> Batch:
        """What choosing needs of some rows: ids, noise levels, weights and labels; `x` of shape (n, 0)."""
        ...

    def draw_rows(self, rows: Rows, stream: CounterStream, eps: CounterStream) -> Batch:
        """The examples of some rows, as `outline` has them.

        Args:
            rows: their numbers.
            stream: for the examples and their noise levels.
            eps: for the noise.
        """
        ...


class RestrictableSource(Source, Protocol):
    """A source over a data set, of which some can be left out."""

    def restricted(self, rows: Tensor) -> Source:
        """The source that draws from the examples of these numbers alone, int64, shape (n,); `id` stays theirs."""
        ...


def draws_rows(source: Source) -> TypeGuard[RowSource]:
    """Whether a source is a `RowSource`."""
    return all(hasattr(source, name) for name in ("device", "outline", "draw_rows"))
