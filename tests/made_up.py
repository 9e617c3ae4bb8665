"""Results whose truth is known because they are made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from ajest.bench.plan.config import Costs
from ajest.bench.read.results import Cell, Results, Run, Where, compared
from ajest.selection.arm import Arm
from ajest.selection.catalogue import ARMS
from conftest import small_bench

BASE = (10.0, 12.0, 9.0, 11.0, 10.5, 9.5)
#: Where the runs end: budget, metric, guidance weight.
TIME = ("calibrated", "energy_distance", 1.0)
NOISE = (-0.1, 0.2, 0.1, -0.15, 0.05, -0.1)  # sums to 0

#: What a step of each kind costs in the tests.
COSTS: Costs = {
    "uniform": {"draw": 1.0, "target": 2.0, "update": 5.0},
    "random 0.2": {"draw": 1.0, "target": 0.4, "update": 1.0},
    "select jest guide 0.2": {
        "draw": 1.0, "target": 2.0, "learner scoring": 2.0, "reference scoring": 1.0, "select": 1.0, "update": 1.0,
    },
    "guide": {"draw": 1.0, "target": 2.0, "update": 1.0},
}  # fmt: skip

#: The last line of a run's ledger.
LEDGER = {"drawn": 10240, "scored": 10240, "trained": 2040, "flops": 2e12, "seconds": {"update": 3.0, "draw": 1.5},
          "warmup_seconds": 0.25, "fired_at": None}  # fmt: skip


def ahead(by: float, seeds: int = 6) -> list[float]:
    """Values below the baseline's by so much on average, with a little noise, another one for another `by`."""
    turn = round(10 * by) % len(NOISE)
    noise = NOISE[turn:] + NOISE[:turn]
    return [base - by + n for base, n in zip(BASE[:seeds], noise, strict=False)]


def tuned(arms: Sequence[Arm]) -> dict[str, object]:
    """Settings of a bench whose learning rates someone looked for."""
    return {"rates": {arm.name: 0.01 for arm in arms}, "tuned": "a grid"}


def made_up(
    values: Mapping[tuple[str, str, float], Mapping[str, Sequence[float | tuple[float, ...] | None]]],
    arms: Sequence[Arm | str] = ("baseline", "ajest", "random"),
    seeds: int = 6,
    amounts: Mapping[str, float] | None = None,
    costs: Costs = COSTS,
    diverged: Sequence[tuple[str, int]] = (),
    **config: object,
) -> Results:
    """Results of a bench on the small tree.

    Args:
        values: by (budget, metric, weight), then by arm, one a seed, or of each seed one a guide; None for one that is
            not there.
        arms: in their order.
        seeds: their number.
        amounts: of budgets; by default those of `values`, 4096 each.
        costs: of kinds of steps.
        diverged: runs by (arm, seed); all others are done.
        config: more of `small_bench`.
    """
    chosen = tuple(ARMS[arm] if isinstance(arm, str) else arm for arm in arms)
    bench = small_bench(arms=chosen, seeds=tuple(range(seeds)), **tuned(chosen) | config)
    cells: dict[Where, Cell] = {}
    for (budget, metric, weight), by_arm in values.items():
        for arm, of_seeds in by_arm.items():
            where = (budget, arm, metric, weight)
            found = {seed: value for seed, value in enumerate(of_seeds) if value is not None}
            by_guide = {seed: value for seed, value in found.items() if isinstance(value, tuple)}
            means = {seed: fmean(value) if seed in by_guide else value for seed, value in found.items()}
            cells[where] = Cell(*where, bench.n_of(budget), means, by_guide=by_guide)
    runs = {}
    for arm in chosen:
        for seed in range(seeds):
            lost = (arm.name, seed) in diverged
            state, why = ("diverged", "the loss is not finite") if lost else ("done", "")
            runs[arm.name, seed] = Run(arm.name, seed, state, 40, why, [LEDGER], [])
    guides = tuple(Run("guide", seed, "unfinished", 0, "", [], []) for seed in range(bench.guides))
    known = {budget: 4096.0 for budget, *_ in values} if amounts is None else dict(amounts)
    return Results(Path("nowhere"), bench, costs, runs, guides, known, compared(bench, cells), {})


def at_time(values: Mapping[str, Sequence[float | None]], **changes: object) -> Results:
    """Results at equal time on the energy distance, where lower is better."""
    return made_up({TIME: values}, **changes)
