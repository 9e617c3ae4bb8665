"""All numbers of a bench as plain data: what stands beside the report."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import asdict
from typing import Any

from ajest.bench.read.results import Results


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def rows(results: Results) -> list[dict[str, Any]]:
    """The table as flat rows, NaN as None."""
    found = []
    for cell in results.cells.values():
        base = cell.against.get(results.config.baseline)
        row: dict[str, Any] = {
            "reading": cell.reading,
            "budget": results.budgets[cell.reading],
            "arm": cell.arm,
            "metric": cell.metric,
            "guidance_weight": cell.weight,
            "n": cell.n,
            "seeds": len(cell.values),
            "mean": cell.mean,
            "sd": _finite(cell.sd),
        }
        for name in ("seeds", "difference", "low", "high", "better", "p"):
            row[f"vs_{results.config.baseline}_{name}"] = None if base is None else _finite(getattr(base, name))
        row["p_holm"] = None if base is None else _finite(base.corrected)
        row["outcome"] = None if base is None else base.outcome
        found.append(row)
    return found


def as_csv(results: Results) -> str:
    table = rows(results)
    out = io.StringIO()
    if table:
        writer = csv.DictWriter(out, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    return out.getvalue()


def as_json(results: Results) -> dict[str, Any]:
    """Everything, per seed, with ledgers' last lines."""
    return {
        "baseline": results.config.baseline,
        "budgets": results.budgets,
        "costs": results.costs,
        "floors": {str(n): f for n, f in results.floors.items()},
        "missing": results.missing(),
        "rows": rows(results),
        "values": [
            {
                "reading": c.reading,
                "arm": c.arm,
                "metric": c.metric,
                "guidance_weight": c.weight,
                "by_seed": c.values,
                "against": {k: {a: _finite(b) for a, b in asdict(v).items()} for k, v in c.against.items()},
            }
            for c in results.cells.values()
        ],
        "ledgers": [
            {"arm": r.arm, "seed": r.seed, "state": r.state, **(r.ledger[-1] if r.ledger else {})}
            for r in [results.guide, *results.runs.values()]
        ],
    }
