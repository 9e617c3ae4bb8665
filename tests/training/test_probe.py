"""What gradients say of claims: against a linear model of which all is known, and on runs."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ajest.bench.read.probed import probe_sentences, probe_table
from ajest.diffusion.denoising import LogNormal
from ajest.diffusion.noising import Noising
from ajest.selection.catalogue import ARMS
from ajest.tasks.sources import TensorSource
from ajest.tasks.vectors.setup import vectors_task
from ajest.training.probe import BLOCK, Estimate, Moments, blocks_of, crossed, summary
from ajest.training.run import execute
from ajest.training.run_folder import RunConfig
from ajest.training.schedule import Schedule
from conftest import small_recipe, small_task
from prose import faults

NOISE = LogNormal(-0.2, 0.3)


class Constant(nn.Module):
    """Answers the same to all: the gradient of its loss is 2 w (theta - x0) / d."""

    def __init__(self, answer):
        super().__init__()
        self.answer = nn.Parameter(torch.tensor(answer))

    def forward(self, x, sigma, label=None):
        return self.answer.expand_as(x)


def source(seed=0, n=500):
    return TensorSource(torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)), NOISE, 1.0)


def closed_form(answer, x0):
    """The moments of that gradient, with w = 1 + 1 / sigma^2."""
    m, s = NOISE.mean, NOISE.std
    second, fourth = math.exp(-2 * m + 2 * s**2), math.exp(-4 * m + 8 * s**2)
    w, ww = 1 + second, 1 + 2 * second + fourth
    away = torch.tensor(answer) - x0
    square, mean = away.square().sum(1).mean().item(), away.mean(0).square().sum().item()
    by = 4 / x0.shape[1] ** 2
    return Moments(
        square=by * ww * square,
        mean=by * w**2 * mean,
        level=by * ww * mean,
        example=by * w**2 * square,
        length=by**0.5 * w * away.norm(dim=1).mean().item(),
        length_by_level=by**0.5 * w * square**0.5,
    )


@pytest.fixture(scope="module")
def estimates():
    """(estimates with several seeds, blocks of one of them, the truth)."""
    answer, data = [1.0, 0.2, -0.4], source()
    network = Constant(answer)
    blocks = [blocks_of(network, NOISE, crossed(data, Noising(), 8, seed)) for seed in range(30)]
    found = [b.moments(np.ones(8)) for b in blocks]
    return found, blocks[0], closed_form(answer, data._x)


@pytest.mark.parametrize("name", ["square", "mean", "level", "example", "length", "length_by_level"])
def test_moments_are_those_of_the_closed_form(estimates, name):
    values = np.array([getattr(moments, name) for moments in estimates[0]])
    true = getattr(estimates[2], name)
    bias = 0.01 * true if name == "length_by_level" else 0  # a root of means of few, levels of a range taken together
    assert abs(values.mean() - true) < 4 * values.std() / len(values) ** 0.5 + bias


def test_shares_and_savings_follow_from_the_moments():
    moments = Moments(square=10.0, mean=2.0, level=4.0, example=8.0, length=2.5, length_by_level=3.0)
    assert moments.variance == 8
    assert moments.between_levels == 0.25
    assert moments.between_examples == 0.75
    assert moments.saved_by_levels == 1 / 8
    assert moments.saved_by_importance == pytest.approx(3.75 / 8)
    assert moments.critical_batch == 4
    assert replace(moments, mean=-0.1).critical_batch == math.inf


@pytest.mark.parametrize("cost", [0.0, 1.0, 12.0])
def test_the_best_number_of_levels_is_the_root_of_both_ratios(cost):
    """sqrt(within / between x cost), rounded to the better side."""
    moments = Moments(square=10.0, mean=0.0, level=0.0, example=2.0, length=0.0, length_by_level=0.0)
    best, saved = moments.best_levels(cost)
    assert abs(best - max((8 / 2 * cost) ** 0.5, 1)) < 1
    assert saved == pytest.approx(1 - (0.2 + 0.8 / best) * (cost + best) / (cost + 1))
    assert saved >= 0


def test_examples_and_levels_cross_within_blocks():
    batch = crossed(source(), Noising(), 3)
    x0, sigma = batch.target.view(3, 4, 4, 3), batch.sigma.view(3, 4, 4)
    assert bool((x0 == x0[:, :, :1]).all())
    assert bool((sigma == sigma[:, :1]).all())
    assert len(torch.unique(batch.id.view(3, 16)[0])) == 4
    noise = ((batch.x - batch.target) / batch.sigma[:, None]).flatten()
    assert len(torch.unique(noise)) > 0.9 * len(noise)


def test_intervals_hold_the_truth(estimates):
    _, blocks, true = estimates
    found = summary(blocks, 0.5, folder="run", step=7, examples=8 * BLOCK, batch=64)
    for estimate, value in (
        (found.between_examples, true.between_examples),
        (found.importance, true.saved_by_importance),
        (found.critical_batch, true.critical_batch),
    ):
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.low - 0.05 * abs(value) <= value <= estimate.high + 0.05 * abs(value)
    assert not faults((*probe_sentences(found), *probe_table(found).notes))


def test_a_sketch_keeps_inner_products(monkeypatch):
    answer, data = [1.0, 0.2, -0.4], source()
    batch = crossed(data, Noising(), 8)
    whole = blocks_of(Constant(answer), NOISE, batch)

    class Wide(Constant):
        def __init__(self):
            super().__init__(answer)
            self.unused = nn.Parameter(torch.zeros(5000))

    monkeypatch.setattr("ajest.training.probe._SKETCH", 4096)
    sketched = blocks_of(Wide(), NOISE, batch)
    for name in ("square", "level", "example", "means"):
        assert np.allclose(getattr(sketched, name), getattr(whole, name), rtol=1e-4)


def trained(folder, task, arm="baseline"):
    config = RunConfig(task, "learner", small_recipe(super_batch=64), ARMS[arm], 3, 8)
    assert execute(folder, config, Schedule()) == "done"
    return folder


@pytest.mark.parametrize("arm", ["baseline", "x0-target"])
def test_a_run_is_probed(tmp_path, command, arm):
    run = trained(tmp_path / "run", small_task(), arm)
    done = command("probe", run, "--examples", 128, "--json", tmp_path / "probe.json")
    assert done.code == 0, done.err
    assert "critical batch" in done.out
    found = json.loads((tmp_path / "probe.json").read_text())
    assert found["step"] == 8
    assert found["examples"] == 128
    between = found["between_levels"]
    assert 0 <= between["low"] <= between["value"] <= between["high"] <= 1
    assert found["draw_cost"] > 0
    assert all(sentence in done.out for sentence in found["sentences"])


def test_a_run_on_vectors_with_labels_is_probed(tmp_path, command):
    x, y = np.random.default_rng(0).normal(size=(200, 5)), np.arange(200) % 2
    np.savez(tmp_path / "x.npz", x=x, y=y)
    data = (str(tmp_path / "x.npz"),)
    task = vectors_task(data, warn=lambda _: None, hidden=8, blocks=1, label_dropout=0.2)
    done = command("probe", trained(tmp_path / "run", task), "--examples", 128)
    assert done.code == 0, done.err


def test_too_few_examples_are_refused(tmp_path, refused):
    refused("probe", trained(tmp_path / "run", small_task()), "--examples", 20, says="at least 128 examples")


def test_sentences_say_where_nothing_can_be_gained(estimates):
    found = summary(estimates[1], 0.0, folder="run", step=7, examples=128, batch=10**9)
    nothing = replace(found, between_levels=Estimate(0.001, 0.0, 0.004))
    said = probe_sentences(nothing)
    assert said[0] == "Stratified noise levels can gain next to nothing here: at most 0.4% of the examples."
    assert said[3] == "One noise level an example is best at what drawing costs here."
    assert "smaller steps would learn as much" in said[4]
    lost = replace(found, critical_batch=Estimate(math.inf, 5.0, math.inf))
    assert "take more --examples" in probe_sentences(lost)[4]
    wide = replace(found, critical_batch=Estimate(1e6, 2000.0, math.inf), batch=4096)
    assert probe_sentences(wide)[4].startswith("The critical batch lies between 2,000 and more than can be seen: take")
    near = replace(found, critical_batch=Estimate(4000.0, 3000.0, 9000.0), batch=4096)
    assert probe_sentences(near)[4] == "Its 4,096 examples a step are about the critical batch."
    assert "no end" in " ".join(probe_table(lost).texts()[-1])
