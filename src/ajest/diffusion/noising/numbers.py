"""Random numbers of examples beside those that their source draws, on the host or by numbers of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ajest.runtime import seeding
from ajest.runtime.counter import CounterStream, below
from ajest.runtime.transfer import to_device

_UNIT = 16  # normals that torch's CPU generator makes at a time: a draw of fewer is no prefix of a longer one


class Numbers(Protocol):
    """Named numbers for each of some examples."""

    def normals(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """Standard normal numbers, shape (n, *shape)."""
        ...

    def below(self, name: str, high: int) -> Tensor:
        """Whole numbers from 0 to high - 1, shape (n,)."""
        ...


@dataclass(frozen=True)
class HostNumbers:
    """Of the first so many examples of a draw with generators. Fewer are a prefix of more.

    Attributes:
        seed: of the draw.
        count: examples.
        device: where they are wanted.
    """

    seed: int
    count: int
    device: torch.device

    def normals(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        stream = seeding.generator(self.seed, name, device=self.device)
        rows = -(-self.count // _UNIT) * _UNIT
        return torch.randn(rows, *shape, generator=stream, device=self.device)[: self.count]

    def below(self, name: str, high: int) -> Tensor:
        found = torch.randint(high, (self.count,), generator=seeding.generator(self.seed, name))
        return to_device(self.device, found)[0]


@dataclass(frozen=True)
class RowNumbers:
    """Of examples by their numbers.

    Attributes:
        stream: of the draw.
        rows: numbers of examples, shape (n,), int64, on their device.
        fused: see `CounterStream.normals`.
    """

    stream: CounterStream
    rows: Tensor
    fused: bool = False

    def normals(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        return self.stream.substream(name).normals(self.rows, shape, self.fused)

    def below(self, name: str, high: int) -> Tensor:
        return below(self.stream.substream(name).words(self.rows, 2), high)
