"""Findings are decided once, and every format prints the same ones."""

from dataclasses import replace

import pytest
from rich.console import Console

from ajest.bench.plan import operations
from ajest.bench.read import findings as deciding
from ajest.bench.read.findings import Findings, findings
from ajest.bench.read.table import Table, TableCell
from ajest.bench.report.drawing import Figures
from ajest.bench.report.export import as_csv, as_json
from ajest.bench.report.markdown import as_markdown, section
from ajest.bench.report.page import render
from ajest.bench.report.tables import html_prose, html_table, markdown_table, rich_table
from ajest.bench.report.terminal import verdict_lines, verdict_tables
from ajest.tasks.tree.task import TreeTask
from conftest import small_bench, small_task
from made_up import BASE, COSTS, ahead, made_up

AT = {
    ("calibrated", "energy_distance", 1.0): {"baseline": BASE, "ajest": ahead(2), "random": ahead(-3)},
    ("samples", "energy_distance", 1.0): {"baseline": BASE, "ajest": ahead(1), "random": ahead(1)},
}
ONCE = ("verdict", "selection_costs", "score_reliability", "time_to_quality_table", "published_table", "used_table",
        "decisive", "caution", "arms_table")  # fmt: skip


def printed(found: Findings) -> list[object]:
    """In every format."""
    figures = Figures()
    return [render(found, figures), as_markdown(found, figures), verdict_tables(found), as_json(found), as_csv(found)]


def test_each_finding_is_made_once_however_many_formats_print_it(monkeypatch):
    calls = []
    for name in ONCE:
        make = getattr(deciding, name)
        monkeypatch.setattr(deciding, name, lambda *a, name=name, make=make: calls.append(name) or make(*a))
    found = findings(made_up(AT))
    assert sorted(calls) == sorted(ONCE)
    printed(found)
    assert sorted(calls) == sorted(ONCE)


def test_networks_are_built_once_for_a_task_to_count_their_operations(monkeypatch):
    operations._counted.cache_clear()
    built, build = [], TreeTask.network
    monkeypatch.setattr(TreeTask, "network", lambda task, role, seed: built.append(role) or build(task, role, seed))
    for _ in range(2):
        printed(findings(made_up(AT, end="flops", task=replace(small_task(), hidden=24))))
    assert sorted(built) == ["guide", "learner"]


def test_operations_of_a_task_that_cannot_be_hashed_are_counted_too():
    class Listed(TreeTask):
        __hash__ = None

    task = Listed(**vars(small_task()))
    assert operations.network_costs(task) == operations.network_costs(small_task())


def test_all_formats_say_the_same_verdict_and_numbers():
    found = findings(made_up(AT))
    page, text, tables, data, _ = printed(found)
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        for table in tables:
            console.print(table)
    terminal = console.export_text()
    lines = verdict_lines(found)
    assert f"<h1>{html_prose(found.answer)}</h1>" in page
    assert f"\n\n**{found.answer}**\n\n" in text
    assert lines[0] == data["answer"] == found.answer
    assert found.verdict
    for sentence in [*found.verdict, *found.notes, *found.missing]:
        assert f"<li>{html_prose(sentence)}</li>" in page
        assert f"- {sentence}\n" in text
        assert f"- {sentence}" in lines
    assert [data[part] for part in ("verdict", "notes", "missing")] == [
        list(found.verdict), list(found.notes), list(found.missing)
    ]  # fmt: skip
    for table in found.headlines:
        for cell in (cell for row in table.rows for cell in row):
            assert cell.value in terminal
            assert cell.detail in terminal
    for table in found.tables:
        for cell in (cell for row in table.rows for cell in row):
            assert f">{cell.value}<" in page
            assert cell.value in text


def test_costs_are_by_the_clock_that_the_verdict_on_them_goes_by():
    at = {("time_without_target", "energy_distance", 1.0): AT["calibrated", "energy_distance", 1.0]}
    dear = COSTS | {"select jest guide 0.2": COSTS["select jest guide 0.2"] | {"target": 6.0}}
    found = findings(made_up(at, costs=dear, end="time_without_target"))
    assert any("costs 5.0 times" in sentence for sentence in found.sentences)
    assert found.costs[0].example_ratio == pytest.approx(7.5)  # the table is of whole steps


def test_what_was_not_measured_of_real_examples_is_said_below_an_empty_row():
    results = made_up(AT)
    (table, _) = findings(results).tables
    assert [cell.value for cell in table.rows[-1]] == ["real examples", "", ""]
    assert table.notes[-1].startswith("What 512 real examples reach was not measured")
    known = replace(results, real_data_reference={512: {"energy_distance": 0.002}})
    (table, _) = findings(known).tables
    assert [cell.value for cell in table.rows[-1]] == ["real examples", "", "2.000"]
    assert not any("not measured" in note for note in table.notes)
    (table, _) = findings(replace(results, real_data_reference={512: {}})).tables  # of a task that has none
    assert [row[0].value for row in table.rows] == ["baseline", "ajest", "random"]


# Tables

TABLE = Table.of(
    "A title",
    ["arm", TableCell("loss ↓", tone="headline")],
    [["one", TableCell("1 < 2", "sd 3", "better", 'so "it" is')], ["two", TableCell("4 | 5", tone="worse")]],
    ["A note.", "And another."],
)


def test_a_table_in_three_formats():
    html = html_table(TABLE)
    assert '<th class="headline">loss ↓</th>' in html
    assert '<td class="better" title="so &#34;it&#34; is">1 &lt; 2<small>sd 3</small></td>' in html
    assert '<tr><td>two</td><td class="worse">4 | 5</td></tr>' in html
    assert '<p class="note">A note. And another.</p>' in html
    assert markdown_table(TABLE).splitlines() == [
        "| arm | loss ↓ |", "| --- | --- |", "| one | **1 < 2** (sd 3) |", "| two | *4 \\| 5* |",
    ]  # fmt: skip
    assert section(TABLE, 3) == ["### A title", markdown_table(TABLE), "A note. And another."]
    assert section(Table.of("Nothing", ["arm"], [])) == []
    table = rich_table(TABLE)
    assert [[str(cell) for cell in column.cells] for column in table.columns] == [
        ["one", "two"],
        ["1 < 2 (sd 3)", "4 | 5"],
    ]
    assert [cell.style for cell in table.columns[1].cells] == ["green", "red"]
    assert [column.justify for column in table.columns] == ["left", "right"]


def test_a_turned_table_has_its_columns_as_rows():
    turned = TABLE.turned("metric")
    assert [head.value for head in turned.heads] == ["metric", "one", "two"]
    assert turned.texts() == [["loss ↓", "1 < 2", "4 | 5"]]
    assert (turned.rows[0][1], turned.title, turned.notes) == (TABLE.rows[0][1], TABLE.title, TABLE.notes)
    assert turned.turned("arm") == TABLE
    assert len(TABLE) == 2


def test_names_in_a_table_never_reach_a_page_unescaped():
    evil = replace(small_bench().arms[0], summary="<script>alert(1)</script>")
    page = render(findings(made_up(AT, arms=(evil, "ajest", "random"))), Figures())
    assert "<script>" not in page
