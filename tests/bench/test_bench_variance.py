"""Where the spread of headlines comes from."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ajest.bench.read.findings import findings
from ajest.bench.read.variance import Component, MeanSquare, spreads, variance_table
from ajest.bench.report.markdown import as_markdown
from made_up import made_up


def of(results, where):
    return next(s for s in spreads(results) if (s.metric.name, s.weight) == where)


@pytest.fixture(scope="module")
def headlines():
    return [(m.name, w) for m, w in made_up({}).headlines()]


def test_one_mean_square_has_the_chi_square_interval():
    found = Component.of([MeanSquare(2.0, 8)])
    low, high = (2.0 * 8 / stats.chi2.ppf(q, 8) for q in (0.975, 0.025))
    assert (found.variance, found.low, found.high) == (2.0, pytest.approx(low, rel=0.03), pytest.approx(high, rel=0.03))
    less = Component.of([MeanSquare(1.0, 8), MeanSquare(3.0, 8, -1.0)])
    assert (less.variance, less.low) == (-2.0, 0.0)


def test_components_by_hand(headlines):
    """Two seeds, two guides, one repeat."""
    where = next(h for h in headlines if h[1] != 1)
    results = made_up(
        {("steps", *where): {"baseline": [(1.0, 3.0), (5.0, 11.0)]}}, arms=("baseline",), seeds=2, guides=2
    )
    found = of(replace(results, repeats={where: {0: (2.0,), 1: (8.0,)}}), where)
    # Mean squares: seeds 2 * 18, guides 2 * 8, rest 4; noise ((1 - 2)^2 + (5 - 8)^2) / 2 / 2 = 2.5.
    assert found.noise.variance == pytest.approx(2.5)
    assert found.guide.variance == pytest.approx((16 - 4) / 2)
    assert found.training.variance == pytest.approx(36 / 2 + 4 / 2 - 2.5)
    assert (found.seeds, found.guides, found.noises) == (2, 2, 2)
    assert found.total == pytest.approx(2.5 + 6 + 17.5)


def test_components_are_unbiased_and_intervals_cover(headlines):
    """The three add up to the variance of one measurement; how well a guide suits a run belongs to training."""
    guided = next(h for h in headlines if h[1] != 1)
    rng, truth = np.random.default_rng(0), {"training": 1.0 + 0.16, "guide": 0.49, "noise": 0.25}
    found = {name: [] for name in truth}
    for _ in range(300):
        runs, guides = rng.normal(size=(6, 1)), 0.7 * rng.normal(size=(1, 3))
        noise = 0.5 * rng.normal(size=(3, 6, 1))
        true = runs + guides + 0.4 * rng.normal(size=(6, 3))
        results = made_up({("steps", *guided): {"baseline": [tuple(row) for row in true + noise[0]]}},
                          arms=("baseline",), seeds=6, guides=3)  # fmt: skip
        again = {s: tuple(float(true[s, 0] + n[s, 0]) for n in noise[1:]) for s in range(6)}
        one = of(replace(results, repeats={guided: again}), guided)
        for name, parts in found.items():
            parts.append(getattr(one, name))
    for name, parts in found.items():
        assert np.mean([part.variance for part in parts]) == pytest.approx(truth[name], rel=0.15), name
        assert 0.91 <= np.mean([part.low <= truth[name] <= part.high for part in parts]) <= 1.0, name


def test_what_a_design_cannot_know_is_not_said(headlines):
    plain, guided = (next(h for h in headlines if (h[1] == 1) == unguided) for unguided in (True, False))
    values = {("steps", *plain): {"baseline": [1.0, 2.0, 4.0]}, ("steps", *guided): {"baseline": [1.0, 2.0, 4.0]}}
    results = made_up(values, arms=("baseline",), seeds=3)
    for where in (plain, guided):
        one = of(results, where)
        assert one.guide is None
        assert one.noise is None
        assert one.training.variance == pytest.approx(np.var([1, 2, 4], ddof=1))
    rows = {row[0].value: row for row in variance_table(results).rows}
    assert len(rows) == 2
    for name, row in rows.items():
        assert row[2].value == "1"
        assert "with the sampling noise in it" in row[3].detail
        assert row[4].detail == ("one guide cannot tell" if "guided" in name else "")
        assert row[5].detail == "not measured again"
    single = made_up({("steps", *plain): {"baseline": [1.0]}}, arms=("baseline",), seeds=1)
    assert variance_table(single).rows[0][3].detail == "one seed cannot tell"
    assert not variance_table(made_up({}))


def test_a_report_prints_the_components(headlines):
    guided = next(h for h in headlines if h[1] != 1)
    rng = np.random.default_rng(1)
    values = {("steps", *guided): {"baseline": [tuple(row) for row in 10 + rng.normal(size=(6, 3))]}}
    found = findings(made_up(values, guides=3))
    assert "Where the spread comes from" in as_markdown(found)
    assert found.variance.rows[0][1].value == "6 x 3"
    assert "%" in found.variance.rows[0][4].detail
    assert "With 3 guides" in found.legend
