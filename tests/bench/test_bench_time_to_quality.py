"""Time- and samples-to-quality, from made-up learning curves."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajest.bench.read.results import Run
from ajest.bench.read.time_to_quality import crossing, median_needed, time_to_quality, time_to_quality_table
from made_up import made_up


def test_a_curve_crosses_where_the_line_between_its_points_does():
    assert crossing([(1.0, 0.9), (2.0, 0.5), (3.0, 0.1)], 0.3, -1) == pytest.approx(2.5)
    assert crossing([(1.0, 0.9), (3.0, 0.1)], 0.7, -1) == pytest.approx(1.5)
    assert crossing([(1.0, 0.1), (3.0, 0.9)], 0.3, 1) == pytest.approx(1.5)
    assert crossing([(1.0, 0.2), (2.0, 0.5)], 0.3, -1) == 1.0
    assert crossing([(1.0, 0.9), (2.0, 0.3)], 0.3, -1) == pytest.approx(2.0)
    assert crossing([(1.0, 0.2), (2.0, 0.5)], 0.6, 1) is None
    assert crossing([(1.0, 0.9), (2.0, 0.2), (3.0, 0.9), (4.0, 0.1)], 0.5, -1) == pytest.approx(1 + 4 / 7)
    assert crossing([], 0.5, 1) is None


def test_seeds_that_never_get_there_stand_behind_all_others():
    assert median_needed([10, 20, 30, None, None]) == 30
    assert median_needed([30, None, 10, None, 20]) == 30
    assert median_needed([10, 20, 30]) == 20
    assert median_needed([10, 20, None, None]) == 20
    assert median_needed([10, 20, 30, 40]) == 20
    assert median_needed([7]) == 7
    for never in ([], [None], [10, None, None], [10, 20, None, None, None]):
        assert math.isnan(median_needed(never))


@given(st.lists(st.floats(1, 100), min_size=1, max_size=9), st.integers(0, 9))
def test_failing_never_makes_the_median_smaller(times, fail):
    before, after = median_needed(times), median_needed([*times[: -fail or None], *[None] * min(fail, len(times))])
    assert math.isnan(after) or after >= before


def curve(arm, seed, values, state="done", every=100, weight=1.0, metric="energy_distance", n=256):
    """A run whose learning curve has these values; None is a point that was not evaluated."""
    lines = [
        {
            "step": k,
            "n": n,
            "weight": weight,
            "clocks": {"samples": every * k, "calibrated": 2.0 * k},
            "metrics": {metric: v},
        }
        for k, v in enumerate(values, 1)
        if v is not None
    ]
    return Run(arm, seed, state, len(values), "", [], lines, tuple(range(1, len(values) + 1)))


def with_curves(*runs, seeds):
    results = made_up({}, seeds=seeds)
    found = {key: replace(run, state="unfinished") for key, run in results.runs.items()}
    return replace(results, runs=found | {(run.arm, run.seed): run for run in runs})


def test_what_an_arm_needs_to_get_where_the_baseline_ends():
    results = with_curves(
        curve("baseline", 0, (9.0, 5.0, 1.0)),
        curve("baseline", 1, (9.0, 7.0, 3.0)),
        curve("ajest", 0, (6.0, 2.0, 1.0)),
        curve("ajest", 1, (4.0, 3.0, 2.5)),
        curve("random", 0, (9.0, 1.0, 1.0), state="unfinished"),
        curve("random", 1, (9.0, 8.0, None)),
        seeds=2,
    )
    baseline, ajest = time_to_quality(results)
    assert (baseline.arm, ajest.arm, baseline.metric.name, baseline.weight) == (
        "baseline",
        "ajest",
        "energy_distance",
        1.0,
    )
    assert baseline.target == ajest.target == 2.0
    assert (baseline.reached, baseline.seeds, ajest.reached, ajest.seeds) == (1, 2, 1, 2)
    assert baseline.needed == {"calibrated": 5.5, "samples": 275.0}
    assert ajest.needed == {"calibrated": 4.0, "samples": 200.0}
    assert time_to_quality_table(results).texts() == [
        ["energy distance × 1000 2000.0", "baseline", "5.5", "275", "1 of 2"],
        ["energy distance × 1000 2000.0", "ajest", "4", "200", "1 of 2"],
    ]


def test_a_run_that_diverged_never_got_there():
    """Else the arm that fails most would need least."""
    fast, slow = (9.0, 1.0, 1.0), (9.0, 8.0, 1.0)
    runs = [curve("baseline", s, (9.0, 5.0, 2.0)) for s in range(3)]
    runs += [curve("ajest", s, values) for s, values in enumerate((fast, slow))]
    whole = time_to_quality(with_curves(*runs, curve("ajest", 2, fast), seeds=3))[1]
    lost = time_to_quality(with_curves(*runs, curve("ajest", 2, fast, state="diverged"), seeds=3))[1]
    assert (whole.reached, whole.seeds, lost.reached, lost.seeds) == (3, 3, 2, 3)
    assert whole.needed["samples"] == pytest.approx(187.5)
    assert lost.needed["samples"] == pytest.approx(100 * (2 + 6 / 7))
    never = time_to_quality(with_curves(*runs[:3], curve("ajest", 0, fast, state="diverged"), seeds=3))[1]
    assert (never.reached, never.seeds) == (0, 1)
    assert math.isnan(never.needed["calibrated"])


def test_curves_of_other_sizes_weights_and_metrics_are_not_mixed():
    target = curve("baseline", 0, (9.0, 2.0))
    assert time_to_quality(with_curves(seeds=1)) == []
    for other in ({"n": 512}, {"weight": 3.0}, {"metric": "loss"}):
        assert time_to_quality(with_curves(curve("baseline", 0, (9.0, 2.0), **other), seeds=1)) == []
        (alone,) = time_to_quality(with_curves(target, curve("ajest", 0, (9.0, 1.0), **other), seeds=1))
        assert alone.arm == "baseline"
    guided = curve("baseline", 0, (0.2, 0.6), metric="mandala", weight=3.0)
    (found,) = time_to_quality(with_curves(guided, seeds=1))
    assert (found.weight, found.target, found.needed["samples"]) == (3.0, 0.6, 200)
    assert time_to_quality_table(with_curves(guided, seeds=1)).texts()[0][0] == "guided mandala 0.600"


def test_points_that_are_missing_on_the_way_are_passed_over():
    results = with_curves(curve("baseline", 0, (9.0, None, 5.0, 1.0)), seeds=1)
    assert time_to_quality(results)[0].needed["samples"] == 400
    unmeasured = curve("ajest", 0, (9.0, 1.0))
    unmeasured.lines[0]["clocks"].pop("calibrated")
    found = time_to_quality(with_curves(curve("baseline", 0, (9.0, 5.0)), unmeasured, seeds=1))
    assert found[1].needed == {"samples": 150.0, "calibrated": 4.0}


def test_a_dash_stands_where_fewer_than_half_got_there():
    runs = [curve("baseline", 0, (9.0, 2.0)), curve("ajest", 0, (9.0, 8.0))]
    assert time_to_quality_table(with_curves(*runs, seeds=1)).texts()[1] == [
        "energy distance × 1000 2000.0",
        "ajest",
        "-",
        "-",
        "0 of 1",
    ]
