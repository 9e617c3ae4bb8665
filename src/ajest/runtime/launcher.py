"""What torchrun, or whoever stands in for it, says in the environment; read without torch, which is slow to import."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ajest.errors import UserError

#: What a process must know to find the others.
NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """A process among those that train one network together.

    Attributes:
        rank: its number, from 0.
        world: how many there are.
        local_rank: its number among those on this machine.
        local_world: how many there are on this machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


def place() -> Place:
    """Where this process stands. WORLD_SIZE alone, which some clusters and containers set for good, starts nothing.

    Raises:
        UserError: the environment names a rank among several processes, and not how to find the others.
    """
    world = _whole("WORLD_SIZE", 1)
    if world == 1 or "RANK" not in os.environ:
        return Place()
    absent = [name for name in NEEDED if not os.environ.get(name)]
    if absent:
        raise UserError(
            f"RANK and WORLD_SIZE={world} name several processes, but {', '.join(absent)} is not set: start them with "
            "torchrun, or unset RANK to work alone"
        )
    rank = _whole("RANK", 0)
    return Place(rank, world, _whole("LOCAL_RANK", rank), _whole("LOCAL_WORLD_SIZE", 1))


def half_set() -> str:
    """A line about a WORLD_SIZE that starts nothing; "" where there is none."""
    world = os.environ.get("WORLD_SIZE", "1")
    if world == "1" or "RANK" in os.environ:
        return ""
    return f"WORLD_SIZE={world} is set and RANK is not: working as one process; torchrun starts several"


def _whole(name: str, usual: int) -> int:
    text = os.environ.get(name) or str(usual)
    if not text.isdecimal():
        raise UserError(f"{name}={text} in the environment is no whole number: start with torchrun, or unset it")
    return int(text)
