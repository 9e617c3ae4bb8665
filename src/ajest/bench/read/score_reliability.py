"""How far an arm's scores can be trusted, from the ledgers of its runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from .intervals import mean_interval
from .results import Results
from .table import Table

#: What a ledger line says of scores, each with what it means.
QUANTITIES = {
    "test_retest": "repeats under new noise\n(rank correlation within sigma)",
    "sigma_eta_squared": "share of the score's variance\nthat is the noise level",
    "sigma_eta_squared_of_ranks": "the same of the score's ranks\n(no outlier counts for more)",
    "effective_sample_share": "effective sample size\nover super-batch",
    "agreement": "cheap scores against full ones\n(rank correlation within sigma)",
}

_CORRELATIONS = ("test_retest", "agreement")


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval; NaN where it cannot be known (see `mean_interval`)."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f}" if math.isnan(self.low) else f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


def score_reliability(results: Results) -> dict[str, dict[str, Estimate]]:
    """Mean over the ledger lines of each finished run, then over seeds, by arm and quantity; arms that score nothing
    are not there."""
    found: dict[str, dict[str, list[float]]] = {}
    for (arm, _), run in results.runs.items():
        lines = [line["scores"] for line in run.ledger if line.get("scores")] if run.state == "done" else []
        for name in QUANTITIES:
            values = [scores[name] for scores in lines if math.isfinite(scores.get(name, math.nan))]
            if values:
                found.setdefault(arm, {}).setdefault(name, []).append(fmean(values))
    return {arm: {name: _estimate(name, v) for name, v in parts.items()} for arm, parts in found.items()}


def _estimate(name: str, values: list[float]) -> Estimate:
    """The t interval of a few seeds may reach beyond what a correlation or a share can be: it ends there."""
    low, high = np.clip(mean_interval(np.array(values)), -1.0 if name in _CORRELATIONS else 0.0, 1.0)
    return Estimate(fmean(values), float(low), float(high))


def quantities(found: Mapping[str, Mapping[str, Estimate]]) -> dict[str, str]:
    """Those of the `QUANTITIES` that some arm has."""
    return {name: text for name, text in QUANTITIES.items() if any(name in parts for parts in found.values())}


def score_reliability_table(found: Mapping[str, Mapping[str, Estimate]]) -> Table:
    """`score_reliability` for people, with a dash where a quantity does not apply to an arm."""
    shown = quantities(found)
    rows = [[arm, *(str(parts[q]) if q in parts else "-" for q in shown)] for arm, parts in found.items()]
    notes = (
        "Means over the runs. A score that does not repeat when the same example is noised anew mostly measures the "
        "noise. One whose variance lies between noise levels mostly chooses noise levels.",
        "The effective sample size says how even the chances of being chosen are: 1 if all are equal. Measured beside "
        "training, at no cost to it.",
    )
    return Table.of(
        "Reliability of scores", ["arm", *(text.replace("\n", " ") for text in shown.values())], rows, notes
    )
