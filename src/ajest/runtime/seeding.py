"""Random streams that are named instead of stored.

Every random number of a run comes from a generator made afresh from (seed, role, what for, step). Two arms of one
seed therefore see the same numbers whatever else they do (common random numbers), a guide or strong reference
of that seed sees others, and a resumed run needs no generator state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .counter import CounterStream

_WORDS = 624  # of 32 bits: the state of the Mersenne twister


def generator(seed: int, *stream: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for one named stream, e.g. `generator(73, "learner", "draw", step)`.

    On the CPU the name fills the whole state of the Mersenne twister: `manual_seed` would use 32 bits of a seed, of
    which 100,000 streams share some. On CUDA it is the key of 64 bits of a counter-based generator (Philox).

    Args:
        seed: the first part of the name.
        *stream: its other parts. Streams of equal names are equal, bit for bit.
        device: where the numbers are made.
    """
    name = "/".join(map(str, (seed, *stream))).encode()
    made = torch.Generator(device=device)
    if made.device.type != "cpu":
        return made.manual_seed(int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little"))
    state, words = _layout()
    state = state.clone()
    content = hashlib.shake_128(name).digest(8 + 4 * _WORDS)
    numbers = state.numpy()
    numbers[:8] = np.frombuffer(content, np.uint8, 8)  # `initial_seed`, which tells streams apart
    numbers[words].view(np.uint64)[:] = np.frombuffer(content, "<u4", _WORDS, 8)
    return made.set_state(state)


def derived_seed(seed: int, *name: str | int) -> int:
    """A seed that stands for another and a name: of 63 bits, so that it is none that a person gives."""
    said = "/".join(map(str, (seed, *name))).encode()
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "little") >> 1


def substream(parent: torch.Generator, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator named by the next 124 random bits of another, which can be drawn from as far as need be."""
    return generator(*torch.randint(1 << 62, (2,), generator=parent).tolist(), device=device)


@contextmanager
def drawing_from(stream: torch.Generator) -> Iterator[None]:
    """Within, what has no generator of its own on this one's device, such as dropout, draws from this stream; after it
    torch's own generator goes on as if nothing had been drawn."""
    if stream.device.type == "cuda":
        with torch.random.fork_rng([stream.device]):
            torch.cuda.set_rng_state(stream.get_state(), stream.device)
            yield
        return
    before = torch.get_rng_state()  # a fork of all devices takes four times as long
    torch.set_rng_state(stream.get_state())
    try:
        yield
    finally:
        torch.set_rng_state(before)


@cache
def _layout() -> tuple[Tensor, slice]:
    """(the state of a CPU generator that was just seeded, where in it the twister's words stand, each in 64 bits).

    Raises:
        RuntimeError: this torch keeps them elsewhere.
    """
    state = torch.Generator().manual_seed(5489).get_state()
    words = slice(24, 24 + 8 * _WORDS)  # after the seed, two counters of 32 bits and one of 64
    seeded = np.random.RandomState(5489).get_state(legacy=False)["state"]["key"]
    head = state.numpy()[:8].view(np.uint64)
    if len(state) < words.stop or head[0] != 5489 or not np.array_equal(state.numpy()[words].view(np.uint64), seeded):
        raise RuntimeError(f"torch {torch.__version__} keeps the state of its CPU generator in a form unknown to ajest")
    return state, words


#: What a network is for, which is part of the names of its random streams: the one that is compared, the smaller one
#: that guides it, a reference as large as the learner, or a small one that scores in the learner's place.
Role = Literal["learner", "guide", "strong", "proxy"]


#: Those whose network is as large as the learner's; the others are as large as the guide.
LARGE: tuple[Role, ...] = ("learner", "strong")


#: Where the random numbers of examples are made: by torch's generator on the host, or by counters on the device.
Drawing = Literal["host", "device"]


@dataclass(frozen=True)
class Streams:
    """The random streams of a run: arms of one seed draw the same examples, a guide of that seed others.

    Attributes:
        seed: of the run.
        role: what its network is for.
        drawing: where examples are drawn (docs/method.md#drawing).
    """

    seed: int
    role: Role = "learner"
    drawing: Drawing = "host"

    def generator(self, *name: str | int, device: torch.device | str = "cpu") -> torch.Generator:
        """A fresh generator for one of them, see `generator`."""
        return generator(self.seed, self.role, *name, device=device)

    def counter(self, *name: str | int) -> CounterStream:
        """One of them whose numbers are computed from their places, see `CounterStream`."""
        return CounterStream.named(self.seed, self.role, *name)
