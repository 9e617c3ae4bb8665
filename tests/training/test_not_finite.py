"""Losses, scores and steps that are not finite: what stops, what is left out, what is counted."""

import math
from dataclasses import replace

import pytest
import torch
from made_up_trainer import trainer

from ajest import Batch
from ajest.diffusion.network import flops_of
from ajest.errors import Diverged
from ajest.selection.catalogue import ARMS
from ajest.selection.counts import Counts
from ajest.training.optimizer import OptimizedNetwork
from ajest.training.recipe import Recipe
from ajest.training.trainer import SKIPS, Trainer
from conftest import small_recipe


class Broken:
    """A source some of whose examples, by their place in what is completed, have no finite target."""

    def __init__(self, source, places=(7,)):
        self.source, self.draw, self.places = source, source.draw, list(places)

    def complete(self, batch):
        whole = self.source.complete(batch)
        whole.target[self.places, 0] = float("nan")
        return whole


def test_a_step_that_is_not_finite_stops_before_it_harms():
    t = trainer("baseline")
    t.step()
    before = {k: v.clone() for k, v in t.ema.state_dict().items()}
    t.selector.source = Broken(t.selector.source)
    with pytest.raises(Diverged, match="step 2"):
        t.step()
    assert t.steps_taken == 1
    for key, value in t.ema.state_dict().items():
        assert torch.equal(value, before[key])
        assert torch.isfinite(value).all()


def test_a_step_that_is_not_finite_may_be_skipped_and_is_counted():
    t = trainer("baseline", recipe=small_recipe(not_finite="skip"))
    t.step()
    whole = t.selector.source
    before = {k: v.clone() for k, v in t.learner.state().items()}
    t.selector.source = Broken(whole)
    step = t.step()
    assert math.isnan(step.loss)
    for key, value in t.learner.state().items():  # every forward pass normalises the weights
        assert torch.allclose(value, before[key], atol=1e-3) if "network" in key else torch.equal(value, before[key]), (
            key
        )
    t.selector.source = whole
    assert math.isfinite(t.step().loss)
    assert (t.steps_taken, t.ledger.not_finite, t.ledger.counts.trained) == (3, 1, 3 * 256)
    again = trainer("baseline", recipe=small_recipe(not_finite="skip"))
    again.restore(*t.state())
    assert again.ledger.not_finite == 1


def test_skipping_has_an_end():
    t = trainer("baseline", recipe=small_recipe(not_finite="skip"))
    t.selector.source = Broken(t.selector.source)
    for _ in range(SKIPS):
        t.step()
    with pytest.raises(Diverged, match=f"{SKIPS} steps in a row"):
        t.step()
    assert t.steps_taken == SKIPS
    again = trainer("baseline", recipe=small_recipe(not_finite="skip"))
    again.restore(*t.state())
    again.selector.source = t.selector.source
    with pytest.raises(Diverged):  # a restart does not begin to count anew
        again.step()


@pytest.mark.parametrize("name", ["ajest", "hard", "hard-running", "proportional", "joint-residual", "jest-within"])
def test_an_example_without_a_finite_score_is_never_chosen(name):
    arm = replace(ARMS["ajest"], name=name, within=64, chunks=1) if name == "jest-within" else ARMS[name]
    t = trainer(arm)
    places = (0, 7, 100, 255)
    t.selector.source = Broken(t.selector.source, places)
    for _ in range(6):
        step = t.step()
        assert not set(step.kept.tolist()) & set(places)
        assert len(set(step.kept.tolist())) == len(step.kept) or name == "proportional"
        assert math.isfinite(step.loss)
    assert t.ledger.not_finite == 0
    assert t.ledger.scores_not_finite == len(places) * t.ledger.by_kind.get(arm.kinds()[0].label, 0)


