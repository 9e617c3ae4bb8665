"""Random streams that are named instead of stored.

Every random number of a run comes from a generator made afresh from (seed, what for, step). Two arms of one
seed therefore see the same numbers whatever else they do (common random numbers, METHOD 6), and a resumed run
needs no generator state.
"""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, *stream: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for one named stream, e.g. `generator(73, "draw", step)`."""
    name = "/".join(map(str, (seed, *stream))).encode()
    value = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") >> 1
    return torch.Generator(device=device).manual_seed(value)
