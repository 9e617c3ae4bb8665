"""Budgets of a bench in closed form: made-up costs, no training but for the count of operations."""

import random
from dataclasses import dataclass, replace

import pytest

from ajest.bench.plan.budgets import BUDGETS, END_CLOCKS
from ajest.bench.plan.operations import step_flops
from ajest.bench.run.calibration import measure
from ajest.runtime.seeding import Streams
from ajest.selection.catalogue import ARMS, arms_named
from ajest.selection.flow import Networks
from ajest.tasks.tree.task import TreeTask
from ajest.training.schedule import clocks
from ajest.training.trainer import Trainer
from conftest import small_bench, small_recipe, small_task

NAMES = ("baseline", "early-ajest", "late-ajest", "random", "stale", "recall", "hard")


@dataclass(frozen=True)
class Cheap(TreeTask):
    """A tree whose exact target is said to cost nothing, as on real data."""

    @property
    def costly_target(self):
        return False


def prices(config, seed=0):
    """Made-up costs of every kind of step of a bench, and of the guide's, which is the dearest."""
    chance = random.Random(seed)
    kinds = sorted({kind.label for arm in config.arms for kind in arm.kinds()} | {"uniform"})
    costs = {k: {"target": chance.uniform(0.1, 1.0), "update": chance.uniform(0.2, 2.0)} for k in kinds}
    return costs | {"guide": {"target": 9.0, "update": 9.0}}


def bench(names=NAMES, costly=True, **changes):
    task = small_task() if costly else Cheap(**vars(small_task()))
    return small_bench(task=task, arms=arms_named(names), **changes)


def ends_of(config, arm, costs, chance):
    """The clocks at the end of a run that takes its kinds of step in some order."""
    schedule, flops = config.schedule(costs), step_flops(config.task, config.recipe, arm)
    most, habit = config.run(arm, 0).iterations, chance.random()
    facts = {"trained": 0, "seconds": {}, "flops": 0.0, "by_kind": dict.fromkeys(map(str, arm.kinds()), 0)}
    for step in range(1, most + 1):
        kind = arm.kinds()[-1] if chance.random() < habit else arm.kinds()[0]
        kept = config.recipe.super_batch if kind.trains_on_all else arm.kept(config.recipe.super_batch)
        facts["trained"] += kept
        facts["flops"] += flops[kind]
        facts["by_kind"][kind.label] += 1
        now = clocks(facts, step, costs)
        if schedule.over(now):
            return now
    return now


@pytest.mark.parametrize("costly", [True, False], ids=["costly", "cheap"])
@pytest.mark.parametrize("final_only", [True, False], ids=["only", "on the way"])
@pytest.mark.parametrize("end", END_CLOCKS)
def test_every_way_to_end_has_budgets_that_all_runs_reach(end, final_only, costly):
    config = bench(end=end, final_only=final_only, costly=costly, n_final=1000, n_curve=300)
    costs = prices(config)
    budgets, total = config.amounts(costs), config.total(costs)
    assert set(budgets) == set(config.budgets) | {config.final_budget}
    assert config.final_budget in config.budgets
    if final_only:
        assert set(config.budgets) == {config.final_budget}
    else:
        usual = {"calibrated", "samples", "seconds"} | ({"time_without_target"} if costly else set())
        assert set(config.budgets) == usual | {config.final_budget}
    assert max(budgets[config.final_budget]) == total
    assert config.n_of(config.final_budget) == 1000
    clock, points = config.curve_amounts(costs)
    assert clock == config.final_budget
    assert set(points) <= set(budgets[clock])
    assert points[-1] == total
    assert config.schedule(costs).budgets == budgets
    chance = random.Random(1)
    for arm in config.arms:
        for _ in range(3):
            now = ends_of(config, arm, costs, chance)
            for budget, values in budgets.items():
                if budget != "seconds":
                    assert now[budget] >= max(values) * (1 - 1e-9), (arm.name, budget)


def test_budgets_are_no_smaller_than_they_must_be():
    """Of arms with one kind of step, one ends exactly at each sure budget."""
    config = bench(("baseline", "random", "hard", "recall"), end="time")
    for seed in range(5):
        costs = prices(config, seed)
        ends = [ends_of(config, arm, costs, random.Random(0)) for arm in config.arms]
        for budget in ("samples", "time_without_target"):
            assert min(now[budget] for now in ends) == pytest.approx(max(config.amounts(costs)[budget]))


