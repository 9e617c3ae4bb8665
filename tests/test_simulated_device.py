"""Training, sampling, judging and resuming on a device that is not the CPU: the same code, the same numbers."""

import copy
from functools import cache

import pytest
import torch

from ajest.runtime import seeding
from ajest.runtime.seeding import Streams
from ajest.selection.catalogue import ARMS, arms_named
from ajest.selection.flow import Networks
from ajest.tasks.images.architecture import Architecture
from ajest.tasks.images.setup import image_task
from ajest.training.recipe import LearningRate
from ajest.training.trainer import Trainer
from conftest import small_recipe, small_task
from simulated_device import simulated_cuda

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")


@pytest.fixture
def cuda(monkeypatch):
    """The simulated device, whose generators draw the numbers that the CPU's of the same name do."""
    on_cpu = seeding.generator

    def generator(seed, *stream, device="cpu"):
        made = torch.Generator(device=device)
        made.set_state(on_cpu(seed, *stream).get_state())
        return made

    with simulated_cuda() as device:
        monkeypatch.setattr(seeding, "generator", generator)
        yield device


@cache
def tiny_images():
    network = Architecture(channels=4, multipliers=(1,), blocks=1, attention=(), patch=2)
    return image_task(("shapes:256",), ("shapes:128",), resolution=16, learner=network, guide=network, sampler_steps=3)


@cache
def fresh(task, role, seed):
    network = task.network(role, seed)
    network.flops()  # is counted once, and copied along
    return network


def trainer(task, arm, device, **recipe):
    def network(role, seed):
        return copy.deepcopy(fresh(task, role, seed)).to(device)

    proxy = network("proxy", 0) if arm.scoring.scorer == "proxy" else None
    reference = None if arm.reference == "none" else network("guide", 5).eval().requires_grad_(False)
    networks = Networks(network("learner", 0), reference, proxy)
    recipe = small_recipe(super_batch=128, learning_rate=LearningRate(0.01, 0), not_finite="zero", **recipe)
    return Trainer(task.source(device), networks, recipe, arm, Streams(0))


def state(trainer):
    """Everything that a checkpoint holds, on the CPU."""
    return {k: v.detach().cpu() for k, v in trainer.state()[0].items()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


CASES = [(task, arm) for task in ("tree", "images") for arm in ARMS if (task, arm) != ("tree", "half-resolution")]


@pytest.mark.parametrize(("task", "name"), CASES)
def test_every_arm_trains_on_the_device_as_on_the_cpu(task, name, cuda):
    """Three steps, a restart from what a checkpoint would hold, and another: losses, weights, averages, counts and what
    is remembered are the CPU's, bit for bit."""
    task, arm = {"tree": small_task, "images": tiny_images}[task](), arms_named((name,), chunks=4)[0]
    on_cpu, on_device, again = (trainer(task, arm, device) for device in ("cpu", "cuda", "cuda"))
    expected, found = ([t.step().loss for _ in range(3)] for t in (on_cpu, on_device))
    assert found == expected
    assert_equal(state(on_device), state(on_cpu))
    again.restore(state(on_device), on_device.state()[1])
    assert again.step().loss == on_cpu.step().loss
    assert_equal(state(again), state(on_cpu))
    assert {t.device.type for t in again.network.parameters()} == {"cuda"}
