"""Seeds added until all is decided: false alarms over all looks, power, and what a folder keeps of it."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ajest.bench import Bench
from ajest.bench.plan.config import run_folder
from ajest.bench.plan.looks import LEAST_SEEDS, more_seeds, planned_looks
from ajest.bench.read import verdict as judge
from ajest.bench.read.findings import findings
from ajest.bench.read.folder import read, read_bench
from ajest.bench.read.power import POWER, power_of, smallest_effect
from ajest.bench.read.sequential import look_levels
from ajest.bench.read.statistics import ALPHA, corrected, paired
from ajest.bench.read.status import standings
from ajest.bench.read.verdict import is_decided
from ajest.bench.read.wording import legend
from ajest.bench.run.bench import run_bench
from ajest.bench.run.stages import Stage, enter, following, stage_of
from ajest.errors import UserError
from ajest.selection.catalogue import arms_named
from ajest.training.run_folder import read_status
from conftest import Here, small_bench
from made_up import BASE, TIME, ahead, made_up

ROOT = Path(__file__).parents[2]
LOOKS = (5, 8, 12, 20)


def alarms(share, of):
    """The largest share of simulated benches that still fits to 5 %."""
    return share < ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / of)


@pytest.fixture
def ends(monkeypatch):
    """Made-up benches of 3 arms and 2 headlines, from the command that docs/method.md#looks prints a table of."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import sequential

    normal = sequential.SHAPES["normal"]
    return lambda effects, delta, looks=LOOKS, benches=2000: sequential.ends(effects, delta, looks, benches, normal, 1)


# The plan


def test_looks_are_even_steps_from_the_first_seeds_to_the_most():
    assert planned_looks(5, 20) == (5, 8, 13, 20)
    assert planned_looks(3, 12) == (5, 8, 12)
    assert planned_looks(5, 6) == (5, 6)
    assert planned_looks(20, 60) == (20, 35, 60)
    for few in (1, 5):
        with pytest.raises(UserError, match=r"--max-seeds 5: a bench begins with 5 seeds, so name more than these"):
            planned_looks(few, 5)


def test_added_seeds_are_the_next_that_are_not_taken():
    assert more_seeds((0, 73, 5), 2) == (0, 73)
    assert more_seeds((0, 73, 5), 5) == (0, 73, 5, 74, 75)
    assert more_seeds((0,), 4, taken={2, 3}) == (0, 1, 4, 5)


def test_a_bench_begins_with_the_seeds_of_its_first_look():
    config = small_bench(seeds=(3, 9)).until_certain(12)
    assert (config.seeds, config.looks, config.minutes) == ((3, 9, 10, 11, 12), (5, 8, 12), None)
    assert config.with_seeds(8).seeds == (3, 9, 10, 11, 12, 13, 14, 15)
    assert config.with_seeds(8).looks == config.looks
    for bad in ((8, 5), (5, 5, 8), (4, 8)):
        with pytest.raises(UserError, match="looks are rising numbers of 5 or more seeds"):
            small_bench(looks=bad)
    with pytest.raises(UserError, match="minutes above 0"):
        small_bench(minutes=0)


# Levels


@pytest.mark.parametrize(("looks", "level"), [(1, 0.05), (2, 0.0294), (3, 0.0221), (4, 0.0182), (5, 0.0158)])
def test_with_many_pairs_levels_are_those_of_pocock(looks, level):
    """Pocock 1977, table 1: equally many pairs between looks, the spread known."""
    assert look_levels(tuple(10_000 * k for k in range(1, looks + 1))).level(0.05) == pytest.approx(level, rel=0.02)


def test_a_single_look_changes_no_bit():
    for looks in ((), (20,)):
        levels = look_levels(looks)
        for p in (0.3, 0.01, 1e-9):
            assert float(levels.one_sided(p)) == float(levels.two_sided(p)) == p
        assert levels.level(ALPHA) == ALPHA