def test_the_end_is_read_even_if_no_point_of_the_curve_lies_there():
    config = bench(end="time", final_only=True, curve=(0.5,))
    costs = prices(config)
    assert config.amounts(costs) == {"calibrated": (config.total(costs) / 2, config.total(costs))}


@pytest.mark.parametrize("end", ["time", "time_without_target"])
@pytest.mark.parametrize("first", ["random", "hard", "recall", "early-ajest"])
def test_the_baseline_has_time_for_its_own_steps(first, end):
    """Neither the guide's step nor that of any other arm counts."""
    config = bench((first, "random" if first != "random" else "hard"), end=end)
    costs = prices(config)
    costs["uniform"] = {"target": 50.0, "update": 50.0}
    phases = ("update",) if end == "time_without_target" else ("target", "update")
    own = max(sum(costs[kind.label][p] for p in phases) for kind in config.arms[0].kinds())
    assert config.total(costs) == pytest.approx(40 * own)
    cheaper = {**costs, "guide": {"target": 0.0, "update": 0.0}}
    assert config.total(cheaper) == config.total(costs)


def test_a_baseline_that_scores_now_and_then_has_time_for_its_mean_step():
    config = bench(("stale", "random"), end="time")
    select, recall = map(str, config.arms[0].kinds())
    costs = {select: {"update": 9.0}, recall: {"update": 1.0}, "random 0.2": {"update": 1.0}}
    assert config.time(costs) == pytest.approx(40 * (1 + 8 / 8))


def test_the_uniform_step_is_timed_whatever_the_arms(tmp_path):
    config = bench(("random", "recall"), calibration_rounds=1)
    assert set(measure(tmp_path, config)) == {
        "uniform",
        "guide",
        *(kind.label for arm in config.arms for kind in arm.kinds()),
    }


COUNTED = ("baseline", "random", "ajest", "hard", "recall", "stale", "learnable-strong", "learnable-ema", "proxy",
    "hard-draws", "joint-residual", "joint-gradient", "late-ajest", "early-ajest", "infobatch",
    "guide-hard")  # fmt: skip


@pytest.mark.parametrize("name", COUNTED)
def test_operations_of_each_kind_of_step_are_those_that_the_ledger_books(name):
    task, arm = small_task(), ARMS[name]
    role = "guide" if arm.reference == "guide" else "learner"
    reference = None if arm.reference in ("none", "ema") else task.network(role, 1)
    proxy = task.network("guide", 0) if arm.scoring.scorer == "proxy" else None
    recipe = small_recipe()
    networks = Networks(task.network("learner", 0), reference, proxy)
    trainer = Trainer(task.source("cpu"), networks, recipe, arm, Streams(0))
    for kind, expected in step_flops(task, recipe, arm).items():
        if kind.mode == "uniform" and arm.scores:  # what it does when it has stopped to compare
            trainer.selector.trigger = replace(trainer.selector.trigger, on=False, fired_at=0)
        before = trainer.ledger.flops
        trainer.step(kind)
        assert trainer.ledger.flops - before == pytest.approx(expected), kind


@pytest.mark.parametrize("first", ["baseline", "hard", "random", "stale"])
def test_equal_operations_are_those_of_the_baselines_own_steps(first):
    config = bench((first, "speed"), end="flops")
    flops = step_flops(config.task, config.recipe, config.arms[0])
    own = sum(flops.values()) if first != "stale" else sum(share * flops[k] for k, share in zip(
        config.arms[0].kinds(), (1 / 8, 7 / 8), strict=True))  # fmt: skip
    assert config.total(prices(config)) == pytest.approx(40 * own)


def test_a_cheap_arm_is_not_stopped_before_its_budget():
    config = bench(("baseline", "random"), end="flops", recipe=small_recipe(super_batch=4096))
    config = replace(config, arms=(ARMS["baseline"], replace(ARMS["random"], keep=1 / 4096)))
    costs = prices(config)
    assert config.run(config.arms[1], 0).iterations >= 4096 * 40
    assert max(config.amounts(costs)["flops"]) == config.total(costs)


def test_budgets_have_a_clock_and_a_title():
    assert {r.clock for r in BUDGETS.values()} == set(BUDGETS) == set(END_CLOCKS.values()) | {"seconds"}
