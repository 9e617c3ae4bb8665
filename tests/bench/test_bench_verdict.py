"""What a bench concludes, from results whose truth is known because they are made up."""

from dataclasses import replace

import pytest

from ajest.bench.read.findings import findings
from ajest.bench.read.results import Run
from ajest.bench.read.verdict import caution, decisive
from ajest.bench.read.wording import on_metrics, series, shown
from ajest.bench.report.terminal import verdict_tables
from ajest.selection.catalogue import ARMS
from ajest.tasks.tree.task import METRICS
from ajest.training.recipe import LearningRate
from conftest import small_bench, small_recipe
from made_up import BASE, COSTS, NOISE, TIME, ahead, at_time, made_up

ENERGY = next(m for m in METRICS if m.name == "energy_distance")
SAMPLES = ("samples", "energy_distance", 1.0)


def verdict(results):
    """The sentences that every format prints."""
    return list(findings(results).sentences)


def said_of(results):
    """What is said of the best arm, and of those that lack seeds, on the energy distance."""
    opening = "On energy distance × 1000 at equal time, "
    return [s.removeprefix(opening) for s in verdict(results) if s.startswith(opening)]


def test_who_is_better_by_far_on_every_seed_is_best_and_certain():
    results = at_time({"baseline": BASE, "ajest": ahead(2), "random": ahead(-3)})
    assert verdict(results)[:3] == [
        "At equal time, `ajest` certainly beats both `baseline` and random choice on energy distance × 1000.",
        "On energy distance × 1000 at equal time, `ajest` certainly beats `baseline`: 8333.3 against 10333.3, lower is "
        "better (p < 0.001).",
        "At equal time, `random` is certainly worse than `baseline` on energy distance × 1000.",
    ]


def test_where_higher_is_better_so_is_more():
    results = made_up({("calibrated", "mandala", 3.0): {"baseline": BASE, "ajest": ahead(2), "random": ahead(-3)}})
    answer, best, *others = verdict(results)
    assert answer == (
        "At equal time, `random` certainly beats `baseline` on guided mandala, but nothing certainly beats random "
        "choice."
    )
    assert best.startswith(
        "On guided mandala at equal time, `random` certainly beats `baseline`: 13.33 against 10.33, hi"
    )
    assert others[:2] == [
        "At equal time, `ajest` is certainly worse than random choice on guided mandala.",
        "At equal time, `ajest` is certainly worse than `baseline` on guided mandala.",
    ]


def test_beating_both_the_baseline_and_random_choice_comes_first():
    both = verdict(at_time({"baseline": BASE, "ajest": ahead(3), "random": ahead(2)}))
    assert both[0].startswith("At equal time, `ajest` certainly beats both `baseline` and random choice on")
    assert "At equal time, `ajest` and `random` certainly beat `baseline` on energy distance × 1000." in both
    one = verdict(at_time({"baseline": BASE, "ajest": ahead(2), "random": ahead(3)}))
    assert one[0] == (
        "At equal time, `ajest` and `random` certainly beat `baseline` on energy distance × 1000, but nothing "
        "certainly beats random choice."
    )
    assert said_of(at_time({"baseline": BASE, "ajest": ahead(2), "random": ahead(3)}))[0].startswith(
        "`random` certainly"
    )


def test_several_arms_metrics_and_budgets_have_a_sentence_each():
    low = {"baseline": BASE, "ajest": ahead(2), "random": ahead(3), "high-loss": ahead(4)}
    high = {arm: [-v for v in values] for arm, values in low.items()}
    results = made_up({TIME: low, ("calibrated", "mandala", 3.0): high, SAMPLES: high}, tuple(low))
    said = verdict(results)
    assert said[0] == (
        "At equal time, `high-loss` certainly beats both `baseline` and random choice on every headline metric."
    )
    assert (
        "At equal time, `ajest`, `random` and `high-loss` certainly beat `baseline` on every headline metric." in said
    )
    assert said[3] == "At equal samples, nothing certainly beats `baseline`."
    worse = "At equal samples, `ajest`, `random` and `high-loss` are certainly worse than `baseline` on energy distance"
    assert f"{worse} × 1000." in said


