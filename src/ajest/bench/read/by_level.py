"""Loss by noise level where runs end: the least that any denoiser can have, and what arms have above it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from ajest.diffusion.optimal import OptimalLoss

from .results import Results, Run
from .table import Entry, Table, TableCell

#: An optimal loss below this is as good as none.
_HARDLY_ANY = 0.01
#: One of the numbers of a row for each range of noise levels.
Curve = tuple[float, ...]


@dataclass(frozen=True)
class LevelCurves:
    """Means over seeds, for each range of noise levels, lowest first.

    Attributes:
        sigma: middle of each range.
        excess: by arm the loss above the least one, or above the estimate of that.
        error: by arm the standard error of that over seeds; NaN with one.
        optimal: the least loss.
    """

    sigma: Curve
    excess: Mapping[str, Curve]
    error: Mapping[str, Curve]
    optimal: OptimalLoss


def level_curves(results: Results) -> LevelCurves | None:
    """What the evaluations at the final budget say; None where there are none, or the least loss is not known."""
    found = {arm: [line for run in _done(results, arm) if (line := _last(results, run))] for arm in results.arms}
    found = {arm: lines for arm, lines in found.items() if lines}
    optimal = results.optimal_loss
    if optimal is None or not found:
        return None
    first = next(iter(found.values()))
    kind, least = ("excess", (0.0,) * len(optimal.value)) if "excess" in first[0] else ("loss", optimal.value)
    excess, error = {}, {}
    for arm, lines in found.items():
        by_range = list(zip(*(line[kind] for line in lines), strict=True))
        excess[arm] = tuple(fmean(values) - below for values, below in zip(by_range, least, strict=True))
        error[arm] = tuple(stdev(v) / math.sqrt(len(v)) if len(v) > 1 else math.nan for v in by_range)
    sigma = tuple(map(fmean, zip(*(line["sigma"] for line in first), strict=True)))
    return LevelCurves(sigma, excess, error, optimal)


def _done(results: Results, arm: str) -> list[Run]:
    runs = (results.runs[arm, seed] for seed in results.config.seeds)
    return [run for run in runs if run.state == "done"]


def _last(results: Results, run: Run) -> Mapping[str, Sequence[float]] | None:
    """Means by level of a run, unguided, where the final budget is read."""
    budget = results.config.final_budget
    step, n = run.reached.get(budget, {}).get(results.amounts.get(budget, math.nan)), results.config.n_of(budget)
    wanted = (step, n, 1.0, 0)
    lines = [x for x in run.lines if (x["step"], x["n"], x["weight"], x.get("noise", 0)) == wanted and "by_level" in x]
    return lines[-1]["by_level"] if lines else None


def level_table(curves: LevelCurves | None) -> Table:
    """Arms down, noise levels across; the first row is the least loss."""
    title = "Excess loss by noise level"
    if curves is None:
        return Table.of(title, (), ())
    optimal = curves.optimal
    bounds = zip(optimal.value, optimal.low, optimal.high, strict=True)
    least = [TableCell(f"{v:.3g}", "" if optimal.exact else f"{a:.2g} to {b:.2g}", "aside") for v, a, b in bounds]
    rows: list[list[Entry]] = [[TableCell("optimal loss", tone="aside"), *least]]
    for arm, values in curves.excess.items():
        errors = ("" if math.isnan(e) else f"± {e:.1g}" for e in curves.error[arm])
        cells = (TableCell(f"{v:.3g}", tooltip=e) for v, e in zip(values, errors, strict=True))
        rows.append([arm, *cells])
    heads = ("σ", *(f"{sigma:.2g}" for sigma in curves.sigma))
    return Table.of(title, heads, rows, _notes(curves))


def _notes(curves: LevelCurves) -> list[str]:
    parts = len(curves.sigma)
    said = [f"Columns are the middles of {parts} ranges of the noise level, equally likely in training."]
    known = zip(curves.optimal.error, curves.optimal.value, strict=True)
    share = max((e / v for e, v in known if v > _HARDLY_ANY), default=0.0)
    error = f"The optimal loss has a standard error of at most {share:.1%} of it."
    if curves.optimal.exact:
        return [
            *said,
            "A loss against clean examples is the optimal one, which no denoiser can go below, plus the excess.",
            error,
        ]
    return [
        *said,
        "The optimal loss is estimated from the data set (cDOL); its bounds stand in brackets.",
        error,
        "Excess is the loss on held-out examples above that estimate.",
        "Where the bounds are far apart, the data are too few: their own optimum knows them by heart.",
    ]
