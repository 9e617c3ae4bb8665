"""Two groups of seeds: found where they are, and rarely where they are not."""

import numpy as np
import pytest
from test_bench_signs import results as with_signs

from ajest.bench.read.groups import two_groups
from ajest.bench.read.verdict import verdict
from made_up import made_up


def p_values(draw, n, times=2000):
    rng = np.random.default_rng(7)
    return np.array([two_groups(dict(enumerate(draw(rng, n)))).p for _ in range(times)])


@pytest.mark.parametrize("n", [4, 5, 10, 20])
def test_normal_values_are_parted_in_five_of_a_hundred_samples(n):
    """Of 2,000 samples; the simulation behind p has other seeds."""
    p = p_values(lambda rng, n: rng.normal(3, 0.2, n), n)
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.013)  # 2.7 standard errors
    assert (p < 0.5).mean() == pytest.approx(0.5, abs=0.035)


@pytest.mark.parametrize(("n", "gap", "power"), [(5, 20, 0.9), (10, 8, 0.95), (20, 6, 0.99)])
def test_groups_that_are_far_apart_are_found(n, gap, power):
    """Half of the seeds lie `gap` standard deviations above the others."""
    p = p_values(lambda rng, n: rng.normal(size=n) + gap * (np.arange(n) % 2), n, 400)
    assert (p < 0.05).mean() > power


def test_the_groups_are_those_of_least_spread():
    found = two_groups({7: 1.0, 3: 1.2, 5: 9.0, 1: 9.1, 2: 1.1})
    assert (set(found.low), set(found.high)) == ({7, 3, 2}, {5, 1})
    assert found.p < 0.05
    outlier = two_groups({0: 1.0, 1: 1.2, 2: 1.1, 3: 1.15, 4: 9.0})
    assert outlier.p > 0.05  # one value is no group


def test_too_few_or_equal_values_have_none():
    assert two_groups({0: 1.0, 1: 1.0, 2: 5.0}) is None
    assert two_groups(dict.fromkeys(range(6), 2.0)) is None


#: The signs of the baseline in `test_bench_signs` are - - + - + -.
PARTED = (10.0, 10.1, 50.0, 10.2, 50.2, 9.9)
EVEN = (10.0, 12.0, 9.0, 11.0, 10.5, 9.5)


def test_a_verdict_names_groups_and_what_parts_them():
    values = {("calibrated", "energy_distance", 1.0): {"baseline": PARTED, "ajest": EVEN, "random": EVEN}}
    said = verdict(made_up(values))
    assert "Seeds of `baseline` fall into two groups; a mean describes neither of them." in said
    on = "On energy distance × 1000 at equal time, seeds of `baseline` lie around 10050.0 or around 50100.0."
    assert said[said.index(on) + 1] == "Around 10050.0 are seeds 0, 1, 3, 5; around 50100.0 are seeds 2, 4."
    assert not any("sign" in sentence for sentence in said)
    assert "The sign of the gain of `baseline` divides the same seeds." in verdict(with_signs(values=values))


def test_a_verdict_on_seeds_that_are_alike_names_none():
    values = {("calibrated", "energy_distance", 1.0): {"baseline": EVEN, "ajest": EVEN, "random": EVEN}}
    assert not [s for s in verdict(made_up(values)) if "groups" in s or "lie around" in s]
