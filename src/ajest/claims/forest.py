"""Figures of judged claims: what every arm gains on the baseline, or every guide on none, wherever it was judged."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ajest.bench.plan.budgets import BUDGETS, END_CLOCKS
from ajest.bench.read.wording import metric_name
from ajest.bench.report.figures import clean
from ajest.bench.report.forest import Difference, whisker

from .catalogue import GROUPS
from .findings import Judged, Test, leading
from .settings import Setting

#: In per cent: means beyond the first are drawn on an axis that is linear up to the second and logarithmic from there.
_FAR, _LINEAR = 100.0, 10.0
FAR_APART = f"Where a mean is further than {_FAR:g} %, an axis is logarithmic from {_LINEAR:g} % on."


def forests(found: Sequence[Judged]) -> dict[str, tuple[str, Figure]]:
    """By file, what it shows and the figure: claims on training, which are held against the tuned baseline, in a figure
    for each setting, and those on guides, which are held against none."""
    where = f"at {BUDGETS[END_CLOCKS[leading(found)]].title}"
    training = [one for one in found if one.claim.group != "guides"]
    guides = [one for one in found if one.claim.group == "guides"]
    settings = list(dict.fromkeys(one.setting for one in training))
    drawn = {
        f"figures/claims{f'-{setting.name}' if len(settings) > 1 else ''}.png": (
            f"Every arm minus the tuned baseline {where}, on {setting.title}",
            forest([one for one in training if one.setting == setting]),
        )
        for setting in settings
    } | {"figures/guides.png": (f"Every guide minus no guide {where}", forest(guides))}
    return {name: (caption, figure) for name, (caption, figure) in drawn.items() if figure is not None}


def forest(found: Sequence[Judged]) -> Figure | None:
    """Arms down, group by group, at the leading budget, in per cent of what they are held against: a column for each
    headline of each setting, better to the right; None without any."""
    there = [one for one in found if one.end == leading(found) and one.tests]
    if not there:
        return None
    # By name: what else is said of a metric may be worded otherwise in verdicts of another day.
    columns: dict[tuple[Setting, str, bool], list[Test]] = {}
    for one in there:
        for test in one.tests:
            columns.setdefault((one.setting, test.metric.name, test.weight != 1), []).append(test)
    groups = [group for group in GROUPS if any(one.claim.group == group for one in there)]
    rows = list[tuple[str, str]]()  # group, and arm or "" for the group's name
    for group in groups:
        arms = dict.fromkeys(test.arm for one in there if one.claim.group == group for test in one.tests)
        rows += [*([(group, "")] if len(groups) > 1 else []), *((group, arm) for arm in arms)]
    places = {arm: place for place, (_, arm) in enumerate(rows) if arm}
    figure = Figure(figsize=(2.2 + 2.6 * len(columns), 1.4 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for ((setting, _, _), tests), axis in zip(columns.items(), axes, strict=True):
        _column(axis, setting, tests, places)
    axes[0].set_yticks(range(len(rows)), [arm or group for group, arm in rows])
    for (_, arm), label in zip(rows, axes[0].get_yticklabels(), strict=True):
        if not arm:
            label.set_fontweight("bold")
    axes[0].set_ylim(len(rows) - 0.35, -0.65)
    return figure


def _every_other_power(value: float, _: int) -> str:
    """Labels of a logarithmic axis that have room beside each other: 0, 10, 1000."""
    return f"{value:g}" if value == 0 or round(math.log10(abs(value))) % 2 else ""


def _column(axis: Axes, setting: Setting, tests: Sequence[Test], places: dict[str, int]) -> None:
    metric = tests[0].metric
    furthest = 0.0
    for test in tests:
        scale = 100 * metric.sign / abs(test.baseline.other)
        whisker(axis, places[test.arm], Difference(test.baseline, test.gaps), scale)
        furthest = max(furthest, abs(test.baseline.difference * scale))
    if furthest > _FAR:
        axis.set_xscale("symlog", linthresh=_LINEAR)
        axis.xaxis.set_major_formatter(FuncFormatter(_every_other_power))
    axis.axvline(0, color="#555", lw=0.9, zorder=1)
    named = metric_name(metric, tests[0].weight).removesuffix(f" × {metric.scale:g}")  # of a share scales say nothing
    title = (*textwrap.wrap(setting.title, 36), *textwrap.wrap(named, 36), "% better")
    axis.set_title("\n".join(title), fontsize=9, loc="left")
    axis.grid(axis="y", color="#e6eaed", lw=0.7)
    axis.set_axisbelow(True)
    clean(axis)
