"""Terms beside the loss: closed forms, the gradient, a second answer that guides, and who is refused."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from ajest.bench.read.folder import read
from ajest.bench.run.bench import run_bench
from ajest.diffusion.denoising import objective, per_example_loss
from ajest.diffusion.terms import AMONG, Term, WithTerm, dispersion
from ajest.errors import UserError
from ajest.selection.catalogue import ARMS, arms_named
from ajest.tasks.tree.network import EnergyMLP
from ajest.tasks.vectors.network import VectorDenoiser
from ajest.training.networks import load_network
from ajest.training.probe import probe
from ajest.training.run import execute, make_trainer
from ajest.training.run_folder import RunConfig
from ajest.training.schedule import Schedule
from conftest import Here, small_bench, small_recipe, small_task

NETWORKS = {
    "tree": partial(EnergyMLP, hidden=8, layers=3, gain_sign="negative"),
    "vectors": partial(VectorDenoiser, 2, hidden=8, blocks=3),
}


def made(name):
    torch.manual_seed(0)
    network = NETWORKS[name]()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def batch_of(count):
    source = small_task().source("cpu")
    return source.complete(source.draw(count, torch.Generator().manual_seed(0)))


def test_dispersion_of_what_is_all_alike_and_of_what_is_far_apart():
    assert dispersion(torch.ones(7, 3)).item() == pytest.approx(0, abs=1e-6)
    assert dispersion(1e3 * torch.eye(8)).item() == pytest.approx(-math.log(8))
    h = torch.randn(5, 4, dtype=torch.float64)
    pairs = [math.exp(-float((a - b).square().sum()) / (4 * 0.5)) for a in h for b in h]
    assert dispersion(h).item() == pytest.approx(math.log(sum(pairs) / 25))


@pytest.mark.parametrize("name", NETWORKS)
def test_in_all_else_it_is_the_network(name):
    network, batch = made(name), batch_of(16)
    both = WithTerm(network, Term("head"))
    assert torch.equal(both.eval()(batch.x, batch.sigma), network(batch.x, batch.sigma))
    assert (both.flops(), both.sigma_data) == (network.flops(), network.sigma_data)
    denoised, hidden = network.middle(batch.x, batch.sigma)
    torch.testing.assert_close(denoised, network(batch.x, batch.sigma))
    assert (hidden.shape[1], 2) == network.middle_shape
    with pytest.raises(AttributeError, match="no_such_thing"):
        both.no_such_thing  # noqa: B018


@pytest.mark.parametrize("name", NETWORKS)
def test_a_head_learns_the_same_loss_and_teaches_what_comes_before_it(name):
    network, batch = made(name), batch_of(16)
    both = WithTerm(network, Term("head", 0.5)).eval()
    skip = (both.sigma_data**2 / (batch.sigma**2 + both.sigma_data**2))[:, None]
    torch.testing.assert_close(both.aside(batch.x, batch.sigma), skip * batch.x)
    with torch.no_grad():
        both.head.normal_()
        again = per_example_loss(both.aside(batch.x, batch.sigma), batch)
    losses = per_example_loss(both.train()(batch.x, batch.sigma), batch)
    minimised = objective(losses, batch, both)
    # The tree normalises its weights again in a training pass, by which they change in the fourth digit.
    torch.testing.assert_close(minimised, losses + 0.5 * again, rtol=2e-3, atol=1e-5)
    (minimised - losses).sum().backward()
    assert both.head.grad.abs().sum() > 0
    taught = {key for key, parameter in network.named_parameters() if parameter.grad is not None}
    assert any(network.get_parameter(key).grad.abs().sum() > 0 for key in taught)


def test_dispersion_pushes_hidden_layers_apart_among_so_many_examples():
    network, batch = made("vectors"), batch_of(AMONG + 16)
    both = WithTerm(network, Term("dispersive", 2.0)).train()
    losses = per_example_loss(both(batch.x, batch.sigma), batch)
    hidden = network.middle(batch.x, batch.sigma)[1]
    expected = (AMONG * dispersion(hidden[:AMONG]) + 16 * dispersion(hidden[AMONG:])) / (AMONG + 16)
    torch.testing.assert_close(objective(losses, batch, both), losses + 2 * expected)
    with pytest.raises(UserError, match="no second answer"):
        both.aside(batch.x, batch.sigma)


def test_hidden_layers_are_dispersed_among_the_same_however_examples_are_parted(tmp_path):
    term = Term("dispersive")
    for examples, processes, micro_batch in ((100, 1, None), (100, 1, 128), (1024, 1, 512), (1024, 2, AMONG)):
        term.check_parts(examples, processes, micro_batch)
    for examples, processes, micro_batch in ((1024, 1, 128), (256, 2, None), (1024, 2, 300)):
        with pytest.raises(UserError, match=r"acts among 256 examples: give each of [12] processes and each micro"):
            term.check_parts(examples, processes, micro_batch)
    Term("head").check_parts(256, 2, 16)
    recipe = small_recipe(super_batch=512, micro_batch=16)
    with pytest.raises(UserError, match="acts among 256"):
        make_trainer(tmp_path, RunConfig(small_task(), "learner", recipe, ARMS["dispersive"], 0, 6))


def test_a_run_that_was_stopped_goes_on_with_the_same_head(tmp_path):
    config = RunConfig(small_task(), "learner", small_recipe(super_batch=64), ARMS["internal-head"], 0, 6)
    trainer, other = make_trainer(tmp_path, config), make_trainer(tmp_path, config)
    before = trainer.network.head.detach().clone()
    for _ in range(3):
        trainer.step()
    tensors, facts = trainer.state()
    other.restore({key: value.clone() for key, value in tensors.items()}, facts)
    for one in (trainer, other):
        one.step()
    after = trainer.network.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in other.network.state_dict().items())
    assert not torch.equal(before, after["head"])
    assert execute(tmp_path / "run", config, Schedule()) == "done"
    loaded, step = load_network(tmp_path / "run")
    assert step == 6
    assert loaded.head is not None


def test_a_bench_guides_runs_that_answer_twice_by_themselves(tmp_path):
    config = small_bench(arms=arms_named(("baseline", "internal-head", "dispersive")), guides=2)
    run_bench(tmp_path / "bench", config, Here(1), "cpu")
    results = read(tmp_path / "bench")
    for metric, weight in results.headlines():
        for arm in results.arms:
            cell = results.cell(config.final_budget, arm, metric.name, weight)
            assert set(cell.values) == set(config.seeds)
            assert bool(cell.by_guide) == (weight != 1 and arm != "internal-head")
    guided = [line for line in results.runs["internal-head", 0].lines if line["weight"] != 1]
    assert all(line["settings"] == {"guide": {"head": True}} for line in guided)
    labels = {arm.name: arm.kinds()[0].label for arm in config.arms}
    assert labels == {
        "baseline": "uniform", "internal-head": "uniform, term head 0.5", "dispersive": "uniform, term dispersive 0.5"
    }  # fmt: skip
    assert set(labels.values()) <= set(results.costs)


def test_gradients_that_a_probe_takes_hold_the_term(tmp_path):
    """It looks at averages in evaluation mode."""
    config = RunConfig(small_task(), "learner", small_recipe(super_batch=64), ARMS["internal-head"], 0, 6)
    assert execute(tmp_path / "run", config, Schedule()) == "done"
    assert probe(tmp_path / "run", examples=128).examples == 128
    network, _ = load_network(tmp_path / "run")
    batch = batch_of(16)
    losses = per_example_loss(network(batch.x, batch.sigma), batch)
    again = per_example_loss(network.aside(batch.x, batch.sigma), batch)
    torch.testing.assert_close(objective(losses, batch, network), losses + 0.5 * again)


def test_a_network_without_a_middle_is_refused(tmp_path):
    class Plain(nn.Module):
        pass

    with pytest.raises(UserError, match="Plain does not show"):
        WithTerm(Plain(), Term("head"))
    with pytest.raises(UserError, match="unknown term"):
        Term("heads")
    with pytest.raises(UserError, match="must be above 0"):
        Term("head", 0)


def test_a_second_answer_guides_by_the_command_line(command, refused):
    words = ("--iterations", "4", "--super-batch", "64")
    assert command("train", "tree", "--arm", "internal-head", *words, "--out", "r").code == 0
    assert command("train", "tree", *words, "--out", "plain").code == 0
    done = command("evaluate", "r", "--guide", "r", "--guide-head", "--weights", "1", "2", "--n", "200")
    assert done.code == 0, done.err
    refused("evaluate", "r", "--guide", "plain", "--guide-head", "--weights", "2", "--n", "200",
            says="plain has no second answer")  # fmt: skip
