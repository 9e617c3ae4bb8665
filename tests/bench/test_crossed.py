"""Means over seeds and guides: their mean squares, p and intervals."""

import numpy as np
import pytest
from scipy import stats

from ajest.bench.read.crossed import MeanSquares, crossed_below_zero, crossed_interval, crossed_p
from ajest.bench.read.findings import findings
from ajest.bench.read.intervals import mean_interval
from ajest.bench.read.statistics import equivalence_p, paired, paired_p
from ajest.bench.report.export import as_json, rows
from made_up import made_up

GAPS = np.array([0.3, -0.1, 0.4, 0.2, 0.25])
#: Standard deviations of (seeds, guides, what is left), from one extreme to the other.
SPREADS = ((1, 0, 0.3), (1, 0.3, 0.3), (1, 1, 1), (0, 0, 1), (0.3, 1, 0.3), (0, 1, 1))


def drawn(rng, seeds, guides, spread):
    """Values of no mean whose seeds, guides and rest have these standard deviations."""
    a, b, e = spread
    return a * rng.normal(size=(seeds, 1)) + b * rng.normal(size=(1, guides)) + e * rng.normal(size=(seeds, guides))


def test_mean_squares_by_hand():
    seeds, guides = np.array([1.0, 2.0, 4.0, 9.0]), np.array([-1.0, 0.0, 4.0])
    found = MeanSquares.of(seeds[:, None] + guides)
    assert (found.mean, found.shape) == (pytest.approx(5), (4, 3))
    assert found.seeds == pytest.approx(3 * seeds.var(ddof=1))
    assert found.guides == pytest.approx(4 * guides.var(ddof=1))
    assert found.rest == pytest.approx(0)
    turned = MeanSquares.of(np.array([[1.0, -1.0], [-1.0, 1.0]]))
    assert (turned.seeds, turned.guides, turned.rest) == (0, 0, 4)


def test_mean_squares_are_unbiased():
    rng, (a, b, e) = np.random.default_rng(0), (1.0, 0.7, 0.5)
    found = [MeanSquares.of(drawn(rng, 5, 3, (a, b, e))) for _ in range(4000)]
    seeds, guides, rest = (np.mean([getattr(f, name) for f in found]) for name in ("seeds", "guides", "rest"))
    assert rest == pytest.approx(e**2, rel=0.03)
    assert seeds == pytest.approx(e**2 + 3 * a**2, rel=0.05)
    assert guides == pytest.approx(e**2 + 5 * b**2, rel=0.08)


def test_where_guides_agree_the_test_is_the_t_test():
    same = np.repeat(GAPS[:, None], 3, 1)
    assert crossed_p(same) == pytest.approx(stats.ttest_1samp(GAPS, 0).pvalue)
    assert crossed_below_zero(same) == pytest.approx(stats.ttest_1samp(GAPS, 0, alternative="less").pvalue)
    assert crossed_interval(same, 0.95) == pytest.approx(
        stats.t.interval(0.95, 4, GAPS.mean(), GAPS.std(ddof=1) / 5**0.5)
    )
    assert crossed_p(same.T) == pytest.approx(crossed_p(same))  # seeds that agree: the guides' test


@pytest.mark.parametrize(
    ("seeds", "guides", "parts"), [(5, 3, (1, 1)), (20, 3, (0.2, 1)), (5, 2, (1, 0.1)), (2, 2, (1, 1))]
)
def test_the_error_of_a_mean_is_the_sum_of_two_t_variables(seeds, guides, parts):
    a, b = parts
    found = MeanSquares(0.0, a**2 * seeds * guides, b**2 * seeds * guides, 0.0, (seeds, guides))
    rng = np.random.default_rng(0)
    errors = a * rng.standard_t(seeds - 1, 400_000) + b * rng.standard_t(guides - 1, 400_000)
    for x in (0.5, 2.0, 6.0):
        assert found.above(x) == pytest.approx((errors > x).mean(), rel=0.06)
        assert found.above(x) + found.above(-x) == pytest.approx(1)
    assert found.above(found.reach(0.9)) == pytest.approx(0.05)
    assert MeanSquares(0.0, 0.0, 0.0, 0.0, (seeds, guides)).reach(0.95) == 0


def test_interval_and_p_agree_and_move_with_the_values():
    values = drawn(np.random.default_rng(3), 6, 3, (1, 0.5, 0.5))
    low, high = crossed_interval(values, 0.95)
    assert low < values.mean() < high
    for edge in (low, high):
        assert crossed_p(values - edge) == pytest.approx(0.05)
    assert crossed_interval(10 + 2 * values, 0.95) == pytest.approx((10 + 2 * low, 10 + 2 * high))
    narrow = crossed_interval(values, 0.8)
    assert low < narrow[0] < narrow[1] < high


