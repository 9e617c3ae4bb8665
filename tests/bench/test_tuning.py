"""Finding each arm's learning rate: the grid, the choice, the runs, and what a report says of them."""

import math
import shutil
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajest.bench.plan.config import altered
from ajest.bench.plan.presets import tree_full, tree_quick
from ajest.bench.plan.trials import trial_bench, trial_name, tried_for
from ajest.bench.plan.tuning import Tuned, Tuning, best_rate, between
from ajest.bench.read.findings import findings
from ajest.bench.read.folder import read
from ajest.bench.read.rates import rates_table, tuning_table, untuned_note
from ajest.bench.run import tuning as jobs_of_tuning
from ajest.bench.run.bench import run_bench
from ajest.bench.run.tuning import borrowed, keep_tuned, tuning_of, with_tuned_rates
from ajest.errors import UserError
from ajest.selection.catalogue import ARMS, arms_named
from ajest.storage.checkpoint import read_sealed, write_sealed
from ajest.storage.config import to_json
from ajest.training.run_folder import read_config
from conftest import Here, small_bench, small_recipe, small_task

TUNING = Tuning(seeds=(90, 91), most=4)


def test_the_grid_begins_around_the_recipes_peak():
    assert Tuning().first(0.02) == pytest.approx((0.01, 0.02, 0.04))
    assert Tuning(rates=4, factor=10).first(1.0) == pytest.approx((0.01, 0.1, 1.0, 10.0))


@pytest.mark.parametrize(
    ("best", "beyond"),
    [((0.02, 0.02), ()), ((0.01, 0.02), (0.005,)), ((0.02, 0.04), (0.08,)), ((0.01, 0.04), (0.005, 0.08))],
)
def test_the_grid_is_extended_where_any_best_lies_at_its_edge(best, beyond):
    assert Tuning().further((0.01, 0.02, 0.04), best) == pytest.approx(beyond)


def test_the_grid_ends_somewhere():
    assert Tuning(most=3).further((0.01, 0.02, 0.04), (0.04,)) == ()
    assert Tuning(most=4).further((0.01, 0.02, 0.04), (0.01, 0.04)) == (0.005,)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=9), st.sampled_from((1, -1)))
def test_the_rate_of_the_best_mean_is_taken(means, sign):
    trials = {0.01 * 2**k: {90: mean - 1, 91: mean + 1} for k, mean in enumerate(means)}
    found = best_rate(trials, (90, 91), sign)
    assert sign * sum(trials[found].values()) == max(sign * sum(values.values()) for values in trials.values())


def test_a_rate_at_which_a_run_diverged_is_not_taken():
    trials = {0.01: {90: 1.0, 91: 2.0}, 0.02: {90: 0.1}}
    assert best_rate(trials, (90, 91), -1) == 0.01
    assert best_rate({0.02: {90: 0.1}}, (90, 91), -1) is None


@given(st.floats(-3, 3), st.floats(0.1, 5), st.sampled_from((1, -1)))
def test_the_top_of_a_parabola_is_found_between_the_rates_of_the_grid(top, height, sign):
    grid = [2.0**k for k in range(-5, 6)]
    trials = {r: {s: -sign * height * (math.log2(r) - top) ** 2 + s for s in (90, 91)} for r in grid}
    best = best_rate(trials, (90, 91), sign)
    assert between(trials, best, (90, 91), 2.0, sign) == pytest.approx(2.0**top, rel=6e-3)


@given(st.lists(st.floats(0, 5), min_size=3, max_size=3), st.sampled_from((1, -1)))
def test_the_rate_taken_is_within_half_a_factor_of_the_best(losses, sign):
    trials = {rate: {90: -sign * loss} for rate, loss in zip((0.01, 0.02, 0.04), losses, strict=True)}
    best = best_rate(trials, (90,), sign)
    assert 2**-0.51 <= between(trials, best, (90,), 2.0, sign) / best <= 2**0.51


def test_beside_a_rate_that_diverged_the_best_itself_is_taken():
    trials = {0.01: {90: 1.0, 91: 2.0}, 0.02: {90: 1.0, 91: 1.0}, 0.04: {90: 0.1}}
    assert between(trials, 0.02, (90, 91), 2.0, -1) == 0.02
    assert between(trials, 0.01, (90, 91), 2.0, -1) == 0.01


