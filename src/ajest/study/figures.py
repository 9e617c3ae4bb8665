"""All figures of a study, each drawn once from its findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure

from ajest.bench.plan.budgets import BUDGETS
from ajest.bench.read.score_reliability import Estimate, quantities
from ajest.bench.read.wording import metric_name
from ajest.bench.report import figures as bench_figures
from ajest.bench.report.drawing import DrawnFigure
from ajest.bench.report.figures import COLOURS, MARKERS, clean, encoded
from ajest.bench.report.forest import Difference, Panel, forest
from ajest.tasks.base import Metric

from .dials import Heatmap
from .findings import Findings
from .guides import GuideCurve
from .results import PairwiseTest


@dataclass(frozen=True)
class Figures:
    """What is drawn of a study; a part that is empty is not shown.

    Attributes:
        forests: differences of the final's arms to the baseline, and to random.
        scores: how far scores can be trusted.
        guides: what guidance gives over its weight.
        dials: heat-maps, by the name of the bench and the place of the grid in the study.
    """

    forests: tuple[DrawnFigure, ...] = ()
    scores: tuple[DrawnFigure, ...] = ()
    guides: tuple[DrawnFigure, ...] = ()
    dials: Mapping[tuple[str, int], tuple[DrawnFigure, ...]] = field(default_factory=dict)

    def all(self) -> list[DrawnFigure]:
        """In the order of the page."""
        dials = (figure for drawn in self.dials.values() for figure in drawn)
        return [*self.forests, *self.scores, *self.guides, *dials]


def draw(found: Findings) -> Figures:
    """Every figure of a study."""
    tests = [test for bench in found.final for test in bench.tests]
    forests = [(other, figure) for other in ("baseline", "random") if (figure := differences(tests, other)) is not None]
    reliable, curves = scores(found.score_reliability), guide_curves(found.results.guides.curves)
    return Figures(
        forests=tuple(_drawn(f"final-{other}", f"differences to {other}", figure) for other, figure in forests),
        scores=() if reliable is None else (_drawn("scores", "reliability of scores", reliable),),
        guides=() if curves is None else (_drawn("guides", "what guidance gives over its weight", curves),),
        dials={
            (bench.name, i): tuple(_drawn_heatmap(f"dials-{bench.name}-{i + 1}", shown) for shown in grid.heatmaps)
            for bench in found.dials
            for i, grid in enumerate(bench.grids)
        },
    )


def _drawn(name: str, caption: str, figure: Figure) -> DrawnFigure:
    return DrawnFigure(caption, f"figures/{name}.png", encoded(figure, "png"))


def _drawn_heatmap(prefix: str, shown: Heatmap) -> DrawnFigure:
    grid, metric = shown.grid, shown.metric
    caption = f"{grid.arm}: {metric_name(metric, shown.weight)} over {grid.down[0]} and {grid.across[0]}"
    return _drawn(f"{prefix}-{metric.name}-{shown.weight:g}", caption, heatmap(shown))


def differences(pairwise_tests: Sequence[PairwiseTest], other: str) -> Figure | None:
    """Difference of each arm to `other`: a row for each metric, a panel for each budget; None without any."""
    mine = [d for d in pairwise_tests if d.other == other]
    budgets = dict.fromkeys(d.budget for d in mine)

    def panel(metric: Metric, weight: float, budget: str) -> Panel:
        here = [d for d in mine if (d.metric, d.weight, d.budget) == (metric, weight, budget)]
        title = f"{metric_name(metric, weight)} minus {other}\n({metric.better} is better)\nat {BUDGETS[budget].title}"
        return Panel(title, metric, {d.arm: Difference(d.found, d.gaps) for d in here})

    headlines = dict.fromkeys((d.metric, d.weight) for d in mine)
    return forest([[panel(*headline, budget) for budget in budgets] for headline in headlines])


def heatmap(shown: Heatmap) -> Figure:
    """One metric over two dials of an arm, mean over seeds with its interval."""
    grid, title = shown.grid, f"{shown.grid.arm}: {metric_name(shown.metric, shown.weight)}"
    return bench_figures.heatmap(shown.means, grid.across, grid.down, shown.metric, title, shown.reach)


#: Differences that are so many times the least would hide it: their axis becomes logarithmic, down to such a share.
_WIDE, _WIDEST = 300, 1e5


def guide_curves(curves: Sequence[GuideCurve]) -> Figure | None:
    """Guided minus unguided over the guidance weight: a panel for each metric, a line for each guide with intervals of
    the mean; None without any."""
    metrics, guides = dict.fromkeys(c.metric for c in curves), dict.fromkeys(c.guide for c in curves)
    if not metrics:
        return None
    figure = Figure(figsize=(4.0 * len(metrics), 3.6), layout="constrained")
    panels = dict(zip(metrics, figure.subplots(1, len(metrics), squeeze=False)[0], strict=True))
    for metric, axis in panels.items():
        axis.axhline(0, color="#888", lw=0.9)
        axis.set_title(f"{metric.label}, guided minus unguided\n({metric.better} is better)", fontsize=9, loc="left")
        axis.set_xlabel("guidance weight")
        clean(axis)
    for curve in curves:
        axis, i = panels[curve.metric], list(guides).index(curve.guide)
        unit = curve.metric.scale
        found = [(w + 0.02 * i, g.difference, g.low, g.high) for w, g in sorted(curve.gains.items())]
        at, mean, low, high = np.array(found).T
        reach = np.nan_to_num(np.stack([mean - low, high - mean])) * unit
        style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        axis.errorbar(at, mean * unit, reach, ms=4, lw=1.3, capsize=2, label=curve.guide, **style)
    for metric, axis in panels.items():
        sizes = [abs(g.difference) * metric.scale for c in curves if c.metric == metric for g in c.gains.values()]
        least = max(min(sizes), max(sizes) / _WIDEST)
        if max(sizes) > _WIDE * least > 0:
            axis.set_yscale("symlog", linthresh=10 ** np.ceil(np.log10(least)))
    figure.legend(*next(iter(panels.values())).get_legend_handles_labels(), loc="outside upper left", ncols=3,
                  fontsize=8, frameon=False)  # fmt: skip
    return figure


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
