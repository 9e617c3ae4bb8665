"""Networks that offer nothing but a forward pass: what is counted for them, and what is refused."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from ajest import Batch
from ajest.bench.plan.operations import network_costs, step_flops
from ajest.diffusion.network import evaluation_mode, flops_of, sketch_flops_of, sketches
from ajest.errors import UserError
from ajest.runtime.seeding import Streams
from ajest.selection.catalogue import ARMS
from ajest.selection.features import score_with_features
from ajest.selection.flow import Networks
from ajest.tasks.tree.task import TreeTask
from ajest.training.trainer import Trainer
from conftest import small_images, small_recipe, small_task


class Plain(nn.Module):
    """A denoiser as anyone would write it."""

    def __init__(self, hidden=16):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, hidden), nn.SiLU(), nn.Dropout(0.5), nn.Linear(hidden, 2))
        self.calls = 0

    def forward(self, x, sigma, label=None):
        self.calls += 1
        return self.layers(torch.cat([x, sigma[:, None].log() / 4], 1))


class Sketching(Plain):
    """One that sketches gradients, and does not say at which cost."""

    def sketched(self, x, sigma, label, target, weight):
        denoised = self(x, sigma, label)
        return denoised, (denoised - target) @ self.layers[-1].weight


def plain_flops(hidden):
    return 2 * (3 * hidden + hidden * 2)  # a product and a sum for each weight


def example():
    return Batch(torch.ones(2, 2), torch.ones(2), torch.ones(2), torch.arange(2))


def trained(arm, learner, steps=4, **guides):
    """A trainer after some steps, with plain networks beside the learner."""
    torch.manual_seed(0)
    t = Trainer(small_task().source("cpu"), Networks(learner, **guides), small_recipe(), ARMS[arm], Streams(0))
    return t, [t.step() for _ in range(steps)]


@pytest.mark.parametrize("hidden", [1, 16, 33])
def test_counted_operations_of_linear_layers_are_the_closed_form(hidden):
    assert flops_of(Plain(hidden), example) == plain_flops(hidden)


def test_operations_are_counted_once_and_change_nothing():
    network, state = Plain(), torch.get_rng_state()
    assert flops_of(network, example) == flops_of(network, lambda: pytest.fail("counted again"))
    assert network.calls == 1
    assert network.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in network.parameters())


def test_what_a_network_says_itself_is_not_counted():
    network = Sketching()
    network.flops, network.sketch_flops = lambda: 7, lambda: 9
    assert (flops_of(network, example), sketch_flops_of(network, example)) == (7, 9)
    assert network.calls == 0
    assert flops_of(None, example) == 0


def test_counted_operations_of_the_published_network_are_its_own():
    """Also of one that is compiled in place."""
    task = small_images()
    network, batch = task.network("learner", 0), task.source("cpu").draw(2, torch.Generator())
    bare = Bare(network)
    assert flops_of(bare, lambda: batch) == network.flops()
    network.unet.compile(backend="eager")
    again = Bare(network)
    assert flops_of(again, lambda: batch) == network.flops()


class Bare(nn.Module):
    """A network of which only the forward pass is known."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, sigma, label=None):
        return self.network(x, sigma, label)


def test_a_plain_module_trains_with_a_plain_guide_under_ajest():
    learner, guide = Plain(16), Plain(4)
    t, steps = trained("ajest", learner, reference=guide)
    assert all(len(step.kept) == 51 for step in steps)
    scoring = 256 * (plain_flops(16) + plain_flops(4))
    assert t.ledger.flops == 4 * (scoring + 3 * 51 * plain_flops(16))


@pytest.mark.parametrize("name", ["baseline", "hard", "jest-ema", "joint-residual", "proxy", "stale"])
def test_a_plain_module_trains_under_arms_that_need_no_sketch(name):
    guides = {"proxy": Plain(4)} if name == "proxy" else {}
    t, steps = trained(name, Plain(), **guides)
    assert len(steps) == t.steps_taken == 4
    assert t.ledger.flops > 0


def test_an_arm_that_needs_sketches_of_a_network_without_them_is_refused():
    with pytest.raises(UserError, match=r"'joint-gradient'.*Plain gives no sketch.*`sketched`.*joint-residual"):
        trained("joint-gradient", Plain())
    with pytest.raises(UserError, match=r"Plain gives no sketch.*`sketched`.*\"residual\""):
        score_with_features(Plain(), replace(example(), target=torch.zeros(2, 2)), "gradient")


def test_operations_of_a_sketch_are_counted_where_the_network_does_not_say():
    network = Sketching(16)
    assert sketches(network)
    assert not sketches(Plain())
    assert sketch_flops_of(network, example) == plain_flops(16) + 2 * 2 * 16
    t, _ = trained("joint-gradient", network, steps=2)
    assert t.ledger.flops == 2 * (256 * sketch_flops_of(network, example) + 3 * 51 * plain_flops(16))


@dataclass(frozen=True)
class PlainTree(TreeTask):
    """A tree learned by plain networks."""

    def network(self, role, seed):
        return Plain(16 if role in ("learner", "strong") else 4)


def test_a_bench_prices_plain_networks_by_an_example_of_the_task():
    task = PlainTree(**vars(small_task()))
    costs = network_costs(task)
    assert costs.forward == plain_flops(16)
    assert costs.guide == plain_flops(4) / plain_flops(16)
    recipe = small_recipe()
    ((kind, operations),) = step_flops(task, recipe, ARMS["ajest"]).items()
    assert kind.mode == "select"
    assert operations == pytest.approx(256 * (plain_flops(16) + plain_flops(4)) + 3 * 51 * plain_flops(16))


def test_evaluation_mode_leaves_what_is_no_module_alone():
    with evaluation_mode(lambda x: x):
        pass
