"""Signs of what networks learned, and what they do to the headlines."""

from dataclasses import replace

import pytest

from ajest.bench.read.findings import findings
from ajest.bench.read.signs import by_sign_table, signs_table
from ajest.bench.report.drawing import Figures
from ajest.bench.report.markdown import as_markdown
from ajest.bench.report.page import render
from made_up import BASE, LEDGER, ahead, made_up

AT = {("calibrated", "energy_distance", 1.0): {"baseline": BASE, "ajest": ahead(2), "random": ahead(-3)}}
GAINS = {"baseline": (-0.3, -0.2, 0.4, -0.25, 0.5, -0.1), "ajest": (-0.3,) * 6, "random": (0.2,) * 6}


def results(gains=GAINS, guide=-0.3, values=AT):
    found = made_up(values)
    for (arm, seed), run in found.runs.items():
        line = LEDGER | ({"network": {"gain": gains[arm][seed]}} if arm in gains else {})
        found.runs[arm, seed] = replace(run, ledger=[LEDGER, line])
    return replace(found, guides=(replace(found.guide, ledger=[LEDGER | {"network": {"gain": guide}}]),))


def cells(table):
    return [[cell.value for cell in row] for row in table.rows]


def test_seeds_of_either_sign_are_named_and_so_is_the_guides():
    assert cells(signs_table(results())) == [
        ["guide", "gain", "1", "", "-0.3"],
        ["baseline", "gain", "0, 1, 3, 5", "2, 4", "-0.3 to 0.5"],
        ["ajest", "gain", "0, 1, 2, 3, 4, 5", "", "-0.3 to -0.3"],
        ["random", "gain", "", "0, 1, 2, 3, 4, 5", "0.2 to 0.2"],
    ]


def test_headlines_are_means_over_the_seeds_of_one_sign():
    table = by_sign_table(results(), "calibrated")
    rows = {(row[0], row[1]): row for row in cells(table)}
    below, above = "gain below 0", "gain above 0"
    assert list(rows) == [("baseline", below), ("baseline", above), ("ajest", below), ("random", above)]
    at = [head.value for head in table.heads].index(next(h.value for h in table.heads if "energy" in h.value))
    below, above = (rows["baseline", f"gain {side} 0"] for side in ("below", "above"))
    assert (below[2], above[2]) == ("4", "2")
    scale = 1000  # of the energy distance, as it is shown
    assert float(below[at].split(" ± ")[0]) == pytest.approx(scale * (10.0 + 12.0 + 11.0 + 9.5) / 4, rel=1e-3)
    assert float(above[at].split(" ± ")[0]) == pytest.approx(scale * (9.0 + 10.5) / 2, rel=1e-3)


def test_where_all_have_one_sign_nothing_is_parted_and_without_numbers_nothing_is_said():
    alike = dict.fromkeys(GAINS, (-0.3,) * 6)
    assert not by_sign_table(results(alike), "calibrated")
    assert findings(results(alike)).by_sign == ()
    assert signs_table(results(alike))
    assert not signs_table(made_up(AT))


def test_page_and_markdown_print_both():
    found = findings(results())
    for text in (as_markdown(found), render(found, Figures())):
        assert "Signs of what networks learned" in text
        assert "by the sign that training took" in text
