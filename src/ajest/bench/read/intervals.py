"""Intervals of means: a bootstrap's, or where values are too few for one Student's t."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import Literal

import numpy as np

from .crossed import LEAST_FOR_SHAPE, crossed_interval
from .distributions import normal_cdf, t_ppf

#: Of Holm-corrected p, and what an interval leaves out. Whoever decides anything takes it from here.
ALPHA = 0.05
#: What an interval covers, for people.
COVERAGE = f"{100 * (1 - ALPHA):g} %"
EXACT_LIMIT = 50_000  # all n^n resamples are enumerated up to this many
RESAMPLES = 20_000

IntervalKind = Literal["t", "bootstrap"]
#: Kinds of intervals for people.
INTERVALS: dict[IntervalKind, str] = {"t": "Student-t", "bootstrap": "bootstrap"}


def mean_interval(values: np.ndarray, level: float = 1 - ALPHA) -> tuple[float, float]:
    """Interval of a mean, see `interval_kind`: Student's t, or the expanded percentile bootstrap.

    The plain percentile interval of n = 5 values covers the truth 83 % of the time instead of 95 %, because
    resampling shrinks the spread by sqrt((n - 1) / n) and knows no t quantiles. Hesterberg (2015, "What teachers
    should know about the bootstrap", section 4.4) widens the percentiles so that the interval matches the t interval
    for normal data and keeps the bootstrap's shape: it covers 93 % at n = 5, measured on normal data. With few values
    all resamples are enumerated.

    Args:
        values: differences, one a pair; or of shape (pairs, guides), see `crossed_interval`.
        level: wanted coverage.

    Returns:
        (low, high); NaN where the values do not vary, or are fewer than two.
    """
    n = len(values)
    if not varies(values):
        return math.nan, math.nan
    if values.ndim == 2:
        return crossed_interval(values, level)
    if interval_kind((n,), level) == "t":
        reach = float(t_ppf(0.5 + level / 2, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
        return float(values.mean()) - reach, float(values.mean()) + reach
    tail = _tail(n, level)
    low, high = np.quantile(values[_resamples(n)].mean(1), [tail, 1 - tail])
    return float(low), float(high)


def interval_kind(shape: tuple[int, ...], level: float = 1 - ALPHA) -> IntervalKind:
    """What the interval of a mean rests on: a bootstrap, or Student's t where that cannot reach so far.

    With fewer than 5 values the wanted percentile lies beyond the rarest resample, and so it does with some more where
    intervals are wider, such as those of several looks. Of fewer than 5 seeds or guides a bootstrap knows no shape.

    Args:
        shape: of the values, one a pair, or (pairs, guides).
        level: wanted coverage.
    """
    if len(shape) == 2:
        return "t" if min(shape) < LEAST_FOR_SHAPE else "bootstrap"
    (n,) = shape
    return "t" if n < 2 or _tail(n, level) < float(n) ** -n else "bootstrap"


def least_for_bootstrap(level: float = 1 - ALPHA) -> int:
    """From how many pairs on an interval rests on a bootstrap."""
    return next(n for n in itertools.count(2) if interval_kind((n,), level) == "bootstrap")


def _tail(n: int, level: float) -> float:
    """The percentile of resamples' means, as a share, at which an interval of n values ends."""
    return float(normal_cdf(-float(t_ppf(0.5 + level / 2, n - 1)) * math.sqrt(n / (n - 1))))


@lru_cache(maxsize=8)
def _resamples(n: int) -> np.ndarray:
    """Which of n values each resample holds: all n^n up to `EXACT_LIMIT`, else `RESAMPLES` random ones."""
    if n**n <= EXACT_LIMIT:
        return np.array(list(itertools.product(range(n), repeat=n)))
    return np.random.default_rng(0).integers(n, size=(RESAMPLES, n))


def varies(values: np.ndarray, scale: float = 0.0) -> bool:
    """Whether the spread of values can be told from them: not if they are one, or all the same.

    A few values that agree in every digit come from a metric that moves in steps or has reached its end. Their spread
    of 0 is not that of the next ones: a test or an interval that took it at its word would be certain of anything.
    Metrics come from float32 networks, so differences within that rounding are none.

    Args:
        values: differences, one a pair, or of each pair one a guide: then the pairs' means are to vary.
        scale: magnitude of what they are differences of, if that is larger.
    """
    rounding = float(np.finfo(np.float32).eps)
    values = values.mean(1) if values.ndim == 2 else values
    return len(values) > 1 and bool(np.ptp(values) > rounding * max(scale, float(np.abs(values).max())))