def test_headlines_that_arms_win_are_named_or_counted():
    found = at_time({"baseline": BASE, "ajest": ahead(2)}, arms=("baseline", "ajest"))
    columns = [(metric, 1.0) for metric in METRICS[:3]]
    assert on_metrics(columns[:1], 3) == "on energy distance × 1000"
    assert on_metrics(columns[:2], 3) == "on 2 of 3 headline metrics"
    assert on_metrics(columns, 3) == "on every headline metric"
    assert verdict(found)[0] == "At equal time, `ajest` certainly beats `baseline` on energy distance × 1000."


def test_names_beyond_three_are_counted():
    names = ["a", "b", "c", "d"]
    assert [series(names[:n]) for n in (1, 2, 3, 4)] == [
        "`a`",
        "`a` and `b`",
        "`a`, `b` and `c`",
        "`a`, `b` and 2 others",
    ]


def test_a_lead_within_the_noise_is_not_certain():
    wild = [b + g for b, g in zip(BASE, (-3, 2, -3, 2, -1, 1), strict=True)]
    results = at_time({"baseline": BASE, "ajest": wild, "random": ahead(-0.01)})
    assert said_of(results) == ["`ajest` may beat `baseline`: 10000.0 against 10333.3, lower is better (p = 1.000)."]
    assert verdict(results)[0] == "At equal time, nothing certainly beats `baseline` or random choice."


def test_where_all_are_worse_nobody_is_best():
    results = at_time({"baseline": BASE, "ajest": ahead(-2), "random": ahead(-3)})
    assert said_of(results) == ["no arm is better than `baseline` (10333.3)."]
    worse = "At equal time, `ajest` and `random` are certainly worse than `baseline` on energy distance × 1000."
    assert worse in verdict(results)


def test_who_is_as_good_as_the_baseline_is_not_better():
    assert said_of(at_time({"baseline": BASE, "ajest": BASE})) == ["no arm is better than `baseline` (10333.3)."]


def test_an_arm_alone_has_no_verdict():
    alone = at_time({"baseline": BASE}, arms=("baseline",))
    assert verdict(alone) == ["`baseline` stands alone: a comparison needs a second arm."]


@pytest.mark.parametrize("seeds", [1, 2, 3, 4])
def test_nothing_is_certain_below_five_seeds(seeds):
    arms = {"baseline": BASE[:seeds], "ajest": ahead(5, seeds), "random": ahead(-5, seeds)}
    results = at_time(arms, seeds=seeds)
    first, best, *_ = verdict(results)
    stands = "1 seed stands" if seeds == 1 else f"{seeds} seeds stand"
    assert first == (
        "At equal time, nothing certainly beats `baseline` or random choice. "
        f"Only {stands} behind this, a first look; 5 are the least for a claim."
    )
    assert "`ajest` may beat `baseline`" in best
    assert not any("orse" in sentence or "certainly beats `" in sentence for sentence in verdict(results)[1:])
    assert {shown(results, cell, ENERGY).tone for cell in results.cells.values()} == {""}
    assert {c.outcome for cell in results.cells.values() for c in cell.against.values()} == {"undecided"}


def test_five_seeds_are_enough():
    results = at_time({"baseline": BASE[:5], "ajest": ahead(2, 5), "random": ahead(-3, 5)}, seeds=5)
    assert said_of(results)[0].startswith("`ajest` certainly beats `baseline`")
    assert "`random` is certainly worse than `baseline`" in " ".join(verdict(results))
    assert not any("first look" in s for s in verdict(results))


def test_gaps_that_are_the_same_on_every_seed_prove_nothing():
    results = at_time({"baseline": BASE, "ajest": [b - 0.3 for b in BASE]})
    assert said_of(results) == ["`ajest` may beat `baseline`: 10033.3 against 10333.3, lower is better (not testable)."]
    assert shown(results, results.cell("calibrated", "ajest", "energy_distance", 1.0), ENERGY).detail == (
        "no interval: the same on every seed"
    )


def test_an_arm_that_lost_its_worst_seed_is_compared_on_the_others_and_not_crowned():
    """Its mean alone, 490 against 800, would make it best; where both have a seed it is behind."""
    base = [0.500, 0.480, 0.490, 0.470, 0.480, 2.380]
    lost = [0.501, 0.490, 0.491, 0.480, 0.488, None]
    fair = [value - gap for value, gap in zip(base, (0.010, 0.012, 0.011, 0.009, 0.010, 0.008), strict=True)]
    arms = {"baseline": base, "ajest": lost, "random": fair}
    results = at_time(arms, diverged=[("ajest", 5)])
    best, lacks = said_of(results)
    assert best.startswith("`random` certainly beats `baseline`: 790.0 against 800.0, lower is better (p")
    assert lacks == "`ajest` lacks seeds and is not ranked: 490.0 against 484.0 where both have one."
    cell = results.cell("calibrated", "ajest", "energy_distance", 1.0)
    text = shown(results, cell, ENERGY)
    assert text.value == "490.0"
    assert text.detail.endswith("; 5 of 6 seeds, baseline there 484.0")
    assert results.lacking(cell) == [5]
    assert not any("seeds stand behind this" in said for said in verdict(results))  # six do behind `random`