def test_the_smallest_p_of_t_tests_at_all_looks_is_as_rare_as_it_says():
    rng, levels = np.random.default_rng(7), look_levels(LOOKS)
    pairs = rng.normal(size=(20_000, LOOKS[-1]))
    smallest = np.min([stats.ttest_1samp(pairs[:, :n], 0, axis=1).pvalue for n in LOOKS], 0)
    one_sided = np.min([stats.ttest_1samp(pairs[:, :n], 0, axis=1, alternative="less").pvalue for n in LOOKS], 0)
    for alpha in (0.2, 0.05, 0.01):
        error = 3 * math.sqrt(alpha * (1 - alpha) / len(pairs))
        assert np.mean(levels.two_sided(smallest) < alpha) == pytest.approx(alpha, abs=error + 0.03 * alpha)
        assert np.mean(levels.one_sided(one_sided) < alpha) == pytest.approx(alpha, abs=error + 0.03 * alpha)
        assert np.mean(smallest < levels.level(alpha)) == pytest.approx(alpha, abs=error + 0.03 * alpha)


def test_a_corrected_p_rises_with_p_and_stays_between_p_and_bonferroni():
    levels, p = look_levels(LOOKS), np.geomspace(1e-14, 1, 500)
    found = levels.two_sided(p)
    assert np.all(np.diff(found) >= 0)
    assert np.all(found >= p * (1 - 1e-12))
    assert np.all(found <= len(LOOKS) * p * (1 + 1e-12))
    assert float(levels.two_sided(0.0)) == 0
    assert math.isnan(levels.two_sided(math.nan))
    assert float(levels.two_sided(levels.level(ALPHA))) == pytest.approx(ALPHA)


def test_a_comparison_at_a_look_has_a_wider_interval_and_a_larger_p():
    gaps, base = dict(enumerate((0.3, -0.1, 0.4, 0.2, 0.25))), dict.fromkeys(range(5), 0.0)
    margins = dict.fromkeys(range(5), 1.0)
    once = paired(gaps, base, 1, range(5), margins)
    look = paired(gaps, base, 1, range(5), margins, LOOKS)
    assert look.p == pytest.approx(look_levels(LOOKS).two_sided(once.p))
    assert look.p_equivalent == pytest.approx(look_levels(LOOKS).one_sided(once.p_equivalent))
    assert look.low < once.low < once.high < look.high


# Simulated benches


def test_false_alarms_over_all_arms_headlines_and_looks_are_at_most_five_per_cent(ends):
    found = ends([0.0] * 6, 0.0)
    assert alarms(found.ever_differs.any(-1).mean(), 2000)
    assert (found.better | found.worse).any(-1).mean() <= found.ever_differs.any(-1).mean()
    assert not found.ever_equivalent.any()


def test_arms_that_differ_by_delta_are_called_equivalent_in_at_most_five_per_cent(ends):
    """Of little spread: nearly all are decided, as better or worse."""
    found = ends([2.0, -2.0] * 3, 2.0)
    assert alarms(found.ever_equivalent.any(-1).mean(), 2000)


def test_equal_arms_of_little_spread_are_equivalent_at_the_first_look(ends):
    found = ends([0.0] * 6, 5.0)
    assert found.equivalent.mean() > 0.95
    assert found.seeds.mean() < 6
    assert alarms(found.ever_differs.any(-1).mean(), 2000)


def test_clear_effects_end_a_bench_early_and_mild_ones_are_mostly_found(ends):
    clear, mild = ends([2.5] * 6, 0.0), ends([1.1] * 6, 0.0)
    assert clear.better.mean() > 0.99
    assert clear.seeds.mean() < 9
    assert mild.better.mean() > 0.9
    assert not mild.worse.any()


