"""How far an arm's scores can be trusted, from the ledgers of its runs."""

from __future__ import annotations

from statistics import fmean

from .results import Results

#: What a ledger line says of scores, each with what it means.
QUANTITIES = {
    "retest": "repeats under new noise\n(rank correlation within sigma)",
    "sigma share": "share of the score's variance\nthat is the noise level",
    "effective share": "effective sample size\nover super-batch",
    "agreement": "cheap scores against full ones\n(rank correlation within sigma)",
}


def reliability(results: Results) -> dict[str, dict[str, float]]:
    """Mean over all ledger lines of finished runs, by arm and quantity; arms that score nothing are not there."""
    found: dict[str, dict[str, list[float]]] = {}
    for (arm, _), run in results.runs.items():
        for line in run.ledger if run.state == "done" else ():
            for name, value in line.get("scores", {}).items():
                found.setdefault(arm, {}).setdefault(name, []).append(value)
    return {arm: {name: fmean(values) for name, values in parts.items()} for arm, parts in found.items()}


RELIABILITY_HEADS = ("arm", *(text.replace("\n", " ") for text in QUANTITIES.values()))


def reliability_rows(found: dict[str, dict[str, float]]) -> list[list[str]]:
    """`reliability` for people, under `RELIABILITY_HEADS`; a dash where a quantity does not apply."""
    return [[arm, *(f"{parts[q]:.2f}" if q in parts else "-" for q in QUANTITIES)] for arm, parts in found.items()]
