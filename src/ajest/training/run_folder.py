"""A run's folder: whose it is, where it stands, the snapshots that lie in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ajest.diffusion.noising.pairings import LEAST_START
from ajest.errors import Corrupt, UserError, check, listed
from ajest.runtime.seeding import Role
from ajest.selection.arm import Arm
from ajest.storage import checkpoint
from ajest.storage.checkpoint import Stored
from ajest.storage.config import differences
from ajest.storage.config_file import read_config_file, stored, write_config
from ajest.tasks.base import Task

from .recipe import Recipe

_BY_SHARE = "by the share of the run that is done"


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's weights.

    Attributes:
        task: what is learned.
        role: which of the task's networks; names the random streams together with the seed.
        recipe: how.
        arm: from which examples.
        seed: names the random streams.
        iterations: steps to take.
        guide: folder of the reference's run relative to this run's folder, None where none is used.
    """

    task: Task
    role: Role
    recipe: Recipe
    arm: Arm
    seed: int
    iterations: int
    guide: str | None = None

    def __post_init__(self) -> None:
        check(self.iterations >= 1, f"iterations must be at least 1, not {self.iterations}")
        self.arm.kept(self.recipe.super_batch)
        check_followed(self.arm, self.task)

    @property
    def stretched(self) -> str:
        """What of it goes by the share of the run that is done, so that a longer run differs from its beginning; ""
        where nothing does."""
        if self.recipe.of(self.arm).learning_rate.follows_share:
            return f"its learning rate falls {_BY_SHARE}"
        return self.chosen_by_share

    @property
    def chosen_by_share(self) -> str:
        """As `stretched`, of which examples and noise levels it trains on."""
        goes = {
            "its selection fades": self.arm.cooling,
            "its selection stops": self.arm.trigger.mode == "share",
            "its selection comes and goes": self.arm.trigger.mode == "waves",
            "its trigger may go": self.arm.trigger.custom is not None,
            "its noise levels follow losses": self.arm.noising.learns,
        }
        return next((f"{what} {_BY_SHARE}" for what, is_so in goes.items() if is_so), "")


def check_followed(arm: Arm, task: Task) -> None:
    """Raise a UserError unless a task's sampler can follow what an arm learns: one that pairs noise with examples
    learns no score, and from its own start."""
    if arm.noising.pairing is None:
        return
    mine, start = f"arm {arm.name!r} pairs noise with examples", task.sampled_from
    check(
        start is not None,
        f"{mine}, so that what it learns is no score: it needs a sampler that adds no noise, without --churn, and a "
        f"task {task.name} whose `sampled_from` says so",
    )
    assert start is not None
    check(
        start >= LEAST_START,
        f"{mine}, and a sampler that starts from only {start:g} times sigma_data begins at other points than it "
        f"learned: raise --sigma-max to {LEAST_START:g} times sigma_data",
    )


#: What may lie in a folder of ours before its config: measured beforehand, or runs that outlived the bench above them.
_EARLIER = ("memory.json", "calibration.json", "arms")


def claim_folder(folder: Path, config: Any, name: str = "config.json") -> None:
    """Write the config into a new folder, or make sure that the folder has this very config.

    A run may be given more steps, unless what it learns on the way depends on its length.

    Raises:
        UserError: the folder has another config, and the message names the fields that differ; or it is new here and
            holds something of somebody's, which reports and runs could replace.
    """
    path = folder / name
    if not path.exists():
        others = sorted(p.name for p in folder.glob("[!.]*") if p.name not in _EARLIER)
        check(
            not others,
            f"{folder} holds other things ({listed(others, 3)}) and no {name}: name a new or empty folder with --out",
        )
        write_config(path, config)
        return
    known = read_config_file(path, type(config))
    changed = differences(known, config)
    if changed and isinstance(config, RunConfig) and known == replace(config, iterations=known.iterations):
        _extend(folder, known, config)
    elif changed:
        raise UserError(
            f"{folder} holds a run of another config ({listed(changed, 4)}): name a new folder with --out, "
            "or go on with the old settings"
        )
    if checkpoint.read_json(path) != json.loads(
        json.dumps(stored(config))
    ):  # what may change: where data lie, summaries
        write_config(path, config)


def _extend(folder: Path, known: RunConfig, config: RunConfig) -> None:
    """Let a run go on beyond its end.

    Raises:
        UserError: it would not become what a run of that length becomes.
    """
    why = config.stretched
    if config.iterations < known.iterations:
        why = "it cannot be shortened"
    check(
        not why,
        f"{folder} holds a run of {known.iterations:,} steps, which cannot become one of {config.iterations:,}: {why}; "
        "name a new folder with --out, or keep the number of steps",
    )
    if read_status(folder).get("state") == "done":
        (folder / "status.json").unlink()


def read_config(folder: Path) -> RunConfig:
    path = folder / "config.json"
    check(path.exists(), f"{folder} is not a run: it has no config.json")
    try:
        return read_config_file(path, RunConfig)
    except Corrupt as error:
        raise UserError(str(error)) from error


def read_status(folder: Path) -> dict[str, Any]:
    """The status a run ended with, or {}."""
    try:
        return checkpoint.read_sealed(folder / "status.json")
    except Corrupt:
        return {}


def snapshots(folder: Path) -> dict[int, Path]:
    """The snapshots of a run by step."""
    return checkpoint.stems(folder / "snapshots", "snapshot")


def load_snapshot(folder: Path, step: int | None = None, warn: Callable[[str], None] = print) -> Stored:
    """A snapshot, the latest whole one unless a step is named.

    Raises:
        UserError: the run has none, or not that one.
        Corrupt: the named one is damaged.
    """
    known = snapshots(folder)
    if step is None:
        stored = checkpoint.latest(folder / "snapshots", "snapshot", warn)
        if stored is None:
            raise UserError(f"{folder} has no whole snapshot: train it first, or let its training go on")
        return stored
    if step not in known:
        raise UserError(f"{folder} has no snapshot of step {step}; it has {listed(known) or 'none'}")
    return checkpoint.load(known[step])
