"""What the dials of a rule change: over a grid of two, and from which keep fraction on it pays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ajest.bench.read.cost import SelectionCost
from ajest.bench.read.intervals import mean_interval
from ajest.bench.read.results import Cell, Results, randoms
from ajest.bench.read.statistics import Comparison
from ajest.tasks.base import Metric

from .plan import Grid
from .results import versus


@dataclass(frozen=True)
class Heatmap:
    """One metric over the two dials of a grid; NaN where it is not known.

    Attributes:
        grid: whose variants.
        metric, weight: what is shown.
        means: over seeds, a row for each value of `grid.down`.
        reach: half the width of each mean's interval.
    """

    grid: Grid
    metric: Metric
    weight: float
    means: tuple[tuple[float, ...], ...]
    reach: tuple[tuple[float, ...], ...]


def heatmaps(results: Results, grid: Grid) -> list[Heatmap]:
    """A grid's headline metrics that have any value."""
    found = []
    for metric, weight in results.headlines():
        cells = [
            [results.cell(results.config.final_budget, grid.name_of(y, x), metric.name, weight) for x in grid.across[1]]
            for y in grid.down[1]
        ]
        means = tuple(tuple(math.nan if cell is None else cell.mean for cell in row) for row in cells)
        if not all(math.isnan(mean) for row in means for mean in row):
            reach = tuple(tuple(_reach(cell) for cell in row) for row in cells)
            found.append(Heatmap(grid, metric, weight, means, reach))
    return found


def _reach(cell: Cell | None) -> float:
    """Half the width of the interval of a mean over seeds; NaN where it is not known."""
    low, high = (math.nan, math.nan) if cell is None else mean_interval(np.array(list(cell.values.values())))
    return (high - low) / 2


@dataclass(frozen=True)
class AtKeep:
    """A rule at one keep fraction, against random choice at the same and against the baseline.

    Attributes:
        keep: the fraction.
        cost: of its selecting step.
        metric, weight: what is compared.
        value: its mean, over the seeds that it has.
        random, baseline: the comparisons; None where the other is not there.
    """

    keep: float
    cost: SelectionCost | None
    metric: Metric
    weight: float
    value: float
    random: Comparison | None
    baseline: Comparison | None


def by_keep(results: Results, grid: Grid, costs: Sequence[SelectionCost]) -> list[AtKeep]:
    """From which keep fraction on a rule pays: its variants along `keep`, its other dial nearest to its usual 1.

    Args:
        results: of a bench of the dials.
        grid: of the rule; one whose columns are not keep fractions has none.
        costs: of the bench, see `costs_of`.
    """
    (across, keeps), (_, others) = grid.across, grid.down
    if across != "keep":
        return []
    usual, budget = min(others, key=lambda v: abs(v - 1)), results.config.final_budget
    by_arm, at_random, found = {c.arm: c for c in costs}, randoms(results.config), []
    for keep in keeps:
        name = grid.name_of(usual, keep)
        for metric, weight in results.headlines():
            mine, random, baseline = (
                results.cell(budget, arm, metric.name, weight)
                for arm in (name, at_random.get(keep, ""), results.config.baseline)
            )
            if mine is None:
                continue
            against = [versus(results, mine, other, metric) for other in (random, baseline)]
            found.append(AtKeep(keep, by_arm.get(name), metric, weight, mine.mean, *against))
    return found
