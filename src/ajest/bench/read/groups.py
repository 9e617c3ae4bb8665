"""Do seeds fall into two groups? A mean between two groups describes neither, and a comparison may compare groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ajest.bench.plan.budgets import BUDGETS
from ajest.tasks.base import Metric

from .numbers import number
from .results import Cell, Results
from .signs import seeds_by_sign
from .statistics import ALPHA, holm
from .wording import metric_name

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


def group_notes(results: Results, budgets: Sequence[str]) -> list[str]:
    """What a verdict has to say of groups of seeds, a sentence for each headline of each arm in which they are certain:
    their p is corrected over all of these at a budget. Groups of the same seeds at a later budget are not said again.

    Args:
        results: of the bench.
        budgets: at which it was evaluated.
    """
    said: dict[tuple[object, ...], str] = {}
    for budget in budgets:
        found = _at(results, budget)
        corrected = holm([groups.p for _, _, groups in found])
        for (cell, metric, groups), p in zip(found, corrected, strict=True):
            if p < ALPHA:
                which = cell.arm, metric.name, cell.weight, frozenset(groups.low)
                said.setdefault(which, _said(results, cell, metric, groups))
    return [*said.values()]


def _at(results: Results, budget: str) -> list[tuple[Cell, Metric, Groups]]:
    """The best parting of each headline of each arm."""
    found = []
    for metric, weight in results.headlines():
        for arm in results.arms:
            cell = results.cell(budget, arm, metric.name, weight)
            groups = None if cell is None else two_groups(cell.values)
            if cell is not None and groups is not None:
                found.append((cell, metric, groups))
    return found


def _said(results: Results, cell: Cell, metric: Metric, groups: Groups) -> str:
    parts = [
        f"{', '.join(map(str, sorted(part)))} from {number(min(part.values()), metric)} to "
        f"{number(max(part.values()), metric)}"
        for part in (groups.low, groups.high)
    ]
    where = f"{cell.arm}, {metric_name(metric, cell.weight)} at {BUDGETS[cell.budget].title}"
    text = f"Two groups of seeds in {where}: {parts[0]}; {parts[1]}."
    parting = {frozenset(groups.low), frozenset(groups.high)}
    for name, (negative, positive) in seeds_by_sign(results, cell.arm).items():
        if {frozenset(negative), frozenset(positive)} == parting:
            text += f" The sign of their {name} parts them in the same way."
    return f"{text} Their mean describes neither."
