"""Looking more than once: what a p is worth that may be small at any of several looks (docs/method.md#looks)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

#: Simulated benches: the correction of a p of 0.001 is known to some 2 %.
PATHS = 250_000
#: Rarer than this the correction is no longer simulated, but goes over into a bound.
_RAREST = 1e-4


@dataclass(frozen=True)
class LookLevels:
    """How small the smallest p of several looks is where there is nothing.

    Attributes:
        looks: how many there are.
        log_p: logarithms of one-sided p, rising.
        log_chance: logarithms of the chance that the smallest of all looks is as small.
    """

    looks: int
    log_p: np.ndarray
    log_chance: np.ndarray

    def one_sided(self, p: ArrayLike) -> np.ndarray:
        """One-sided p of one look, corrected for all of them."""
        values = np.asarray(p, dtype=np.float64)
        if self.looks == 1:
            return values
        with np.errstate(divide="ignore"):
            chance = np.exp(np.interp(np.log(values), self.log_p, self.log_chance))
        return np.minimum(self.looks * values, chance)

    def two_sided(self, p: ArrayLike) -> np.ndarray:
        """Two-sided p of one look, corrected for all of them."""
        return np.minimum(1.0, 2 * self.one_sided(np.asarray(p, dtype=np.float64) / 2))

    def level(self, alpha: float) -> float:
        """The two-sided p of one look that is alpha over all of them."""
        return (
            alpha if self.looks == 1 else 2 * float(np.exp(np.interp(np.log(alpha / 2), self.log_chance, self.log_p)))
        )


@lru_cache
def look_levels(looks: tuple[int, ...]) -> LookLevels:
    """Levels of a paired t-test that is made at each of these numbers of pairs, the same at every look (Pocock 1977).

    t of normal differences does not hang on their spread, so that it can be simulated once for all: only sums and
    squares of the pairs that each look adds are drawn. Rarer than `_RAREST` the chance goes over into the bound of
    Bonferroni.
    """
    if len(looks) < 2:
        return LookLevels(1, np.empty(0), np.empty(0))
    rng = np.random.default_rng(0)
    total, squares = np.zeros(PATHS), np.zeros(PATHS)
    smallest, largest = np.ones(PATHS), np.zeros(PATHS)
    before = 0
    for n in looks:
        added = n - before
        part = rng.normal(scale=math.sqrt(added), size=PATHS)
        total += part
        squares += part**2 / added + (rng.chisquare(added - 1, PATHS) if added > 1 else 0)
        spread = np.sqrt((squares - total**2 / n) / (n - 1))
        p = special.stdtr(n - 1, total / spread / math.sqrt(n))
        np.minimum(smallest, p, out=smallest)
        np.maximum(largest, p, out=largest)
        before = n
    lowest = np.sort(np.concatenate([smallest, 1 - largest]))  # of both sides: one is as good as the other
    chance = np.geomspace(_RAREST, 0.9, 80)
    found = np.quantile(lowest, chance)
    bound = 1e-12
    return LookLevels(len(looks), np.log([bound, *found, 1.0]), np.log([len(looks) * bound, *chance, 1.0]))
