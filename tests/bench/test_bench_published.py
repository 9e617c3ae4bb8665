"""The published figures, digit by digit, and when ours may stand beside them."""

import math
from dataclasses import replace

import pytest
from scipy import stats

from ajest.bench.api import Bench
from ajest.bench.plan.presets import tree_paper
from ajest.bench.read.published import PUBLISHED, beside_ours, comparable, welch_reach
from ajest.bench.read.results import Cell, Run
from ajest.cli.asked import planned
from ajest.selection.catalogue import ARMS, arms_named
from ajest.tasks.tree.task import TreeTask
from ajest.training.recipe import LearningRate
from made_up import made_up

ARM_NAMES = ("baseline", "early-ajest", "ajest", "random")

#: As arXiv 2509.15267 and its notebooks have them (docs/method.md#published-tree).
WHOLE = """
loss                .0108+-.0028 .0106+-.0028 .0135+-.0034 .0124+-.0024
l2                  .0183+-.0042 .0171+-.0035 .0181+-.0039 .0192+-.0034
mandala             .511+-.066   .507+-.065   .462+-.057   .474+-.058
mandala+G           .741+-.106   .750+-.072   .689+-.101   .720+-.068
classification      .886+-.019   .884+-.023   .857+-.025   .872+-.017
classification+G    .939+-.009   .935+-.010   .918+-.017   .931+-.005
mandala_16k         .628 .629 .567
mandala_16k+G       .820 .811 .744
"""
EQUAL_SAMPLES = """
loss                .0255 .0220 .0135 .0124
mandala             .404 .424 .462 .474
mandala+G           .527 .581 .689 .720
classification+G    .832 .858 .918 .931
"""


def printed(table):
    """(metric, guided, arm) -> (mean, sd or None)."""
    found = {}
    for line in table.strip().splitlines():
        name, *figures = line.split()
        for arm, figure in zip(ARM_NAMES, figures, strict=False):
            mean, _, sd = figure.partition("+-")
            found[name.removesuffix("+G"), name.endswith("+G"), arm] = float(mean), float(sd) if sd else None
    return found


def in_code(budget):
    return {
        (metric, guided, arm): (figure.mean, None if math.isnan(figure.sd) else figure.sd)
        for (at, metric, guided), figures in PUBLISHED.items()
        if at == budget
        for arm, figure in figures.items()
    }


def test_figures_of_the_whole_run_are_those_of_the_paper():
    assert in_code("steps") == printed(WHOLE)


def test_figures_at_equal_samples_are_those_of_the_paper_with_all_spreads_that_are_known():
    """Arms that keep a fifth have then run to their end: it is the same figure, and has the same spread."""
    means, whole = printed(EQUAL_SAMPLES), printed(WHOLE)
    assert {what: mean for what, (mean, _) in in_code("samples").items()} == {w: mean for w, (mean, _) in means.items()}
    for what, figure in in_code("samples").items():
        assert figure[1] == (whole[what][1] if what[2] in ("ajest", "random") else None), what
        if what[2] in ("ajest", "random"):
            assert figure == whole[what]
    assert {budget for budget, *_ in PUBLISHED} == {"steps", "samples"}


PAPER = tree_paper()


@pytest.mark.parametrize(
    "changes",
    [
        {"end": "time"},
        {"iterations": 4095},
        {"guide_iterations": 256},
        {"guide_recipe": PAPER.recipe},
        {"weight": 2.0},
        {"n_final": 163_841},
        {"task": replace(PAPER.task, hidden=32)},
        {"task": replace(PAPER.task, label="B")},
        {"task": replace(PAPER.task, p_mean=-2.0)},
        {"task": replace(PAPER.task, sampler_steps=16)},
        {"recipe": replace(PAPER.recipe, super_batch=2048)},
        {"recipe": replace(PAPER.recipe, betas=(0.9, 0.999))},
        {"recipe": replace(PAPER.recipe, ema_widths=(0.05, 0.01))},
        {"recipe": replace(PAPER.recipe, learning_rate=LearningRate(peak=0.02))},
        {"recipe": replace(PAPER.recipe, learning_rate=LearningRate(decay=1024))},
        {"recipe": replace(PAPER.recipe, learning_rate=LearningRate(clock="examples"))},
    ],
)
def test_another_setting_is_not_comparable(changes):
    assert comparable(PAPER)
    assert comparable(replace(PAPER, seeds=(1, 2), final_only=True))
    other = replace(PAPER, **changes)
    assert not comparable(other)
    assert beside_ours(replace(made_up({}), config=other)) == []


#: Ours equal to what was published, at whatever spread.
EXACT = {
    (budget, metric, 3.0 if guided else 1.0): {
        arm: [f.mean + d for d in (-0.002, -0.001, 0, 0.001, 0.002)] for arm, f in figures.items()
    }
    for (budget, metric, guided), figures in PUBLISHED.items()
}
AMOUNTS = {"steps": 4096.0, "samples": 4096.0 * 819}


