"""Numbers, budgets, differences and cells in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ajest.bench.plan.config import BenchConfig
from ajest.tasks.base import Metric

from .results import Cell, Results
from .statistics import Comparison, Outcome


def number(value: float, metric: Metric | None = None) -> str:
    """A number for people, in the metric's scale, with the digits that its size deserves."""
    value *= metric.scale if metric else 1
    if math.isnan(value):
        return "-"
    size = abs(value)
    digits = 4 if 0 < size < 0.1 else 3 if size < 10 else 2 if size < 100 else 1
    return f"{value:.{digits}f}"


def interval(found: Comparison, metric: Metric) -> str:
    if math.isnan(found.low):
        return f"no interval: {'one seed' if found.seeds == 1 else 'the same on every seed'}"
    return f"{number(found.low, metric)} to {number(found.high, metric)}"


def p_value(p: float) -> str:
    if math.isnan(p):
        return "not testable"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def metric_name(metric: Metric, weight: float) -> str:
    return f"{metric.label} with autoguidance" if weight != 1 else metric.label


def amount(reading: str, budget: float) -> str:
    """A budget for people, in the unit of its clock."""
    if reading == "flops":
        return f"{number(budget / 1e12)} TFLOP of the networks"
    if reading in ("samples", "steps"):
        return f"{budget:,.0f} {'steps' if reading == 'steps' else 'examples trained on'}"
    return f"{number(budget)} s of training"


def ends(config: BenchConfig) -> str:
    """How long the runs are, in words."""
    others = {
        "steps": "",
        "time": f" of {config.baseline}, and for the others as much time",
        "net": f" of {config.baseline}, and for the others as much time without the exact target",
        "flops": f" of {config.baseline}, and for the others as many operations of the networks",
        "samples": ", or fewer for arms that train on more in a step: all train on as many examples",
    }[config.end]
    return f"{config.iterations:,} steps{others}"


@dataclass(frozen=True)
class Shown:
    """A cell of a table.

    Attributes:
        value: the mean.
        detail: its interval or spread, and the seeds where some are missing.
        outcome: what is certain of it.
    """

    value: str
    detail: str = ""
    outcome: Outcome = "undecided"


def shown(results: Results, cell: Cell | None, metric: Metric) -> Shown:
    """A cell for people: of an arm that is compared, the mean over the seeds that it shares with the baseline."""
    if cell is None:
        return Shown("-")
    config, found = results.config, cell.against.get(results.config.baseline)
    if found is None:
        spread = [] if math.isnan(cell.sd) else [f"sd {number(cell.sd, metric)}"]
        few = [f"{len(cell.values)} of {len(config.seeds)} seeds"] if len(cell.values) < len(config.seeds) else []
        return Shown(number(cell.mean, metric), "; ".join(spread + few))
    detail = interval(found, metric)
    if found.missing:
        there = f"{config.baseline} there {number(found.other, metric)}"
        detail += f"; {found.seeds} of {len(config.seeds)} seeds, {there}"
    return Shown(number(found.value, metric), detail, found.outcome)


def told(found: Comparison, metric: Metric) -> str:
    """A difference in words."""
    known = "" if math.isnan(found.low) else "95 % interval "
    return (
        f"a difference of {number(found.difference, metric)} ({known}{interval(found, metric)}, better on "
        f"{found.better:.0%} of seeds, corrected {p_value(found.corrected)})"
    )