def test_arms_share_a_rate_that_train_on_as_many_examples_in_like_steps():
    config = small_bench(arms=arms_named(("random", "hard", "recall", "baseline", "random-keep-0.5", "hard-unbiased")))
    alone = tried_for(config, shared=False)
    assert alone == {name: name for name in alone}
    assert next(iter(alone)) == "baseline"
    shared = tried_for(config, shared=True)
    assert shared == {
        "baseline": "baseline", "random": "random", "hard": "hard", "recall": "hard",
        "random-keep-0.5": "random-keep-0.5", "hard-unbiased": "hard-unbiased",
    }  # fmt: skip


def test_trials_are_whole_runs_of_the_same_arms_at_their_rates():
    config = small_bench(arms=arms_named(("baseline", "random")), tuning=TUNING)
    trials = trial_bench(config, TUNING, (0.1, 0.2))
    assert [arm.name for arm in trials.arms] == [trial_name(a, r) for a in ("baseline", "random") for r in (0.1, 0.2)]
    assert trials.baseline == "baseline-rate-0.1"
    assert (trials.iterations, trials.end, trials.recipe) == (config.iterations, config.end, config.recipe)
    assert trials.seeds == TUNING.seeds
    assert trials.recipe_of(trials.arms[3]).learning_rate.peak == 0.2


def test_an_arm_at_another_keep_fraction_is_known_by_its_name():
    (arm,) = arms_named(("hard-keep-0.4",))
    assert (arm.policy, arm.keep, arm.name) == ("hard", 0.4, "hard-keep-0.4")
    for wrong in ("baseline-keep-0.4", "hardly-keep-0.4", "hard-keep-half"):
        with pytest.raises(UserError, match="arm"):
            arms_named((wrong,))


def test_tuning_seeds_are_never_reported():
    with pytest.raises(UserError, match="must not be those that are reported: 1"):
        small_bench(seeds=(0, 1), tuning=Tuning(seeds=(1, 2)))


def test_rates_count_as_tuned_for_the_settings_they_were_tuned_for():
    tuned = small_bench(rates={"baseline": 0.1, "random": 0.2, "ajest": 0.2, "late-ajest": 0.2}, tuned="a grid")
    assert tuned.untuned == ()
    assert untuned_note(tuned) == ""
    assert altered(tuned, seeds=(5, 6), weight=2.0).untuned == ()
    for other in ({"iterations": 41}, {"end": "time"}, {"recipe": small_recipe(super_batch=512)},
                  {"task": small_task(hidden=24)}):  # fmt: skip
        assert altered(tuned, **other).untuned == tuple(arm.name for arm in tuned.arms)
    half = altered(tuned, arms=(*arms_named(("baseline", "random"), keep=0.5), ARMS["hard"]))
    assert half.untuned == ("random", "hard")
    assert half.recipe_of(half.arms[1]) == half.recipe
    assert "`random` and `hard` were not tuned" in untuned_note(half)


def test_a_rate_that_is_named_is_that_of_all_arms():
    tuned = small_bench(rates={"baseline": 0.1, "random": 0.2}, tuned="a grid")
    rate = replace(tuned.recipe.learning_rate, peak=0.5)
    for other in (altered(tuned, recipe=small_recipe(learning_rate=rate)), altered(tuned, rates={})):
        assert {other.recipe_of(arm) for arm in other.arms} == {other.recipe}
        assert other.untuned == tuple(arm.name for arm in other.arms)


def test_seeds_that_are_named_are_all_that_are_wanted():
    quick = tree_quick()
    assert altered(quick, weight=3.0).looks == quick.looks
    named = altered(quick, seeds=(5, 6))
    assert (named.seeds, named.looks, named.minutes) == ((5, 6), (), None)
    assert altered(quick, seeds=(5, 6), looks=(5, 8)).looks == (5, 8)


@pytest.fixture(scope="module")
def tuned_bench(tmp_path_factory):
    root = tmp_path_factory.mktemp("tuned") / "bench"
    config = small_bench(arms=arms_named(("baseline", "random", "hard")), tuning=TUNING)
    run_bench(root, config, Here(2), "cpu")
    return root, config