@pytest.mark.parametrize("seeds", [5, 20])
@pytest.mark.parametrize("spread", SPREADS)
def test_intervals_cover_and_false_alarms_are_rare(seeds, spread):
    """Three guides. Where neither seeds nor guides vary by themselves, intervals are wider than they need be."""
    rng = np.random.default_rng(seeds)
    p = np.array([crossed_p(drawn(rng, seeds, 3, spread)) for _ in range(800)])
    assert (p < 0.05).mean() <= 0.06
    assert (p < 0.005).mean() <= 0.01
    inside = [
        low <= 0 <= high for low, high in (crossed_interval(drawn(rng, seeds, 3, spread), 0.95) for _ in range(200))
    ]
    assert np.mean(inside) >= 0.92
    if spread[2] < 1:
        assert np.mean(inside) <= 0.995


def test_one_guide_alone_is_too_sure():
    """What several guides are for: seeds that share one guide share its chance."""
    rng = np.random.default_rng(0)
    p = [paired_p(drawn(rng, 20, 1, (0.3, 1, 0.3))[:, 0]) for _ in range(500)]
    assert np.mean(np.array(p) < 0.05) > 0.5


@pytest.mark.parametrize("spread", [(1, 0.3, 0.3), (1, 1, 0.3)])
def test_with_five_guides_the_interval_is_bootstrapped_and_covers(spread):
    rng = np.random.default_rng(1)
    intervals = [crossed_interval(drawn(rng, 5, 5, spread), 0.95) for _ in range(200)]
    assert 0.9 <= np.mean([low <= 0 <= high for low, high in intervals]) <= 0.995
    skewed = rng.exponential(size=(12, 1)) ** 2 + 0.01 * rng.normal(size=(12, 6))
    low, high = crossed_interval(skewed, 0.95)
    assert high - skewed.mean() > 1.1 * (skewed.mean() - low)
    assert crossed_interval(skewed, 0.95) == (low, high)


def test_values_with_each_guide_are_compared_seed_by_seed_and_guide_by_guide():
    rng = np.random.default_rng(5)
    mine, theirs = (drawn(rng, 6, 3, (1, 1, 0.1)) for _ in range(2))
    gaps = mine - theirs
    planned = range(6)
    found = paired(dict(enumerate(map(tuple, mine))), dict(enumerate(map(tuple, theirs))), -1, planned)
    assert (found.seeds, found.guides, found.missing) == (6, 3, 0)
    assert found.difference == pytest.approx(gaps.mean())
    assert (found.value, found.other) == (pytest.approx(mine.mean()), pytest.approx(theirs.mean()))
    assert found.p == crossed_p(gaps) == paired_p(gaps)
    assert (found.low, found.high) == crossed_interval(gaps, 0.95) == mean_interval(gaps)
    assert found.better == pytest.approx((gaps.mean(1) < 0).mean())
    assert "over 6 seeds x 3 guides" in str(found)
    plain = {seed: float(value) for seed, value in enumerate(theirs[:, 0])}  # the same whatever guides the other
    against = paired(dict(enumerate(map(tuple, mine))), plain, -1, planned)
    assert against.p == crossed_p(mine - theirs[:, :1])


def test_equivalence_has_the_variance_of_guides_too():
    rng = np.random.default_rng(2)
    gaps = drawn(rng, 8, 3, (0.1, 0.5, 0.1))
    margins = np.full((8, 1), 3.0)
    assert equivalence_p(gaps, margins) == pytest.approx(
        max(crossed_below_zero(gaps - margins), crossed_below_zero(-gaps - margins))
    )
    assert equivalence_p(gaps, margins) > 3 * equivalence_p(gaps.mean(1), margins[:, 0])


def test_seeds_that_agree_in_every_digit_are_not_tested():
    assert np.isnan(paired_p(np.ones((5, 3))))
    assert np.isnan(paired_p(np.tile([1.0, 2.0, 3.0], (5, 1))))
    assert np.isnan(mean_interval(np.ones((1, 3)))[0])


def test_guided_cells_are_compared_over_both_and_unguided_ones_over_seeds():
    rng = np.random.default_rng(7)
    base = drawn(rng, 6, 3, (1, 1, 0.1))
    guided = {arm: [tuple(row - by) for row in base + 0.01 * rng.normal(size=base.shape)]
              for arm, by in (("baseline", 0), ("ajest", 5), ("random", 0))}  # fmt: skip
    plain = {arm: list(base[:, 0] - by + 0.01 * rng.normal(size=6)) for arm, by in (("baseline", 0), ("ajest", 5))}
    results = made_up({("steps", "mandala", 3.0): guided, ("steps", "loss", 1.0): plain}, guides=3)
    cell = results.cell("steps", "ajest", "mandala", 3.0)
    assert {name: c.guides for name, c in cell.against.items()} == {"baseline": 3, "random": 3}
    assert cell.mean == pytest.approx(np.mean(guided["ajest"]))
    assert cell.against["baseline"].p == pytest.approx(crossed_p(np.array(guided["ajest"]) - guided["baseline"]))
    assert results.cell("steps", "ajest", "loss", 1.0).against["baseline"].guides == 1
    found = findings(results)
    assert {(row["metric"], row["guides"]) for row in rows(results)} == {("mandala", 3), ("loss", 0)}
    (told,) = [v for v in as_json(found)["values"] if (v["arm"], v["metric"]) == ("ajest", "mandala")]
    assert told["by_guide"] == {g + 1: {s: guided["ajest"][s][g] for s in range(6)} for g in range(3)}
    assert told["by_seed"] == cell.values
