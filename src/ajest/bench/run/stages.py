"""How many seeds a bench has got to that adds them until all is decided, kept in its folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ajest.bench.plan.config import BenchConfig
from ajest.storage.checkpoint import read_sealed, write_sealed
from ajest.storage.config import from_json, to_json

_FILE = "stages.json"

#: Why no seeds are added any more: all is decided, there are as many as may be, or no time is left.
Ended = Literal["decided", "most", "time"]


@dataclass(frozen=True)
class Stage:
    """Seeds that are made, or being made.

    Attributes:
        seeds: how many there are with it.
        seconds: that the bench had taken before it; what a start took that was stopped within a stage is not known.
        pace: how many times as long the runs before took as they were priced; 1 where none was timed.
        ended: why it is the last; None where that is not known yet.
    """

    seeds: int
    seconds: float = 0.0
    pace: float = 1.0
    ended: Ended | None = None


def stage_of(root: Path, config: BenchConfig) -> Stage:
    """The stage that a bench is in; of one that adds no seeds the only one."""
    path = root / _FILE
    if not path.exists():
        return Stage(len(config.seeds), ended=None if config.looks else "most")
    return from_json(Stage, read_sealed(path), str(path))


def enter(root: Path, stage: Stage) -> None:
    """Keep the stage that a bench is in."""
    write_sealed(root / _FILE, to_json(stage))


def following(config: BenchConfig, stage: Stage, decided: bool, priced: Callable[[int], float]) -> Stage:
    """The stage after one that is made: it has as many seeds as the next planned look, or as still fit into the time.

    Args:
        config: of the bench, with its plan.
        stage: that is made, with the seconds and the pace until now.
        decided: whether nothing is open.
        priced: seconds that so many more seeds take at pace 1.
    """
    ahead = [n for n in config.looks if n > stage.seeds]
    if decided or not ahead:
        return replace(stage, ended="decided" if decided else "most")
    left = math.inf if config.minutes is None else 60 * config.minutes - stage.seconds
    fitting = (n for n in range(ahead[0], stage.seeds, -1) if stage.pace * priced(n - stage.seeds) <= left)
    seeds = next(fitting, stage.seeds)
    return replace(stage, seeds=seeds, ended=None if seeds == ahead[0] else "time")