def test_simulated_benches_are_judged_as_real_ones_are(ends, monkeypatch):
    """The table's own arithmetic, on whole arrays, against the comparisons of a bench."""
    import sequential

    effects, delta = [1.2, 0.0, -1.2, 0.1, 0.8, 0.0], 3.0
    for bench in range(20):
        values = np.random.default_rng(bench).normal(size=(8, LOOKS[-1]))
        drawn = iter((values[:2][None], values[2:][None]))
        found = sequential.ends(effects, delta, LOOKS[-1:], 1, lambda rng, shape, drawn=drawn: next(drawn))
        gaps = np.array(effects)[:, None] + (values[2:] - np.tile(values[:2], (3, 1))) / np.sqrt(2)
        seeds = range(LOOKS[-1])
        family = [paired(dict(enumerate(g)), dict.fromkeys(seeds, 0.0), 1, seeds, dict.fromkeys(seeds, delta))
                  for g in gaps]  # fmt: skip
        outcomes = [f.outcome for f in corrected(family)]
        for name in ("better", "worse", "equivalent"):
            assert [o == name for o in outcomes] == list(getattr(found, name)[0])


@pytest.mark.parametrize("tests", [1, 6])
def test_power_at_a_look_is_that_of_its_level(tests):
    assert power_of(0, 8, tests, LOOKS) == pytest.approx(look_levels(LOOKS).level(ALPHA / tests), rel=1e-2)
    assert smallest_effect(8, tests, LOOKS) > smallest_effect(8, tests)
    assert power_of(smallest_effect(8, tests, LOOKS), 8, tests, LOOKS) == pytest.approx(POWER)


# Stages


PLAN = small_bench(seeds=tuple(range(5)), looks=LOOKS)


def test_the_next_stage_is_the_next_look_unless_all_is_decided_or_there_are_no_more():
    assert following(PLAN, Stage(5), False, float) == Stage(8)
    assert following(PLAN, Stage(12, 7.0, 2.0), False, float) == Stage(20, 7.0, 2.0)
    assert following(PLAN, Stage(8), True, float) == Stage(8, ended="decided")
    assert following(PLAN, Stage(20), True, float).ended == "decided"
    assert following(PLAN, Stage(20), False, float) == Stage(20, ended="most")


def test_a_stage_that_does_not_fit_into_the_time_has_as_many_seeds_as_fit_and_is_the_last():
    """Ten seconds a seed as priced, and twice that as measured."""
    timed = replace(PLAN, minutes=5)

    def after(seconds, pace=2.0):
        return following(timed, Stage(5, seconds, pace), False, lambda count: 10.0 * count)

    assert after(200.0) == Stage(8, 200.0, 2.0)
    assert after(240.0) == Stage(8, 240.0, 2.0)
    assert after(241.0) == Stage(7, 241.0, 2.0, "time")
    assert after(241.0, pace=1.0) == Stage(8, 241.0, 1.0)
    assert after(281.0) == Stage(5, 281.0, 2.0, "time")
    assert after(900.0).seeds == 5


def test_a_bench_without_looks_has_one_stage_and_keeps_nothing_of_it(tmp_path):
    assert stage_of(tmp_path, small_bench()) == Stage(2, ended="most")
    assert stage_of(tmp_path, PLAN) == Stage(5)
    enter(tmp_path, Stage(8, 1.5, 2.5, "time"))
    assert stage_of(tmp_path, PLAN) == Stage(8, 1.5, 2.5, "time")


def tiny(**changes):
    arms = arms_named(("baseline", "random"))
    return small_bench(arms=arms, seeds=(0,), iterations=32, guide_iterations=4, n_final=200, n_curve=200,
                       calibration_rounds=1, **changes)  # fmt: skip


class Killed(BaseException):
    pass


