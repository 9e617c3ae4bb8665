"""What steps cost: all kinds timed in turns, of one source and one learner."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from ajest.bench.run import calibration
from ajest.bench.run.calibration import WARMUP_ROUNDS, measure
from ajest.bench.run.jobs import train_references
from ajest.errors import UserError
from ajest.selection.catalogue import arms_named
from ajest.storage.checkpoint import write_sealed
from ajest.tasks.tree.source import TreeSource
from ajest.tasks.tree.task import TreeTask
from ajest.training import run
from ajest.training.recipe import LearningRate
from ajest.training.trainer import Trainer
from conftest import small_bench

NAMES = ("baseline", "ajest", "early-ajest", "late-ajest", "random", "recall", "stale", "jest-ema", "proxy")


@pytest.fixture
def config():
    return small_bench(arms=arms_named(NAMES), calibration_rounds=2)


def test_all_kinds_share_a_source_a_learner_and_each_reference(config, tmp_path, monkeypatch):
    train_references(tmp_path, config, "cpu", lambda _: None, pytest.fail)
    sources, networks, loaded, trainers, turns = [], Counter(), [], [], []
    source, network, load, step = TreeTask.source, TreeTask.network, run.load_network, Trainer.step
    monkeypatch.setattr(TreeTask, "source", lambda task, device: sources.append(device) or source(task, device))
    monkeypatch.setattr(
        TreeTask, "network", lambda task, role, seed: networks.update([role]) or network(task, role, seed)
    )
    monkeypatch.setattr(run, "load_network", lambda place, *a, **k: loaded.append(place.name) or load(place, *a, **k))
    make = calibration.make_trainer
    monkeypatch.setattr(calibration, "make_trainer", lambda *a, **k: trainers.append(make(*a, **k)) or trainers[-1])

    def watched(trainer, kind=None):
        taken = step(trainer, kind)
        turns.append(taken.kind.label if trainer is not trainers[-1] else "guide")
        return taken

    monkeypatch.setattr(Trainer, "step", watched)
    costs = measure(tmp_path, config)
    kinds = {kind.label for arm in config.arms for kind in arm.kinds()} | {"guide"}
    assert set(costs) == kinds
    assert len(sources) == 1
    assert loaded == ["guide"]
    assert networks == Counter(learner=1, guide=2, proxy=1)  # one guide is loaded, one is timed
    first, *others, guide = trainers
    assert all(t.network is first.network and t.ema is first.ema and t.learner is first.learner for t in others)
    assert guide.network is not first.network
    ema = next(t for t in others if t.arm.reference == "ema")
    assert ema.selector.networks.reference is first.ema[config.recipe.ema_widths[0]]
    rounds = turns[-len(kinds) * (WARMUP_ROUNDS + config.calibration_rounds) :]
    assert all(set(rounds[i : i + len(kinds)]) == kinds for i in range(0, len(rounds), len(kinds)))


def test_a_watching_step_is_timed_as_such_though_the_learner_overtakes(config, tmp_path, monkeypatch):
    """Learners of all kinds are one, which learns fast; after its trigger has fired, nothing would be compared."""
    train_references(tmp_path, config, "cpu", lambda _: None, pytest.fail)
    fired, observe = [], calibration._forced

    def forced(trainer, kind):
        taken = observe(trainer, kind)
        if kind.mode == "watch":
            fired.append(trainer.trigger.fired_at is not None)
        return taken

    with torch.no_grad():
        monkeypatch.setattr(calibration, "_forced", forced)
        monkeypatch.setattr("ajest.selection.triggers.Trigger.observe", lambda trigger, state, step, *_:
                            type(state)(on=not state.on, fired_at=step))  # fmt: skip
    costs = measure(tmp_path, config)
    assert all(fired)
    assert len(fired) == WARMUP_ROUNDS + config.calibration_rounds
    assert costs["watch"]["reference scoring"] > 0


def test_arms_that_train_on_as_many_examples_share_what_that_takes(tmp_path):
    arms = arms_named(("baseline", "eps-weight", "random", "hard", "random-keep-0.5", "muon"))
    costs = measure(tmp_path, small_bench(arms=arms, calibration_rounds=3))
    labels = {arm.name: arm.kinds()[0].label for arm in arms}
    of = {name: costs[label]["update"] for name, label in labels.items()}
    assert of["baseline"] == of["eps-weight"]
    assert of["random"] == of["hard"]
    assert len(set(of.values())) == 4
    assert costs[labels["baseline"]]["draw"] != costs[labels["eps-weight"]]["draw"]


def test_steps_that_were_timed_on_another_device_are_no_costs_here(config, tmp_path):
    facts = {"costs": {"uniform": {"update": 1.0}}, "rounds": 2}
    write_sealed(tmp_path / "calibration.json", facts)  # of before devices were noted
    assert calibration.calibrate(tmp_path, config) == facts["costs"]
    write_sealed(tmp_path / "calibration.json", facts | {"device": "a card"})
    with pytest.raises(UserError, match="were timed on a card, and this is cpu: equal time holds on one device alone"):
        calibration.calibrate(tmp_path, config)


def test_a_rate_at_which_steps_diverge_is_timed_all_the_same(config, tmp_path):
    wild = replace(config, recipe=replace(config.recipe, learning_rate=LearningRate(peak=1e8)), calibration_rounds=12)
    wild = replace(wild, arms=arms_named(("baseline", "random")))
    train_references(tmp_path, wild, "cpu", lambda _: None, lambda _: None)
    assert all(seconds["update"] > 0 for seconds in measure(tmp_path, wild).values())


def test_a_source_that_reads_ahead_is_each_trainers_own(config, tmp_path, monkeypatch):
    """Of one that all share, whoever comes next in turn would find what another expected."""
    config = replace(config, arms=arms_named(("baseline", "random")))
    train_references(tmp_path, config, "cpu", lambda _: None, pytest.fail)
    trainers, make = [], calibration.make_trainer
    monkeypatch.setattr(calibration, "make_trainer", lambda *a, **k: trainers.append(make(*a, **k)) or trainers[-1])
    monkeypatch.setattr(TreeSource, "reads_ahead", True, raising=False)
    measure(tmp_path, config)
    assert len({id(t.selector.source) for t in trainers}) == len(trainers) == 3
