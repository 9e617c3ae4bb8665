"""Numbers, intervals and ends of runs in the words that people read."""

import math
import re

from ajest.bench.read.findings import findings
from ajest.bench.read.numbers import number, p_value
from ajest.bench.read.wording import ends, in_units, legend, metric_name, reach, shown
from ajest.bench.report.terminal import verdict_tables
from ajest.tasks.tree.task import METRICS
from conftest import small_bench
from made_up import BASE, TIME, ahead, at_time

ENERGY, MANDALA = (next(m for m in METRICS if m.name == name) for name in ("energy_distance", "mandala"))


def test_the_interval_below_a_mean_says_what_it_is_of_and_rests_on():
    """A mean beside the interval of a difference would else be read as the interval of the mean."""
    for seeds, kind, rest in (
        (4, "Student-t", "A bootstrap takes 5 seeds or more."),
        (6, "bootstrap", "Of fewer than 5 pairs it is Student's t."),
    ):
        results = at_time({"baseline": BASE[:seeds], "ajest": ahead(2, seeds)}, seeds=seeds)
        said = legend(results.config)
        assert (
            f'Below it, "minus baseline" is the 95 % paired {kind} interval of the difference to baseline. {rest}'
            in said
        )
        cell = shown(results, results.cell(*TIME[:1], "ajest", *TIME[1:]), ENERGY)
        assert re.fullmatch(r"minus baseline: -[\d.]+ to -[\d.]+", cell.detail)
        assert f"better on 100% of {seeds} seeds" in cell.tooltip
    assert "With fewer than 5, these intervals are Student's t." in legend(small_bench(guides=3))


def test_the_terminal_table_shows_gaps_intervals_and_missing_seeds():
    results = at_time({"baseline": BASE, "ajest": [*ahead(2)[:5], None], "random": ahead(1)})
    (table,) = verdict_tables(findings(results))
    arms, means, gaps, *guided = ([str(cell) for cell in column.cells] for column in table.columns)
    assert arms == ["baseline", "ajest", "random"]
    assert means == ["10333.3 (sd 1080.1)", "8460.0", "9333.3"]
    assert gaps[0] == ""
    assert gaps[1].startswith("-2040.0 (-2")
    assert gaps[1].endswith("; 5 of 6 seeds)")
    assert gaps[2].startswith("-1000.0 (-11")
    assert guided == [["-", "-", "-"], ["", "", ""]]
    assert [cell.style for cell in [*table.columns[2].cells][1:]] == ["", "green"]  # one lacks a seed
    assert str(table.columns[1].header) == "energy distance × 1000\n(lower is better)"
    assert str(table.columns[2].header) == "minus baseline\n(95 % interval)"
    assert "higher is better" in str(table.columns[3].header)


def test_words_for_numbers():
    shown_as = {0.5: "0.500", 12.345: "12.35", 123.4: "123.4", -0.0312: "-0.0312", 0.0: "0.000", 0.1: "0.100",
                10.0: "10.00", 100.0: "100.0", -12.0: "-12.00", 0.001: "0.0010", 0.00012: "0.00012",
                -1.2e-7: "-1.2e-07"}  # fmt: skip
    assert {v: number(v) for v in shown_as} == shown_as
    assert number(float("nan")) == "-"
    assert number(0.5, ENERGY) == "500.0"
    assert [p_value(p) for p in (math.nan, 0.0009, 0.001, 0.25)] == [
        "not testable",
        "p < 0.001",
        "p = 0.001",
        "p = 0.250",
    ]
    assert [metric_name(MANDALA, w) for w in (1, 3)] == ["mandala", "guided mandala"]
    amounts = (("flops", 2.5e13), ("samples", 1e6), ("steps", 4096.0), ("time_without_target", 12.0))
    assert [in_units(*b) for b in amounts] == [
        "25.00 TFLOP of the networks", "1,000,000 examples trained on", "4,096 steps", "12.00 s of training"
    ]  # fmt: skip


def test_an_interval_says_why_it_is_not_there():
    one = at_time({"baseline": BASE[:1], "ajest": ahead(2, 1)}, seeds=1).cell(
        "calibrated", "ajest", "energy_distance", 1.0
    )
    found = one.against["baseline"]
    assert reach(found, ENERGY) == "no interval: one seed"


def test_the_length_of_the_runs_is_said_for_every_end():
    said = {end: ends(small_bench(end=end)) for end in ("steps", "time", "time_without_target", "flops", "samples")}
    assert said == {
        "steps": "40 steps",
        "time": "40 steps of baseline, and for the others as much time",
        "time_without_target": "40 steps of baseline, and for the others as much time without the exact target",
        "flops": "40 steps of baseline, and for the others as many operations of the networks",
        "samples": "40 steps, or fewer for arms that train on more in a step: all train on as many examples",
    }
