"""Whether runs took the time that they were calibrated at, and ran what was compiled."""

from dataclasses import replace

import pytest

from ajest.bench.read.findings import findings
from ajest.bench.read.timing import fallbacks, step_times, timing_notes
from ajest.bench.report.drawing import Figures
from ajest.bench.report.markdown import as_markdown
from ajest.bench.report.page import render
from ajest.bench.report.tables import html_prose
from made_up import BASE, LEDGER, ahead, made_up

AT = {("calibrated", "energy_distance", 1.0): {"baseline": BASE, "ajest": ahead(2), "random": ahead(-3)}}
UNIFORM, SELECT, RANDOM = "uniform", "select jest guide 0.2", "random 0.2"


def with_ledgers(**lines):
    """Results whose runs of an arm end with this line of their ledgers."""
    results = made_up(AT)
    for (arm, seed), run in results.runs.items():
        if arm in lines:
            results.runs[arm, seed] = replace(run, ledger=[LEDGER, LEDGER | lines[arm]])
    return results


def timed(kind, steps, **seconds):
    return {"timed_by_kind": {kind: steps}, "seconds_by_kind": {kind: seconds}}


def test_steps_are_held_against_their_calibration_without_what_runs_share():
    # Calibrated: an update of 5 s; scoring, choosing and an update of 5 s; an update of 1 s.
    results = with_ledgers(
        baseline=timed(UNIFORM, 10, draw=99.0, target=0.0, update=70.0),
        ajest=timed(SELECT, 4, draw=0.1, **{"learner scoring": 8.0, "select": 4.0}, update=8.8),
        random=timed(RANDOM, 8, update=6.0, ema=1.0),
    )
    times = {time.arm: time for time in step_times(results)}
    assert {arm: time.kind for arm, time in times.items()} == {"baseline": UNIFORM, "ajest": SELECT, "random": RANDOM}
    assert times["baseline"].steps == 60  # of six seeds
    assert [times[arm].ratio for arm in ("baseline", "ajest", "random")] == pytest.approx([1.4, 1.04, 0.875])
    assert [arm for arm, time in times.items() if time.differs] == ["baseline"]
    note, why = timing_notes([*times.values()], {})
    assert note == "In the runs, steps of `baseline` took 1.40 times their calibrated seconds."
    assert why.endswith("equal time goes by the calibrated seconds.")
    note, _ = timing_notes([replace(times["random"], measured=0.5), times["baseline"]], {})
    assert "steps of `random` and `baseline` took 0.50 to 1.40 times" in note
    assert timing_notes([times["ajest"]], {}) == []


def test_runs_that_are_not_finished_or_were_not_timed_say_nothing():
    results = with_ledgers(ajest=timed(SELECT, 4, update=20.0), random=timed("select joint", 4, update=20.0))
    for seed in range(6):
        results.runs["ajest", seed] = replace(results.runs["ajest", seed], state="unfinished")
    assert step_times(results) == []  # of ledgers of older runs, of unfinished ones, of a kind without a calibration
    assert not findings(results).step_times_table


def test_networks_that_ran_eager_are_said_and_counted_in_every_format():
    eager = timed(UNIFORM, 10, update=80.0) | {"eager_calls": 700, "compilations": 3}
    results = with_ledgers(baseline=eager, random={"eager_calls": 0, "compilations": 2})
    assert fallbacks(results) == {"baseline": 4200}
    found = findings(results)
    said = [s for s in found.sentences if "fell back to eager" in s or "calibrated seconds" in s]
    assert said[0] == "A compiled network fell back to eager 4,200 times, in runs of `baseline`."
    assert said[1] == "In the runs, steps of `baseline` took 1.60 times their calibrated seconds."
    rows = {row[0]: dict(zip([h.value for h in found.used.heads], row, strict=True)) for row in found.used.texts()}
    assert [rows[a]["graphs compiled"] for a in ("baseline", "random", "ajest")] == ["3", "2", "0"]
    assert [rows[a]["calls that ran eager"] for a in ("baseline", "random", "ajest")] == ["700", "0", "0"]
    page, text = render(found, Figures()), as_markdown(found, Figures())
    for sentence in said:
        assert html_prose(sentence) in page
        assert sentence in text
    for printed in (page, text):
        assert found.step_times_table.title in printed
        assert "1.60" in printed