def test_an_arm_that_lost_a_seed_is_never_certain_however_far_ahead():
    results = at_time({"baseline": BASE, "ajest": [*ahead(5)[:5], None]}, arms=("baseline", "ajest"))
    none, lacks = said_of(results)
    assert none == "no arm but `baseline` has every seed: none is ranked."
    assert lacks.startswith("`ajest` lacks seeds")
    assert verdict(results)[0].startswith("At equal time, nothing certainly beats `baseline`.")


def test_a_baseline_that_lost_a_seed_is_compared_on_the_others():
    results = at_time({"baseline": [None, *BASE[1:]], "ajest": ahead(2), "random": ahead(-1)})
    best, *few = said_of(results)
    assert best.startswith("`ajest` may beat `baseline`: 8380.0 against 10400.0, lower is better (p")
    assert few == [f"`{arm}` is compared on 5 of 6 seeds." for arm in ("ajest", "random")]
    base = results.cell("calibrated", "baseline", "energy_distance", 1.0)
    assert shown(results, base, ENERGY).detail == "sd 1193.7; 5 of 6 seeds"


def test_seeds_that_no_arm_has_yet_keep_nobody_from_being_ranked():
    few = {name: [*values[:5], None] for name, values in {"baseline": BASE, "ajest": ahead(2), "random": BASE}.items()}
    best, *compared = said_of(at_time(few))
    assert best.startswith("`ajest` may beat `baseline`")
    assert compared[0] == "`ajest` is compared on 5 of 6 seeds."


def test_p_is_corrected_over_all_headlines_of_a_reading_and_one_opponent():
    both = {
        TIME: {"baseline": BASE, "ajest": ahead(0.1), "random": ahead(0.05)},
        ("calibrated", "mandala", 3.0): {"baseline": BASE, "ajest": ahead(0.4), "random": ahead(0.3)},
        ("calibrated", "loss", 1.0): {"baseline": BASE, "ajest": ahead(0.1), "random": ahead(0.05)},
        SAMPLES: {"baseline": BASE, "ajest": ahead(0.1)},
    }
    results = made_up(both)

    def against(budget, arm, metric, weight, other):
        return results.cell(budget, arm, metric, weight).against[other]

    family = [against("calibrated", a, m, w, "baseline") for a in ("ajest", "random") for m, w in (
        ("energy_distance", 1.0), ("mandala", 3.0))]  # fmt: skip
    least = min(family, key=lambda f: f.p)
    assert least.corrected == pytest.approx(4 * least.p)
    # A metric that is no headline is corrected over the arms alone, another budget by itself.
    alone = [against("calibrated", arm, "loss", 1.0, "baseline") for arm in ("ajest", "random")]
    assert min(f.corrected for f in alone) == pytest.approx(2 * min(f.p for f in alone))
    other = against("samples", "ajest", "energy_distance", 1.0, "baseline")
    assert other.corrected == other.p
    # Against random: ajest on two headlines; the baseline against random is the same test as random against it.
    rivals = [against("calibrated", "ajest", m, w, "random") for m, w in (("energy_distance", 1.0), ("mandala", 3.0))]
    assert min(f.corrected for f in rivals) == pytest.approx(min(1, 2 * min(f.p for f in rivals)))
    assert results.cell("calibrated", "baseline", "energy_distance", 1.0).against == {}
    assert set(results.cell("calibrated", "random", "energy_distance", 1.0).against) == {"baseline"}


