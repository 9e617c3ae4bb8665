"""Time- and samples-to-quality: how much an arm needs to get where the baseline ends.

See docs/method.md#time-to-quality.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ajest.tasks.base import Metric

from .numbers import number
from .results import Results
from .table import Table
from .wording import metric_name

CLOCKS = ("calibrated", "samples")


@dataclass(frozen=True)
class TimeToQuality:
    """What one arm needs for one metric to reach the baseline's value at the end of its run, seed by seed.

    Attributes:
        arm, metric, weight: which.
        target: the baseline's value at the end, mean over seeds, at `n_curve` samples.
        reached: seeds that got there.
        seeds: seeds with a curve, and those that diverged, which never get there.
        needed: median over these by clock, see `median_needed`.
    """

    arm: str
    metric: Metric
    weight: float
    target: float
    reached: int
    seeds: int
    needed: dict[str, float]


def time_to_quality(results: Results) -> list[TimeToQuality]:
    """For every arm and headline metric; [] until the baseline has finished a run, and where only ends of runs are
    measured: these say how good an arm is, and not when it became so."""
    config, found = results.config, []
    if len(config.curve) < 2:
        return []
    for metric, weight in results.headlines():
        ends = [c[-1][1] for c in _curves(results, config.baseline, metric.name, weight, "samples") if c]
        if not ends:
            continue
        target = fmean(ends)
        for arm in results.arms:
            crossings = {
                clock: [crossing(c, target, metric.sign) for c in _curves(results, arm, metric.name, weight, clock)]
                for clock in CLOCKS
            }
            counted = crossings["samples"]
            if counted:
                reached = sum(at is not None for at in counted)
                needed = {clock: median_needed(there) for clock, there in crossings.items()}
                found.append(TimeToQuality(arm, metric, weight, target, reached, len(counted), needed))
    return found


def time_to_quality_table(results: Results) -> Table:
    """`time_to_quality` for people."""
    heads = (
        "metric, where the baseline ends",
        "arm",
        "seconds of training",
        "examples trained on",
        "seeds that got there",
    )
    rows = []
    for q in time_to_quality(results):
        seconds, samples = q.needed["calibrated"], q.needed["samples"]
        rows.append(
            [
                f"{metric_name(q.metric, q.weight)} {number(q.target, q.metric)}",
                q.arm,
                "-" if math.isnan(seconds) else f"{seconds:.3g}",
                "-" if math.isnan(samples) else f"{samples:,.0f}",
                f"{q.reached} of {q.seeds}",
            ]
        )
    note = (
        f"What each arm needs to be as good as {results.config.baseline} is at the end of its run. It is the median "
        "over seeds; those that never got there stand behind all others. From learning curves at "
        f"{results.config.n_curve:,} samples; a dash where fewer than half got there."
    )
    return Table.of("Time and samples to quality", heads, rows, (note,))


def median_needed(crossings: Sequence[float | None]) -> float:
    """The least by which half of the seeds got there; NaN if fewer than half ever did.

    A seed that never got there needs more than was tried: it stands behind all others. A median over those that got
    there would praise an arm for its failures.
    """
    there = sorted(at for at in crossings if at is not None)
    half = math.ceil(len(crossings) / 2)
    return there[half - 1] if 0 < half <= len(there) else math.nan


def crossing(curve: Sequence[tuple[float, float]], target: float, sign: int) -> float | None:
    """Where a curve of (clock, value) first is as good as the target, by linear interpolation; None if it never is."""
    before: tuple[float, float] | None = None
    for at, value in curve:
        if (value - target) * sign >= 0:
            if before is None:
                return at
            return before[0] + (at - before[0]) * (target - before[1]) / (value - before[1])
        before = at, value
    return None


def _curves(results: Results, arm: str, metric: str, weight: float, clock: str) -> list[list[tuple[float, float]]]:
    """The learning curve of each finished seed, at `n_curve` samples; empty for one that diverged."""
    config = results.config
    curves: list[list[tuple[float, float]]] = []
    for seed in config.seeds:
        run = results.runs[arm, seed]
        points = {
            i: (line["clocks"][clock], line["metrics"][metric])
            for i, line in run.points(config.n_curve, weight).items()
            if clock in line["clocks"] and metric in line["metrics"]
        }
        if run.state == "diverged":
            curves.append([])
        elif run.state == "done" and len(run.curve) - 1 in points:
            curves.append([points[i] for i in sorted(points)])
    return curves