def test_runs_are_made_at_the_rates_that_tuning_found(tuned_bench):
    root, config = tuned_bench
    found = tuning_of(root)
    assert found.metric == "loss"
    for arm in config.arms:
        run = read_config(root / "arms" / arm.name / "seed-0")
        assert run.recipe.learning_rate.peak == found.rates.get(arm.name, config.recipe.learning_rate.peak)
        trials = found.trials[arm.name]
        assert all(set(values) == {90, 91} and all(map(math.isfinite, values.values())) for values in trials.values())
        if arm.name not in found.at_edge:
            best = best_rate(trials, TUNING.seeds, -1)
            assert between(trials, best, TUNING.seeds, TUNING.factor, -1) == found.rates[arm.name]
    assert len({len(trials) for trials in found.trials.values()}) == 1  # as many for every arm
    assert found.seconds > 0


def test_a_report_says_what_was_tried(tuned_bench):
    root, _ = tuned_bench
    results = read(root)
    said = findings(results)
    tried = tuning_of(root)
    assert results.tuned == tried
    assert [row[0].value for row in said.tuning.rows] == ["baseline", "random", "hard"]
    assert len(said.tuning.heads) == 2 + len(tried.trials["baseline"])
    assert any("charged to no arm" in note for note in said.tuning.notes)
    assert len(said.rates.rows) == 3


def test_what_was_tried_is_not_tried_again_and_a_stopped_search_goes_on(tuned_bench, tmp_path, monkeypatch):
    root, config = tuned_bench
    copy = tmp_path / "bench"
    shutil.copytree(root, copy)
    (copy / "tuning.json").unlink()
    lost = copy / "tuning" / "round-1" / "arms" / trial_name("random", small_recipe().learning_rate.peak) / "seed-90"
    assert lost.is_dir()
    shutil.rmtree(lost)
    trained = []
    real = jobs_of_tuning.train
    monkeypatch.setattr(jobs_of_tuning, "train", lambda job, *rest: trained.append(job.folder) or real(job, *rest))
    run_bench(copy, config, Here(2), "cpu")
    assert trained == [lost.resolve()]
    again, first = tuning_of(copy), tuning_of(root)
    assert (again.rates, again.trials) == (first.rates, first.trials)


def test_rates_of_another_bench_are_taken_and_nothing_is_tried(tuned_bench, tmp_path, monkeypatch):
    root, config = tuned_bench
    monkeypatch.setattr(jobs_of_tuning, "trial", lambda *_: pytest.fail("tried a rate"))
    fewer = replace(config, arms=config.arms[:2], seeds=(7,))
    run_bench(tmp_path / "bench", fewer, Here(2), "cpu", rates=root / "tuning.json")
    mine, theirs = tuning_of(tmp_path / "bench"), tuning_of(root)
    assert mine == replace(theirs, borrowed=True)
    said = findings(read(tmp_path / "bench"))
    assert any("another bench's" in note for note in said.tuning.notes)
    for arm in fewer.arms:
        run = read_config(tmp_path / "bench" / "arms" / arm.name / "seed-7")
        assert run.recipe.learning_rate.peak == theirs.rates.get(arm.name, config.recipe.learning_rate.peak)


def test_rates_of_another_bench_that_do_not_fit_are_refused(tuned_bench, tmp_path):
    path = tmp_path / "tuning.json"
    trials = {"baseline": {0.1: {90: 1.0}}}
    found = Tuned("loss", {"baseline": 0.1}, {"baseline": "baseline"}, trials, (), 12.0)
    write_sealed(path, {"tuned": to_json(found)})
    config = small_bench(tuning=TUNING, arms=arms_named(("baseline", "random")))
    with pytest.raises(UserError, match="no learning rate for random: leave these out, or tune"):
        borrowed(tmp_path / "mine", config, path)
    alone = replace(config, arms=config.arms[:1])
    with pytest.raises(UserError, match="found on seeds that this bench reports: 90"):
        borrowed(tmp_path / "mine", replace(alone, seeds=(90,), tuning=Tuning(seeds=(91,))), path)
    write_sealed(path, {"tuned": to_json(replace(found, metric="fd"))})
    with pytest.raises(UserError, match="has rates by fd, and this bench's are found by loss"):
        borrowed(tmp_path / "mine", alone, path)
    with pytest.raises(UserError, match=r"none\.json is not there"):
        borrowed(tmp_path / "mine", alone, tmp_path / "none.json")
    write_sealed(path, {"tuned": to_json(replace(found, found_for="vectors (digits) at 1,024 examples a step"))})
    with pytest.raises(UserError, match=r"were found for vectors \(digits\).*, and this bench is of tree .* at 256 ex"):
        borrowed(tmp_path / "mine", alone, path)
    with pytest.raises(UserError, match=r"none\.json is not there"):
        run_bench(tmp_path / "mine", alone, Here(), rates=tmp_path / "none.json")
    assert not (tmp_path / "mine" / "bench.json").exists()  # the folder is still anybody's


