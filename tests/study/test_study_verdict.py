"""What a study concludes, from results whose truth is known because they are made up."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ajest.bench.plan.config import run_folder
from ajest.bench.read.results import Cell, Results, Run, compared
from ajest.bench.read.score_reliability import score_reliability
from ajest.bench.read.statistics import Comparison
from ajest.bench.report.figures import OUTCOMES
from ajest.errors import UserError
from ajest.selection.arm import Scoring
from ajest.selection.catalogue import ARMS, arms_named, random_at
from ajest.selection.memory import LossMemory
from ajest.storage import checkpoint, jsonl
from ajest.study import results as study_results
from ajest.study.dials import by_keep
from ajest.study.figures import Figures, differences, guide_curves
from ajest.study.findings import findings
from ajest.study.guides import GUIDES, GuideCurve, read_guides
from ajest.study.page import render
from ajest.study.plan import ALWAYS, Grid
from ajest.study.presets import tree_full
from ajest.study.results import (
    StudyResults,
    costs_of,
    finalists,
    judged,
    matches,
    mean_ranks,
    pairwise_tests,
    recommended,
    results_of,
    table_of,
)
from ajest.study.verdict import reference_costs, verdict
from ajest.training.run_folder import claim_folder
from conftest import small_bench
from made_up import tuned

SEEDS = 12
COSTS = {"uniform": {"update": 3.0, "target": 1.0}, "random 0.2": {"update": 1.0}, "guide": {"update": 2.0}}


def made(effects, end="time", absent=(), costs=COSTS, count=SEEDS, **config):
    """Results in which each arm is better than the baseline by so many standard deviations of the noise, the same on
    every headline metric, or by a pair of numbers one on each."""
    names = tuple(effects)
    arms = tuple(ARMS[n] if isinstance(n, str) else n for n in names)
    settings = {"seeds": tuple(range(count)), "end": end, "final_only": True, **tuned(arms), **config}
    bench = small_bench(arms=arms, **settings)
    empty = Run("", 0, "done", 40, "", [], [])
    results = Results(Path("nowhere"), bench, costs, {}, empty, {}, {}, {})
    for k, (metric, weight) in enumerate(results.headlines()):
        rng = np.random.default_rng(k)
        for arm, name in zip(arms, names, strict=True):
            effect = effects[name][k] if isinstance(effects[name], tuple) else effects[name]
            noise = rng.normal(size=SEEDS)
            values = {s: 10 + metric.sign * (effect + noise[s]) for s in range(count) if (arm.name, s) not in absent}
            where = (bench.final_budget, arm.name, metric.name, weight)
            results.cells[where] = Cell(*where, 512, values)
    for arm in arms:
        for s in range(count):
            state = "diverged" if (arm.name, s) in absent else "done"
            results.runs[arm.name, s] = Run(arm.name, s, state, 40, "", [], [])
    return replace(results, cells=compared(bench, results.cells))


def page_of(final):
    """The page of a study that has one bench, of the final, without its figures."""
    return render(findings(tree_full(), StudyResults({}, {}, {"time": final})), Figures(), "the command")


def test_a_rule_that_beats_both_everywhere_is_the_victor_and_recommended():
    found = made({"baseline": 0, "random": 2, "hard": 6, "easy": -6})
    assert list(judged(found).winners) == ["hard"]
    assert recommended(judged(found)).arm == "hard"
    assert verdict([judged(found)]) == [
        "At equal time, `hard` certainly beats both baseline and random on every headline metric (12 seeds)."
    ]


def test_a_verdict_from_untuned_rates_says_so_first():
    said = verdict([judged(made({"baseline": 0, "random": 2, "hard": 6}, tuned=""))])
    assert len(said) == 1
    assert said[0].endswith(
        "(12 seeds). Learning rates were not tuned (`--tune` does), so a difference may be one of rates."
    )


def test_beating_the_baseline_alone_is_no_victory():
    found = made({"baseline": 0, "random": 6, "hard": 6})
    assert list(judged(found).winners) == []
    assert (recommended(judged(found)).arm, recommended(judged(found)).seeds) == ("random", SEEDS)
    said = verdict([judged(found)])
    assert said[:2] == [
        "At equal time, no rule certainly beats both baseline and random on every headline metric (12 seeds).",
        "Closest: `hard`.",
    ]
    assert said[2].startswith("It does not beat random on ")


def test_one_lost_headline_is_enough_to_lose():
    found = made({"baseline": 0, "random": 0, "hard": (8, -8)})
    assert list(judged(found).winners) == []
    assert recommended(judged(found)).arm == "baseline"
    lost = [d for d in pairwise_tests(found) if d.arm == "hard" and d.found.outcome == "worse"]
    assert {d.metric.name for d in lost} == {found.headlines()[1][0].name}


def test_a_rule_that_beats_the_baseline_is_recommended_where_random_does_not():
    found = made({"baseline": 0, "random": (8, -8), "hard": 4})
    assert recommended(judged(found)).arm == "hard"


def test_a_rule_is_no_victor_over_what_is_not_there():
    found = made({"baseline": 0, "random": 2, "hard": 6})
    rows = {where: cell for where, cell in found.cells.items() if where[1] != "random"}
    assert list(judged(replace(found, cells=rows)).winners) == []  # random diverged on every seed
    name, weight = found.headlines()[1][0].name, found.headlines()[1][1]
    rows = {where: cell for where, cell in found.cells.items() if where[1:] != ("hard", name, weight)}
    assert list(judged(replace(found, cells=rows)).winners) == []


def test_an_arm_that_lacks_seeds_is_neither_victor_nor_recommended():
    found = made({"baseline": 0, "random": 0, "hard": 8}, absent={("hard", 3)})
    assert list(judged(found).winners) == []
    assert recommended(judged(found)).arm == "baseline"
    assert list(mean_ranks({"": found}))[-1] == "hard"


def test_an_arm_that_lacks_seeds_is_judged_on_those_it_shares_and_is_not_the_closest():
    found = made({"baseline": 0, "random": 0, "hard": 8, "easy": -1}, absent={("hard", 3)})
    duel = next(d for d in pairwise_tests(found) if (d.arm, d.other) == ("hard", "random"))
    both = [found.cell("calibrated", arm, duel.metric.name, duel.weight).values for arm in ("hard", "random")]
    assert duel.found.value == pytest.approx(np.mean([both[0][s] for s in range(SEEDS) if s != 3]))
    assert duel.found.other == pytest.approx(np.mean([both[1][s] for s in range(SEEDS) if s != 3]))
    assert (duel.found.seeds, duel.found.missing, duel.found.outcome) == (SEEDS - 1, 1, "undecided")
    said = verdict([judged(found)])
    assert said[1] == "Closest: `easy`."
    assert said[-1] == "Seeds of `hard` are missing, so they are not ranked."
    said = verdict([judged(made({"baseline": 0, "random": 0, "hard": 8}, absent={("hard", 3)}))])
    assert said[0].endswith("(12 seeds).")
    assert said[1:] == ["Seeds of `hard` are missing, so they are not ranked."]


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_nothing_is_certain_below_five_seeds(seeds):
    found = made({"baseline": 0, "random": 30, "hard": 60, "easy": -60}, count=seeds)
    assert list(judged(found).winners) == []
    assert recommended(judged(found)).arm == "baseline"
    assert recommended(judged(found)).why == "nothing certainly beats it"
    assert {d.found.outcome for d in pairwise_tests(found)} == {"undecided"}
    said, *_, look = verdict([judged(found)])
    assert "no rule certainly beats both" in said
    only = "1 seed is" if seeds == 1 else f"{seeds} seeds are"
    assert look == f"{only} a first look; 5 are the least for a claim."


def test_what_five_seeds_show_is_a_claim():
    found = made({"baseline": 0, "random": 30, "hard": 60}, count=5)
    assert list(judged(found).winners) == ["hard"]
    (said,) = verdict([judged(found)])
    assert said == "At equal time, `hard` certainly beats both baseline and random on every headline metric (5 seeds)."


def test_sentences_of_a_verdict_in_full():
    said = verdict([judged(made({"baseline": 0, "random": 0, **rules})) for rules in ({}, {"hard": -9})])
    assert said[:2] == [  # two arms that are no rule have no verdict
        "At equal time, no rule certainly beats both baseline and random on every headline metric (12 seeds).",
        "Closest: `hard`.",
    ]
    assert len(said) == 3
    metrics = {m.label: m.better for m, _ in made({"baseline": 0}).headlines()}
    told = re.fullmatch(
        r"It is certainly worse than (baseline|random) on (guided )?(.+) \(-?[\d.]+ against -?[\d.]+, (\w+) is better; "
        r"p < 0.001\)\.",
        said[2],
    )
    assert metrics[told[3]] == told[4]
    assert verdict([]) == []


def test_a_winner_that_owes_its_reference_says_so():
    won = made({"baseline": 0, "random": 0, "learnable": 9, "learnable-strong": 9, "hard": 9}, strong_iterations=80)
    said, *owed = verdict([judged(won)])
    assert "`learnable`, `learnable-strong` and `hard` certainly beat both" in said
    assert owed == [
        "`learnable` uses a reference whose training, not charged here, took 10% of a budget.",
        "`learnable-strong` uses a reference whose training, not charged here, took 200% of a budget.",
    ]
    assert len(verdict([judged(replace(won, costs={}))])) == 1
    assert reference_costs(replace(won, costs={"guide": {"update": 1.0}})) == {}
    assert reference_costs(replace(won, costs={"uniform": {"update": 1.0}})) == {}


def test_who_is_recommended_and_why():
    for effects, arm, why in (
        ({"random": 2, "hard": 6}, "hard", "it certainly beats baseline and random on every headline metric"),
        ({"random": 6, "hard": 6}, "random", "no rule certainly beats both it and baseline, and it certainly beats "
         "baseline: what helps for certain is the smaller batch"),
        ({"random": (8, -8), "hard": 4}, "hard", "it certainly beats baseline, and certainly loses nowhere, as random "
         "does"),
        ({"random": 0, "hard": (4, 0)}, "hard", "it certainly beats baseline, which random does not"),
        ({"random": (8, -8), "hard": 0}, "baseline", "nothing certainly beats it without certainly losing elsewhere"),
        ({"random": 0, "hard": 0}, "baseline", "nothing certainly beats it"),
        ({"random": 2, "hard": 6, "easy": 9}, "easy", "it certainly beats baseline and random on every headline "
         "metric"),
    ):  # fmt: skip
        found = recommended(judged(made({"baseline": 0, **effects})))
        assert (found.arm, found.why) == (arm, why)
        assert (found.budget, found.seeds, found.steps, found.super_batch) == ("calibrated", SEEDS, 40, 256)


def test_doubt_is_the_one_sided_p_that_an_arm_is_not_better():
    found = made({"baseline": 0, "random": 0, "hard": 1, "easy": -1})
    by_arm = {(d.arm, d.other, d.metric.name): d for d in pairwise_tests(found)}
    for (arm, _, _), d in by_arm.items():
        if arm == "hard":
            assert d.p_one_sided == pytest.approx(d.found.p / 2)
            assert d.p_one_sided < 0.5
        if arm == "easy":
            assert d.p_one_sided == pytest.approx(1 - d.found.p / 2)
            assert d.p_one_sided > 0.5
    assert {d.p_one_sided for d in pairwise_tests(made({"baseline": 0, "hard": 1, "random": 0}, count=1))} == {0.5}


def test_ranks_are_means_over_headlines_and_budgets():
    one = made({"baseline": 0, "random": (5, -5), "hard": 9})
    other = made({"baseline": 0, "random": -5, "hard": -9})
    ranks = mean_ranks({"one": one})
    assert ranks == {"hard": 1.0, "baseline": 2.5, "random": 2.5}
    assert list(ranks) == ["hard", "baseline", "random"]
    assert mean_ranks({"one": one, "other": other}) == {"baseline": 1.75, "hard": 2.0, "random": 2.25}
    assert mean_ranks({}) == {}
    lost = mean_ranks({"": made({"baseline": 0, "random": 0, "hard": 9, "easy": 8}, absent={("hard", 0), ("easy", 1)})})
    assert lost["hard"] == lost["easy"] == 3.0


def test_a_page_marks_what_is_certain_and_how_many_seeds_there_are():
    effects = {"baseline": 0, "random": 0, "hard": 9, "easy": -9}
    text = page_of(made(effects))
    rows = {line.split(" | ")[0]: line for line in reversed(text.splitlines())}
    assert rows["| hard"].count("**") == 2 * 4
    assert len(re.findall(r"\| \*-?[\d.]+\* \(", rows["| easy"])) == 4
    assert "(no interval" not in text
    for line in made(effects, count=4), made(effects, absent={("hard", 0), ("easy", 0)}):
        text = page_of(line)
        rows = {line.split(" | ")[0]: line for line in reversed(text.splitlines())}
        assert rows["| hard"].count("*") == rows["| easy"].count("*") == 0
    assert "(11 seeds)" in rows["| hard"]
    assert "; 11 of 12 seeds; better on 100% of 11 seeds; p < 0.001)" in rows["| hard"]


def test_a_forest_is_grey_where_nothing_is_certain():
    for count, colours in ((5, ["better", "worse"]), (4, ["undecided"] * 2)):
        found = pairwise_tests(made({"baseline": 0, "hard": 60, "easy": -60}, count=count))
        figure = differences(found, "baseline")
        dots = [line.get_color() for line in figure.axes[0].lines if line.get_marker() == "o"][1::2]  # the means
        assert dots == [OUTCOMES[c] for c in colours]


def test_the_closest_is_the_one_whose_worst_comparison_is_the_most_certain():
    """Not who is worse by little where all corrected p are 1: a lead of nothing much beats a deficit."""
    found = made({"baseline": 0, "random": 0, "easy": (3, -1), "hard": 0.2, "high-loss": (3, -0.5)})
    assert verdict([judged(found)])[1] == "Closest: `hard`."


def test_all_comparisons_at_a_budget_are_corrected_together():
    found = pairwise_tests(made({"baseline": 0, "random": 0, "hard": 1, "easy": 0}))
    # random against the baseline, hard and easy against both, on two metrics
    assert len(found) == 10
    least = min(found, key=lambda d: d.found.p)
    assert least.found.corrected == pytest.approx(min(1, 10 * least.found.p))


def test_finalists_are_the_best_rules_and_a_variant_that_keeps_as_much_as_random_choice():
    smaller = replace(ARMS["hard"], name="hard-keep-0.1", keep=0.1)
    screened = made({"baseline": 0, "random": 5, "hard": 3, "infobatch": 4, "recall": 2, "easy": -3})
    dialled = made({"baseline": 0, smaller: 9, replace(ARMS["hard"], name="hard-warm", temperature=2.0): 1})
    assert [a.name for a in finalists({"": screened}, {"": dialled}, 2)] == ["infobatch", "hard", "hard-warm"]


def test_random_choice_is_no_finalist_and_an_unfinished_stage_has_none():
    screened = made({"baseline": 0, random_at(0.4): 9, "hard": 3, "easy": -3})
    assert [a.name for a in finalists({"": screened}, {}, 2)] == ["hard", "easy"]
    assert [a.name for a in finalists({"": screened}, {"": made({"baseline": 0, "hard": 9, "easy": 1})}, 1)] == [
        "hard", "easy",
    ]  # fmt: skip
    screened.runs["hard", 0] = Run("hard", 0, "unfinished", 4, "", [], [])
    for stages in (({"": screened}, {}), ({}, {"": screened})):
        with pytest.raises(UserError, match=r"^nowhere has 1 unfinished runs: finish that stage first, or name"):
            finalists(*stages, 1)


def test_a_stage_has_the_benches_that_there_are_and_that_have_values(tmp_path, monkeypatch):
    whole = made({"baseline": 0, "hard": 1})
    found = {"time": whole, "samples": replace(whole, cells={})}
    monkeypatch.setattr(study_results, "read", lambda folder: found[folder.name])
    study = tree_full()
    assert results_of(tmp_path, study, "screening") == {}
    for name in study.screening_ends:
        (tmp_path / "screening" / name).mkdir(parents=True)
        (tmp_path / "screening" / name / "bench.json").write_text("{}")
    assert results_of(tmp_path, study, "screening") == {"time": whole}
    assert results_of(tmp_path, study, "final") == {}


def test_a_table_of_a_study_has_every_value_by_seed_at_the_budget_that_counts():
    results = made({"baseline": 0, "hard": 1}, count=2)
    cell = results.cell("calibrated", "hard", "mandala", 3.0)
    assert table_of(results)[-1] == {
        "arm": "hard",
        "metric": "mandala",
        "weight": 3.0,
        "n": 512,
        "by_seed": cell.values,
    }
    assert len(table_of(results)) == 4
    results.cells["seconds", "hard", "mandala", 3.0] = replace(cell, budget="seconds")
    assert len(table_of(results)) == 4


def test_a_rule_is_held_against_random_choice_of_as_many_at_every_keep_fraction():
    grid = Grid("hard", ("keep", (0.1, 0.2)), ("temperature", (0.25, 1.0, 2.0)))
    less, other = replace(ARMS["hard"], name="hard-keep-0.1", keep=0.1), {"hard-temperature-2": 2.0}
    arms = {
        "baseline": 0,
        less: 2,
        "hard": 5,
        random_at(0.1): 1,
        replace(ARMS["hard"], name=next(iter(other)), temperature=2.0): 9,
    }
    results = made(arms)
    found = by_keep(results, grid, ())
    assert [(f.keep, f.metric.name, f.weight) for f in found] == [
        (keep, m.name, w) for keep in (0.1, 0.2) for m, w in results.headlines()
    ]
    for f in found:
        name = "hard-keep-0.1" if f.keep == 0.1 else "hard"
        assert f.value == results.cell("calibrated", name, f.metric.name, f.weight).mean
        assert f.baseline.improvement == pytest.approx(2 if f.keep == 0.1 else 5, abs=1.2)
        assert (f.random is None) == (f.keep == 0.2)
        assert f.cost is None
    assert found[0].random.improvement == pytest.approx(1, abs=1.2)
    assert by_keep(results, Grid("hard", ("strata", (1, 4)), ("temperature", (1.0,))), ()) == []
    assert by_keep(made({"baseline": 0, "random": 1}), grid, ()) == []


def test_a_finalist_of_another_keep_fraction_is_held_against_random_choice_at_its_own():
    final = tree_full().stage("final", (ARMS["infobatch"], ARMS["recall"], ARMS["random"]))["time"]
    assert [a.name for a in final.arms] == [*ALWAYS, "infobatch", "recall", "random-keep-0.65"]
    assert final.arms[-1].keep == ARMS["infobatch"].keep
    results = made({"baseline": 0, "random": 0, "hard": 2, "infobatch": 2, random_at(0.65): 1, random_at(0.1): 0})
    found = matches(results)
    assert {(d.arm, d.other) for d in found} == {("infobatch", "random-keep-0.65")}
    assert len(found) == len(results.headlines())
    assert all(d.found.improvement == pytest.approx(1, abs=0.9) for d in found)


def test_what_a_keep_fraction_costs_is_without_the_target_where_the_budget_is():
    grid = Grid("hard", ("keep", (0.2,)), ("temperature", (1.0,)))
    kind = ARMS["hard"].kinds()[0].label
    costs = COSTS | {kind: {"learner scoring": 1.0, "update": 1.0, "target": 1.0}}
    arms = {"baseline": 0, "random": 0, "hard": 1}
    benches = (made(arms, end, costs=costs) for end in ("time", "time_without_target"))
    gross, spared = (by_keep(bench, grid, costs_of(bench))[0].cost for bench in benches)
    assert gross.step_ratio == pytest.approx(3 / 4)
    assert spared.step_ratio == pytest.approx(2 / 3)


def test_the_guides_time_is_charged_in_whole_steps_of_the_baseline():
    study = tree_full()
    shorter = study.charged({"uniform": {"update": 3.0, "target": 1.0}, "guide": {"update": 1.0, "target": 1.0}})
    assert shorter.iterations == study.iterations - study.guide_iterations // 2
    with pytest.raises(UserError, match="nothing is left"):
        study.charged({"uniform": {"update": 1.0}, "guide": {"update": 2.0}})


def test_references_are_priced_as_shares_of_a_budget():
    shares = reference_costs(made({"baseline": 0, "random": 0}, strong_iterations=80))
    assert shares["guide"] == pytest.approx(8 * 2 / (40 * 4))
    assert shares["strong"] == pytest.approx(80 * 4 / (40 * 4))


def test_arms_refuse_what_would_silently_be_something_else():
    guided = ARMS["learnable"]
    for changes, why in (
        ({"memory": LossMemory("id")}, "set memory.every"),
        ({"memory": LossMemory("id", every=8), "normalise": "running"}, "running statistics of references"),
    ):
        with pytest.raises(UserError, match=why):
            replace(guided, **changes)
    for scoring in (Scoring(draws=2), Scoring(half=True)):
        with pytest.raises(UserError, match="one noise draw at full resolution"):
            replace(ARMS["joint-residual"], scoring=scoring)
    (whole,), (parts,) = (a.kinds() for a in (arms_named(("ajest",))[0], arms_named(("ajest",), within=128)[0]))
    assert parts.label == f"{whole} within 128"


def test_the_interval_of_a_correlation_or_a_share_ends_where_these_do():
    results = made({"baseline": 0, "hard": 1})
    for seed, (retest, share) in enumerate([(0.99, 0.01), (0.6, 0.4), (0.98, 0.0)]):
        line = {"scores": {"test_retest": retest, "sigma_eta_squared": share, "agreement": -retest}}
        results.runs["hard", seed] = Run("hard", seed, "done", 40, "", [line], [])
    found = score_reliability(results)["hard"]
    assert found["test_retest"].mean == pytest.approx(2.57 / 3)
    assert (found["test_retest"].high, found["sigma_eta_squared"].low, found["agreement"].low) == (1, 0, -1)
    assert 0 < found["test_retest"].low < 0.8


def test_a_guides_weight_is_the_best_on_some_seeds_and_its_gain_is_judged_on_others(tmp_path):
    """Chosen: guided values differ by weight; judged: by guide. The charged run is compared with the uncharged one."""
    bench = small_bench(arms=(ARMS["baseline"],), end="steps")
    metric = next(m for m in bench.task.metrics if m.headline == "guided")

    def store(name, plain, guided, steps=40):
        for seed in bench.seeds:
            folder = run_folder(tmp_path / name, "baseline", seed)
            folder.mkdir(parents=True)
            checkpoint.write_sealed(folder / "status.json", {"state": "done", "step": steps})
            at = {"step": steps, "width": bench.recipe.ema_widths[0], "weight": 1.0, "n": bench.n_final}
            jsonl.append(folder / "metrics.jsonl", at | {"metrics": {metric.name: plain + seed / 8}})
            for (guide, weight), value in guided.items():
                found = {metric.name: value + seed / 8}
                jsonl.append(folder / "guides.jsonl", {"guide": guide, "weight": weight, "metrics": found})

    trained, charged, early = (guide.name for guide in GUIDES[:3])
    store("chosen", 0.25, {(trained, 1.5): 0.375, (trained, 3.0): 0.5, (early, 1.5): 0.5, (early, 3.0): 0.375})
    store("full", 0.25, {(trained, 1.5): 1.0, (trained, 3.0): 0.75, (early, 1.5): 0.5, (early, 3.0): 1.0})
    store("charged", 0.125, {(charged, 3.0): 0.625, (charged, 1.5): 1.0}, steps=32)
    assert read_guides(tmp_path).gains == ()
    for name, config in (("chosen", bench), ("full", bench), ("charged", replace(bench, iterations=32))):
        claim_folder(tmp_path / name, config, "bench.json")
    found = {g.guide: g for g in read_guides(tmp_path).gains if g.metric == metric}
    assert {name: (g.weight, g.charged) for name, g in found.items()} == {
        trained: (3.0, "no"),
        charged: (3.0, "yes"),
        early: (1.5, "free"),
    }
    assert [found[n].gain.difference for n in (trained, charged, early)] == [0.5, 0.375, 0.25]
    assert found[trained].trained is None
    assert [found[n].trained.difference for n in (charged, early)] == [-0.125, -0.25]
    assert found[trained].gain.value == 0.75 + 1 / 16


@pytest.mark.parametrize(("last", "scale"), [(90.0, "linear"), (9e4, "symlog")])
def test_guides_that_run_away_leave_the_others_to_be_seen(last, scale):
    """Over weights the energy distance of one can grow 10,000 times as far as that of the others."""
    metric = next(m for m in tree_full().task.metrics if m.name == "energy_distance")
    grown = {weight: d / metric.scale for weight, d in ((1.5, 0.5), (2.0, 5.0), (4.0, last))}
    gains = {weight: Comparison(20, 0, d, 0.0, d, 0.0, 2 * d, 0.0, 0.5, -1) for weight, d in grown.items()}
    figure = guide_curves([GuideCurve("trained", metric, gains)])
    assert figure.axes[0].get_yscale() == scale
