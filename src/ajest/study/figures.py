"""Figures of a study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ajest.bench.plan.budgets import BUDGETS
from ajest.bench.read.results import Cell, Results
from ajest.bench.read.score_reliability import Estimate, quantities
from ajest.bench.read.statistics import bootstrap_interval
from ajest.bench.read.wording import metric_name
from ajest.bench.report import figures as bench_figures
from ajest.bench.report.figures import clean, whisker, whisker_axis
from ajest.tasks.base import Metric

from .plan import Grid
from .results import PairwiseTest


def forest(pairwise_tests: Sequence[PairwiseTest], other: str) -> Figure:
    """Difference of each arm to `other`, a panel for each metric and budget, see `bench.report.figures.whisker`."""
    mine = [d for d in pairwise_tests if d.other == other]
    arms = list(dict.fromkeys(d.arm for d in mine))
    metrics = list(dict.fromkeys((d.metric, d.weight) for d in mine))
    budgets = list(dict.fromkeys(d.budget for d in mine))
    size = (3.1 * len(budgets) + 1.6, len(metrics) * (0.27 * len(arms) + 0.9) + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(metrics), len(budgets), squeeze=False, sharey=True)
    for row, (metric, weight) in enumerate(metrics):
        for column, budget in enumerate(budgets):
            axis = panels[row][column]
            for d in mine:
                if (d.metric, d.weight, d.budget) == (metric, weight, budget):
                    whisker(axis, arms.index(d.arm), d.found, metric.scale)
            whisker_axis(axis, arms)
            if row == 0:
                axis.set_title(BUDGETS[budget].title, fontsize=10, loc="left")
            axis.set_xlabel(f"{metric_name(metric, weight)}, minus {other}\n({metric.better} is better)", fontsize=8)
    return figure


def heatmap(results: Results, grid: Grid, metric: Metric, weight: float) -> Figure | None:
    """One metric over two dials of an arm, mean over seeds with its interval; None without any value."""
    budget = results.config.final_budget
    cells = [
        [results.cell(budget, grid.name_of(y, x), metric.name, weight) for x in grid.across[1]] for y in grid.down[1]
    ]
    values = [[math.nan if cell is None else cell.mean for cell in row] for row in cells]
    if all(math.isnan(value) for row in values for value in row):
        return None
    reach = [[_reach(cell) for cell in row] for row in cells]
    title = f"{grid.arm}: {metric_name(metric, weight)}"
    return bench_figures.heatmap(values, grid.across, grid.down, metric, title, reach)


def _reach(cell: Cell | None) -> float:
    """Half the width of the interval of a mean over seeds; NaN where it is not known."""
    low, high = (math.nan, math.nan) if cell is None else bootstrap_interval(np.array(list(cell.values.values())))
    return (high - low) / 2


def scores(found: Mapping[str, Mapping[str, Estimate]]) -> Figure | None:
    """How far scores can be trusted: a panel for each quantity, a bar for each arm."""
    if not found:
        return None
    arms = list(found)
    shown = quantities(found)
    figure = Figure(figsize=(2.2 * len(shown) + 1.4, 0.26 * len(arms) + 1.4), layout="constrained")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axis, (name, title) in zip(panels, shown.items(), strict=True):
        for i, arm in enumerate(arms):
            if name in found[arm]:
                mean = found[arm][name].mean
                axis.barh(i, mean, color="#0072B2", height=0.66)
                axis.text(max(mean, 0), i, f" {mean:.2f}", va="center", fontsize=8)
        axis.set_yticks(range(len(arms)), arms)
        axis.set_ylim(len(arms) - 0.5, -0.5)
        axis.set_xlim(min([0.0, *(f[name].mean for f in found.values() if name in f)]), 1.12)
        axis.set_title(title, fontsize=9, loc="left")
        clean(axis)
    return figure
