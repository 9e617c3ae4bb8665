"""Which learning rate each arm has, and whether anyone looked for it (docs/method.md#tuning)."""

from __future__ import annotations

from statistics import fmean

from ajest.bench.plan.config import BenchConfig
from ajest.bench.plan.tuning import Tuned
from ajest.tasks.base import Task

from .numbers import number
from .table import Entry, Table
from .wording import series


def untuned_note(config: BenchConfig) -> str:
    """What a verdict says first if learning rates were not tuned; "" if they were."""
    at_edge = [name for name in config.untuned if name in config.at_edge]
    untuned = [name for name in config.untuned if name not in at_edge]
    said = []
    if untuned:
        which = "Learning rates were" if len(untuned) == len(config.arms) else f"The rates of {series(untuned)} were"
        said.append(f"{which} not tuned (`--tune` does), so a difference may be one of rates.")
    if at_edge:
        said.append(f"No rate that was tried is known to be best for {series(at_edge)}.")
    return " ".join(said)


def rates_table(config: BenchConfig) -> Table:
    """The peak learning rate of each arm."""
    rows: list[list[Entry]] = []
    for arm in config.arms:
        edge = "the edge of the rates that were tried" if arm.name in config.at_edge else "not tuned"
        found = config.tuned if arm.name not in config.untuned else edge
        rows.append([arm.name, f"{config.recipe_of(arm).learning_rate.peak:.4g}", found])
    return Table.of("Peak learning rates", ("arm", "rate", "found by"), rows)


def tuning_table(task: Task, tuned: Tuned | None) -> Table:
    """What every rate gave that was tried; without rows where none was.

    Args:
        task: what is learned.
        tuned: what was found; None where nothing was looked for.
    """
    if tuned is None:
        return Table.of("", ("",), ())
    metric = next((m for m in task.metrics if m.name == tuned.metric), None)
    grid = sorted({rate for trials in tuned.trials.values() for rate in trials})
    rows: list[list[Entry]] = []
    for arm, trials in tuned.trials.items():
        cells = [
            number(fmean(values.values()), metric) + ("" if len(values) == _most(tuned) else f" ({len(values)} seeds)")
            if (values := trials.get(rate))
            else "-"
            for rate in grid
        ]
        best = tuned.rates.get(arm)
        rows.append([arm, *cells, "-" if best is None else f"{best:.4g}"])
    where = "another bench's, " if tuned.borrowed else ""
    notes = [
        f"Runs of {_most(tuned)} other seeds, {where}{tuned.seconds:,.0f} s of training in all, charged to no arm."
    ]
    if tuned.at_edge:
        notes.append(f"At the edge of the grid, so perhaps not the best: {', '.join(tuned.at_edge)}.")
    sharing = [f"{arm} has that of {other}" for arm, other in tuned.tried_for.items() if arm != other]
    notes += [f"Shared: {', '.join(sharing)}."] if sharing else []
    heads = ("arm", *(f"{rate:.4g}" for rate in grid), "taken")
    label = tuned.metric if metric is None else metric.label
    return Table.of(f"Tuning: {label} by peak learning rate", heads, rows, notes)


def _most(tuned: Tuned) -> int:
    """Seeds of each rate."""
    return max((len(values) for trials in tuned.trials.values() for values in trials.values()), default=0)
