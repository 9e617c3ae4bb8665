"""Results as Parquet, by a schema that the documentation states."""

import json
import re
from pathlib import Path

import pytest

from ajest.bench.read.findings import findings
from ajest.bench.report.export import rows
from ajest.bench.report.parquet import SCHEMA, write_parquet
from ajest.errors import UserError
from made_up import BASE, ahead, made_up

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "resume-and-export.md"


def found():
    return findings(made_up({("calibrated", "energy_distance", 1.0): {"baseline": BASE, "ajest": ahead(2)}}))


def test_the_documentation_states_the_schema():
    stated = re.findall(r"^\| `(\w+)` \| ([\w<>]+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    assert stated == list(SCHEMA)


def test_every_number_is_there(tmp_path):
    library = pytest.importorskip("pyarrow.parquet")
    results = found()
    assert write_parquet(tmp_path / "results.parquet", results) == len(results.results.cells)
    table = library.read_table(tmp_path / "results.parquet")
    assert [(field.name, re.sub("element: ", "", str(field.type))) for field in table.schema] == [
        (name, kind) for name, kind, _ in SCHEMA
    ]
    assert json.loads(table.schema.metadata[b"ajest"])["answer"] == results.answer
    for row, known, cell in zip(table.to_pylist(), rows(results.results), results.results.cells.values(), strict=True):
        assert dict(zip(row["seeds"], row["values"], strict=True)) == cell.values
        assert row["difference"] == known["vs_baseline_difference"]
        assert (row["arm"], row["outcome"], row["p_holm"]) == (known["arm"], known["outcome"], known["p_holm"])


def test_without_pyarrow_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"Parquet needs the package pyarrow: pip install 'ajest\[parquet\]'"):
        write_parquet(tmp_path / "results.parquet", found())
