"""Is a difference between two arms real? Paired over seeds, with intervals that hold for few seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

EXACT_LIMIT = 50_000  # all n^n resamples are enumerated up to this many
RESAMPLES = 20_000


@dataclass(frozen=True)
class Comparison:
    """An arm against another, seed by seed.

    Attributes:
        seeds: number of pairs.
        difference: mean of (arm - other).
        low, high: 95 % bootstrap interval of that mean; NaN with one pair.
        better: probability of improvement, the share of pairs in which the arm is better (ties count half).
        p: two-sided p of a paired t-test; NaN with one pair.
    """

    seeds: int
    difference: float
    low: float
    high: float
    better: float
    p: float


def bootstrap_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Expanded percentile bootstrap interval of a mean.

    The plain percentile interval of n = 5 values covers the truth 83 % of the time instead of 95 %, because
    resampling shrinks the spread by sqrt((n - 1) / n) and knows no t quantiles. Hesterberg (2015, "What teachers
    should know about the bootstrap", section 4.4) widens the percentiles so that the interval matches the t interval
    for normal data and keeps the bootstrap's shape: it covers 93 % at n = 5, measured on normal data. With few values
    all resamples are enumerated. With fewer than 5 the wanted percentile lies beyond the rarest resample, and the t
    interval itself takes its place.

    Args:
        values: differences, one a pair.
        level: wanted coverage.

    Returns:
        (low, high); NaN with fewer than two values.
    """
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    t = float(stats.t.ppf(0.5 + level / 2, n - 1))
    tail = float(stats.norm.cdf(-t * math.sqrt(n / (n - 1))))
    if tail < float(n) ** -n:
        reach = t * float(values.std(ddof=1)) / math.sqrt(n)
        return float(values.mean()) - reach, float(values.mean()) + reach
    if n**n <= EXACT_LIMIT:
        means = np.array(list(itertools.product(values, repeat=n))).mean(1)
    else:
        rng = np.random.default_rng(0)
        means = values[rng.integers(n, size=(RESAMPLES, n))].mean(1)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def compare(arm: Mapping[int, float], other: Mapping[int, float], sign: int) -> Comparison | None:
    """Compare two arms over the seeds that both have; None without any.

    Args:
        arm, other: value by seed.
        sign: 1 if higher is better, -1 if lower is.
    """
    seeds = sorted(set(arm) & set(other))
    if not seeds:
        return None
    gaps = np.array([arm[s] - other[s] for s in seeds], dtype=np.float64)
    low, high = bootstrap_interval(gaps)
    improved = gaps * sign
    better = float((improved > 0).mean() + 0.5 * (improved == 0).mean())
    return Comparison(len(seeds), float(gaps.mean()), low, high, better, paired_p(gaps))


def paired_p(gaps: np.ndarray) -> float:
    """Two-sided p of a t-test that the mean of paired differences is 0."""
    if len(gaps) < 2:
        return math.nan
    spread = gaps.std(ddof=1)
    if spread == 0:
        return 1.0 if gaps.mean() == 0 else 0.0
    return float(2 * stats.t.sf(abs(gaps.mean()) / spread * math.sqrt(len(gaps)), len(gaps) - 1))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down corrected p values; NaN stays NaN and counts as no test."""
    tests = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    corrected = [math.nan] * len(p)
    running = 0.0
    for rank, (value, i) in enumerate(tests):
        running = max(running, min(1.0, (len(tests) - rank) * value))
        corrected[i] = running
    return corrected
