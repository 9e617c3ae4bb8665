import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from ajest.bench import compare
from ajest.bench.read.intervals import interval_kind, least_for_bootstrap, mean_interval, varies
from ajest.bench.read.statistics import corrected, holm, paired, paired_p
from ajest.errors import UserError


@pytest.mark.parametrize("n", [3, 5, 8])
def test_intervals_cover_the_truth_about_as_often_as_they_say(n):
    rng = np.random.default_rng(n)
    inside = [low <= 0 <= high for low, high in (mean_interval(rng.normal(size=n)) for _ in range(400))]
    assert 0.89 <= np.mean(inside) <= 0.98


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=7))
def test_an_interval_holds_the_mean_and_moves_with_the_data(values):
    values = np.array(values)
    assume(varies(values) and np.ptp(values) > 1e-9)
    low, high = mean_interval(values)
    assert low - 1e-9 <= values.mean() <= high + 1e-9
    shifted = mean_interval(values + 10)
    assert shifted == pytest.approx((low + 10, high + 10), abs=1e-6)


def test_too_few_values_have_no_interval():
    assert all(math.isnan(v) for v in mean_interval(np.array([1.0])))
    assert math.isnan(paired_p(np.array([1.0])))


def test_paired_p_is_the_t_test():
    gaps = np.array([0.3, -0.1, 0.4, 0.2, 0.25])
    assert paired_p(gaps) == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue)
    assert paired_p(-gaps) == paired_p(gaps)
    assert paired_p(gaps[:2]) == pytest.approx(stats.ttest_1samp(gaps[:2], 0).pvalue)


@pytest.mark.parametrize("gap", [0.0, 1.0, 0.1, -3e-5])
def test_values_that_are_all_the_same_have_no_interval_and_no_p(gap):
    for gaps in (np.full(3, gap), np.full(20, gap)):
        assert math.isnan(paired_p(gaps))
        assert all(math.isnan(v) for v in mean_interval(gaps))
    base = {s: 900 + 0.37 * s for s in range(6)}
    found = paired({s: v + gap for s, v in base.items()}, base, 1, base)  # the same but for rounding
    assert math.isnan(found.p)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_a_spread_that_can_be_measured_is_tested():
    assert not varies(np.array([1.0]))
    assert not varies(np.array([1.0, 1.0 + 1e-8]))
    assert varies(np.array([1.0, 1.0 + 2e-7]))
    assert not varies(np.array([1.0, 1.0 + 2e-7]), scale=10)
    assert varies(np.array([1e-9, 2e-9]))
    assert not varies(np.zeros(4))
    base = dict.fromkeys(range(6), 900.0)
    assert paired({s: 901 + 0.01 * s for s in base}, base, 1, base).p < 1e-6


def test_intervals_by_hand():
    """Two values: the t interval with one degree of freedom. Five: percentiles of all 3125 means."""
    low, high = mean_interval(np.array([1.0, 2.0]))
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 1, loc=1.5, scale=0.5))
    values = np.array([0.3, -0.1, 0.4, 0.2, 0.25])
    tail = stats.norm.cdf(-stats.t.ppf(0.975, 4) * np.sqrt(5 / 4))
    means = np.array(np.meshgrid(*[values] * 5)).reshape(5, -1).mean(0)
    assert mean_interval(values) == pytest.approx(tuple(np.quantile(means, [tail, 1 - tail])))
    wide, narrow = (mean_interval(values, level) for level in (0.99, 0.8))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_an_interval_of_few_pairs_is_called_students():
    """Percentiles of 4 values reach no further than the rarest resample; several looks ask for rarer ones."""
    pairs = [2, 3, 4, 5, 6]
    values = {n: compare(np.arange(1.0, n + 1) ** 2, np.zeros(n)) for n in pairs}
    assert [values[n].interval for n in pairs] == ["t", "t", "t", "bootstrap", "bootstrap"]
    assert "(95 % Student-t interval " in str(values[4])
    assert "(95 % interval " in str(replace(values[4], interval=""))  # as it was stored when none said
    assert compare([1.0], [2.0]).interval == ""
    assert (least_for_bootstrap(), least_for_bootstrap(0.999)) == (5, 9)
    for n, kind in ((4, "t"), (6, "bootstrap")):
        low, high = mean_interval(np.arange(n) ** 2.0)
        by_t = stats.t.interval(0.95, n - 1, np.mean(np.arange(n) ** 2), stats.sem(np.arange(n) ** 2))
        assert ((low, high) == pytest.approx(by_t)) == (kind == "t")
    assert (interval_kind((20, 3)), interval_kind((4, 9)), interval_kind((20, 5))) == ("t", "t", "bootstrap")


