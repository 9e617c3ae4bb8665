"""How peak learning rates are found: one log grid for all arms, on seeds that are never reported.

A comparison at one rate for all compares rates (docs/method.md#tuning).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ajest.errors import check

#: Of one arm: learning rate -> seed -> value of what it is tuned by; a run that diverged has none.
Trials = Mapping[float, Mapping[int, float]]


@dataclass(frozen=True)
class Tuning:
    """Whole runs of every arm at each rate of a grid; the top of the parabola through the best mean and its neighbours
    is taken.

    Attributes:
        seeds: of these runs, none of them reported.
        factor: from each rate of the grid to the next.
        rates: how many are tried at first, around the recipe's.
        most: at most so many; until then the grid is extended, for all arms, where any arm's best lies at its edge.
        shared: whether arms share a rate that train on equally many examples in steps of equal modes: the first of
            them is tried.
        metric: unguided, by which they are found; "" is `Task.tuned_by`.
    """

    seeds: tuple[int, ...] = (2000, 2001, 2002)
    factor: float = 2.0
    rates: int = 3
    most: int = 9
    shared: bool = False
    metric: str = ""

    def __post_init__(self) -> None:
        check(len(self.seeds) >= 1 and len(set(self.seeds)) == len(self.seeds), "tuning needs seeds, each named once")
        check(1 < self.factor < math.inf, f"rates of a grid must grow by a factor above 1, not {self.factor:g}")
        check(3 <= self.rates <= self.most, f"a grid must begin with 3 to {self.most} rates, not {self.rates}")

    def first(self, peak: float) -> tuple[float, ...]:
        """The grid to begin with, rising, around a peak."""
        return tuple(peak * self.factor**k for k in range(-(self.rates // 2), self.rates - self.rates // 2))

    def further(self, grid: Sequence[float], best: Iterable[float]) -> tuple[float, ...]:
        """Rates to try next: beyond the edges of a rising grid at which the best of any arm lies, as many as may be."""
        found = set(best)
        beyond = [grid[0] / self.factor] * (grid[0] in found) + [grid[-1] * self.factor] * (grid[-1] in found)
        return tuple(beyond[: self.most - len(grid)])


def best_rate(trials: Trials, seeds: Sequence[int], sign: int) -> float | None:
    """The rate of the best mean among those with a value on every seed; None without any.

    Args:
        trials: of one arm.
        seeds: all that should be there.
        sign: 1 if higher is better, -1 if lower is.
    """
    whole = {rate: values for rate, values in trials.items() if set(values) == set(seeds)}
    return max(whole, key=lambda rate: (sign * sum(whole[rate].values()), -rate), default=None)


def between(trials: Trials, best: float, seeds: Sequence[int], factor: float, sign: int) -> float:
    """The rate at the top of the parabola through the best mean and its two neighbours, over the logarithm of the rate;
    the best itself where a neighbour lacks a seed.

    By which rate of a coarse grid is best, few seeds toss a coin, and a whole factor hangs on it. The top moves little
    with their noise, by half a factor from the best at most; arms of equal gradients get nearly equal rates.

    Args:
        trials, seeds, sign: see `best_rate`.
        best: what that found.
        factor: from each rate of the grid to the next.
    """
    means = [
        sum(found.values())
        for at in (best / factor, best, best * factor)
        for rate, found in trials.items()
        if math.isclose(rate, at, rel_tol=1e-6) and set(found) == set(seeds)
    ]
    if len(means) < 3:
        return best
    lower, upper = (sign * (means[1] - mean) for mean in (means[0], means[2]))
    offset = (lower - upper) / (2 * (lower + upper)) if lower + upper > 0 else 0.0
    return float(f"{best * factor**offset:.3g}")  # no more digits than say anything, for names and pages


@dataclass(frozen=True)
class Tuned:
    """What tuning found, as it is kept.

    Attributes:
        metric: name of what rates were chosen by.
        rates: of every arm that has one, see `between`.
        tried_for: for every arm the one whose runs it takes its rate from.
        trials: of every arm that was tried.
        at_edge: arms whose best lies at the edge of the whole grid, or that have none: it is not known to be the best.
        seconds: of training, of all runs together.
        borrowed: whether another bench found it.
        found_for: the data and the examples a step that it was found for; "" of files from before it was noted.
    """

    metric: str
    rates: dict[str, float]
    tried_for: dict[str, str]
    trials: dict[str, dict[float, dict[int, float]]]
    at_edge: tuple[str, ...]
    seconds: float
    borrowed: bool = False
    found_for: str = ""

    @property
    def seeds(self) -> tuple[int, ...]:
        """On which the rates were tried."""
        return tuple(sorted({seed for trials in self.trials.values() for values in trials.values() for seed in values}))

    def said(self) -> str:
        """How the rates were found, in words."""
        grid = {rate for trials in self.trials.values() for rate in trials}
        where = f"{len(self.seeds)} other seed{'s' if len(self.seeds) > 1 else ''}"
        by = ", in another bench" if self.borrowed else ""
        return f"a parabola through the best of {len(grid)} rates on {where}, by the {self.metric}{by}"
