"""Equivalent within delta: false alarms, power, and where delta comes from."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ajest.bench import compare
from ajest.bench.read.findings import findings
from ajest.bench.read.margins import FRACTION, margins, named, not_named
from ajest.bench.read.results import Run, compared
from ajest.bench.read.statistics import ALPHA, corrected, equivalence_p, holm, paired
from ajest.bench.report.export import rows
from ajest.bench.report.figures import OUTCOMES
from ajest.bench.report.forest import bench_forest
from ajest.bench.report.markdown import as_markdown
from ajest.errors import UserError
from conftest import small_bench
from made_up import BASE, NOISE, TIME, ahead, made_up

GAPS = np.array([0.02, -0.03, 0.01, 0.0, -0.01, 0.02])


def test_two_one_sided_tests_by_hand():
    low, high = (
        stats.ttest_1samp(GAPS, bound, alternative=side).pvalue for bound, side in ((-0.1, "greater"), (0.1, "less"))
    )
    assert equivalence_p(GAPS, 0.1) == pytest.approx(max(low, high))
    assert equivalence_p(-GAPS, 0.1) == pytest.approx(equivalence_p(GAPS, 0.1))
    assert math.isnan(equivalence_p(GAPS, math.nan))
    assert math.isnan(equivalence_p(np.full(6, 0.01), 0.1))


def test_margins_that_are_measured_bring_their_own_spread():
    """Differences and margins that hang on the same noise are tested together."""
    noise = np.array([0.05, -0.04, 0.03, -0.05, 0.02, -0.01])
    together = equivalence_p(noise, 0.1 + noise / 2)
    assert together == pytest.approx(stats.ttest_1samp(-1.5 * noise, 0.1, alternative="less").pvalue)
    assert together > equivalence_p(noise, 0.1)


def test_equivalent_is_certain_within_delta_and_not_certain_by_itself():
    theirs = np.linspace(1, 2, 6)
    assert compare(theirs + GAPS, theirs, delta=0.1).outcome == "equivalent"
    assert compare(theirs + GAPS, theirs, delta=0.02).outcome == "undecided"
    assert compare(theirs + GAPS, theirs).outcome == "undecided"
    assert compare(theirs[:4] + GAPS[:4], theirs[:4], delta=0.5).outcome == "undecided"
    lost = dict(enumerate(theirs))
    assert compare(dict(list(lost.items())[:5]), lost, delta=9.0).outcome == "undecided"
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UserError, match="delta must be a difference above 0"):
            compare(theirs, theirs + GAPS, delta=bad)


def test_a_certain_difference_within_delta_is_better_or_worse_and_said_to_be_small():
    theirs = np.linspace(1, 2, 6)
    found = compare(theirs + GAPS + 0.1, theirs, delta=0.5)
    assert (found.is_certain, found.is_within, found.outcome) == (True, True, "worse")
    assert str(found).endswith(": worse within 0.500")
    assert str(compare(theirs + GAPS, theirs, delta=0.1)).endswith(": equivalent within 0.1000")
    assert compare(theirs + GAPS + 0.1, theirs, delta=0.1).is_within is False


def test_the_whole_interval_lies_within_delta():
    found = compare(GAPS, np.zeros(6), delta=0.1)
    assert found.is_within
    assert not replace(found, high=0.1).is_within
    assert not replace(found, low=-0.1).is_within
    assert not replace(found, low=math.nan, high=math.nan).is_within
    assert not replace(found, corrected_equivalent=ALPHA).is_within


def test_what_is_equivalent_is_not_nominal():
    found = replace(compare(GAPS, np.zeros(6), delta=0.1), p=0.04, corrected=0.2)
    assert (found.outcome, found.is_nominal) == ("equivalent", False)
    assert replace(found, corrected_equivalent=0.2).is_nominal


@pytest.mark.parametrize("measured", [False, True])
def test_at_a_difference_of_delta_at_most_one_bench_in_twenty_calls_any_arm_equivalent(measured):
    """Six comparisons of one baseline, half of them better by delta and half worse; delta is given, or is a quarter of
    what the baseline itself gains, measured on the same seeds."""
    rng, benches, seeds = np.random.default_rng(3), 1200, 5
    delta, signs = 1.0, np.array([1, 1, 1, -1, -1, -1])
    false = 0
    for _ in range(benches):
        baseline = rng.normal(size=seeds)
        gaps = signs[:, None] * delta + rng.normal(size=(6, seeds)) - baseline
        gain = 4 * delta + baseline - rng.normal(size=seeds)
        allowed = FRACTION * gain if measured else np.full(seeds, delta)
        false += min(holm([equivalence_p(g, allowed) for g in gaps])) < ALPHA
    assert false / benches < ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / benches)


def test_equal_arms_of_little_spread_are_mostly_called_equivalent():
    """Spread of a third of delta: six comparisons, five seeds."""
    rng, benches = np.random.default_rng(4), 60
    found = 0
    for _ in range(benches):
        gaps = rng.normal(scale=1 / 3, size=(6, 5))
        family = [paired(dict(enumerate(g)), dict.fromkeys(range(5), 0.0), 1, range(5), dict.fromkeys(range(5), 1.0))
                  for g in gaps]  # fmt: skip
        found += sum(f.outcome == "equivalent" for f in corrected(family))
    assert found / (6 * benches) > 0.7


# Of a bench


def run(arm, seed, half, end, weight=1.0, metric="energy_distance"):
    lines = [
        {"step": step, "n": 256, "weight": weight, "clocks": {}, "metrics": {metric: value}}
        for step, value in ((20, half), (40, end))
        if value is not None
    ]
    return Run(arm, seed, "done", 40, "", [], lines, (20, 40))


def with_margins(by_arm, half, **config):
    """Made-up results whose baseline has these values at half of its run."""
    results = made_up({TIME: by_arm}, **config)
    ends = results.cell("calibrated", "baseline", "energy_distance", 1.0).values
    runs = results.runs | {("baseline", s): run("baseline", s, half[s], ends[s]) for s in ends}
    runs = {where: replace(r, ledger=results.runs[where].ledger) for where, r in runs.items()}
    cells = {where: replace(cell, against={}) for where, cell in results.cells.items()}
    allowed = margins(results.config, cells, runs)
    return replace(results, runs=runs, margins=allowed, cells=compared(results.config, cells, allowed))


CLOSE = [base + noise for base, noise in zip(BASE, NOISE, strict=True)]


def test_delta_is_a_fraction_of_what_the_baseline_gains_over_its_last_half():
    results = with_margins({"baseline": BASE, "ajest": CLOSE, "random": ahead(2.9)}, [b + 4 for b in BASE])
    assert results.delta(*TIME) == pytest.approx(FRACTION * 4)
    ajest, random = (results.cells["calibrated", a, "energy_distance", 1.0].against for a in ("ajest", "random"))
    assert (ajest["baseline"].outcome, ajest["random"].outcome) == ("equivalent", "worse")
    assert random["baseline"].outcome == "better"
    assert not_named(results) == []
    assert named(results, "calibrated") == [
        "Delta, within which arms count as equivalent, is 25% of what baseline gains over the last half of its run.",
        "For energy distance × 1000 it is 1000.0.",
    ]


def test_where_higher_is_better_a_gain_is_one_too():
    results = made_up({("calibrated", "mandala", 3.0): {"baseline": BASE, "ajest": CLOSE}})
    runs = {("baseline", s): run("baseline", s, BASE[s] - 8, BASE[s], 3.0, "mandala") for s in range(6)}
    (allowed,) = margins(results.config, results.cells, results.runs | runs).values()
    assert allowed == pytest.approx(dict.fromkeys(range(6), 2.0))


@pytest.mark.parametrize("half", [[b - 1 for b in BASE], [None] * 6, [14.0] * 5 + [None]])
def test_without_a_gain_nothing_is_equivalent_and_that_is_said_once(half):
    results = with_margins({"baseline": BASE, "ajest": CLOSE}, half)
    assert results.cells["calibrated", "ajest", "energy_distance", 1.0].against["baseline"].outcome == "undecided"
    assert named(results, "calibrated") == []
    said = [s for s in [*findings(results).missing, *findings(results).sentences] if "equivalent" in s]
    assert said == ["Nothing is called equivalent in energy distance × 1000; `--delta` allows it."]


def test_delta_can_be_a_share_of_the_baseline():
    results = with_margins({"baseline": BASE, "ajest": CLOSE}, [None] * 6, delta=0.05)
    assert results.margins[TIME] == pytest.approx({s: 0.05 * b for s, b in enumerate(BASE)})
    assert results.cells["calibrated", "ajest", "energy_distance", 1.0].against["baseline"].outcome == "equivalent"
    assert named(results, "calibrated") == [
        "Delta, within which arms count as equivalent, is 5 % of baseline.",
        "For energy distance × 1000 it is 516.7.",
    ]
    for bad in (0.0, -0.05, math.nan, math.inf):
        with pytest.raises(UserError, match="delta is a share of the baseline's value"):
            small_bench(delta=bad)


def test_a_curve_between_points_is_a_line():
    results = made_up({TIME: {"baseline": BASE[:1]}}, seeds=1, curve=(0.25, 0.75, 1.0))
    lines = [{"step": k, "n": 256, "weight": 1.0, "clocks": {}, "metrics": {"energy_distance": v}}
             for k, v in ((10, 9.0), (30, 5.0), (40, 3.0))]  # fmt: skip
    curve = {("baseline", 0): Run("baseline", 0, "done", 40, "", [], lines, (10, 30, 40))}
    assert margins(results.config, results.cells, curve) == {TIME: {0: pytest.approx(FRACTION * (7 - 3))}}


def test_every_format_shows_what_is_equivalent():
    results = with_margins({"baseline": BASE, "ajest": CLOSE, "random": ahead(0.5)}, [b + 8 for b in BASE])
    found = findings(results)
    assert found.answer == (
        "At equal time, `random` certainly beats `baseline` on energy distance × 1000, but nothing certainly beats "
        "random choice."
    )
    assert "At equal time, `ajest` is equivalent to `baseline` on energy distance × 1000." in found.sentences
    (headlines,) = found.headlines
    assert [row[2].tone for row in headlines.rows] == ["", "equivalent", "better"]
    assert "| ≈ 10333.3 (" in as_markdown(found)
    panel = bench_forest(results, "calibrated").axes[0]
    dots = [line.get_color() for line in panel.lines if line.get_marker() == "o"][
        1::2
    ]  # the means, each after its seeds
    assert dots == [OUTCOMES["equivalent"], OUTCOMES["better"]]
    (row,) = [r for r in rows(results) if r["arm"] == "ajest"]
    assert (row["outcome"], row["delta"]) == ("equivalent", pytest.approx(2.0))
    assert row["p_equivalent_holm"] < 0.05
