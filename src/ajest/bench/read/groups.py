"""Do seeds fall into two groups? A mean between two groups describes neither, and a comparison may compare groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

import numpy as np

from ajest.bench.plan.budgets import BUDGETS
from ajest.tasks.base import Metric

from .numbers import number
from .results import Cell, Results
from .signs import seeds_by_sign
from .statistics import ALPHA, holm
from .wording import code, metric_name, series

#: Members of a group: one value far from the others is an outlier, not a group.
LEAST = 2
_SIMULATED = 20_000


@dataclass(frozen=True)
class Groups:
    """Values parted in two.

    Attributes:
        low, high: the values of either group by seed.
        p: how often normal values are parted as well as these.
    """

    low: dict[int, float]
    high: dict[int, float]
    p: float


def two_groups(values: Mapping[int, float]) -> Groups | None:
    """The best parting of values in two, with its p; None of fewer than four values, or of equal ones.

    What is measured is the share of the values' variance that lies between the groups, at its largest over all
    partings into groups of at least two: the two-means statistic (Engelman and Hartigan 1969, "Percentage points of a
    test for clusters"). Its p is simulated: 5 % of normal samples have a p below 0.05, whatever their number.

    Args:
        values: one a seed.
    """
    seeds = sorted(values, key=lambda seed: values[seed])
    if len(seeds) < 2 * LEAST or values[seeds[0]] == values[seeds[-1]]:
        return None
    shares = _between(np.array([[values[seed] for seed in seeds]]))[0]
    at = int(shares.argmax())
    null = _null(len(seeds))
    p = (1 + int((null >= shares[at]).sum())) / (1 + len(null))
    cut = at + LEAST
    return Groups({s: values[s] for s in seeds[:cut]}, {s: values[s] for s in seeds[cut:]}, p)


def _between(ordered: np.ndarray) -> np.ndarray:
    """Of rising rows of shape (m, n), the share of the variance between the first k and the rest, shape (m, n - 3), for
    k from 2 to n - 2."""
    n = ordered.shape[1]
    centred = ordered - ordered.mean(1, keepdims=True)
    k = np.arange(LEAST, n - LEAST + 1)
    left = centred.cumsum(1)[:, k - 1]
    return left**2 * (1 / k + 1 / (n - k)) / (centred**2).sum(1, keepdims=True)


@lru_cache
def _null(n: int) -> np.ndarray:
    """What normal samples of this size give."""
    samples = np.random.default_rng(n).normal(size=(_SIMULATED, n))
    samples.sort(1)
    return _between(samples).max(1)


@dataclass(frozen=True)
class Parted:
    """A headline of an arm whose seeds certainly fall into two groups.

    Attributes:
        cell: of the arm.
        metric: what it is a value of.
        groups: of its seeds.
    """

    cell: Cell
    metric: Metric
    groups: Groups


def groups_of_seeds(results: Results, budgets: Sequence[str]) -> list[Parted]:
    """Where seeds certainly fall into groups: the p of each headline of each arm is corrected over all of these at a
    budget. Groups of the same seeds at a later budget are not there again.

    Args:
        results: of the bench.
        budgets: at which it was evaluated.
    """
    certain: dict[tuple[object, ...], Parted] = {}
    for budget in budgets:
        found = _at(results, budget)
        corrected = holm([parted.groups.p for parted in found])
        for parted, p in zip(found, corrected, strict=True):
            if p < ALPHA:
                which = parted.cell.arm, parted.metric.name, parted.cell.weight, frozenset(parted.groups.low)
                certain.setdefault(which, parted)
    return [*certain.values()]


def _at(results: Results, budget: str) -> list[Parted]:
    """The best parting of each headline of each arm."""
    found = []
    for metric, weight in results.headlines():
        for arm in results.arms:
            cell = results.cell(budget, arm, metric.name, weight)
            groups = None if cell is None else two_groups(cell.values)
            if cell is not None and groups is not None:
                found.append(Parted(cell, metric, groups))
    return found


def in_groups(found: Sequence[Parted]) -> list[str]:
    """That there are groups, in a sentence; none where there are none."""
    arms = list(dict.fromkeys(parted.cell.arm for parted in found))
    return [f"Seeds of {series(arms)} fall into two groups; a mean describes neither of them."] if arms else []


def group_notes(results: Results, found: Sequence[Parted]) -> list[str]:
    """The groups in numbers, with signs that part seeds in the same way."""
    said = []
    for parted in found:
        cell, low, high = parted.cell, parted.groups.low, parted.groups.high
        means = [number(fmean(part.values()), parted.metric) for part in (low, high)]
        where = f"{metric_name(parted.metric, cell.weight)} at {BUDGETS[cell.budget].title}"
        seeds = [", ".join(map(str, sorted(part))) for part in (low, high)]
        said += [
            f"On {where}, seeds of {code(cell.arm)} lie around {means[0]} or around {means[1]}.",
            f"Around {means[0]} are seeds {seeds[0]}; around {means[1]} are seeds {seeds[1]}.",
        ]
        for name, (negative, positive) in seeds_by_sign(results, cell.arm).items():
            if {frozenset(negative), frozenset(positive)} == {frozenset(low), frozenset(high)}:
                said.append(f"The sign of the {name} of {code(cell.arm)} divides the same seeds.")
    return said