def test_seeds_are_added_until_all_is_decided_and_a_killed_bench_ends_with_the_same(tmp_path):
    config, asked = tiny().until_certain(8), []
    config = replace(config, looks=(5, 6, 8))

    def decided(root):
        results = read(root)
        assert results.unfinished == 0
        asked.append(len(results.config.seeds))
        if len(asked) == 2:
            raise Killed
        return len(results.config.seeds) == 6

    with pytest.raises(Killed):
        run_bench(tmp_path, config, Here(), decided=decided)
    assert stage_of(tmp_path, config).ended is None
    assert len(read(tmp_path).config.seeds) == 6
    assert len(standings(tmp_path)) == 2 * 6
    run_bench(tmp_path, config, Here(), decided=decided)
    assert asked == [5, 6, 6]
    stage = stage_of(tmp_path, config)
    assert (stage.seeds, stage.ended) == (6, "decided")
    assert stage.seconds > 0
    run_bench(tmp_path, config, Here(), decided=decided)  # has ended: nothing is asked, nothing is made
    assert asked == [5, 6, 6]
    results = read(tmp_path)
    assert (results.config.seeds, results.config.looks, results.ended) == ((0, 1, 2, 3, 4, 5), (5, 6, 8), "decided")
    assert read_bench(tmp_path) == config.with_seeds(6)
    assert {run.state for run in results.runs.values()} == {"done"}
    assert not read_status(run_folder(tmp_path, "random", 6))
    for cell in results.cells.values():
        assert set(cell.values) == {0, 1, 2, 3, 4, 5}
        for found in cell.against.values():
            assert not found.missing
    with pytest.raises(UserError, match="holds a run of another config"):
        run_bench(tmp_path, tiny().until_certain(12), Here(), decided=decided)


def test_without_time_a_bench_ends_at_its_first_look(tmp_path):
    config = replace(tiny().until_certain(8), minutes=1e-6)
    run_bench(tmp_path, config, Here())
    stage = stage_of(tmp_path, config)
    assert (stage.seeds, stage.ended) == (LEAST_SEEDS, "time")
    assert stage.pace > 0


# What is said


def at_a_look(values, ended=None, **config):
    return replace(made_up({TIME: values}, looks=LOOKS, **config), ended=ended)


def test_nothing_is_open_where_every_comparison_is_decided_or_lacks_a_seed_for_good(monkeypatch):
    wild = [b + g for b, g in zip(BASE, (-3, 2, -3, 2, -1, 1), strict=True)]
    for values, decided in (
        ({"baseline": BASE, "ajest": ahead(2), "random": ahead(-3)}, True),
        ({"baseline": BASE, "ajest": ahead(2), "random": wild}, False),
        ({"baseline": BASE, "ajest": ahead(2), "random": [*wild[:5], None]}, True),
        ({"baseline": BASE}, False),
    ):
        monkeypatch.setattr(judge, "read", lambda root, values=values: at_a_look(values))
        assert is_decided(Path("nowhere")) is decided


def test_a_report_says_how_often_it_was_looked_and_why_no_seed_was_added():
    values = {"baseline": BASE, "ajest": ahead(2), "random": ahead(-3)}
    said = legend(at_a_look(values).config)
    assert said.endswith(
        "Seeds are added until all is decided, with looks planned at these numbers of seeds: 5, 8, 12, 20. All p are "
        "corrected for these looks, and each interval is one of 98.4%: all looks' together hold 95 %."
    )
    assert "looks planned" not in legend(small_bench())
    for ended, why in (
        ("decided", "every comparison with the baseline that lacks no seed is decided."),
        ("most", "no more were planned."),
        ("time", "no time was left for more."),
    ):
        assert f"Seeds were added up to 6: {why}" in findings(at_a_look(values, ended)).sentences
    assert not any("Seeds were added" in s for s in findings(at_a_look(values)).sentences)


def test_a_bench_from_python_takes_a_maximum_or_just_the_seeds_that_are_named():
    config = Bench("tree", max_seeds=20).config
    assert (len(config.seeds), config.looks) == (5, (5, 8, 13, 20))
    assert Bench("tree", seeds=range(7)).config.looks == ()
    assert Bench("tree", seeds=range(7), max_seeds=20).config.looks[0] == 7


def test_the_command_line_wants_both_options(command):
    for words in (["--until-certain"], ["--max-seeds", "20"]):
        refused = command("bench", "tree", *words)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert "--until-certain and --max-seeds N belong together" in refused.err
    refused = command("bench", "tree", "--until-certain", "--max-seeds", "5", "--seeds", *map(str, range(6)))
    assert "a bench begins with 6 seeds" in refused.err
