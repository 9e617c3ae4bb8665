"""Where the spread of a number comes from: training seed, guide and sampling noise, each a variance with an interval.

See docs/method.md#variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ajest.tasks.base import Metric

from .crossed import MeanSquares
from .numbers import number
from .results import Cell, Repeats, Results
from .statistics import ALPHA, COVERAGE
from .table import Entry, Table, TableCell
from .wording import metric_name

_DRAWS = 20_000


@dataclass(frozen=True)
class MeanSquare:
    """A mean square and its part in a variance.

    Attributes:
        value: of the mean square.
        degrees: of freedom.
        factor: by which it is part of the variance that is looked for.
    """

    value: float
    degrees: int
    factor: float = 1.0


@dataclass(frozen=True)
class Component:
    """A part of the variance of one measurement.

    Attributes:
        variance: the unbiased estimate, which may be negative.
        low, high: 95 % interval of the true one.
    """

    variance: float
    low: float
    high: float

    @classmethod
    def of(cls, parts: Sequence[MeanSquare]) -> Component:
        """The sum of mean squares times their factors, with its generalised confidence interval (Weerahandi 1993,
        "Generalized confidence intervals", Journal of the American Statistical Association 88): each true mean square
        is its value times its degrees over a chi-square variable, independent of the others; no variance is below 0."""
        rng = np.random.default_rng(0)
        drawn = sum(p.factor * p.value * p.degrees / rng.chisquare(p.degrees, _DRAWS) for p in parts)
        low, high = np.quantile(drawn, [ALPHA / 2, 1 - ALPHA / 2])
        return cls(sum(p.factor * p.value for p in parts), max(0.0, float(low)), max(0.0, float(high)))


@dataclass(frozen=True)
class Spread:
    """Where the spread of one headline of the baseline comes from; None is what the design cannot tell.

    Attributes:
        metric, weight: which.
        seeds, guides, noises: how many there were of each; no guides of what is unguided.
        training: of the training seed, with how well a guide suits a run; where the noise is not known, that too.
        guide: of the guide.
        noise: of sampling.
    """

    metric: Metric
    weight: float
    seeds: int
    guides: int
    noises: int
    training: Component | None
    guide: Component | None
    noise: Component | None

    @property
    def total(self) -> float:
        """The variance of one measurement, as far as it is known."""
        return sum(max(0.0, part.variance) for part in (self.training, self.guide, self.noise) if part is not None)


def spreads(results: Results) -> list[Spread]:
    """Of each headline, of the baseline where its runs end."""
    config, found = results.config, []
    for metric, weight in results.headlines():
        cell = results.cell(config.final_budget, config.baseline, metric.name, weight)
        if cell is not None and cell.n == config.n_final:
            found.append(_spread(cell, metric, results.repeats.get((metric.name, weight), {})))
    return found


def _spread(cell: Cell, metric: Metric, repeats: Repeats) -> Spread:
    values = np.array([np.atleast_1d(cell.measured[seed]) for seed in sorted(cell.values)])
    seeds, guides = values.shape
    noise = _noise(cell, repeats)
    within, guide = [], None  # variance over seeds within a guide
    if seeds > 1 and guides > 1:
        found, rest = MeanSquares.of(values), (seeds - 1) * (guides - 1)
        within = [
            MeanSquare(found.seeds, seeds - 1, 1 / guides),
            MeanSquare(found.rest, rest, 1 - 1 / guides),
        ]
        guide = Component.of(
            [MeanSquare(found.guides, guides - 1, 1 / seeds), MeanSquare(found.rest, rest, -1 / seeds)]
        )
    elif seeds > 1:
        within = [MeanSquare(float(values.var(ddof=1)), seeds - 1)]
    less = [] if noise is None else [MeanSquare(noise.value, noise.degrees, -1.0)]
    return Spread(
        metric=metric,
        weight=cell.weight,
        seeds=seeds,
        guides=0 if cell.weight == 1 else guides,
        noises=1 + max(map(len, repeats.values()), default=0),
        training=Component.of([*within, *less]) if within else None,
        guide=guide,
        noise=None if noise is None else Component.of([noise]),
    )


def _noise(cell: Cell, repeats: Repeats) -> MeanSquare | None:
    """The mean square within runs that were measured several times; None without any."""
    groups = [
        (cell.by_guide[seed][0] if cell.by_guide else cell.values[seed], *further)
        for seed, further in repeats.items()
        if seed in cell.values and further
    ]
    degrees = sum(len(group) - 1 for group in groups)
    if not degrees:
        return None
    return MeanSquare(sum(float(np.var(group)) * len(group) for group in groups) / degrees, degrees)


def variance_table(results: Results) -> Table:
    """`spreads` for people; without rows before runs are evaluated."""
    found = spreads(results)
    heads = (
        f"headline of {results.config.baseline}",
        "seeds x guides",
        "measured with so many noises",
        "training seed",
        "guide",
        "sampling noise",
    )
    rows: list[list[Entry]] = []
    for one in found:
        design = f"{one.seeds} x {one.guides}" if one.guides else f"{one.seeds}"
        together = "" if one.noise is not None else "with the sampling noise in it"
        unknown = "one guide cannot tell" if one.guides == 1 else "one seed cannot tell" if one.guides else ""
        rows.append(
            [
                metric_name(one.metric, one.weight),
                design,
                str(one.noises),
                _shown(one, one.training, "one seed cannot tell", together),
                _shown(one, one.guide, unknown),
                _shown(one, one.noise, "not measured again"),
            ]
        )
    notes = (
        f"Standard deviations of one measurement at the end of a run, with {COVERAGE} intervals, and shares of its "
        "variance. Training seed: first weights and drawn examples, and how well a guide suits the run. Guide: which "
        "of the guides that the same training gives. Sampling noise: what samples start from, and the real examples "
        "that they are compared with. Arms of one seed share their noise and guides, so that differences vary less.",
    )
    return Table.of("Where the spread comes from", heads, rows, notes)


def _shown(spread: Spread, part: Component | None, unknown: str, aside: str = "") -> TableCell:
    """A component as a standard deviation, or why it is not known."""
    if part is None:
        return TableCell("-" if unknown else "", unknown)
    value, low, high = (number(math.sqrt(max(0.0, v)), spread.metric) for v in (part.variance, part.low, part.high))
    share = f"; {max(0.0, part.variance) / spread.total:.0%}" if spread.total else ""
    return TableCell(value, f"{low} to {high}{share}{f'; {aside}' if aside else ''}")
