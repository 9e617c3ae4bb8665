"""Means over seeds crossed with guides: both are drawn by chance, and a mean has the variance of both.

See docs/method.md#guides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .distributions import normal_cdf, normal_pdf, normal_ppf, root, t_isf, t_sf

#: Fewer of either say nothing of the shape of a distribution: the interval is that of normal data.
LEAST_FOR_SHAPE = 5
_RESAMPLES = 20_000
_REACH, _STEP = 9.0, 0.02  # of the normal variable that is integrated over


@dataclass(frozen=True)
class MeanSquares:
    """The two-way analysis of variance of values, one for each of seeds x guides.

    Attributes:
        mean: of all.
        seeds, guides, rest: mean squares, of which the last is that of the residuals.
        shape: (number of seeds, number of guides), at least two each.
    """

    mean: float
    seeds: float
    guides: float
    rest: float
    shape: tuple[int, int]

    @classmethod
    def of(cls, values: np.ndarray) -> MeanSquares:
        """Of values of shape (seeds, guides)."""
        s, g = values.shape
        mean, by_seed, by_guide = values.mean(), values.mean(1, keepdims=True), values.mean(0, keepdims=True)
        rest = values - by_seed - by_guide + mean
        return cls(
            mean=float(mean),
            seeds=float(g * by_seed.var(ddof=1)),
            guides=float(s * by_guide.var(ddof=1)),
            rest=float((rest**2).sum() / ((s - 1) * (g - 1))),
            shape=(s, g),
        )

    def above(self, x: float) -> float:
        """How often the mean is by more than x above the true one, as far as these values tell.

        The mean's error is the sum of two: of the seeds and of the guides drawn. Each is a t variable times the root of
        its mean square, as in the Behrens-Fisher problem. The residual is in both mean squares and so counts twice,
        which errs on the side of caution.
        """
        s, g = self.shape
        parts = [(math.sqrt(self.seeds / (s * g)), s - 1), (math.sqrt(self.guides / (s * g)), g - 1)]
        (small, its), (large, degrees) = sorted(parts)  # the one that moves less is integrated over
        if large == 0:
            return float(x < 0)
        nodes, weights = _nodes(its)
        return float(weights @ t_sf((x - small * nodes) / large, degrees))

    def reach(self, level: float) -> float:
        """What the error of the mean stays within, this often."""
        if self.seeds == self.guides == 0:
            return 0.0
        unit = math.sqrt((self.seeds + self.guides) / math.prod(self.shape))
        most = unit * float(t_isf((1 - level) / 4, min(self.shape) - 1)) * 2
        return root(lambda x: self.above(x) - (1 - level) / 2, 0.0, most)


@lru_cache
def _nodes(degrees: int) -> tuple[np.ndarray, np.ndarray]:
    """(values of a t variable, weights) for means over it, by the trapezoidal rule in a normal variable."""
    z = np.arange(0.0, _REACH + _STEP, _STEP)
    upper, weights = t_isf(normal_cdf(-z), degrees), normal_pdf(z)
    nodes, weights = np.concatenate([-upper[:0:-1], upper]), np.concatenate([weights[:0:-1], weights])
    return nodes, weights / weights.sum()


@lru_cache
def _shares(seeds: int, guides: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each seed, and each guide, is drawn, as a share of all: a row for each resample."""
    rng = np.random.default_rng(0)
    drawn = [rng.multinomial(k, np.full(k, 1 / k), _RESAMPLES) / k for k in (seeds, guides)]
    return drawn[0], drawn[1]


def crossed_p(values: np.ndarray) -> float:
    """Two-sided p that the mean of values of shape (seeds, guides) is 0."""
    found = MeanSquares.of(values)
    return min(1.0, 2 * found.above(abs(found.mean)))


def crossed_below_zero(values: np.ndarray) -> float:
    """One-sided p that the mean of values of shape (seeds, guides) is below 0."""
    found = MeanSquares.of(values)
    return found.above(-found.mean)


def crossed_interval(values: np.ndarray, level: float) -> tuple[float, float]:
    """Interval of the mean of values of shape (seeds, guides): the pigeonhole bootstrap (Owen 2007, "The pigeonhole
    bootstrap", Annals of Applied Statistics 1), widened for few seeds and guides.

    Seeds and guides are drawn anew, each with replacement, and every value whose seed and guide were drawn counts. The
    percentiles' distances from the mean are stretched so that normal data have the interval that matches `crossed_p`.
    With fewer than `LEAST_FOR_SHAPE` seeds or guides that one itself takes its place.
    """
    found = MeanSquares.of(values)
    reach = found.reach(level)
    if min(found.shape) < LEAST_FOR_SHAPE:
        return found.mean - reach, found.mean + reach
    seeds, guides = _shares(*found.shape)
    errors = ((seeds @ values) * guides).sum(1) - found.mean
    stretch = reach / (float(normal_ppf(0.5 + level / 2)) * float(errors.std()))
    low, high = np.quantile(errors, [0.5 - level / 2, 0.5 + level / 2])
    return found.mean + float(low) * stretch, found.mean + float(high) * stretch
