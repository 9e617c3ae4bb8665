"""Which metrics tell arms apart, and at how many samples: what headlines are chosen by, from a pilot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ajest.bench.plan.budgets import BUDGETS
from ajest.tasks.base import Metric

from .numbers import number
from .results import Results
from .statistics import varies
from .table import Table
from .wording import metric_name


@dataclass(frozen=True)
class Resolution:
    """How well a metric tells arms apart at the end of their runs.

    Attributes:
        metric, weight, n: which, how strongly guided, on how many samples.
        baseline, real: mean of the baseline; what real examples reach, NaN where that is not known.
        signal_to_noise: see `signal_to_noise`.
        seeds: of the pilot.
    """

    metric: Metric
    weight: float
    n: int
    baseline: float
    real: float
    signal_to_noise: float
    seeds: int


def signal_to_noise(gaps: Sequence[np.ndarray]) -> float:
    """Root mean square, over arms, of the true mean difference to the baseline over the standard deviation of paired
    differences. The square of a mean of n differences holds 1 / n of their variance by chance, which is taken off.

    Args:
        gaps: of each arm its paired differences, shape (n,), two or more that vary.
    """
    squares = [(gap.mean() / gap.std(ddof=1)) ** 2 - 1 / len(gap) for gap in gaps]
    return math.sqrt(max(float(np.mean(squares)), 0.0))


def resolutions(results: Results) -> list[Resolution]:
    """Of every metric, at every number of samples that ends were measured with; the best first."""
    return sorted(_resolutions(results), key=lambda found: -found.signal_to_noise)


def _resolutions(results: Results) -> Iterator[Resolution]:
    config = results.config
    for n in sorted({config.n_curve, config.n_final}):
        for metric, weight in results.columns():
            ends = {arm: _ends(results, arm, metric.name, weight, n) for arm in results.arms}
            base = ends.pop(config.baseline)
            gaps = []
            for values in ends.values():
                gap = np.array([values[seed] - base[seed] for seed in sorted(values.keys() & base.keys())])
                if varies(gap):
                    gaps.append(gap)
            if gaps:
                real = results.real_data_reference.get(n, {}).get(metric.name, math.nan)
                mean = float(np.mean(list(base.values())))
                yield Resolution(metric, weight, n, mean, real, signal_to_noise(gaps), max(map(len, gaps)))


def _ends(results: Results, arm: str, metric: str, weight: float, n: int) -> dict[int, float]:
    """A metric at the end of each finished run of an arm, by seed: under the sampling noise that arms share, and as the
    mean over guides."""
    found = {}
    for seed in results.config.seeds:
        run = results.runs[arm, seed]
        values = [
            line["metrics"].get(metric, math.nan)
            for line in (run.lines if run.state == "done" else ())
            if (line["step"], line["n"], line["weight"]) == (run.step, n, weight) and not line.get("noise")
        ]
        if values and math.isfinite(mean := sum(values) / len(values)):
            found[seed] = mean
    return found


def resolution_table(results: Results, found: Sequence[Resolution]) -> Table:
    """`resolutions` for people.

    Args:
        results: of a pilot.
        found: `resolutions` of it.
    """
    headlines = {(metric.name, weight) for metric, weight in results.headlines()}
    rows = [
        [
            metric_name(one.metric, one.weight) + (" (headline)" if (one.metric.name, one.weight) in headlines else ""),
            f"{one.n:,}",
            number(one.baseline, one.metric),
            number(one.real, one.metric),
            f"{one.signal_to_noise:.2f}",
        ]
        for one in found
    ]
    heads = ("metric", "samples", results.config.baseline, "real examples", "signal to noise")
    seeds = max((one.seeds for one in found), default=0)
    note = (
        f"At the end of the runs, whose equal budget is {BUDGETS[results.config.final_budget].title}. Signal to noise: "
        "root mean square over arms of the difference to the baseline, over its standard deviation; what chance adds "
        f"is taken off. From {seeds} seeds. A metric near that of real examples has little left to show."
    )
    return Table.of("Which metrics tell arms apart", heads, rows, (note,))
