"""A run that begins where another one stands: every budget of a stable rate from one run.

A rate that stays at its peak and falls at the end (warm-up, stable, decay; arXiv 2404.06395) makes runs of all lengths
alike until they fall. So a run of a constant rate is the beginning of them all.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ajest.errors import check, listed
from ajest.selection.updates import Updates
from ajest.storage import checkpoint
from ajest.storage.config import differences
from ajest.storage.config_file import write_config

from .recipe import LearningRate
from .run_folder import RunConfig, read_config

#: What is a run's own: written anew, or of its end.
_OWN = ("config.json", "status.json", "metrics.jsonl", "*.lock", "truth", "samples", "checkpoint-*")
_ALIKE = 1e-12  # relative; courses are computed in float64


def begin(folder: Path, config: RunConfig, other: Path, warn: Callable[[str], None]) -> int:
    """Let a run begin at the last checkpoint of another one, by copying what that has written so far. What comes out
    has the bits of a run from the first step.

    Args:
        folder: of the run; one that has begun already is left alone.
        config: of the run.
        other: folder of the other run.
        warn: told of damaged checkpoints.

    Returns:
        The step that it begins at.

    Raises:
        UserError: the other run has no checkpoint, or would have taken other steps up to it.
    """
    if (folder / "config.json").exists():
        found = checkpoint.latest(folder, "checkpoint", warn)
        return 0 if found is None else int(found.facts["step"])
    known = read_config(other)
    changed = differences(_beginning(known, other), _beginning(config, folder))
    check(not changed, f"{other} did not begin as this run would: they differ in {listed(changed, 4)}")
    check(
        known.iterations == config.iterations or not config.chosen_by_share,
        f"{other} was to take {known.iterations:,} steps and this run {config.iterations:,}: {config.chosen_by_share}, "
        "so it begins otherwise; train it from its first step",
    )
    stored = checkpoint.latest(other, "checkpoint", warn)
    check(stored is not None, f"{other} has no checkpoint to begin at: train it on, or anew")
    assert stored is not None
    step, trained = int(stored.facts["step"]), int(stored.facts["ledger"]["trained"])
    check(step < config.iterations, f"{other} has taken {step:,} steps already: take more than that with --iterations")
    share = float(stored.facts["progress"])
    check(
        math.isclose(share, step / known.iterations),
        f"{other} ended by time, samples or operations, as runs of a bench do, and its rate fell by these: begin at a "
        "run of `ajest train`",
    )
    rates = [(c.recipe.of(c.arm).learning_rate, c.iterations) for c in (known, config)]
    for at in range(step):
        mine, theirs = (_rate(rate, at, trained * at // step, length) for rate, length in rates)
        check(
            abs(mine - theirs) <= _ALIKE * mine,
            f"{other} took step {at + 1:,} of its {step:,} at a learning rate of {mine:.4g}, where this run takes "
            f"{theirs:.4g}: begin where its rate has not fallen, or take more --iterations",
        )
    check(not folder.exists() or not any(folder.iterdir()), f"{folder} is not empty: name a new folder with --out")
    half = folder.with_name(f".{folder.name}.begun")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(other, half, ignore=shutil.ignore_patterns(*_OWN))
    # As much of this run is done, not of the other.
    facts = stored.facts | {"progress": step / config.iterations}
    checkpoint.save(half / f"checkpoint-{step:07d}", stored.tensors, facts)
    write_config(half / "config.json", config)
    folder.mkdir(parents=True, exist_ok=True)
    half.replace(folder)
    return step


def _beginning(config: RunConfig, folder: Path) -> RunConfig:
    """What of a config decides a run's beginning, whatever its length and however its rate falls then."""
    arm = config.arm
    updates = replace(arm.updates, course=None, decay=Updates.decay)
    return replace(
        config,
        iterations=1,
        recipe=replace(config.recipe, learning_rate=LearningRate()),
        arm=replace(arm, name="", updates=updates),
        guide=None if config.guide is None else str((folder / config.guide).resolve()),
    )


def _rate(rate: LearningRate, step: int, examples: int, length: int) -> float:
    """As a trainer asks for it before a step, of a run that ends by its steps."""
    return rate(step, examples, step / length)
