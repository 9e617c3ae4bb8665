"""Findings of a study are decided once, and page, JSON and figures print the same ones."""

import json
from collections import Counter
from dataclasses import FrozenInstanceError, replace

import pytest
from test_study_verdict import COSTS, made

from ajest.bench.read.recommendation import as_json
from ajest.selection.catalogue import ARMS
from ajest.study import findings as deciding
from ajest.study import results as reading
from ajest.study.figures import draw
from ajest.study.findings import TIMED, findings
from ajest.study.page import render, write_page
from ajest.study.presets import tree_full
from ajest.study.results import StudyResults, read_study

SCORED = {ARMS["hard"].kinds()[0].label: {"learner scoring": 1.0, "update": 1.0, "target": 1.0}}
ARMS_MADE = {"baseline": 0, "random": 2, "hard": 6}
DECIDED = ("verdict", "recommended", "score_reliability", "guides_table", "screening_table", "headline_table",
           "other_metrics_table", "matches", "heatmaps")  # fmt: skip


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A study's folder, its plan and its benches by folder: all but the guides."""
    study = replace(tree_full(), final_ends=("time", "time_without_target", "samples"))
    benches = {}
    for stage in ("screening", "dials", "final"):
        for name in study.folders(stage):
            folder = tmp_path / stage / name
            folder.mkdir(parents=True)
            (folder / "bench.json").write_text("{}")
            benches[folder] = made(ARMS_MADE, end=name, costs=COSTS | SCORED)
    monkeypatch.setattr(reading, "read", lambda folder: benches[folder])
    return tmp_path, study, benches


def counting(monkeypatch, module, name, calls):
    """Count the calls of a function by what it was given first."""
    make = getattr(module, name)

    def counted(first, *others):
        calls[name].append(first)
        return make(first, *others)

    monkeypatch.setattr(module, name, counted)


def test_a_page_reads_tests_and_prices_each_bench_once(stored, monkeypatch):
    root, study, benches = stored
    calls = {name: [] for name in ("read", "pairwise_tests", "selection_costs", *DECIDED)}
    for name in ("read", "pairwise_tests", "selection_costs"):
        counting(monkeypatch, reading, name, calls)
    for name in DECIDED:
        counting(monkeypatch, deciding, name, calls)
    found = write_page(root, study, "the command")
    final, screened = found.results.final, found.results.screening
    assert sorted(calls["read"]) == sorted(benches)
    assert [id(bench) for bench in calls["pairwise_tests"]] == [id(bench) for bench in final.values()]
    timed = [bench for bench in final.values() if bench.config.final_budget in TIMED]
    assert len(timed) == 2
    priced = [*timed, next(iter(screened.values())), *found.results.dials.values()]
    assert Counter(id(config) for config in calls["selection_costs"]) == Counter(id(b.config) for b in priced)
    a_page = Counter(verdict=1, score_reliability=1, guides_table=1, screening_table=1)
    a_budget = Counter(dict.fromkeys(("recommended", "headline_table", "other_metrics_table", "matches"), len(final)))
    a_grid = Counter(heatmaps=len(study.grids))
    assert {name: len(calls[name]) for name in DECIDED} == a_page + a_budget + a_grid
    before = {name: len(called) for name, called in calls.items()}
    assert render(found, draw(found), "the command") == (root / "study.md").read_text()
    assert {name: len(called) for name, called in calls.items()} == before


def test_page_json_and_figures_say_what_the_findings_say(stored):
    root, study, _ = stored
    found = write_page(root, study, "the command")
    page = (root / "study.md").read_text()
    assert page.startswith(f"# Study: tree\n\n**{found.verdict[0]}**\n\n![")
    for line in (*found.verdict[1:], *(" ".join(r.sentences()) for r in found.recommendations)):
        assert f"- {line}\n" in page
    assert len(found.recommendations) == len(study.final_ends)
    assert {r.arm for r in found.recommendations} == {"hard"}
    assert json.loads((root / "recommendations.json").read_text()) == as_json("tree", list(found.recommendations))
    for bench in found.final:
        for cell in (
            cell for table in (bench.headlines, bench.other_metrics, bench.costs) for row in table.rows for cell in row
        ):
            assert cell.value in page
    for figure in draw(found).all():
        assert f"![{figure.caption}]({figure.name})" in page
        assert (root / figure.name).read_bytes() == figure.content.data
    assert {"screening", "dials", "final"} == {path.stem for path in root.glob("*.json")} - {"recommendations"}
    with pytest.raises(FrozenInstanceError):
        found.verdict = ()


def test_an_unfinished_final_recommends_nothing_and_takes_back_what_it_said(stored):
    root, study, benches = stored
    write_page(root, study, "the command")
    assert (root / "recommendations.json").exists()
    late = root / "final" / "time"
    run = benches[late].runs["hard", 0]
    benches[late] = replace(benches[late], runs=benches[late].runs | {("hard", 0): replace(run, state="unfinished")})
    found = write_page(root, study, "the command")
    assert found.recommendations == ()
    assert not (root / "recommendations.json").exists()
    assert "## Recommendation" not in (root / "study.md").read_text()
    assert found.missing
    assert all(f"- {sentence}\n" in (root / "study.md").read_text() for sentence in found.missing)


def test_a_study_that_has_not_begun_says_what_it_asks_alone(tmp_path):
    study = tree_full()
    results = read_study(tmp_path, study)
    assert results == StudyResults({}, {}, {})
    found = findings(study, results)
    assert (found.verdict, found.recommendations, found.missing, found.final, found.dials) == ((), (), (), (), ())
    assert draw(found).all() == []
    page = render(found, draw(found), "the command")
    assert page.startswith("# Study: tree\n")
    assert [line for line in page.splitlines() if line.startswith("## ")] == ["## What is studied"]
