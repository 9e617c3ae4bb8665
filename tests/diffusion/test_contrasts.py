"""Contrasts: what is minimised, its minimiser, and the affine map that has it without training."""

from dataclasses import replace

import pytest
import torch
from test_noising import SOURCES

from ajest.bench.run.evaluation import evaluate_snapshot
from ajest.diffusion.denoising import LogNormal, per_example_loss
from ajest.diffusion.noising import CONTRASTS, Contrast, Noising, noised
from ajest.errors import UserError
from ajest.runtime.seeding import generator
from ajest.selection import ARMS, register_contrast
from ajest.tasks.base import Guided, Measurement
from ajest.tasks.sources import TensorSource
from ajest.training.networks import load_network
from ajest.training.run import execute
from ajest.training.run_folder import RunConfig
from ajest.training.schedule import Schedule
from conftest import small_recipe, small_task

S, MEAN, SHARE = 0.5, 0.3, 0.2


@pytest.mark.parametrize("name", CONTRASTS)
def test_the_loss_is_the_contrast_up_to_what_no_denoiser_changes(name):
    own = SOURCES["vectors"]()
    contrast = Contrast(name, SHARE)
    plain, batch = (noised(own, Noising(target="x0", contrast=c), 60).draw(60, generator(1)) for c in (None, contrast))
    assert torch.equal(plain.x, batch.x)
    x0, eps = plain.target, (plain.x - plain.target) / plain.sigma[:, None]
    away, noise = (part.view(30, 2, 3).flip(1).view(60, 3) for part in (x0, eps))
    other = contrast.other(plain.x, plain.sigma, own.sigma_data, away, noise)

    def both(denoised):
        error, away = ((denoised - target).square().mean(1) for target in (x0, other))
        return plain.weight * (error - SHARE * away), per_example_loss(denoised, batch)

    (one, found_one), (two, found_two) = (both(torch.randn(60, 3, generator=generator(seed))) for seed in (2, 3))
    torch.testing.assert_close(found_one - found_two, one - two, rtol=1e-3, atol=1e-3)


def test_the_contrast_of_velocities_is_that_of_the_paper():
    """|v - u|^2 - share |v - u'|^2 with v = (x_t - D) / t, on data of standard deviation 1 (equation 6)."""
    x0, eps, other, noise, denoised = torch.randn(5, 64, 2, dtype=torch.float64, generator=generator(4))
    t = torch.linspace(0.05, 0.95, 64, dtype=torch.float64)[:, None]
    r = t / (1 - t)
    xt, x = (1 - t) * x0 + t * eps, x0 + r * eps
    v = (xt - denoised) / t
    expected = (v - (eps - x0)).square() - SHARE * (v - (noise - other)).square()
    away = Contrast("velocity", SHARE).other(x, r[:, 0], 1.0, other, noise)
    found = ((denoised - x0).square() - SHARE * (denoised - away).square()) / t.square()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", CONTRASTS)
@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_the_minimiser_is_the_affine_map_of_the_best_denoiser(name, sigma):
    """Of normal data, where all is linear: by least squares of the target on x."""
    contrast, n = Contrast(name, SHARE), 400_000
    data = MEAN + S * torch.randn(n, 1, dtype=torch.float64, generator=generator(5))
    source = noised(
        TensorSource(data, LogNormal(torch.tensor(sigma).log().item(), 1e-9), S), Noising(contrast=contrast), n
    )
    batch = source.draw(n, generator(6))
    x, target = batch.x[:, 0].double(), batch.target[:, 0].double()
    slope = torch.cov(torch.stack([x, target]))[0, 1] / x.var()
    intercept = target.mean() - slope * x.mean()

    def best(x, sigma, label=None):
        return MEAN + (x - MEAN) * S**2 / (S**2 + sigma[:, None].square())

    at, level = torch.tensor([[-0.5], [1.0]]).double(), torch.full((2,), sigma).double()
    pushed = contrast.pushed(best, torch.tensor([MEAN]), S)
    torch.testing.assert_close(slope * at + intercept, pushed(at, level).double(), rtol=0, atol=0.01)
    if name == "denoiser":
        torch.testing.assert_close(pushed(at, level), (best(at, level) - SHARE * MEAN) / (1 - SHARE))


def test_copies_are_pushed_away_from_another_example():
    own = SOURCES["vectors"]()
    noising = Noising(copies=3, contrast=Contrast("denoiser", 0.5))
    batch = noised(own, noising, 60).draw(60, generator(1))
    plain = noised(own, replace(noising, contrast=None), 60).draw(60, generator(1))
    away = (plain.target - 0.5 * batch.target) / 0.5
    torch.testing.assert_close(away, plain.target.view(10, 2, 3, 3).flip(1).view(60, 3), rtol=1e-4, atol=1e-4)


def test_the_control_is_the_same_network_pushed_in_sampling(tmp_path):
    found, task = {}, small_task()
    for name in ("x0-target", "contrastive-control"):
        config = RunConfig(task, "learner", small_recipe(), ARMS[name], 0, 8)
        assert execute(tmp_path / name, config, Schedule({"steps": (8.0,)})) == "done"
        found[name] = evaluate_snapshot(tmp_path / name, 8, (1.0,), 500, tmp_path / "cache")[0]["metrics"]
    one, two = (load_network(tmp_path / name)[0] for name in found)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert found["x0-target"]["energy_distance"] != found["contrastive-control"]["energy_distance"]
    mean = task.source("cpu").ingredients(4096, generator(0, "mean")).x0.mean(0)
    assert mean.norm() > 0.1  # or there would be nothing to see
    pushed = Contrast("velocity").pushed(one, mean, task.sigma_data)
    expected = task.evaluate(Guided(pushed), Measurement(500, 0, tmp_path / "cache")).metrics
    assert found["contrastive-control"] == pytest.approx(expected)
    assert ARMS["contrastive-control"].kinds() == ARMS["x0-target"].kinds()
    assert ARMS["contrastive-control"].axis == "target, sampling"


REFUSED = {
    "must lie above 0 and below 1": lambda: Contrast(share=1.0),
    "unknown contrast 'velosity'.*velocity": lambda: Contrast("velosity"),
    "it needs the clean example as target": lambda: noised(SOURCES["tree"](), Noising(contrast=Contrast()), 64),
    "must be affine": lambda: register_contrast("square", lambda x, sigma, r, x0, eps: x0.square()),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_contradicts_itself_is_refused(why):
    with pytest.raises(UserError, match=why):
        REFUSED[why]()


def test_a_contrast_of_the_user_s_own():
    register_contrast("half", lambda x, sigma, r, x0, eps, part=0.5: part * x0)
    try:
        own = SOURCES["vectors"]()
        one = noised(own, Noising(contrast=Contrast("half", 0.5, (1.0,))), 60).draw(60, generator(1))
        two = noised(own, Noising(contrast=Contrast("denoiser", 0.5)), 60).draw(60, generator(1))
        assert torch.equal(one.target, two.target)
    finally:
        CONTRASTS.pop("half")
