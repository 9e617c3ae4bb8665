"""Is a difference between two arms real? Paired over seeds, with intervals that hold for few seeds.

One rule says what is decided, for every text, table, colour and figure: see `Comparison.outcome`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ajest.bench.plan import looks
from ajest.errors import UserError, check

from .crossed import crossed_below_zero, crossed_p
from .distributions import t_cdf, t_sf
from .intervals import ALPHA, COVERAGE, INTERVALS, interval_kind, mean_interval, varies
from .numbers import interval, number, p_value
from .sequential import look_levels

LEAST_SEEDS = looks.LEAST_SEEDS  # fewer are a first look

Outcome = Literal["better", "worse", "equivalent", "undecided"]


@dataclass(frozen=True)
class Comparison:
    """An arm against another, seed by seed, and guide by guide where there are several.

    Attributes:
        seeds: number of pairs.
        missing: planned seeds that one of the two lacks.
        value, other: mean of each over the pairs.
        difference: mean of (arm - other).
        low, high: 95 % interval of that mean; NaN where it cannot be known. Where seeds are added, it is as wide as it
            must be for the intervals of all looks to cover together.
        better: probability of improvement, the share of pairs in which the arm is better (ties count half).
        p: two-sided p of a paired t-test, or of `crossed_p` over several guides, corrected for all looks; NaN where it
            cannot be tested.
        sign: 1 if higher is better, -1 if lower is.
        corrected: p, Holm-corrected over the family of comparisons; NaN outside of one.
        delta: what counts as equivalent, mean over the pairs; NaN where that is not known.
        p_equivalent: p of two one-sided tests that the mean is within +-delta, corrected for all looks; NaN where it
            cannot be tested.
        corrected_equivalent: the same, Holm-corrected over the family.
        guides: with so many each pair was measured; interval and p have their variance too.
        interval: what the interval rests on, see `interval_kind`; "" where there is none.
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
    delta: float = math.nan
    p_equivalent: float = math.nan
    corrected_equivalent: float = math.nan
    guides: int = 1
    interval: Literal["t", "bootstrap", ""] = ""

    @property
    def often(self) -> str:
        """On how many seeds it is better, in words."""
        return f"better on {self.better:.0%} of {self.seeds} seed{'' if self.seeds == 1 else 's'}"

    @property
    def improvement(self) -> float:
        """The difference, positive for better."""
        return self.difference * self.sign

    @property
    def is_certain(self) -> bool:
        """Whether it differs: no seed is missing of `LEAST_SEEDS` or more and the corrected p is below `ALPHA`. A seed
        is rarely lost by chance, so pairs that are left prove nothing about all."""
        return self._is_whole and self.corrected < ALPHA

    @property
    def is_within(self) -> bool:
        """Whether the difference is smaller than delta, whatever its sign: no seed is missing, the corrected p of
        equivalence is below `ALPHA`, and the whole interval lies within +-delta."""
        inside = -self.delta < self.low and self.high < self.delta
        return self._is_whole and self.corrected_equivalent < ALPHA and inside

    @property
    def _is_whole(self) -> bool:
        return not self.missing and self.seeds >= LEAST_SEEDS

    @property
    def is_nominal(self) -> bool:
        """Whether it is undecided and looks certain: its p is below `ALPHA` before it is corrected for the other
        comparisons, or its interval leaves out 0. Figures show that by an open marker."""
        return self.outcome == "undecided" and (self.p < ALPHA or self.low > 0 or self.high < 0)

    @property
    def outcome(self) -> Outcome:
        """What is decided. A certain difference that is within delta is "better" or "worse"; texts add that it is
        small."""
        if self.is_certain:
            return "better" if self.improvement > 0 else "worse"
        return "equivalent" if self.is_within else "undecided"

    def __str__(self) -> str:
        planned = self.seeds + self.missing
        seeds = f"{self.seeds} of {planned}" if self.missing else f"{self.seeds}"
        seeds += f" seed{'' if planned == 1 else 's'}"
        seeds += f" x {self.guides} guides" if self.guides > 1 else ""
        kind = f"{INTERVALS[self.interval]} " if self.interval else ""  # verdicts stored earlier do not say
        known = "" if math.isnan(self.low) else f"{COVERAGE} {kind}interval "
        nominal = " (nominally significant)" if self.is_nominal else ""
        within = f" within {number(self.delta)}" if self.is_within else ""
        return (
            f"{number(self.value)} against {number(self.other)} over {seeds}: "
            f"a difference of {number(self.difference)} ({known}{interval(self.low, self.high, self.seeds)}, "
            f"{self.often}, corrected {p_value(self.corrected)}): {self.outcome}{nominal}{within}"
        )


def compare(
    values: ArrayLike | Mapping[int, float],
    baseline: ArrayLike | Mapping[int, float],
    better: Literal["lower", "higher"] = "lower",
    delta: float | None = None,
) -> Comparison:
    """Compare two sets of runs that are paired, by seed for instance: no bench is needed.

    A paired t-test of the mean difference, and its interval (see `mean_interval`). It is a family of one comparison:
    whoever makes several corrects their p with `corrected`, or `holm`.

    Args:
        values: of one number, for instance an FID, one a run: an array of shape (n,) or a sequence, or a mapping from
            seed to value.
        baseline: of the runs that it is compared with, in the same form: arrays are paired by position, mappings by
            seed. Seeds that one of the two lacks are counted as missing, and nothing is certain then.
        better: which direction is an improvement.
        delta: the difference, in the unit of the values, below which they count as equivalent; name it before looking.
            Without it nothing is equivalent.

    Returns:
        Mean difference, interval, probability of improvement, p and what is certain; `print` says it in a line.

    Raises:
        UserError: they are not of one form and length, hold no pair, or hold a number that is not finite.
    """
    check(better in ("lower", "higher"), f'better must be "lower" or "higher", not {better!r}')
    check(delta is None or 0 < delta < math.inf, f"delta must be a difference above 0, not {delta}")
    check(isinstance(values, Mapping) == isinstance(baseline, Mapping), "compare two mappings by seed, or two arrays")
    mine, theirs = _by_pair(values), _by_pair(baseline)
    if not isinstance(values, Mapping):
        check(len(mine) == len(theirs), f"arrays are paired by position: {len(mine)} values against {len(theirs)}")
    planned = mine.keys() | theirs.keys()
    margins = None if delta is None else dict.fromkeys(planned, delta)
    found = paired(mine, theirs, 1 if better == "higher" else -1, planned, margins)
    if found is None:
        raise UserError("there is nothing to compare: no seed is in both")
    return corrected([found])[0]