def ours(values=EXACT, arms=ARM_NAMES, amounts=AMOUNTS, **changes):
    config = {"task": PAPER.task, "recipe": PAPER.recipe, "iterations": 4096, "guide_iterations": 512,
              "n_final": 163_840} | changes  # fmt: skip
    results = made_up(values, arms, seeds=5, amounts=amounts, costs={}, **config)
    return replace(results, runs={key: run(None, "unfinished") for key in results.runs})


def run(fired, state="done", loss=None):
    return Run("", 0, state, 4096, "", [{"fired_at": fired}],
               [{"n": 1, "weight": 1.0, "step": 1, "metrics": {"loss": loss} if loss else {"l2": 1}}])  # fmt: skip


def rows_of(results):
    """Rows of metrics."""
    found = {(row.what, row.arm): row for row in beside_ours(results)}
    return {what: row for what, row in found.items() if what[0].endswith((", whole run", ", equal samples"))}


def test_the_same_figures_agree_in_every_row():
    rows = rows_of(ours())
    assert len(rows) == 8 * 4 - 2 + 4 * 4
    assert {row.judgement for row in rows.values()} == {"agree"}
    assert {row.why for row in rows.values()} == {""}
    row = rows["loss, whole run", "ajest"]
    assert (row.published, row.ours) == ("0.0135 ± 0.0034", "0.0135 ± 0.0016")
    assert rows["loss, equal samples", "ajest"].published == "0.0135 ± 0.0034"
    assert rows["loss, equal samples", "baseline"].published == "0.0255"
    assert rows["guided mandala at n = 16,384, whole run", "early-ajest"].published == "0.811"


def test_one_pair_of_figures_has_one_judgement():
    """Ours of classification with autoguidance, once judged "differ" for the whole run and "agree" at equal samples."""
    step = 0.02 / math.sqrt(2.5)
    values = [0.8899 + step * k for k in (-2, -1, 0, 1, 2)]
    shifted = EXACT | {
        (budget, "classification", 3.0): {"ajest": values, "baseline": values} for budget in ("steps", "samples")
    }
    rows = rows_of(ours(shifted))
    whole, samples = (rows[f"guided classification, {at}", "ajest"] for at in ("whole run", "equal samples"))
    assert (whole.judgement, whole.why) == (samples.judgement, samples.why) == ("differ", "by -0.0281")
    # Nothing is known of the baseline's spread at equal samples: ours stands in for it.
    assert rows["guided classification, equal samples", "baseline"].judgement == "differ"
    assert rows["guided classification, equal samples", "baseline"].why == "by +0.0579"


def test_what_differs_by_more_than_the_noise_differs():
    for gap, judgement in ((0.0038, "agree"), (0.0050, "differ")):
        values = [0.0135 + gap + d for d in (-0.003, -0.002, 0, 0.002, 0.003)]
        row = rows_of(ours(EXACT | {("steps", "loss", 1.0): {"ajest": values}}))["loss, whole run", "ajest"]
        assert row.judgement == judgement
        assert row.why == ("" if judgement == "agree" else "by +0.005")


def test_the_published_means_are_of_five_seeds():
    """Of six the difference would be told from 0."""
    values = [0.0135 + 0.00415 + d for d in (-0.003, -0.002, 0, 0.002, 0.003)]
    row = rows_of(ours(EXACT | {("steps", "loss", 1.0): {"ajest": values}}))["loss, whole run", "ajest"]
    sd = stats.tstd(values)
    assert welch_reach(sd, 5, 0.0034, 6) < 0.00415 < welch_reach(sd, 5, 0.0034, 5)
    assert row.judgement == "agree"


def test_arms_of_other_settings_are_left_out():
    for other in (
        replace(ARMS["ajest"], keep=0.25),
        replace(ARMS["ajest"], chunks=8),
        replace(ARMS["ajest"], within=128),
        replace(ARMS["ajest"], reference="ema"),
    ):
        found = beside_ours(ours(arms=("baseline", other, "random")))
        assert {row.arm for row in found} == {"baseline", "random"}
    assert {row.arm for row in beside_ours(ours(arms=arms_named(ARM_NAMES)))} == set(ARM_NAMES)


def test_other_budgets_and_too_few_seeds_are_not_comparable():
    rows = rows_of(ours(amounts={"steps": 2048.0, "samples": 4096.0 * 819}))
    assert rows["loss, whole run", "ajest"].judgement == "not comparable"
    assert (rows["loss, whole run", "ajest"].ours, rows["loss, whole run", "ajest"].why) == (
        "-",
        "ours is not there yet",
    )
    assert rows["loss, equal samples", "ajest"].judgement == "agree"
    rows = rows_of(ours(amounts={"steps": 4096.0, "samples": 1e6}))
    assert rows["loss, equal samples", "ajest"].judgement == "not comparable"
    lost = {where: {arm: [*v[:4], None] for arm, v in by_arm.items()} for where, by_arm in EXACT.items()}
    row = rows_of(ours(lost))["l2, whole run".replace("l2", "L2 to the exact ODE"), "random"]
    assert (row.judgement, row.why) == ("agree", "4 of 5 seeds")
    one = {where: {arm: [v[0]] for arm, v in by_arm.items()} for where, by_arm in EXACT.items()}
    row = rows_of(ours(one))["loss, equal samples", "baseline"]
    assert (row.judgement, row.why) == ("not comparable", "no spread over 1 of 5 seeds")
    assert rows_of(ours({}))["loss, whole run", "baseline"].judgement == "not comparable"