@pytest.mark.parametrize("name", ["ajest", "hard-running", "jest-ema", "joint-residual", "proxy", "learnable-draws"])
def test_a_step_whose_scores_are_not_finite_is_the_one_that_knew_it_from_the_start(name, monkeypatch):
    """The first choice and its gradients, of networks that normalise their weights in each forward, leave no trace."""
    found, knew_it = trainer(name), trainer(name)
    thrown_away = []
    gradients = Trainer._gradients

    def noted(t, choice):
        outcome = gradients(t, choice)
        thrown_away.append(not outcome.scores_finite)
        return outcome

    monkeypatch.setattr(Trainer, "_gradients", noted)
    choose = knew_it.selector.choose
    knew_it.selector.choose = lambda step, progress, phase, kind: knew_it.selector.choose_again(
        choose(step, progress, phase, kind), phase
    )
    for t in (found, knew_it):
        t.selector.source = Broken(t.selector.source, (0, 7, 100, 255))
    for _ in range(4):
        steps = [t.step() for t in (found, knew_it)]
        assert torch.equal(steps[0].kept, steps[1].kept)
        assert steps[0].loss == steps[1].loss
    assert sum(thrown_away) == 4
    for (key, value), other in zip(found.state()[0].items(), knew_it.state()[0].values(), strict=True):
        assert torch.equal(value, other), key
    assert found.ledger.scores_not_finite == knew_it.ledger.scores_not_finite > 0


@pytest.mark.parametrize("name", ["baseline", "proxy"])
def test_a_step_that_is_not_taken_leaves_the_weights_as_they_were(name):
    t = trainer(name, recipe=small_recipe(ema_widths=(0.1,)))
    t.step()
    before = {key: value.clone() for key, value in t.state()[0].items()}
    t.selector.source = Broken(t.selector.source, range(60, 256) if name == "proxy" else (7,))
    t.selector._count = 256 if name == "proxy" else t.selector._count
    with pytest.raises(Diverged):
        t.step()
    for key, value in t.state()[0].items():
        assert torch.equal(value, before[key]), key
    assert all(p.grad is None for p in t.network.parameters())


def test_too_few_finite_scores_make_a_step_that_is_not_finite():
    t = trainer("ajest")
    t.selector.source = Broken(t.selector.source, range(10, 256))
    with pytest.raises(Diverged):
        t.step()


@pytest.mark.parametrize("rule", ["skip", "zero"])
def test_statistics_of_batches_take_nothing_of_a_step_that_is_not_finite(rule):
    """An average of them would keep it for good."""

    class Normalised(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))

        def forward(self, x, sigma, label=None):
            return self.layers(x)

    learner = OptimizedNetwork(Normalised(), Recipe(ema_widths=(0.1,), not_finite=rule))
    averages, x = learner.averages(), torch.randn(5, 8, 2, generator=torch.Generator().manual_seed(0))
    x[2, 0] = torch.nan
    for i in range(5):
        before = {key: value.clone() for key, value in learner.network.state_dict().items()}
        _, finite = learner.gradients(Batch(x[i], torch.ones(8), torch.ones(8), torch.arange(8), target=x[i]), 0.01)
        learner.step(bool(finite))
        averages.update(i + 1)
        assert bool(finite) == (i != 2)
        if rule == "skip" and i == 2:
            assert all(torch.equal(value, before[key]) for key, value in learner.network.state_dict().items())
    for network in (learner.network, averages[0.1]):
        assert all(value.isfinite().all() for value in network.state_dict().values())


def test_time_of_a_step_that_was_given_up_is_not_charged_to_the_next():
    t = trainer("baseline")
    t.selector.source = Broken(t.selector.source)
    with pytest.raises(Diverged):
        t.step()
    with t.ledger.phase("draw"):
        pass
    assert set(t.ledger.close_step("uniform", Counts(), 0.0)) == {"draw"}


def test_a_pass_that_is_thrown_away_is_paid_for_in_operations():
    thrown, whole = trainer("ajest"), trainer("ajest")
    thrown.selector.source = Broken(thrown.selector.source)
    price = flops_of(whole.network, lambda: whole.selector.source.draw(1, torch.Generator()))
    for t in (thrown, whole):
        t.step()
    assert thrown.ledger.flops - whole.ledger.flops == 3 * thrown.ledger.counts.trained * price