def _by_pair(values: ArrayLike | Mapping[int, float]) -> dict[int, float]:
    """Values by what pairs them."""
    if isinstance(values, Mapping):
        found = {seed: float(value) for seed, value in values.items()}
    else:
        array = np.asarray(values, dtype=np.float64)
        check(array.ndim == 1, f"values to compare are one a run, of shape (n,), not {array.shape}")
        found = dict(enumerate(array.tolist()))
    for place, value in found.items():
        check(math.isfinite(value), f"value {place} is {value}: leave runs without a value out of both")
    return found


#: By seed, a value, or one for each guide.
BySeed = Mapping[int, float] | Mapping[int, tuple[float, ...]]


def paired(
    arm: BySeed,
    other: BySeed,
    sign: int,
    planned: Collection[int],
    margins: Mapping[int, float] | None = None,
    planned_looks: tuple[int, ...] = (),
) -> Comparison | None:
    """Compare two arms over the seeds that both have, in no family yet; None without any.

    Args:
        arm, other: value by seed, or values: the same guides in both, or none in one of the two.
        sign: 1 if higher is better, -1 if lower is.
        planned: the seeds that both should have.
        margins: what counts as equivalent by seed. Where it is itself measured its spread counts, as the tests are of
            differences less margins, seed by seed. Nothing is equivalent where a pair has none.
        planned_looks: numbers of pairs at which they are compared, where seeds are added until all is decided.
    """
    seeds = sorted(set(arm) & set(other))
    if not seeds:
        return None
    mine, theirs = (np.array([values[s] for s in seeds], dtype=np.float64) for values in (arm, other))
    if mine.ndim != theirs.ndim:
        mine, theirs = (values if values.ndim == 2 else values[:, None] for values in (mine, theirs))
    gaps = mine - theirs
    tested = varies(gaps, max(float(np.abs(values).max()) for values in (mine, theirs)))
    levels = look_levels(planned_looks)
    level = 1 - levels.level(ALPHA)
    low, high = mean_interval(gaps, level) if tested else (math.nan, math.nan)
    improved = (gaps if gaps.ndim == 1 else gaps.mean(1)) * sign
    allowed = np.array([(margins or {}).get(s, math.nan) for s in seeds])
    allowed = allowed if gaps.ndim == 1 else allowed[:, None]
    return Comparison(
        seeds=len(seeds),
        missing=len(set(planned) - set(seeds)),
        value=float(mine.mean()),
        other=float(theirs.mean()),
        difference=float(gaps.mean()),
        low=low,
        high=high,
        better=float((improved > 0).mean() + 0.5 * (improved == 0).mean()),
        p=float(levels.two_sided(paired_p(gaps))) if tested else math.nan,
        sign=sign,
        delta=float(allowed.mean()),
        p_equivalent=float(levels.one_sided(equivalence_p(gaps, allowed))) if tested else math.nan,
        guides=1 if gaps.ndim == 1 else gaps.shape[1],
        interval="" if math.isnan(low) else interval_kind(gaps.shape, level),
    )


def corrected(family: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with their p, and those of equivalence, Holm-corrected over all of them."""
    p, equivalent = holm([f.p for f in family]), holm([f.p_equivalent for f in family])
    return [replace(found, corrected=p[i], corrected_equivalent=equivalent[i]) for i, found in enumerate(family)]


def paired_p(gaps: np.ndarray) -> float:
    """Two-sided p of a t-test that the mean of paired differences is 0, of `crossed_p` if they have the shape (pairs,
    guides); NaN where they do not vary (see `varies`)."""
    if not varies(gaps):
        return math.nan
    if gaps.ndim == 2:
        return crossed_p(gaps)
    t = abs(gaps.mean()) / gaps.std(ddof=1) * math.sqrt(len(gaps))
    return float(2 * t_sf(t, len(gaps) - 1))


def equivalence_p(gaps: np.ndarray, margins: np.ndarray | float) -> float:
    """p of two one-sided t-tests (Schuirmann 1987) that the mean of paired differences lies within the mean of
    margins; NaN where these are not known."""
    below, above = (_below_zero(side * gaps - margins) for side in (1, -1))
    return math.nan if math.isnan(below + above) else max(below, above)


def _below_zero(values: np.ndarray) -> float:
    """One-sided p of a t-test that a mean is below 0."""
    if not varies(values):
        return math.nan
    if values.ndim == 2:
        return crossed_below_zero(values)
    return float(t_cdf(values.mean() / values.std(ddof=1) * math.sqrt(len(values)), len(values) - 1))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down corrected p values; NaN stays NaN and counts as no test."""
    tests = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    corrected = [math.nan] * len(p)
    running = 0.0
    for rank, (value, i) in enumerate(tests):
        running = max(running, min(1.0, (len(tests) - rank) * value))
        corrected[i] = running
    return corrected