def test_rates_of_another_bench_never_come_in_the_place_of_those_that_are_there(tuned_bench, tmp_path):
    root, config = tuned_bench
    found = tuning_of(root)
    other = tmp_path / "tuning.json"
    write_sealed(other, {"tuned": to_json(replace(found, rates=dict.fromkeys(found.rates, 0.5)))})
    with pytest.raises(UserError, match=r"has learning rates already, and .* others: leave out --rates"):
        borrowed(root, replace(config, seeds=(7,)), other)
    keep_tuned(root, borrowed(root, replace(config, seeds=(7,)), root / "tuning.json"))
    assert tuning_of(root) == found


def test_seeds_that_a_presets_rates_were_found_on_are_never_reported_as_tuned():
    full = tree_full()
    assert altered(full, seeds=(0, 1)).tuned
    assert not altered(full, seeds=(2000, 2001)).tuned
    assert not {2000, 2001, 2002} & {*replace(full, seeds=(1999,)).with_seeds(4).seeds}


def test_one_arm_at_the_edge_leaves_the_others_tuned(tmp_path):
    config = small_bench(tuning=TUNING, arms=arms_named(("baseline", "random")))
    trials = {name: {0.1: {90: 1.0, 91: 1.0}} for name in ("baseline", "random")}
    rates = {"baseline": 0.1, "random": 0.1}
    found = Tuned("loss", rates, {name: name for name in rates}, trials, ("random",), 12.0)
    write_sealed(tmp_path / "tuning.json", {"tuned": to_json(found)})
    tuned = with_tuned_rates(tmp_path, config)
    assert tuned.untuned == ("random",)
    assert untuned_note(tuned) == "No rate that was tried is known to be best for `random`."
    assert [row[2].value for row in rates_table(tuned).rows] == [
        found.said(), "the edge of the rates that were tried"
    ]  # fmt: skip
    assert {90, 91} <= {*tuned.tuning.seeds}


def test_a_best_at_the_edge_is_said_and_does_not_count_as_tuned(tmp_path):
    config = small_bench(tuning=TUNING, arms=arms_named(("baseline", "random")))
    trials = {"baseline": {0.1: {90: 1.0, 91: 1.0}}, "random": {0.1: {90: 2.0}}}
    found = Tuned("loss", {"baseline": 0.1}, {"baseline": "baseline", "random": "random"}, trials,
                  ("baseline", "random"), 12.0)  # fmt: skip
    table = tuning_table(config.task, found)
    assert [cell.value for cell in table.rows[1]] == ["random", "2.000 (1 seeds)", "-"]
    assert table.notes[1] == "At the edge of the grid, so perhaps not the best: baseline, random."
    assert [row[2].value for row in rates_table(config).rows] == ["not tuned", "not tuned"]


def test_presets_that_do_not_reproduce_bring_tuned_rates():
    for config in (tree_quick(), tree_full()):
        assert config.untuned == ()
        assert config.recipe.learning_rate.course == "linear"
        assert config.task.gain_sign == "negative"


def test_the_quick_preset_adds_seeds_until_all_is_decided_or_its_minutes_are_over():
    config = tree_quick()
    assert config.looks[0] == len(config.seeds) == 5
    assert (config.looks[-1], config.minutes) == (20, 4.25)
    assert tree_full().looks == ()


def test_a_damaged_record_is_not_read(tmp_path):
    write_sealed(tmp_path / "tuning.json", {"tuned": {"metric": "loss"}})
    assert read_sealed(tmp_path / "tuning.json")
    with pytest.raises(UserError, match=r"tuning\.json"):
        tuning_of(tmp_path)
