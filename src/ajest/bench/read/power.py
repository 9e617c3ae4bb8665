"""What a bench could have shown: the smallest difference that it finds, and how many seeds find a given one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ajest.bench.plan.budgets import BUDGETS
from ajest.tasks.base import Metric

from .distributions import chi2_ppf, normal_cdf, root, t_isf
from .numbers import number
from .results import Results, Run
from .sequential import look_levels
from .statistics import ALPHA, LEAST_SEEDS
from .table import Table
from .wording import metric_name

#: How often a difference of that size is to be found.
POWER = 0.8
#: No bench has more seeds.
MOST_SEEDS = 10_000
_QUANTILES = 4096
#: Of the baseline's value: the difference for which seeds are counted.
DETECT = 0.05


def power_of(effect: float, seeds: int, tests: int = 1, looks: tuple[int, ...] = ()) -> float:
    """How often a paired t-test finds a difference.

    Args:
        effect: mean difference over the standard deviation of differences.
        seeds: pairs, at least two.
        tests: comparisons of its family; the level is `ALPHA` over these, as of the first of Holm's steps.
        looks: planned, of which this is one.
    """
    level = look_levels(looks).level(ALPHA / tests)
    shift, edge = abs(effect) * math.sqrt(seeds), t_isf(level / 2, seeds - 1)
    # A noncentral t, as a mean over the spread that samples have: scipy's own is NaN far out.
    reach = edge * _spreads(seeds - 1)
    return float((normal_cdf(shift - reach) + normal_cdf(-shift - reach)).mean())


@lru_cache
def _spreads(degrees: int) -> np.ndarray:
    """Quantiles of a sample's standard deviation over the true one."""
    return np.sqrt(chi2_ppf((np.arange(_QUANTILES) + 0.5) / _QUANTILES, degrees) / degrees)


@lru_cache
def smallest_effect(seeds: int, tests: int = 1, looks: tuple[int, ...] = ()) -> float:
    """The difference, in standard deviations of differences, that is found with `POWER`."""
    return root(lambda effect: power_of(effect, seeds, tests, looks) - POWER, 1e-3, 1e3)


def seeds_for(effect: float, tests: int = 1) -> int | None:
    """The least seeds, of `LEAST_SEEDS` or more, that find such a difference with `POWER`; None beyond `MOST_SEEDS`."""
    if not effect or power_of(effect, MOST_SEEDS, tests) < POWER:
        return None
    low, high = LEAST_SEEDS, MOST_SEEDS  # the least lies in between
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(effect, middle, tests) >= POWER else (middle + 1, high)
    return low


@dataclass(frozen=True)
class Detectable:
    """What a comparison with the baseline could have shown.

    Attributes:
        budget, arm: which.
        metric, weight: of a headline.
        seeds: pairs.
        baseline: mean of the baseline.
        sd: of the paired differences.
        tests: comparisons of the family.
        looks: at which the bench was to look, if it adds seeds.
        guides: of a guided metric, each of which every run was measured with.
    """

    budget: str
    arm: str
    metric: Metric
    weight: float
    seeds: int
    baseline: float
    sd: float
    tests: int
    looks: tuple[int, ...] = ()
    guides: int = 1

    @property
    def smallest(self) -> float:
        """The smallest difference that is found with `POWER`."""
        return smallest_effect(self.seeds, self.tests, self.looks) * self.sd

    @property
    def shows_no_gain(self) -> bool:
        """Whether the smallest difference, as a gain, would lead beyond a perfect value."""
        perfect = self.metric.perfect
        return perfect is not None and self.smallest > (perfect - self.baseline) * self.metric.sign

    def seeds_for(self, share: float) -> int | None:
        """Seeds that find a difference of this share of the baseline's value with `POWER`, see `seeds_for`."""
        return seeds_for(share * abs(self.baseline) / self.sd, self.tests)


def detectable(results: Results, budgets: list[str]) -> list[Detectable]:
    """Of every comparison of a headline with the baseline that has two pairs or more whose differences vary."""
    return [found for budget in budgets for found in _at(results, budget)]


