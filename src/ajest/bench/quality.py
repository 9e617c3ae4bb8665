"""Time- and samples-to-quality: how much an arm needs to get where the baseline ends (METHOD 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from ..metrics import Metric
from .results import Results

CLOCKS = ("calibrated", "samples")


@dataclass(frozen=True)
class ToQuality:
    """What one arm needs for one metric to reach the baseline's value at the end of its run, seed by seed.

    Attributes:
        arm, metric, weight: which.
        target: the baseline's value at the end, mean over seeds, at `n_curve` samples.
        reached: seeds that got there.
        seeds: seeds with a curve.
        needed: median over the seeds that got there, by clock; NaN if fewer than half did.
    """

    arm: str
    metric: Metric
    weight: float
    target: float
    reached: int
    seeds: int
    needed: dict[str, float]


def to_quality(results: Results) -> list[ToQuality]:
    """For every arm and headline metric; [] until the baseline has finished a run."""
    config, found = results.config, []
    for metric, weight in results.headlines():
        ends = [c[-1][1] for c in _curves(results, config.baseline, metric.name, weight, "samples")]
        if not ends:
            continue
        target = sum(ends) / len(ends)
        for arm in results.arms:
            needed, reached, seeds = {}, 0, 0
            for clock in CLOCKS:
                crossings = [
                    crossing(c, target, metric.sign) for c in _curves(results, arm, metric.name, weight, clock)
                ]
                there = [at for at in crossings if at is not None]
                reached, seeds = len(there), len(crossings)
                needed[clock] = median(there) if there and 2 * reached >= seeds else math.nan
            if seeds:
                found.append(ToQuality(arm, metric, weight, target, reached, seeds, needed))
    return found


def crossing(curve: Sequence[tuple[float, float]], target: float, sign: int) -> float | None:
    """Where a curve of (clock, value) first is as good as the target, by linear interpolation; None if it never is."""
    before: tuple[float, float] | None = None
    for at, value in curve:
        if (value - target) * sign >= 0:
            if before is None or before[1] == value:
                return at
            return before[0] + (at - before[0]) * (target - before[1]) / (value - before[1])
        before = at, value
    return None


def _curves(results: Results, arm: str, metric: str, weight: float, clock: str) -> list[list[tuple[float, float]]]:
    """The learning curve of each finished seed, at `n_curve` samples."""
    config, curves = results.config, []
    for seed in config.seeds:
        run = results.runs[arm, seed]
        points = {
            i: (line["clocks"][clock], line["metrics"][metric])
            for i, line in run.points(config.n_curve, weight).items()
            if clock in line["clocks"] and metric in line["metrics"]
        }
        if run.state == "done" and len(run.curve) - 1 in points:
            curves.append([points[i] for i in sorted(points)])
    return curves
