from dataclasses import replace

import pytest
import torch

from ajest.arms import ARMS, Arm, arms_named
from ajest.errors import Diverged, UserError
from ajest.selection.triggers import Trigger
from ajest.training import LearningRate, Trainer
from conftest import small_recipe, small_task


def trainer(arm, seed=0, recipe=None, guided=True):
    task, recipe = small_task(), recipe or small_recipe()
    guide = task.network("guide", 5).eval() if guided else None
    arm = ARMS[arm] if isinstance(arm, str) else arm
    return Trainer(task.source("cpu"), task.network("learner", seed), recipe, arm, seed, guide)


@pytest.mark.parametrize("name", sorted(ARMS))
def test_counts_phases_and_flops_of_every_arm(name):
    arm, t = ARMS[name], trainer(name)
    step = t.step()
    kept = arm.kept(256)
    learner, guide = t.network.flops(), small_task().network("guide", 0).flops()
    assert step.kind in arm.kinds()
    ledger = t.ledger
    if arm.policy in ("uniform", "random"):
        drawn = 256 if arm.policy == "uniform" else kept
        assert (ledger.counts.drawn, ledger.counts.scored, ledger.counts.trained) == (drawn, 0, drawn)
        assert ledger.flops == 3 * drawn * learner
        assert set(step.seconds) == {"draw", "target", "update", "ema"}
        return
    if arm.trigger.mode == "late":
        assert (ledger.counts.scored, ledger.counts.trained) == (0, 256)
        assert ledger.flops == 256 * guide + 3 * 256 * learner
        return
    reads_learner = name != "easy-reference"
    assert ledger.counts.drawn == 256
    assert ledger.counts.trained == kept == 51
    assert ledger.counts.scored == (256 if reads_learner else 0)
    reference = {"guide": guide, "ema": learner, "none": 0}[arm.reference]
    assert ledger.flops == 256 * (learner * reads_learner + reference) + 3 * kept * learner
    assert ("learner scoring" in step.seconds) == reads_learner
    assert ("reference scoring" in step.seconds) == (reference > 0)
    assert len(step.kept) == kept


def test_arms_of_a_seed_see_the_same_examples_and_weights():
    trainers = {name: trainer(name) for name in ("baseline", "ajest", "random", "rho")}
    first = trainers["baseline"].network.state_dict()
    for t in trainers.values():
        for key, value in t.network.state_dict().items():
            assert torch.equal(value, first[key])
    for _ in range(3):
        steps = {name: t.step() for name, t in trainers.items()}
        base = steps["baseline"].batch
        for name, step in steps.items():
            n = len(step.batch)
            assert n == (51 if name == "random" else 256)
            assert torch.equal(step.batch.x, base.x[:n]), name
            assert torch.equal(step.batch.sigma, base.sigma[:n])
            assert torch.equal(step.batch.id, base.id[:n])
    other = trainer("baseline", seed=1).step().batch
    assert not torch.equal(other.x, trainer("baseline").step().batch.x)


def test_training_learns():
    t = trainer("baseline", recipe=small_recipe(learning_rate=LearningRate(decay=64)))
    losses = [t.step().loss for _ in range(150)]
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])


@pytest.mark.parametrize("name", ["baseline", "ajest", "late-ajest", "jest-ema"])
def test_a_restored_trainer_goes_on_bit_for_bit(name):
    unbroken, first = trainer(name), trainer(name)
    for _ in range(12):
        unbroken.step()
    for _ in range(5):
        first.step()
    tensors, facts = first.state()
    second = trainer(name)
    second.restore({k: v.clone() for k, v in tensors.items()}, facts)
    for _ in range(7):
        second.step()
    for (key, value), other in zip(unbroken.state()[0].items(), second.state()[0].values(), strict=True):
        assert torch.equal(value, other), key
    assert second.trigger == unbroken.trigger
    assert second.ledger.counts == unbroken.ledger.counts


def test_late_watches_then_selects_for_good():
    arm = replace(ARMS["late-ajest"], trigger=Trigger("late", half_life=2))
    t = trainer(arm, recipe=small_recipe(learning_rate=LearningRate(peak=0.03)))
    steps = [t.step() for _ in range(60)]
    fired = t.trigger.fired_at
    assert fired is not None
    kinds = [s.kind for s in steps]
    assert set(kinds[: fired + 1]) == {"watch"}
    assert set(kinds[fired + 1 :]) == {"select jest guide 0.2"}


def test_a_step_that_is_not_finite_stops_before_it_harms():
    t = trainer("baseline")
    t.step()
    before = {k: v.clone() for k, v in t.ema.state_dict().items()}
    complete = t.source.complete

    class Broken:
        draw = staticmethod(t.source.draw)

        @staticmethod
        def complete(batch):
            whole = complete(batch)
            whole.target[7, 0] = float("nan")
            return whole

    t.source = Broken()
    with pytest.raises(Diverged, match="step 2"):
        t.step()
    assert t.steps_taken == 1
    for key, value in t.ema.state_dict().items():
        assert torch.equal(value, before[key])
        assert torch.isfinite(value).all()


def test_learning_rate_course():
    rate = LearningRate(peak=0.1, decay=100, rampup=1000)
    assert rate(0, 500) == pytest.approx(0.05)
    assert rate(50, 5000) == pytest.approx(0.1)
    assert rate(400, 5000) == pytest.approx(0.05)
    assert LearningRate(peak=0.1, decay=0)(10**6, 1) == 0.1


def test_arms_check_themselves():
    for keep in (0, -0.1, 1.5):
        with pytest.raises(UserError, match="keep fraction"):
            Arm("a", "random", keep=keep)
    with pytest.raises(UserError, match="keeps nothing"):
        Arm("a", "random", keep=0.001).kept(100)
    with pytest.raises(UserError, match="fewer than 16 chunks"):
        ARMS["ajest"].kept(64)
    with pytest.raises(UserError, match="reference"):
        Arm("a", "jest", keep=0.5)
    with pytest.raises(UserError, match="did you mean 'ajest'"):
        arms_named(("ajes",))
    with pytest.raises(UserError, match="twice: random"):
        arms_named(("random", "ajest", "random"))
    with pytest.raises(UserError, match="needs a guide"):
        trainer("ajest", guided=False)
    assert [a.keep for a in arms_named(("baseline", "ajest"), keep=0.5)] == [1.0, 0.5]
