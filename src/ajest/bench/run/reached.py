"""Which snapshots stand for which budget."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ajest.bench.plan.budgets import BUDGETS
from ajest.bench.plan.config import BenchConfig, Costs, run_folder
from ajest.errors import Corrupt
from ajest.storage import checkpoint
from ajest.training.run_folder import read_status, snapshots

#: For each clock: amount -> step of the snapshot taken when it was crossed.
Reached = dict[str, dict[float, int]]


def identity_of(run: Path, step: int | None = None) -> str | None:
    """Of a snapshot of a run, the latest unless a step is named; None if it has none that can be read."""
    known = snapshots(run)
    step = max(known, default=None) if step is None else step
    try:
        return None if step is None else str(checkpoint.facts(known[step])["sha256"])[:16]
    except (Corrupt, KeyError):
        return None


def reached(folder: Path) -> Reached:
    """What a run's snapshots were taken at."""
    found: Reached = {clock: {} for clock in BUDGETS}
    for step, stem in snapshots(folder).items():
        try:
            facts = checkpoint.facts(stem)
        except Corrupt:
            continue
        for clock, amounts in facts["reached"].items():
            found[clock] |= dict.fromkeys(amounts, step)
    return found


def curve_points(found: Reached, config: BenchConfig, costs: Costs) -> tuple[int | None, ...]:
    """The step of a run at each point of its learning curve; None where it did not get."""
    clock, amounts = config.curve_amounts(costs)
    return tuple(found[clock].get(amount) for amount in amounts)


def largest_common(config: BenchConfig, finished: Iterable[Reached]) -> dict[str, float]:
    """For each budget of a bench the largest amount that all of these runs reached; none before that."""
    runs = list(finished)
    common = {clock: set.intersection(*(set(run[clock]) for run in runs)) if runs else set() for clock in BUDGETS}
    return {clock: max(amounts) for clock, amounts in common.items() if amounts and clock in config.budgets}


def common_amounts(root: Path, config: BenchConfig) -> dict[str, float]:
    """`largest_common` of the finished runs in a bench's folder."""
    folders = [run_folder(root, arm.name, seed) for arm in config.arms for seed in config.seeds]
    return largest_common(config, (reached(f) for f in folders if read_status(f).get("state") == "done"))
