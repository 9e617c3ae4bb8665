"""Is a difference between two arms real? Paired over seeds, with intervals that hold for few seeds.

One rule says what is certain, for every text, table, colour and figure: see `Comparison.outcome`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

ALPHA = 0.05  # of Holm-corrected p; the level that 95 % intervals have
LEAST_SEEDS = 5  # fewer are a first look (docs/method.md#statistics)
EXACT_LIMIT = 50_000  # all n^n resamples are enumerated up to this many
RESAMPLES = 20_000

Outcome = Literal["better", "worse", "undecided"]


@dataclass(frozen=True)
class Comparison:
    """An arm against another, seed by seed.

    Attributes:
        seeds: number of pairs.
        missing: planned seeds that one of the two lacks.
        value, other: mean of each over the pairs.
        difference: mean of (arm - other).
        low, high: 95 % bootstrap interval of that mean; NaN where it cannot be known.
        better: probability of improvement, the share of pairs in which the arm is better (ties count half).
        p: two-sided p of a paired t-test; NaN where it cannot be tested.
        sign: 1 if higher is better, -1 if lower is.
        corrected: p, Holm-corrected over the family of comparisons; NaN outside of one.
    """

    seeds: int
    missing: int
    value: float
    other: float
    difference: float
    low: float
    high: float
    better: float
    p: float
    sign: int
    corrected: float = math.nan

    @property
    def improvement(self) -> float:
        """The difference, positive for better."""
        return self.difference * self.sign

    @property
    def outcome(self) -> Outcome:
        """What is certain: "better" or "worse" if no seed is missing of `LEAST_SEEDS` or more and the corrected p is
        below `ALPHA`. A seed is rarely lost by chance, so pairs that are left prove nothing about all."""
        if self.missing or self.seeds < LEAST_SEEDS or not self.corrected < ALPHA:
            return "undecided"
        return "better" if self.improvement > 0 else "worse"


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
        (low, high); NaN where the values do not vary, or are fewer than two.
    """
    n = len(values)
    if not varies(values):
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


def varies(values: np.ndarray, scale: float = 0.0) -> bool:
    """Whether the spread of values can be told from them: not if they are one, or all the same.

    A few values that agree in every digit come from a metric that moves in steps or has reached its end. Their spread
    of 0 is not that of the next ones: a test or an interval that took it at its word would be certain of anything.
    Metrics come from float32 networks, so differences within that rounding are none.

    Args:
        values: differences, one a pair.
        scale: magnitude of what they are differences of, if that is larger.
    """
    rounding = float(np.finfo(np.float32).eps)
    return len(values) > 1 and bool(np.ptp(values) > rounding * max(scale, float(np.abs(values).max())))


def compare(
    arm: Mapping[int, float], other: Mapping[int, float], sign: int, planned: Collection[int]
) -> Comparison | None:
    """Compare two arms over the seeds that both have; None without any.

    Args:
        arm, other: value by seed.
        sign: 1 if higher is better, -1 if lower is.
        planned: the seeds that both should have.
    """
    seeds = sorted(set(arm) & set(other))
    if not seeds:
        return None
    mine, theirs = (np.array([values[s] for s in seeds], dtype=np.float64) for values in (arm, other))
    gaps = mine - theirs
    tested = varies(gaps, float(np.abs([mine, theirs]).max()))
    low, high = bootstrap_interval(gaps) if tested else (math.nan, math.nan)
    improved = gaps * sign
    return Comparison(
        seeds=len(seeds),
        missing=len(set(planned) - set(seeds)),
        value=float(mine.mean()),
        other=float(theirs.mean()),
        difference=float(gaps.mean()),
        low=low,
        high=high,
        better=float((improved > 0).mean() + 0.5 * (improved == 0).mean()),
        p=paired_p(gaps) if tested else math.nan,
        sign=sign,
    )


def corrected(family: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with their p Holm-corrected over all of them."""
    return [replace(found, corrected=p) for found, p in zip(family, holm([f.p for f in family]), strict=True)]


def paired_p(gaps: np.ndarray) -> float:
    """Two-sided p of a t-test that the mean of paired differences is 0; NaN where they do not vary (see `varies`)."""
    if not varies(gaps):
        return math.nan
    t = abs(gaps.mean()) / gaps.std(ddof=1) * math.sqrt(len(gaps))
    return float(2 * stats.t.sf(t, len(gaps) - 1))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down corrected p values; NaN stays NaN and counts as no test."""
    tests = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    corrected = [math.nan] * len(p)
    running = 0.0
    for rank, (value, i) in enumerate(tests):
        running = max(running, min(1.0, (len(tests) - rank) * value))
        corrected[i] = running
    return corrected