@pytest.mark.parametrize(
    ("lead", "answer", "said"),
    [
        (2.0, "At equal time, `ajest` certainly beats both `baseline` and random choice", ""),
        (-2.0, "At equal time, `random` certainly beats `baseline`", "`ajest` is certainly worse than random choice"),
        (0.01, "At equal time, `ajest` and `random` certainly beat `baseline`", ""),
    ],
)
def test_selection_pays_if_it_beats_random_at_equal_time(lead, answer, said):
    ahead_of_random = [v - lead + n for v, n in zip(ahead(1), NOISE, strict=True)]
    found = verdict(at_time({"baseline": BASE, "random": ahead(1), "ajest": ahead_of_random}))
    assert found[0].startswith(answer)
    assert ("but nothing certainly beats random choice" in found[0]) == (lead < 2)
    assert said in " ".join(found)
    cost = [
        "Scoring and choosing take up to 50% of a selecting step.",
        "With the super-batch that had to be drawn, an example chosen by scores costs 5.0 times as much time as one "
        "without choosing.",
    ]
    assert [s for s in found if s in cost] == cost


def test_without_random_choice_nothing_is_said_of_it():
    results = at_time({"baseline": BASE, "ajest": ahead(2)}, arms=("baseline", "ajest"))
    assert not any("random" in sentence for sentence in verdict(results))


def test_what_selection_costs_is_by_the_clock_that_the_verdict_rests_on():
    at = {"baseline": BASE, "random": ahead(1), "ajest": ahead(3)}
    for budget, title in (
        ("time_without_target", "equal time without the exact target"),
        ("flops", "equal operations of the networks"),
    ):
        said = verdict(made_up({(budget, "energy_distance", 1.0): at}, end=budget, final_only=True))
        assert said[0].startswith(f"At {title}, `ajest` certainly beats both `baseline` and random choice")
        assert factor_of(said) == "5.0"
    dear = COSTS | {"select jest guide 0.2": COSTS["select jest guide 0.2"] | {"target": 6.0}}
    factors = [
        factor_of(verdict(made_up({(budget, "energy_distance", 1.0): at}, costs=dear, end=end)))
        for end, budget in (("time", "calibrated"), ("time_without_target", "time_without_target"))
    ]
    assert factors == ["7.5", "5.0"]


def factor_of(said):
    """How many times as much a chosen example costs."""
    (sentence,) = [s for s in said if "an example chosen by scores costs" in s]
    return sentence.split("costs ")[1].split(" times")[0]


def test_the_factor_is_one_number_where_arms_cost_as_good_as_the_same():
    other = COSTS | {ARMS["high-loss"].kinds()[0].label: {"learner scoring": 4.06, "update": 4.0}}
    results = at_time({"baseline": BASE, "ajest": ahead(1), "high-loss": ahead(1)}, costs=other,
                      arms=("baseline", "ajest", "high-loss"))  # fmt: skip
    assert factor_of(verdict(results)) == "5.0"


def test_the_factor_is_a_range_where_arms_cost_differently():
    other = COSTS | {"select high-loss none 0.2": {"learner scoring": 3.0, "update": 1.0}}
    results = at_time({"baseline": BASE, "ajest": ahead(1), "high-loss": ahead(1)}, costs=other,
                      arms=("baseline", "ajest", "high-loss"))  # fmt: skip
    assert "Scoring and choosing take up to 75% of a selecting step." in verdict(results)
    assert factor_of(verdict(results)) == "2.5 to 5.0"
    assert verdict(replace(results, costs={}))[2:] == []


def test_a_verdict_rests_on_what_the_runs_end_at():
    at = {"baseline": BASE, "ajest": ahead(2), "random": ahead(1)}
    for end, budget, title, amount in (
        ("time", "calibrated", "equal time", "4096.0 s of training"),
        ("time_without_target", "time_without_target", "equal time without the exact target", "4096.0 s of training"),
        ("flops", "flops", "equal operations of the networks", "4.1e-09 TFLOP of the networks"),
        ("samples", "samples", "equal samples", "4,096 examples trained on"),
        ("steps", "steps", "equal steps (the whole run)", "4,096 steps"),
    ):
        results = made_up({(budget, "energy_distance", 1.0): at}, end=end, final_only=True)
        assert decisive(results) == [budget]
        assert verdict(results)[0].startswith(f"At {title}, `ajest` certainly beats both `baseline` and random choice")
        assert verdict(results)[1].startswith(f"On energy distance × 1000 at {title}, `ajest` certainly beats")
        (table,) = verdict_tables(findings(results))
        assert str(table.title) == f"At {title}: {amount}"
    every = {(r, "energy_distance", 1.0): at for r in ("calibrated", "samples", "steps", "seconds", "flops")}
    assert decisive(made_up(every)) == ["calibrated", "samples"]
    assert decisive(made_up(every, end="flops")) == ["calibrated", "samples", "flops"]
    assert decisive(made_up({})) == []
    assert verdict(made_up({})) == ["There is no verdict yet: no budget was reached and evaluated by all arms."]
    said = verdict(made_up({TIME: at, SAMPLES: {"baseline": BASE, "ajest": ahead(-1)}}))
    assert said[2] == "At equal samples, nothing certainly beats `baseline`."


