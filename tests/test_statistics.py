import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ajest.bench.statistics import bootstrap_interval, compare, holm, paired_p


@pytest.mark.parametrize("n", [3, 5, 8])
def test_intervals_cover_the_truth_about_as_often_as_they_say(n):
    rng = np.random.default_rng(n)
    inside = [low <= 0 <= high for low, high in (bootstrap_interval(rng.normal(size=n)) for _ in range(400))]
    assert 0.89 <= np.mean(inside) <= 0.98


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=7))
def test_an_interval_holds_the_mean_and_moves_with_the_data(values):
    values = np.array(values)
    low, high = bootstrap_interval(values)
    assert low - 1e-9 <= values.mean() <= high + 1e-9
    shifted = bootstrap_interval(values + 10)
    assert shifted == pytest.approx((low + 10, high + 10), abs=1e-6)


def test_too_few_values_have_no_interval():
    assert all(math.isnan(v) for v in bootstrap_interval(np.array([1.0])))
    assert math.isnan(paired_p(np.array([1.0])))


def test_paired_p_is_the_t_test():
    gaps = np.array([0.3, -0.1, 0.4, 0.2, 0.25])
    assert paired_p(gaps) == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue)
    assert paired_p(np.zeros(3)) == 1
    assert paired_p(np.ones(3)) == 0


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
    found = compare({1: 0.5, 2: 0.7, 3: 0.9}, {2: 0.6, 3: 1.0, 9: 5.0}, sign=-1)
    assert found.seeds == 2
    assert found.difference == pytest.approx(0.0)
    assert found.better == 0.5
    assert compare({1: 0.5}, {2: 0.5}, 1) is None
    assert compare({1: 2.0}, {1: 1.0}, 1).better == 1
