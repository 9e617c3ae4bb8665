"""What networks of images predict, and in whose squared error they learn."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ajest.diffusion.objectives import PARAMETRISATIONS
from ajest.errors import UserError
from ajest.runtime.seeding import generator
from ajest.selection.catalogue import arms_named
from ajest.tasks.images.judging import held_out_batch
from ajest.training.networks import load_network
from ajest.training.run import execute
from ajest.training.run_folder import RunConfig
from ajest.training.schedule import Schedule
from conftest import small_images, small_recipe

S = 0.5  # sigma_data
#: Of x = x0 + sigma eps and what is predicted: the denoiser.
CLEAN = {
    "edm": lambda x, sigma, f: (S**2 * x + sigma * S * (sigma**2 + S**2) ** 0.5 * f) / (sigma**2 + S**2),
    "eps": lambda x, sigma, f: x - sigma * f,
    "x0": lambda x, sigma, f: S * f,
    "v": lambda x, sigma, f: (S**2 * x - sigma * S * (sigma**2 + S**2) ** 0.5 * f) / (sigma**2 + S**2),
    "flow": lambda x, sigma, f: (x - sigma * f) / (1 + sigma / S),
}


def batch_of(task):
    return task.source("cpu").draw(48, generator(0, "draw"))


@pytest.mark.parametrize("objective", PARAMETRISATIONS)
def test_a_network_predicts_what_it_was_asked_to(objective):
    task = small_images(objective=objective)
    network, batch = task.network("learner", 3).eval(), batch_of(task)
    with torch.no_grad():
        network.unet.out_gain.fill_(0.7)  # it begins at 0
        sigma = batch.sigma[:, None, None, None]
        raw = network.unet(batch.x / (sigma**2 + S**2).sqrt(), batch.sigma.log() / 4, batch.label)
        found = network(batch.x, batch.sigma, batch.label)
    torch.testing.assert_close(found, CLEAN[objective](batch.x, sigma, raw), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("objective", PARAMETRISATIONS)
def test_losses_of_training_are_of_what_is_predicted_and_those_that_judge_are_edms(objective):
    task = small_images(objective=objective)
    batch = batch_of(task)
    out = PARAMETRISATIONS[objective].coefficients(batch.sigma / S)[1] * S
    torch.testing.assert_close(batch.weight, out**-2)
    judged, edm = held_out_batch(task, 5), held_out_batch(small_images(), 5)
    assert torch.equal(judged.weight, edm.weight)
    torch.testing.assert_close(edm.weight, (edm.sigma**2 + S**2) / (edm.sigma * S) ** 2)


def test_the_option_sets_what_networks_predict(command):
    words = ("--data", "shapes:512", "--resolution", 16, "--iterations", 2, "--super-batch", 32)
    done = command("train", "images", *words, "--objective", "v", "--out", "r")
    assert done.code == 0, done.err
    network, _ = load_network(Path("r"))
    assert network._predicts.name == "v"


def test_a_network_of_velocities_learns_and_comes_back_from_its_run(tmp_path):
    task = small_images(objective="flow")
    config = RunConfig(task, "learner", small_recipe(super_batch=16), arms_named(("baseline",))[0], 0, 6)
    execute(tmp_path / "run", config, Schedule())
    (network, _), (plain, _), batch = load_network(tmp_path / "run"), load_network(tmp_path / "run"), batch_of(task)
    plain._predicts = None
    with torch.no_grad():
        answers = [net(batch.x, batch.sigma, batch.label) for net in (network, plain)]
    assert not torch.allclose(*answers)


def test_what_is_no_objective_is_refused():
    with pytest.raises(UserError, match="unknown parametrisation 'velocity'"):
        replace(small_images(), objective="velocity")