def test_many_values_are_resampled():
    values = np.random.default_rng(1).normal(1, 1, 40)
    low, high = mean_interval(values)
    assert (low, high) == mean_interval(values)
    assert (low, high) == pytest.approx((0.6961046582708067, 1.2996023927222817), rel=1e-7)  # same seed, same numbers
    assert (low, high) == pytest.approx(
        stats.t.interval(0.95, 39, values.mean(), values.std(ddof=1) / 40**0.5), abs=0.03
    )


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, math.nan, 0.5])[0] == pytest.approx(1.0)
    assert math.isnan(holm([0.9, math.nan])[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_never_lowers_a_p_and_keeps_their_order(p):
    corrected = holm(p)
    assert all(c >= q - 1e-12 for c, q in zip(corrected, p, strict=True))
    assert max(corrected) <= 1
    order = np.argsort(p, kind="stable")
    assert np.all(np.diff(np.array(corrected)[order]) >= -1e-12)


def test_compare_pairs_by_seed():
    found = paired({1: 0.5, 2: 0.7, 3: 0.9}, {2: 0.6, 3: 1.0, 9: 5.0}, sign=-1, planned=(1, 2, 3, 9))
    assert (found.seeds, found.missing) == (2, 2)
    assert found.difference == pytest.approx(0.0)
    assert (found.value, found.other) == pytest.approx((0.8, 0.8))
    assert found.better == 0.5
    assert found.p == pytest.approx(1)
    assert paired({1: 0.5}, {2: 0.5}, 1, (1, 2)) is None
    one = paired({1: 2.0}, {1: 1.0}, 1, (1,))
    assert (one.better, one.missing, one.improvement) == (1, 0, 1)
    assert math.isnan(one.p)
    tie = paired({1: 2.0, 2: 1.0, 3: 1.0, 4: 1.0}, {1: 1.0, 2: 2.0, 3: 3.0, 4: 1.0}, 1, range(1, 5))
    assert tie.better == pytest.approx((1 + 0.5) / 4)


def certainty(gaps, sign=1, planned=None):
    base = dict.fromkeys(range(len(gaps)), 0.0)
    (found,) = corrected([paired(dict(enumerate(gaps)), base, sign, range(planned or len(gaps)))])
    return found.outcome


def test_certain_is_a_low_p_from_five_seeds_none_missing():
    gaps = [1.0, 1.1, 0.9, 1.05, 0.95]
    assert certainty(gaps) == certainty([-g for g in gaps], sign=-1) == "better"
    assert certainty(gaps, sign=-1) == certainty([-g for g in gaps]) == "worse"
    assert certainty(gaps[:4]) == "undecided"
    assert certainty(gaps, planned=6) == "undecided"
    assert certainty([1.0, -0.9, 1.0, -0.8, 1.0]) == "undecided"
    assert certainty([1.0] * 8) == "undecided"
    lone = paired(dict(enumerate(gaps)), dict.fromkeys(range(5), 0.0), 1, range(5))
    assert lone.p < 0.001
    assert lone.outcome == "undecided"  # in no family


def test_a_p_at_the_level_is_not_below_it():
    found = paired({s: 1 + 0.1 * s for s in range(5)}, dict.fromkeys(range(5), 0.0), 1, range(5))
    assert replace(found, corrected=0.05).outcome == "undecided"
    assert replace(found, corrected=0.0499).outcome == "better"


def test_a_family_is_corrected_together():
    base = dict.fromkeys(range(6), 0.0)
    noise = (-0.1, 0.2, 0.1, -0.15, 0.05, -0.1)
    family = [paired({s: by + n for s, n in enumerate(noise)}, base, 1, base) for by in (0.1, 0.2, 0.3)]
    assert [f.corrected for f in corrected(family)] == holm([f.p for f in family])
    assert corrected([]) == []


def nominal(gaps, corrected_p=None, planned=None):
    found = paired(dict(enumerate(gaps)), dict.fromkeys(range(len(gaps)), 0.0), 1, range(planned or len(gaps)))
    return replace(found, corrected=found.p if corrected_p is None else corrected_p)


def test_what_only_looks_certain_is_nominal():
    """By its own p or its own interval: not once it is corrected, or on too few seeds, or where some are missing."""
    gaps = [1.0, 1.1, 0.9, 1.05, 0.95]
    assert nominal(gaps).is_certain
    assert not nominal(gaps).is_nominal
    for found in (nominal(gaps, 0.2), nominal(gaps[:4]), nominal(gaps, planned=6), nominal(gaps, math.nan)):
        assert found.is_nominal
        assert (found.is_certain, found.outcome) == (False, "undecided")
    wild = nominal([1.0, -0.9, 1.0, -0.8, 1.0])
    assert (wild.is_certain, wild.is_nominal) == (False, False)
    by_interval = replace(wild, low=0.1)
    assert by_interval.p > 0.05
    assert by_interval.is_nominal
    assert replace(wild, high=-0.1).is_nominal
    assert not nominal([1.0] * 6).is_nominal  # cannot be tested


# Without a bench


@pytest.mark.parametrize("form", [list, tuple, np.array, lambda v: torch.tensor(v).double()])
def test_plain_arrays_are_compared_by_position(form):
    values, baseline = [1.0, 1.125, 0.875, 1.25, 1.0], [1.25, 1.375, 1.25, 1.5, 1.5]
    found = compare(form(values), form(baseline))
    assert found.difference == pytest.approx(np.mean(values) - np.mean(baseline))
    assert found.p == found.corrected == pytest.approx(stats.ttest_rel(values, baseline).pvalue)
    assert (found.low, found.high) == pytest.approx(mean_interval(np.subtract(values, baseline)))
    assert (found.seeds, found.missing, found.better, found.outcome) == (5, 0, 1.0, "better")
    assert compare(form(values), form(baseline), better="higher").outcome == "worse"


def test_mappings_are_compared_by_seed_and_seeds_of_one_side_are_missing():
    values, baseline = {7: 2.0, 3: 1.0, 1: 5.0}, {3: 2.0, 7: 1.0, 9: 0.0}
    found = compare(values, baseline, "higher")
    assert (found.seeds, found.missing, found.value, found.other) == (2, 2, 1.5, 1.5)
    assert found.better == 0.5


def test_a_comparison_says_in_a_line_what_it_found():
    certain = str(compare([1.0, 1.1, 0.9, 1.2, 1.0], [1.3, 1.35, 1.25, 1.5, 1.28]))
    assert certain == (
        "1.040 against 1.336 over 5 seeds: a difference of -0.296 (95 % bootstrap interval -0.340 to -0.256, "
        "better on 100% of 5 seeds, corrected p < 0.001): better"
    )
    assert str(compare({1: 2.0, 2: 3.0}, {2: 1.0, 3: 4.0}, "higher")) == (
        "3.000 against 1.000 over 1 of 3 seeds: a difference of 2.000 (no interval: one seed, better on 100% "
        "of 1 seed, corrected not testable): undecided"
    )
    assert str(compare([1.0, 1.1, 0.9], [2.0, 2.2, 2.1])).endswith("): undecided (nominally significant)")
    assert "over 1 seed: " in str(compare([1.0], [2.0]))


@pytest.mark.parametrize(
    ("values", "baseline", "says"),
    [
        ([1.0, 2.0], [1.0], "paired by position: 2 values against 1"),
        ({1: 1.0}, [1.0], "two mappings by seed, or two arrays"),
        ({1: 1.0}, {2: 1.0}, "no seed is in both"),
        ([], [], "no seed is in both"),
        ([[1.0], [2.0]], [[1.0], [2.0]], r"one a run, of shape \(n,\), not \(2, 1\)"),
        ([1.0, math.nan], [1.0, 2.0], "value 1 is nan"),
        ({5: 1.0}, {5: math.inf}, "value 5 is inf"),
    ],
)
def test_what_cannot_be_compared_is_refused(values, baseline, says):
    with pytest.raises(UserError, match=says):
        compare(values, baseline)
    with pytest.raises(UserError, match='"lower" or "higher", not \'more\''):
        compare([1.0], [1.0], better="more")