def _at(results: Results, budget: str) -> Iterator[Detectable]:
    baseline, headlines = results.config.baseline, results.headlines()
    others = [arm for arm in results.arms if arm != baseline]
    for metric, weight in headlines:
        base = results.cell(budget, baseline, metric.name, weight)
        for arm in others:
            cell = results.cell(budget, arm, metric.name, weight)
            if base is None or cell is None:
                continue
            pairs = sorted(set(cell.values) & set(base.values))
            gaps = np.array([cell.values[seed] - base.values[seed] for seed in pairs])
            sd = float(gaps.std(ddof=1)) if len(gaps) > 1 else 0.0
            if sd > 0:
                tests, guides = len(others) * len(headlines), 1 if weight == 1 else results.config.guides_of(budget)
                yield Detectable(
                    budget, arm, metric, weight, len(pairs), base.mean, sd, tests, results.config.looks, guides
                )


def plan_table(results: Results, found: list[Detectable], share: float) -> Table:
    """How many seeds show a difference, and the hours of training that they take.

    Args:
        results: of a pilot.
        found: `detectable` of it.
        share: the difference, of the baseline's value.
    """
    spent = {
        arm: [s for run in runs if (s := _seconds(run)) is not None] for arm, runs in _runs_by_arm(results).items()
    }
    a_seed = sum(sum(seconds) / len(seconds) for seconds in spent.values() if seconds)
    rows = []
    for one in found:
        seeds = one.seeds_for(share)
        hours = "-" if seeds is None else f"{seeds * a_seed / 3600:.3g}"
        where = f"{metric_name(one.metric, one.weight)}, at {BUDGETS[one.budget].title}"
        rows.append([one.arm, where, f"more than {MOST_SEEDS:,}" if seeds is None else f"{seeds:,}", hours])
    pairs = max((one.seeds for one in found), default=0)
    notes = (
        f"From the spread of {pairs} paired differences; with fewer than ten that is itself uncertain. The level is "
        "corrected for all comparisons. Hours are those of training all arms one after the other.",
    )
    heads = ("arm against the baseline", "headline", "seeds", "hours of training")
    title = f"Seeds that find a difference of {100 * share:g} % of the baseline with {POWER:.0%}"
    return Table.of(title, heads, rows, (*notes, *_of_guides(found)))


def _runs_by_arm(results: Results) -> dict[str, list[Run]]:
    return {arm: [run for (name, _), run in results.runs.items() if name == arm] for arm in results.arms}


def _seconds(run: Run) -> float | None:
    """What training a finished run took."""
    if run.state != "done" or not run.ledger:
        return None
    return sum(run.ledger[-1]["seconds"].values()) + run.ledger[-1]["warmup_seconds"]


def power_table(found: list[Detectable]) -> Table:
    """`detectable` for people."""
    rows = []
    for one in found:
        seeds = one.seeds_for(DETECT)
        rows.append(
            [
                one.arm,
                f"{metric_name(one.metric, one.weight)}, at {BUDGETS[one.budget].title}",
                str(one.seeds),
                number(one.sd, one.metric),
                _smallest(one),
                f"more than {MOST_SEEDS:,}" if seeds is None else f"{seeds:,}",
            ]
        )
    heads = (
        "arm against the baseline",
        "headline",
        "pairs",
        "sd of differences",
        f"smallest difference found with {POWER:.0%}",
        f"seeds for {DETECT:.0%}",
    )
    notes = (
        "A true difference of that size is certain in four of five benches like this one. A smaller one is mostly "
        "missed, so that undecided does not mean equal. In brackets is its share of the baseline's value. Of fewer "
        "than ten pairs the spread is itself uncertain, and all of this with it. "
        f"Of fewer than {LEAST_SEEDS} pairs nothing is ever certain. There is no gain to find where it would lead "
        "beyond a perfect value: that takes more seeds.",
    )
    title = "The smallest differences that this bench could have shown"
    return Table.of(title, heads, rows, (*notes, *_of_guides(found)))


def _smallest(one: Detectable) -> str:
    if one.seeds < LEAST_SEEDS:
        return f"none with fewer than {LEAST_SEEDS} seeds"
    if one.shows_no_gain:
        return "no gain with so few seeds"
    share = f" ({one.smallest / abs(one.baseline):.0%})" if one.baseline else ""
    return f"{number(one.smallest, one.metric)}{share}"


def _of_guides(found: list[Detectable]) -> list[str]:
    """What spreads over seeds leave out where there are several guides, in a sentence."""
    if all(one.guides == 1 for one in found):
        return []
    return ["Of guided metrics the chance of the guides is not in this: what is really found there is larger."]
