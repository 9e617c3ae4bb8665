"""Which snapshots stand for which budget."""

from __future__ import annotations

from pathlib import Path

from ajest.bench.plan.config import BenchConfig, Costs, run_folder
from ajest.bench.plan.readings import READINGS
from ajest.errors import Corrupt
from ajest.storage import checkpoint
from ajest.training.run_folder import read_status, snapshots


def identity_of(run: Path, step: int | None = None) -> str | None:
    """Of a snapshot of a run, the latest unless a step is named; None if it has none that can be read."""
    known = snapshots(run)
    step = max(known, default=None) if step is None else step
    try:
        return None if step is None else str(checkpoint.facts(known[step])["sha256"])[:16]
    except (Corrupt, KeyError):
        return None


def reached(folder: Path) -> dict[str, dict[float, int]]:
    """For each clock: budget -> step of the snapshot taken when it was crossed."""
    found: dict[str, dict[float, int]] = {clock: {} for clock in READINGS}
    for step, stem in snapshots(folder).items():
        try:
            facts = checkpoint.facts(stem)
        except Corrupt:
            continue
        for clock, budgets in facts["reached"].items():
            found[clock] |= dict.fromkeys(budgets, step)
    return found


def curve_points(folder: Path, config: BenchConfig, costs: Costs) -> tuple[int | None, ...]:
    """The step of a run at each point of its learning curve; None where it did not get."""
    clock, budgets = config.curve_budgets(costs)
    found = reached(folder)[clock]
    return tuple(found.get(budget) for budget in budgets)


def common_budgets(root: Path, config: BenchConfig) -> dict[str, float]:
    """For each clock the largest budget that every finished run reached; others are left out until they are."""
    sets: dict[str, list[set[float]]] = {clock: [] for clock in READINGS}
    for arm in config.arms:
        for seed in config.seeds:
            folder = run_folder(root, arm.name, seed)
            if read_status(folder).get("state") != "done":
                continue
            for clock, budgets in reached(folder).items():
                sets[clock].append(set(budgets))
    common = {clock: set.intersection(*s) if s else set() for clock, s in sets.items()}
    return {clock: max(budgets) for clock, budgets in common.items() if budgets and clock in config.readings}
