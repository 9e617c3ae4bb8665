"""Budgets, lengths of runs, differences and cells in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ajest.bench.plan.config import BenchConfig
from ajest.errors import listed
from ajest.tasks.base import Metric

from .crossed import LEAST_FOR_SHAPE
from .intervals import ALPHA, COVERAGE, INTERVALS, interval_kind, least_for_bootstrap
from .numbers import interval, number, p_value
from .results import Cell, Results
from .sequential import look_levels
from .statistics import LEAST_SEEDS, Comparison
from .table import TableCell, Tone


def metric_name(metric: Metric, weight: float) -> str:
    """A metric and how it is guided, in a sentence."""
    return f"guided {metric.label}" if weight != 1 else metric.label


def on_metrics(columns: Sequence[tuple[Metric, float]], of: int) -> str:
    """On which of so many headline metrics, in a sentence."""
    if len(columns) == 1:
        return f"on {metric_name(*columns[0])}"
    return "on every headline metric" if len(columns) == of else f"on {len(columns)} of {of} headline metrics"


def code(name: str) -> str:
    """A name in a sentence."""
    return f"`{name}`"


def series(names: Sequence[str], most: int = 3) -> str:
    """Names in a sentence; beyond `most` the others are counted."""
    shown = [code(name) for name in names[: most if len(names) <= most else most - 1]]
    others = [f"{len(names) - len(shown)} others"] if len(names) > len(shown) else []
    *first, last = [*shown, *others]
    return f"{', '.join(first)} and {last}" if first else last


def metric_head(metric: Metric, weight: float) -> str:
    """A metric above its numbers, with an arrow that points to the better side."""
    return f"{metric_name(metric, weight)} {'↓' if metric.better == 'lower' else '↑'}"


def in_units(budget: str, amount: float) -> str:
    """The amount of a budget for people, in the unit of its clock."""
    if budget == "flops":
        return f"{number(amount / 1e12)} TFLOP of the networks"
    if budget in ("samples", "steps"):
        return f"{amount:,.0f} {'steps' if budget == 'steps' else 'examples trained on'}"
    return f"{number(amount)} s of training"


def ends(config: BenchConfig) -> str:
    """How long the runs are, in words."""
    others = {
        "steps": "",
        "time": f" of {config.baseline}, and for the others as much time",
        "time_without_target": f" of {config.baseline}, and for the others as much time without the exact target",
        "flops": f" of {config.baseline}, and for the others as many operations of the networks",
        "samples": ", or fewer for arms that train on more in a step: all train on as many examples",
    }[config.end]
    return f"{config.iterations:,} steps{others}"


def legend(config: BenchConfig) -> str:
    """What the numbers of a bench's tables are, and which are certain; how that looks is said where it is printed."""
    level = 1 - look_levels(config.looks).level(ALPHA)
    kind, least = interval_kind((len(config.seeds),), level), least_for_bootstrap(level)
    rest = {
        "t": f"A bootstrap takes {least} seeds or more.",
        "bootstrap": f"Of fewer than {least} pairs it is Student's t.",
    }[kind]
    few = (
        f" With fewer than {LEAST_FOR_SHAPE}, these intervals are Student's t."
        if config.guides < LEAST_FOR_SHAPE
        else ""
    )
    several = (
        f" With {config.guides} guides, guided numbers are means over seeds and guides, and their intervals and p "
        f"carry the chance of both.{few}"
    )
    return (
        f'Each number is a mean over seeds. Below it, "minus {config.baseline}" is the {COVERAGE} paired '
        f"{INTERVALS[kind]} interval of the difference to {config.baseline}. {rest} For {config.baseline} itself it is "
        f"the standard deviation over seeds. Certain is what has "
        f"all of {LEAST_SEEDS} or more seeds and a Holm-corrected p below {ALPHA:g}. That p is corrected over all arms "
        "and headline metrics of a table, or over the arms on a metric that is no headline. Equivalent is what is not "
        "certain, while the whole interval and a test corrected likewise are within delta. Guided is what was sampled "
        "with autoguidance. Arrows point to the better side. Real examples are what as many other real examples reach; "
        f"a model that looks better shows a limit of the metric.{_looked(config)}{several if config.guides > 1 else ''}"
    )


def _looked(config: BenchConfig) -> str:
    """How p and intervals allow for several looks, in a sentence to go on with; "" where there is one."""
    if not config.looks:
        return ""
    level = 1 - look_levels(config.looks).level(ALPHA)
    return (
        f" Seeds are added until all is decided, with looks planned at these numbers of seeds: {listed(config.looks)}. "
        "All p are corrected for these looks, and each interval is one of "
        f"{level:.1%}: all looks' together hold {COVERAGE}."
    )


def tone(found: Comparison | None) -> Tone:
    """Of a cell that shows a comparison."""
    return "" if found is None or found.outcome == "undecided" else found.outcome


def within(found: Comparison, metric: Metric) -> str:
    """That a difference is smaller than delta, in words to go on with; "" where it is not."""
    return f", within delta ({number(found.delta, metric)})" if found.is_within else ""


def shown(results: Results, cell: Cell | None, metric: Metric) -> TableCell:
    """A cell for people: of an arm that is compared, the mean over the seeds that it shares with the baseline."""
    if cell is None:
        return TableCell("-", tooltip="not evaluated, or not finite")
    config, found = results.config, cell.against.get(results.config.baseline)
    if found is None:
        spread = [] if math.isnan(cell.sd) else [f"sd {number(cell.sd, metric)}"]
        few = [f"{len(cell.values)} of {len(config.seeds)} seeds"] if len(cell.values) < len(config.seeds) else []
        return TableCell(
            number(cell.mean, metric), "; ".join(spread + few), tooltip="mean over seeds, standard deviation"
        )
    detail = reach(found, metric)
    detail = detail if math.isnan(found.low) else f"minus {config.baseline}: {detail}"
    if found.missing:
        detail += f"; {found.seeds} of {len(config.seeds)} seeds, {config.baseline} there {number(found.other, metric)}"
    tooltip = (
        f"difference {number(found.difference, metric)}, {found.often}, "
        f"{p_value(found.p)}, Holm-corrected {p_value(found.corrected)}{within(found, metric)}"
    )
    return TableCell(number(found.value, metric), detail, tone(found), tooltip)


def reach(found: Comparison, metric: Metric) -> str:
    """The interval of a difference, or why there is none."""
    return interval(found.low, found.high, found.seeds, metric)


def gap(found: Comparison | None, metric: Metric, tested: bool = False) -> TableCell:
    """A difference as a cell, with its interval and the seeds where some are missing; a dash for None.

    Args:
        found: the comparison.
        metric: what is compared.
        tested: say too on how many seeds it is better, and the corrected p.
    """
    if found is None:
        return TableCell("-")
    detail = reach(found, metric)
    if found.missing:
        detail += f"; {found.seeds} of {found.seeds + found.missing} seeds"
    if tested:
        detail += f"; {found.often}; {p_value(found.corrected)}{within(found, metric)}"
    return TableCell(number(found.difference, metric), detail, tone(found))