def test_welchs_interval_is_scipys():
    a, b = [1.0, 2.0, 3.5, 2.2], [0.5, 0.9, 1.1, 0.7, 0.2, 0.9]
    found = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    reach = welch_reach(stats.tstd(a), 4, stats.tstd(b), 6)
    assert reach == pytest.approx((found.high - found.low) / 2)
    assert welch_reach(0.0, 4, 1.0, 6) == pytest.approx(stats.t.ppf(0.975, 5) / 6**0.5)
    for unknown in ((1.0, 1, 1.0, 5), (1.0, 5, 1.0, 1), (0.0, 5, 0.0, 5), (math.nan, 5, 1.0, 5)):
        assert math.isnan(welch_reach(*unknown))
    assert welch_reach(1.0, 2, 1.0, 2) == pytest.approx(stats.t.ppf(0.975, 2))


def other_rows(results):
    found = {(row.what, row.arm): row for row in beside_ours(results)}
    return {what: row for what, row in found.items() if what not in rows_of(results)}


@pytest.mark.parametrize(
    ("fired", "shown", "judgement"),
    [
        ((172, 363), "172-363", "agree"),
        ((171, 300), "171-300", "differ"),
        ((200, 364), "200-364", "differ"),
        ((200, None), "200-200", "differ"),
        ((None, None), "never", "differ"),
    ],
)
def test_when_early_selection_stopped(fired, shown, judgement):
    results = ours()
    for seed, step in enumerate(fired):
        results.runs["early-ajest", seed] = run(step)
    row = other_rows(results)["iteration at which early selection stopped", "early-ajest"]
    assert (row.published, row.ours, row.judgement) == ("172-363", shown, judgement)
    assert row.why == "ours smooths the comparison over 16 steps"


@pytest.mark.parametrize(
    ("loss", "judgement"), [(0.0459, "agree"), (0.0556, "agree"), (0.0450, "differ"), (0.0570, "differ")]
)
def test_the_guides_loss(loss, judgement):
    results = ours()
    assert other_rows(results) == {}
    row = other_rows(replace(results, guides=(run(None, loss=loss),)))["loss of the guide", "guide"]
    assert (row.published, row.ours, row.judgement) == ("0.0508", f"{loss:.4f}", judgement)
    assert other_rows(replace(results, guides=(run(None),))) == {}


def test_seconds_per_iteration_are_shown_and_not_judged():
    results = ours(arms=("baseline", "ajest", "random"))
    costs = {
        "uniform": {"draw": 0.25, "update": 0.5},
        "random 0.2": {"update": 0.125},
        ARMS["ajest"].kinds()[0].label: {"select": 2.0},
    }
    rows = other_rows(replace(results, costs=costs))
    assert {arm: (row.published, row.ours) for (_, arm), row in rows.items()} == {
        "baseline": ("0.26", "0.750"), "random": ("0.26", "0.125"), "ajest": ("0.74", "2.000")
    }  # fmt: skip
    assert {(row.what, row.judgement, row.why) for row in rows.values()} == {
        ("seconds per iteration", "not comparable", "another machine and another implementation")
    }


def test_cells_are_read_where_the_figures_were_taken():
    """A guided figure beside a guided cell, a budget beside its own."""
    results = ours({})
    where = ("steps", "ajest", "mandala", 3.0)
    results.cells[where] = Cell(*where, 163_840, dict(enumerate([0.6, 0.7, 0.68, 0.72, 0.7])))
    judged = {what for (what, _), row in rows_of(results).items() if row.judgement != "not comparable"}
    assert judged == {"guided mandala, whole run"}


def test_the_preset_as_it_is_asked_for_is_the_published_one():
    """By the command line and from Python: with gains of free sign, though the task's own default fixes it."""
    alone = planned("tree", None, {}, whole=True)  # of `ajest train`
    for config in (planned("tree", "paper", {}).config, alone.config, Bench("tree", "paper").config):
        assert config.task.gain_sign == "free"
        assert comparable(config)
    fixed = Bench(TreeTask(), "paper").config  # a task that is given is meant as it is
    assert fixed.task.gain_sign == "negative"
    assert Bench("tree").config.task.gain_sign == "negative"
    assert planned("tree", "paper", {"gain_sign": "negative"}).config.task.gain_sign == "negative"