def test_what_autoguidance_does_is_said_with_its_certainty():
    end = {
        ("steps", "mandala", 1.0): {"baseline": BASE},
        ("steps", "mandala", 3.0): {"baseline": ahead(-2)},
        ("steps", "energy_distance", 1.0): {"baseline": BASE},
        ("steps", "energy_distance", 3.0): {"baseline": ahead(-3)},
        ("steps", "classification", 1.0): {"baseline": BASE},
        ("steps", "classification", 3.0): {"baseline": ahead(0.01)},
        ("steps", "l2", 1.0): {"baseline": BASE},
        ("steps", "l2", 3.0): {"baseline": ahead(9)},
    }
    said = verdict(made_up({TIME: {"baseline": BASE, "random": BASE}} | end))[-3:]
    assert said == [
        "After the whole run, autoguidance certainly worsens energy distance × 1000 of `baseline` from 10333.3 to "
        "13333.3.",
        "After the whole run, autoguidance certainly improves mandala of `baseline` from 10.33 to 12.33.",
        "After the whole run, autoguidance may move classification of `baseline` from 10.33 to 10.32.",
    ]


def test_the_caution_is_about_the_clock_of_the_learning_rate():
    assert caution(small_bench()) == (
        "The learning rate follows the number of steps. At equal budgets of another kind, arms that took more have "
        "also annealed further, which is a part of their lead."
    )
    share = small_bench(recipe=small_recipe(learning_rate=LearningRate(decay=0.25, clock="share")), end="time")
    assert caution(share) == (
        "The learning rate is annealed over the whole of each run, so arms compare fairly at equal time. At what is "
        "read before, arms that are further on in their runs have annealed further."
    )


def test_what_is_missing_is_said_a_sentence_each():
    at = {"baseline": BASE, "ajest": ahead(1), "random": BASE}
    results = made_up({TIME: at, SAMPLES: {"baseline": BASE}}, diverged=[("ajest", 5)], end="time",
                      recipe=small_recipe(not_finite="skip"))  # fmt: skip
    runs = results.runs
    runs["random", 0] = Run("random", 0, "unfinished", 7, "", [{"not_finite": 2000, "scores_not_finite": 30}], [])
    missing = results.missing()
    assert missing[:4] == [
        "ajest, seed 5: stopped at step 40, and left out of every comparison. Reason: the loss is not finite.",
        "random, seed 0: its training is not finished (step 7).",
        "random, seed 0: in 2,000 steps the loss or its gradient was not finite; they were skipped.",
        "random, seed 0: 30 scores were not finite; these examples were not trained on.",
    ]
    assert missing[4:] == [
        "equal samples: not evaluated yet for ajest, random.",
        "equal time as measured in the runs: not evaluated yet.",
        "equal time without the exact target: not evaluated yet.",
    ]
    assert results.unfinished == 1
    zeros = replace(results, config=replace(results.config, recipe=small_recipe(not_finite="zero")))
    assert (
        "in 2,000 steps the loss or its gradient was not finite; zeros stood in the place of such gradients."
        in (zeros.missing()[2])
    )


def test_where_the_baseline_is_random_choice_there_is_one_family_of_comparisons():
    """Of them Holm's correction asks the most of the least p: as many times it as there are arms and headlines."""
    arms = ("random", "hard", "ajest", "muon")
    values = {"random": BASE, "hard": ahead(-2), "ajest": ahead(0.01), "muon": ahead(-4)}
    results = at_time(values, arms=arms)
    assert results.config.baseline == "random"
    found = [results.cell("calibrated", arm, "energy_distance", 1.0).against for arm in arms[1:]]
    assert [list(against) for against in found] == [["random"]] * 3
    comparisons = sorted((against["random"] for against in found), key=lambda f: f.p)
    assert comparisons[0].corrected == pytest.approx(3 * comparisons[0].p)
    assert not any("random choice" in sentence for sentence in verdict(results))
