"""All numbers of a bench as Parquet: a row for each metric of each arm at each budget."""

from __future__ import annotations

import importlib
import io
import json
from pathlib import Path
from typing import Any

from ajest import __version__
from ajest.bench.read.findings import Findings
from ajest.errors import UserError
from ajest.storage.checkpoint import write_atomic

from .export import rows

#: Name, type and meaning of each column.
SCHEMA = (
    ("budget", "string", "what is equal"),
    ("amount", "double", "how much of it"),
    ("arm", "string", "its name"),
    ("metric", "string", "its name"),
    ("guidance_weight", "double", "1 is without guidance"),
    ("n", "int64", "samples of an evaluation"),
    ("guides", "int64", "that runs were measured with; 0 for none"),
    ("seeds", "list<int64>", "of the runs"),
    ("values", "list<double>", "of the metric, by seed"),
    ("mean", "double", "over seeds"),
    ("sd", "double", "over seeds"),
    ("baseline", "string", "the arm that differences are taken to"),
    ("paired_seeds", "int64", "that both arms have"),
    ("difference", "double", "to the baseline, mean over paired seeds"),
    ("low", "double", "lower end of its 95 % interval"),
    ("high", "double", "upper end of its 95 % interval"),
    ("interval", "string", "what that rests on: bootstrap, or t, Student's, of few pairs"),
    ("better", "double", "share of pairs of runs in which the arm is better; ties count half"),
    ("p", "double", "of no difference"),
    ("p_holm", "double", "the same, corrected for the headlines tested together"),
    ("delta", "double", "the difference that counts as equivalent"),
    ("p_equivalent_holm", "double", "of a larger difference, corrected"),
    ("outcome", "string", "better, worse, equivalent or undecided"),
)


def check_library() -> None:
    """Raise a UserError where pyarrow is not installed."""
    _library("pyarrow")


def write_parquet(path: Path, findings: Findings) -> int:
    """Write a bench's numbers; returns how many rows. The file's metadata hold the answer under the key `ajest`, as
    JSON.

    Raises:
        UserError: pyarrow is not installed, or the file cannot be written.
    """
    arrow, library = _library("pyarrow"), _library("pyarrow.parquet")
    results = findings.results
    kinds = {"list<int64>": arrow.list_(arrow.int64()), "list<double>": arrow.list_(arrow.float64())}
    kinds |= {"string": arrow.string(), "double": arrow.float64(), "int64": arrow.int64()}
    about = {"version": __version__, "task": results.config.task.subject, "answer": findings.answer}
    fields = [arrow.field(name, kinds[kind]) for name, kind, _ in SCHEMA]
    schema = arrow.schema(fields, metadata={"ajest": json.dumps(about)})
    base = results.config.baseline
    found: list[dict[str, Any]] = []
    for row, cell in zip(rows(results), results.cells.values(), strict=True):
        named = {
            name.removeprefix(f"vs_{base}_"): value for name, value in row.items() if name.startswith(f"vs_{base}_")
        }
        by_seed = {"seeds": list(cell.values), "values": list(cell.values.values())}
        found.append(row | named | {"baseline": base, "paired_seeds": named["seeds"]} | by_seed)
    buffer = io.BytesIO()
    library.write_table(arrow.Table.from_pylist(found, schema=schema), buffer)
    write_atomic(path, buffer.getvalue())
    return len(found)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError("Parquet needs the package pyarrow: pip install 'ajest[parquet]'") from error
