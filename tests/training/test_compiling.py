"""Compiled networks: what is shared, what is counted. The backend runs graphs as they are, which is fast."""

from __future__ import annotations

import copy
import os
from dataclasses import replace

import pytest
import torch
from torch import nn

from ajest.runtime import compiling
from ajest.runtime.seeding import Streams
from ajest.selection.catalogue import ARMS, arms_named
from ajest.selection.flow import Networks
from ajest.tasks.base import Guided, Measurement
from ajest.tasks.images.architecture import SIZES
from ajest.training.optimizer import OptimizedNetwork
from ajest.training.recipe import LearningRate, Recipe
from ajest.training.trainer import Trainer
from conftest import TINY, small_images, tiny_images

# The compiler itself makes an object that torch says will no longer be made.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


class Small(nn.Module):
    """A network whose second argument may be left out."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.linear = nn.Linear(3, width)

    def forward(self, x, shift=None):
        return self.linear(x) if shift is None else self.linear(x) + shift[:, None]


def as_it_is(graph, inputs):
    return graph.forward


@pytest.fixture
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(width=4):
    network = Small(width)
    compiling.compile_network(network, as_it_is)
    return network


def counted(work):
    before = compiling.so_far()
    work()
    return compiling.so_far() - before


def test_one_graph_serves_all_batch_sizes_and_all_networks_of_an_architecture(fresh):
    networks = [compiled(), compiled()]

    def work():
        for network in networks:
            for n in (8, 5, 31):
                network(torch.randn(n, 3))

    found = counted(work)
    assert (found.compilations, found.eager_calls) == (1, 0)
    assert found.seconds > 0


def test_training_scoring_and_another_width_take_a_graph_each_and_none_is_given_up(fresh):
    def work():
        for width in range(4, 16):  # more than the compiler's own limit
            network = compiled(width)
            network(torch.randn(8, 3)).sum().backward()
            with torch.no_grad():
                network(torch.randn(8, 3))

    found = counted(work)
    assert (found.compilations, found.eager_calls) == (24, 0)


def test_a_call_that_falls_back_is_counted(fresh, monkeypatch):
    monkeypatch.setattr(compiling, "GRAPHS", 1)
    with torch._dynamo.config.patch(recompile_limit=1):
        network, x = compiled(), torch.randn(8, 3)
        assert counted(lambda: network(x)).eager_calls == 0
        with torch.no_grad():  # another graph, which is one too many
            found = counted(lambda: network(x))
    assert (found.compilations, found.eager_calls) == (0, 1)


def test_a_copy_is_compiled_with_weights_of_its_own(fresh):
    network = compiled()
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.linear.weight.zero_()
        other.linear.bias.zero_()
    found = counted(lambda: other(torch.randn(8, 3)))
    assert (found.compilations, found.eager_calls) == (1, 0)
    assert not other(torch.randn(8, 3)).any()
    assert network(torch.randn(8, 3)).any()
    assert other.state_dict().keys() == Small().state_dict().keys()


def test_arguments_left_out_and_numbers(fresh):
    network, x, shift = compiled(), torch.randn(8, 3), torch.randn(8)
    plain = copy.copy(network)
    del plain.forward
    torch.testing.assert_close(network(x, shift), plain(x, shift))
    torch.testing.assert_close(network(x, None), plain(x))


def test_within_uncompiled_nothing_is_compiled_or_counted(fresh):
    network = compiled()

    def work():
        with compiling.uncompiled():
            network(torch.randn(8, 3))

    assert counted(work) == compiling.CompileCounts()


@pytest.fixture(scope="module")
def images(small_judge):
    """Small networks, compiled by a backend that runs graphs as they are."""
    patched = pytest.MonkeyPatch()
    patched.setattr(compiling, "inductor", as_it_is)
    yield tiny_images(guide=replace(TINY, channels=2), compile=True, sampler_steps=2)
    patched.undo()


def trainer_of(task, arm, **recipe):
    guide = task.network("guide", 1).eval().requires_grad_(False)
    proxy = task.network("proxy", 2) if arm.scoring.scorer == "proxy" else None
    how = Recipe(128, LearningRate(0.01), ema_widths=(0.1,), **recipe)
    return Trainer(task.source("cpu"), Networks(task.network("learner", 0), guide, proxy), how, arm, Streams(0))


#: Of images the best denoiser is not known, and the network shows no middle.
NOT_FOR_IMAGES = {"exact-target", "infonoise-mmse", "internal-head", "dispersive"}


@pytest.mark.parametrize("name", sorted(set(ARMS) - NOT_FOR_IMAGES))
def test_no_arm_runs_eager_and_after_warm_up_none_compiles(images, name):
    """Steps of all its kinds, then those of a second run, which finds all graphs; they are kept from arm to arm, as in
    the one worker of a GPU."""
    arm = ARMS[name]
    first, second = trainer_of(images, arm), trainer_of(images, arm)

    def steps(trainer, times):
        for kind in times * arm.kinds():
            trainer.step(kind)

    assert counted(lambda: steps(first, 2)).eager_calls == 0
    again = counted(lambda: steps(second, 1))
    assert (again.compilations, again.eager_calls) == (0, 0)


def test_evaluations_of_averages_run_no_network_eager_and_share_its_graphs(images, tmp_path):
    first, second = (trainer_of(images, ARMS["ajest"]) for _ in range(2))

    def evaluated(trainer):
        guide = trainer.selector.networks.reference
        images.evaluate(Guided(trainer.ema[0.1], guide, 2.0), Measurement(70, 0, tmp_path, keep_tensors=True))

    assert counted(lambda: evaluated(first)).eager_calls == 0
    again = counted(lambda: evaluated(second))
    assert (again.compilations, again.eager_calls) == (0, 0)


def replaying():
    """A backend whose answers are gone at the next call of any graph, as those of graphs that are replayed into the
    same memory."""
    kept = []

    def backend(graph, inputs):
        def run(*arguments):
            for old in kept:
                old.data.fill_(torch.nan)
            kept[:] = [t for t in graph.forward(*arguments) if isinstance(t, torch.Tensor)]
            return tuple(kept)

        return run

    return backend


@pytest.mark.parametrize("name", ["jest-ema", "joint-gradient", "proxy"])
def test_no_answer_of_a_replayed_network_is_needed_after_its_next_call(name, fresh, monkeypatch, tmp_path, small_judge):
    """Of micro-batches, of learner, reference, proxy and average in turns, and of samples that are guided."""
    settings = {"learner": replace(TINY, attention=(8,)), "guide": replace(TINY, channels=2), "sampler_steps": 2}
    found = {}
    for compiles in (False, True):
        monkeypatch.setattr(compiling, "inductor", replaying())
        task = small_images(compile=compiles, **settings)
        trainer = trainer_of(task, ARMS[name], micro_batch=48)
        losses = [trainer.step().loss for _ in range(2)]
        guide = trainer.selector.networks.reference or task.network("guide", 1).eval()
        judged = task.evaluate(Guided(trainer.ema[0.1], guide, 2.0), Measurement(70, 0, tmp_path)).metrics
        found[compiles] = torch.tensor([*losses, *judged.values()])
    assert found[True].isfinite().all()
    torch.testing.assert_close(found[True], found[False], rtol=1e-4, atol=1e-5)


def test_an_answer_that_is_kept_for_later_is_seen_to_be_gone(fresh):
    network = Small()
    compiling.compile_network(network, replaying())
    first = network(torch.randn(8, 3))
    assert first.isfinite().all()
    network(torch.randn(8, 3))
    assert first.isnan().all()


def test_gradients_that_lie_where_the_next_call_writes_are_copied():
    task = small_images()
    network = OptimizedNetwork(task.network("learner", 0), Recipe(32, LearningRate(0.01), ema_widths=(0.1,)))
    borrowed = {p: torch.full_like(p, 0.5) for p in network.network.parameters()}
    for parameter, gradient in borrowed.items():
        parameter.grad = gradient
    network._own_gradients()
    for gradient in borrowed.values():
        gradient.fill_(torch.nan)
    assert all(bool((p.grad == 0.5).all()) for p in borrowed)


def test_limits_of_the_compiler_itself_would_not_do(fresh, images, monkeypatch):
    """What happened before: the arms of one process share a function, of which 8 graphs were too many."""
    monkeypatch.setattr(compiling, "GRAPHS", 1)
    with torch._dynamo.config.patch(recompile_limit=2):
        found = counted(lambda: [trainer_of(images, arm).step() for arm in arms_named(("baseline", "ajest"))])
    assert found.eager_calls > 0


@pytest.mark.skipif("AJEST_COMPILE" not in os.environ, reason="minutes of compiling: AJEST_COMPILE=1 runs it")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of what the compiler itself imports
def test_the_network_of_the_smallest_preset_compiled_for_real_learns_as_a_plain_one(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    losses = {}
    for compiled in (False, True):
        task = small_images(learner=SIZES["mini"], guide=SIZES["nano"], compile=compiled)
        trainer, before = trainer_of(task, ARMS["ajest"]), compiling.so_far()
        losses[compiled] = torch.tensor([trainer.step().loss for _ in range(4)])
        found = compiling.so_far() - before
        assert (found.compilations > 0) is compiled
        assert found.eager_calls == 0
    torch.testing.assert_close(losses[True], losses[False], rtol=1e-3, atol=1e-4)
