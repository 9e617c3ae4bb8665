"""Random numbers that are computed where they are needed, each from its name and its place alone.

A row of a stream depends on the stream's name and the row's number: not on how many rows are drawn, in which order, on
which device or by how many processes. Whole numbers are the same bits everywhere, and so is what compares them; normal
numbers take a logarithm and a cosine, which devices round alike up to the last digit.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox4x32-10); docs/method.md#drawing.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .transfer import to_device

_ROUNDS = 10
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85  # added to the key after each round
_MASK = 0xFFFFFFFF
#: 32 bits that are held in int64: Python's numbers serve as well, and are broadcast.
Word = Tensor | int

Rows = range | Tensor


def numbers_of(rows: Rows, device: torch.device | str = "cpu") -> Tensor:
    """The numbers of rows, int64, on a device."""
    if isinstance(rows, Tensor):
        return rows.to(device)
    return torch.arange(rows.start, rows.stop, rows.step, device=device)


def philox(counter: tuple[Word, Word, Word, Word], key: tuple[Word, Word]) -> tuple[Word, Word, Word, Word]:
    """Philox4x32-10: four random words for each counter. Products of two words overflow int64 and keep their bits."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(_ROUNDS):
        a, b = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = _high(b) ^ c1 ^ k0, b & _MASK, _high(a) ^ c3 ^ k1, a & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def _high(product: Word) -> Word:
    return (product >> 32) & _MASK


def below(words: Tensor, high: int) -> Tensor:
    """Whole numbers from 0 to high - 1, shape (n,), from two words each, shape (n, 2): the part before the point of
    high, at most 2^31, times a fraction of 64 bits."""
    return (words[:, 0] * high + ((words[:, 1] * high) >> 32)) >> 32


def uniform(words: Tensor) -> Tensor:
    """Uniform numbers between 0 and 1, neither of which comes up: the 23 bits that float32 can centre."""
    return ((words >> 9).float() + 0.5) * 2.0**-23


def _box_muller(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Two standard normal numbers from two words (Box and Muller 1958), up to 6.7 standard deviations."""
    radius = ((u.float() + 1) * 2.0**-32).log().mul(-2).sqrt()
    angle = v.float() * (2.0**-32 * 2 * math.pi)
    return radius * angle.cos(), radius * angle.sin()


def normal(words: Tensor) -> Tensor:
    """Standard normal numbers, as many as there are words; shape (..., 2 k), of neighbours in pairs."""
    return torch.stack(_box_muller(words[..., 0::2], words[..., 1::2]), -1).flatten(-2)


def _words(rows: Tensor, blocks: Tensor, name: tuple[Word, Word, Word, Word]) -> tuple[Tensor, ...]:
    """Four words for each row and block, shape (n, m) each: two words of the name are the key, two of the counter."""
    made = philox((blocks, rows[:, None], name[2], name[3]), (name[0], name[1]))
    return torch.broadcast_tensors(*made)


def _normals(rows: Tensor, blocks: Tensor, name: tuple[Word, Word, Word, Word]) -> Tensor:
    a, b, c, d = _words(rows, blocks, name)
    return torch.stack([*_box_muller(a, b), *_box_muller(c, d)], -1).flatten(1)


@cache
def _fused() -> Any:
    """`_normals` as one kernel for any number of rows and any name."""
    return torch.compile(_normals, dynamic=True)


@dataclass(frozen=True)
class CounterStream:
    """A stream of rows of random numbers.

    Attributes:
        name: four words.
    """

    name: tuple[int, int, int, int]

    @classmethod
    def named(cls, *name: str | int) -> CounterStream:
        """The stream of a name; 128 bits tell streams apart."""
        digest = hashlib.blake2b("/".join(map(str, name)).encode(), digest_size=16).digest()
        a, b, c, d = (int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
        return cls((a, b, c, d))

    def substream(self, *name: str | int) -> CounterStream:
        """A stream of its own under this one's name."""
        return self.named(*self.name, *name)

    def words(self, rows: Tensor, count: int) -> Tensor:
        """Random words of 32 bits, shape (n, count), int64, on the device of `rows`.

        Args:
            rows: their numbers, shape (n,), int64, below 2^32.
            count: words of each. Fewer are a prefix of more.
        """
        return torch.stack(_words(rows, self._blocks(rows, count), self.name), -1).flatten(1)[:, :count]

    def normals(self, rows: Tensor, shape: tuple[int, ...], fused: bool = False) -> Tensor:
        """Standard normal numbers, shape (n, *shape), float32, on the device of `rows`.

        Args:
            rows: their numbers, as of `words`.
            shape: of each.
            fused: make them by one kernel (torch.compile) where that is a GPU. Its last digits may differ.
        """
        count = math.prod(shape)
        blocks = self._blocks(rows, count)
        gpu = rows.device.type == "cuda"
        made = self._compiled(rows, blocks) if fused and gpu else _normals(rows, blocks, self.name)
        return made[:, :count].reshape(len(rows), *shape)

    @staticmethod
    def _blocks(rows: Tensor, count: int) -> Tensor:
        return torch.arange(-(-count // 4), device=rows.device)

    def _compiled(self, rows: Tensor, blocks: Tensor) -> Tensor:
        # Numbers of Python's would be constants of the kernel, and every step would compile it anew.
        (name,) = to_device(rows.device, torch.tensor(self.name))
        a, b, c, d = name.unbind()
        return _fused()(rows, blocks, (a, b, c, d))
