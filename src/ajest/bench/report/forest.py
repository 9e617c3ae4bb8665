"""Figures of what a verdict rests on: differences with their intervals, and every seed as a dot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ajest.bench.plan.budgets import BUDGETS
from ajest.bench.read.results import Cell, Results, rivals
from ajest.bench.read.statistics import Comparison
from ajest.bench.read.wording import metric_name
from ajest.tasks.base import Metric

from .figures import COLOURS, OUTCOMES, clean

_FAINT = "#9aa5ae"
_ROW = 0.34  # inches for an arm
_LETTER = 0.078  # inches for a letter of an arm's name
_LOG = 8  # ratio of the largest to the smallest value from which on an axis is logarithmic


@dataclass(frozen=True)
class Difference:
    """An arm against another.

    Attributes:
        found: the comparison.
        gaps: the difference of each seed that both have.
    """

    found: Comparison
    gaps: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """Differences on one metric, one below the other.

    Attributes:
        title: above them.
        metric: whose unit they are in.
        differences: by arm.
    """

    title: str
    metric: Metric
    differences: Mapping[str, Difference]


def bench_forest(results: Results, budget: str) -> Figure | None:
    """Differences of each arm at a budget on every headline: above to the baseline, below to random choice of as many;
    None without any."""
    baseline = results.config.baseline
    rows = [(baseline, dict.fromkeys(results.arms, baseline)), ("random choice", rivals(results.config))]
    return forest(
        [
            [
                Panel(
                    f"{metric_name(*c)}\nminus {said} ({c[0].better} is better)", c[0], _of(results, budget, c, against)
                )
                for c in results.headlines()
            ]
            for said, against in rows
        ]
    )


def _of(
    results: Results, budget: str, column: tuple[Metric, float], others: Mapping[str, str]
) -> dict[str, Difference]:
    """Differences on a metric to the arm that each is compared with."""
    metric, weight = column
    found = results.against(budget, column, others)
    cells = {name: results.cells[budget, name, metric.name, weight] for arm in found for name in (arm, others[arm])}
    return {arm: Difference(f, tuple(cells[arm].gaps(cells[others[arm]]).values())) for arm, f in found.items()}


def forest(rows: Sequence[Sequence[Panel]]) -> Figure | None:
    """Panels in rows, each arm with its difference, interval and seeds, see `whisker`; rows without any are left out,
    and without a row there is no figure."""
    kept = [row for row in rows if any(panel.differences for panel in row)]
    if not kept:
        return None
    named = [list(dict.fromkeys(arm for panel in row for arm in panel.differences)) for row in kept]
    figure, grid = _grid([len(arms) for arms in named], max(map(len, kept)), [a for arms in named for a in arms])
    for axes, row, arms in zip(grid, kept, named, strict=True):
        for axis, panel in zip(axes, row, strict=False):
            for arm, difference in panel.differences.items():
                whisker(axis, arms.index(arm), difference, panel.metric.scale)
            axis.axvline(0, color="#555", lw=0.9, zorder=1)
            _arms_down(axis, arms, axis is axes[0])
            axis.set_title(panel.title, fontsize=9.5, loc="left")
    return figure


def whisker(axis: Axes, place: int, difference: Difference, scale: float) -> None:
    """One difference with its interval in the colour of its outcome, an open marker if it only looks certain, and below
    it a faint dot a seed."""
    found = difference.found
    colour = OUTCOMES[found.outcome]
    seeds = [gap * scale for gap in difference.gaps]
    axis.plot(seeds, [place + 0.3] * len(seeds), "o", color=colour, ms=3.2, alpha=0.55, mew=0, zorder=2)
    if not math.isnan(found.low):
        ends = [found.low * scale, found.high * scale]
        axis.plot(ends, [place, place], color=colour, lw=2.4, solid_capstyle="round", zorder=3)
    inside = "white" if found.is_nominal else colour
    axis.plot(found.difference * scale, place, "o", color=colour, ms=6, mfc=inside, mew=1.4, zorder=4)


def strips(results: Results, budgets: Sequence[str]) -> Figure | None:
    """Every seed's value of each headline: budgets down, headlines across, and in a panel arms down. Lines join what
    has the same seed, a bar is the mean. None without any."""
    columns, arms = results.headlines(), results.arms
    if not any(results.cell(budget, arm, m.name, w) for budget in budgets for arm in arms for m, w in columns):
        return None
    figure, grid = _grid([len(arms)] * len(budgets), len(columns), arms)
    for axes, budget in zip(grid, budgets, strict=True):
        for axis, (metric, weight) in zip(axes, columns, strict=True):
            _strip(axis, [results.cell(budget, arm, metric.name, weight) for arm in arms], metric.scale)
            _arms_down(axis, arms, axis is axes[0])
            where = f"{metric_name(metric, weight)}\nat {BUDGETS[budget].title} ({metric.better} is better)"
            axis.set_title(where, fontsize=9.5, loc="left")
    return figure


def _strip(axis: Axes, cells: Sequence[Cell | None], scale: float) -> None:
    """Cells of one metric, one below the other."""
    by_place = {i: {s: v * scale for s, v in cell.values.items()} for i, cell in enumerate(cells) if cell is not None}
    joined: list[tuple[float, float]] = []
    for seed in sorted({seed for values in by_place.values() for seed in values}):
        joined += [(values[seed], place) for place, values in by_place.items() if seed in values]
        joined.append((math.nan, math.nan))  # the next seed is another line
    if joined:
        axis.plot(*zip(*joined, strict=True), color=_FAINT, lw=0.6, alpha=0.7, zorder=1)
    for place, values in by_place.items():
        colour = COLOURS[place % len(COLOURS)]
        axis.plot([*values.values()], [place] * len(values), "o", color=colour, ms=4.5, alpha=0.6, mew=0, zorder=2)
        axis.plot(fmean(values.values()), place, "|", color=colour, ms=15, mew=2.2, zorder=3)
    found = [value for values in by_place.values() for value in values.values()]
    if found and min(found) > 0 and max(found) > _LOG * min(found):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())


def _grid(rows: Sequence[int], columns: int, arms: Sequence[str]) -> tuple[Figure, list[list[Axes]]]:
    """A figure of panels whose margins are known beforehand, as looking for them takes longer than drawing.

    Args:
        rows: arms of each row of panels.
        columns: panels in a row.
        arms: all names on its left.
    """
    names, panel, above, below = 0.35 + _LETTER * max(map(len, arms)), 3.1, 0.55, 0.3
    heights = [above + _ROW * (count + 0.3) + below for count in rows]
    width, height = names + columns * (panel + 0.25), sum(heights)
    figure, top, grid = Figure(figsize=(width, height)), height, []
    for tall in heights:
        top -= tall
        places = [(names + i * (panel + 0.25), top + below, panel, tall - above - below) for i in range(columns)]
        grid.append([figure.add_axes((x / width, y / height, w / width, h / height)) for x, y, w, h in places])
    return figure, grid


def _arms_down(axis: Axes, arms: Sequence[str], named: bool) -> None:
    """A place for each arm, the first at the top, with its name where `named`."""
    axis.set_yticks(range(len(arms)), arms if named else [""] * len(arms))
    axis.set_ylim(len(arms) - 0.35, -0.65)
    if axis.get_xscale() == "linear":
        axis.locator_params(axis="x", nbins=5)
    axis.grid(axis="y", color="#e6eaed", lw=0.7)
    axis.set_axisbelow(True)
    clean(axis)
