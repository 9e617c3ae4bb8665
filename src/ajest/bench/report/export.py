"""All numbers of a bench as plain data: what stands beside the report."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from ajest.bench.read.by_level import LevelCurves
from ajest.bench.read.findings import Findings
from ajest.bench.read.results import Results


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rows(results: Results) -> list[dict[str, Any]]:
    """A row for each metric of each arm at each budget, NaN as None."""
    found = []
    for cell in results.cells.values():
        base = cell.against.get(results.config.baseline)
        row: dict[str, Any] = {
            "budget": cell.budget,
            "amount": results.amounts[cell.budget],
            "arm": cell.arm,
            "metric": cell.metric,
            "guidance_weight": cell.weight,
            "n": cell.n,
            "seeds": len(cell.values),
            "mean": cell.mean,
            "sd": _finite(cell.sd),
        }
        for name in ("seeds", "difference", "low", "high", "interval", "better", "p"):
            row[f"vs_{results.config.baseline}_{name}"] = None if base is None else _finite(getattr(base, name))
        row["p_holm"] = None if base is None else _finite(base.corrected)
        row["delta"] = None if base is None else _finite(base.delta)
        row["p_equivalent_holm"] = None if base is None else _finite(base.corrected_equivalent)
        row["outcome"] = None if base is None else base.outcome
        row["guides"] = cell.guides
        found.append(row)
    return found


def _levels(curves: LevelCurves) -> dict[str, Any]:
    optimal = curves.optimal
    return {
        "sigma": curves.sigma,
        "optimal": optimal.value,
        "optimal_low": optimal.low,
        "optimal_high": optimal.high,
        "excess": curves.excess,
        "standard_error": {arm: [_finite(e) for e in errors] for arm, errors in curves.error.items()},
    }


def as_csv(findings: Findings) -> str:
    """A line for each metric of each arm at each budget; "" where nothing was evaluated."""
    table = rows(findings.results)
    out = io.StringIO()
    if table:
        writer = csv.DictWriter(out, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    return out.getvalue()


def as_json(findings: Findings) -> dict[str, Any]:
    """The verdict and every number, per seed, with ledgers' last lines."""
    results = findings.results
    return {
        "answer": findings.answer,
        "verdict": list(findings.verdict),
        "notes": list(findings.notes),
        "recommended": list(findings.recommended),
        "missing": list(findings.missing),
        "baseline": results.config.baseline,
        "amounts": results.amounts,
        "costs": results.costs,
        "real_data_reference": {str(n): metrics for n, metrics in results.real_data_reference.items()},
        "by_level": None if findings.levels is None else _levels(findings.levels),
        "rows": rows(results),
        "values": [
            {
                "budget": c.budget,
                "arm": c.arm,
                "metric": c.metric,
                "guidance_weight": c.weight,
                "by_seed": c.values,
                "by_guide": {k + 1: {s: v[k] for s, v in c.by_guide.items()} for k in range(c.guides) if c.by_guide},
                "against": {k: {a: _finite(b) for a, b in vars(v).items()} for k, v in c.against.items()},
            }
            for c in results.cells.values()
        ],
        "ledgers": [
            {"arm": r.arm, "seed": r.seed, "state": r.state, **(r.ledger[-1] if r.ledger else {})}
            for r in [*results.guides, *results.runs.values()]
        ],
    }
