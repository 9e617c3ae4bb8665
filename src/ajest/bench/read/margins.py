"""Delta: the difference below which an arm counts as equivalent, named before a bench begins.

See docs/method.md#statistics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ajest.bench.plan.config import BenchConfig
from ajest.tasks.base import Metric

from .numbers import number
from .results import Cell, Margins, Results, Run, Where
from .wording import metric_name

#: Of what the baseline itself gains over the last half of its run: delta where none is named.
FRACTION = 1 / 4


def margins(config: BenchConfig, cells: Mapping[Where, Cell], runs: Mapping[tuple[str, int], Run]) -> Margins:
    """Delta of each metric as every seed of the baseline measures it: a share of its value (`BenchConfig.delta`), or
    without one `FRACTION` of its gain over the last half of its run. NaN where that is not known."""
    metrics = {m.name: m for m in config.metrics}
    found: Margins = {}
    for (budget, arm, name, weight), cell in cells.items():
        if arm != config.baseline:
            continue
        if config.delta is not None:
            allowed = {seed: config.delta * abs(value) for seed, value in cell.values.items()}
        else:
            allowed = {seed: FRACTION * _gain(runs[arm, seed], config, metrics[name], weight) for seed in cell.values}
        found[budget, name, weight] = allowed
    return found


def _gain(run: Run, config: BenchConfig, metric: Metric, weight: float) -> float:
    """What a run gains from half of it to its end, by its learning curve; NaN where that does not hold both."""
    if len(run.curve) != len(config.curve):
        return math.nan
    shares, points = sorted(config.curve), run.points(config.n_curve, weight)
    curve = [(shares[i], points[i]["metrics"].get(metric.name, math.nan)) for i in sorted(points)]
    if not curve or curve[0][0] > 1 / 2 or curve[-1][0] < 1:
        return math.nan
    at, values = np.array(curve).T
    return float(values[-1] - np.interp(1 / 2, at, values)) * metric.sign


def named(results: Results, budget: str) -> list[str]:
    """Delta of each headline metric at a budget, in sentences; none where it is not known."""
    config = results.config
    sizes = {metric_name(m, w): (results.delta(budget, m.name, w), m) for m, w in results.headlines()}
    known = [f"For {name} it is {number(delta, metric)}." for name, (delta, metric) in sizes.items() if delta > 0]
    if not known:
        return []
    what = (
        f"{FRACTION:.0%} of what {config.baseline} gains over the last half of its run"
        if config.delta is None
        else f"{100 * config.delta:g} % of {config.baseline}"
    )
    return [f"Delta, within which arms count as equivalent, is {what}.", *known]


def not_named(results: Results) -> list[str]:
    """On which headline metrics nothing can be called equivalent, in sentences; none where there are none."""
    names = [
        metric_name(m, w)
        for m, w in results.headlines()
        if any(where[1:] == (m.name, w) and not results.delta(*where) > 0 for where in results.margins)
    ]
    if not names or len(results.arms) < 2:
        return []
    return [
        f"Nothing is called equivalent in {', '.join(names)}; `--delta` allows it.",
        f"There the learning curves show no gain of {results.config.baseline} over the last half of its run that delta "
        "could be a part of.",
    ]
