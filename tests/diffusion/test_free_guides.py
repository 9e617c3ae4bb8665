"""Guides that no one trained, against closed forms on a Gaussian, whose best denoiser is v / (v + sigma^2) x."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ajest.diffusion.guidance import autoguide
from ajest.diffusion.guides import apg, dropped_out, noisier, reg, within
from ajest.diffusion.sampling import sample, sigma_schedule
from ajest.errors import UserError
from ajest.selection.catalogue import ARMS
from ajest.storage import jsonl
from ajest.study.guides import GUIDES, guides_of
from ajest.tasks.base import Guided
from ajest.training.networks import load_network
from ajest.training.run import execute
from ajest.training.run_folder import RunConfig, read_config
from ajest.training.schedule import Schedule
from conftest import small_images, small_recipe, small_task

V = torch.tensor([0.5, 2.0, 1.0])
X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
SIGMA = torch.tensor([0.1, 0.3, 0.7, 1.0, 2.0, 5.0])


def shrunk(by=1.0):
    """The best denoiser of independent Gaussians of variances `by * V`."""
    return lambda x, sigma, label=None: x * (by * V / (by * V + sigma[:, None] ** 2))


def test_told_more_noise_a_gaussians_denoiser_shrinks_as_of_less_variance():
    assert torch.allclose(noisier(shrunk(), 2.0)(X, SIGMA), shrunk(0.25)(X, SIGMA))


def test_guided_by_itself_under_more_noise_a_gaussian_is_sampled_wider():
    """Each coordinate follows d ln x / d sigma = (1 - a) / sigma, with a the guided shrinkage, in closed form."""
    w, top = 1.5, 20.0
    start = torch.ones(1, 3, dtype=torch.float64)
    guided = autoguide(shrunk(), noisier(shrunk(), 2.0), w)
    end = sample(guided, start, sigma_schedule(400, top, 1e-3))
    # int (1 - V / (V + k^2 s^2)) / s ds = ln(V + k^2 s^2) / 2
    log = lambda k: (V.double() / (V + k**2 * top**2)).log() / 2  # noqa: E731
    assert torch.allclose(end[0].log(), w * log(1) + (1 - w) * log(2), atol=2e-3)


def test_rectified_guidance_scales_the_difference_by_the_slope():
    main, guide = shrunk(), shrunk(0.25)
    slope = V / (V + SIGMA[:, None] ** 2)
    wanted = main(X, SIGMA) + 0.8 * slope * (main(X, SIGMA) - guide(X, SIGMA))
    with torch.no_grad():
        assert torch.allclose(reg(main, guide, 1.8)(X, SIGMA), wanted)


def test_rectified_guidance_of_a_trees_network():
    task = small_task()
    main, guide = task.network("learner", 0).eval(), task.network("guide", 0).eval()
    main.gain.data.fill_(0.3)
    guide.requires_grad_(False)
    x, sigma = X[:, :2], SIGMA
    found = reg(main, guide, 3.0)(x, sigma)
    step = 1e-3
    shift = [torch.tensor([step, 0.0]), torch.tensor([0.0, step])]
    slope = torch.stack([(main(x + s, sigma) - main(x - s, sigma)).sum(1) / (2 * step) for s in shift], 1)
    wanted = main(x, sigma) + 2 * slope * (main(x, sigma) - guide(x, sigma))
    assert torch.allclose(found, wanted, atol=2e-3)
    assert not found.requires_grad


def test_projected_guidance_comes_down_to_a_straight_line():
    plain = autoguide(shrunk(), shrunk(0.25), 2.5)(X, SIGMA)
    assert torch.allclose(apg(shrunk(), shrunk(0.25), 2.5, parallel=1.0)(X, SIGMA), plain, atol=1e-6)


def test_projected_guidance_leaves_out_what_is_along_the_answer():
    main, guide = shrunk(), shrunk(0.25)
    moved = apg(main, guide, 2.5)(X, SIGMA) - main(X, SIGMA)
    assert torch.allclose((moved * main(X, SIGMA)).sum(1), torch.zeros(6), atol=1e-5)
    d = main(X, SIGMA) - guide(X, SIGMA)
    left = 1.5 * d - moved
    assert torch.allclose(torch.linalg.cross(left, main(X, SIGMA)), torch.zeros(6, 3), atol=1e-5)
    assert moved.norm() > 0.01


def test_projected_guidance_cuts_long_differences_off():
    main, guide = shrunk(), shrunk(0.25)
    d = main(X, SIGMA) - guide(X, SIGMA)
    limit = d.norm(dim=1).median().item()
    moved = apg(main, guide, 2.0, threshold=limit, parallel=1.0)(X, SIGMA) - main(X, SIGMA)
    assert torch.allclose(moved.norm(dim=1), d.norm(dim=1).clamp_max(limit), rtol=1e-4)


def test_momentum_is_of_one_path():
    main, guide = shrunk(), shrunk(0.25)
    guided = apg(main, guide, 2.0, parallel=1.0, momentum=-0.5)

    def path():
        return [guided(X, torch.full((6,), level)) for level in (2.0, 1.0, 0.5)]

    first = path()
    d = [main(X, torch.full((6,), s)) - guide(X, torch.full((6,), s)) for s in (2.0, 1.0, 0.5)]
    summed = [d[0], d[1] - 0.5 * d[0], d[2] - 0.5 * (d[1] - 0.5 * d[0])]
    for found, level, push in zip(first, (2.0, 1.0, 0.5), summed, strict=True):
        assert torch.allclose(found, main(X, torch.full((6,), level)) + push, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(first, path(), strict=True))


def test_outside_an_interval_nothing_is_guided():
    main, guided = shrunk(), autoguide(shrunk(), shrunk(0.25), 3.0)
    found = within(guided, main, (0.3, 1.0))(X, SIGMA)
    inside = (SIGMA >= 0.3) & (SIGMA <= 1.0)
    assert torch.equal(found[inside], guided(X, SIGMA)[inside])
    assert torch.equal(found[~inside], main(X, SIGMA)[~inside])
    assert within(guided, main, None) is guided
    for at in (0.5, 9.0):
        level = torch.full((6,), at)
        assert torch.equal(within(guided, main, (0.3, 1.0))(X, level), (guided if at < 1 else main)(X, level))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 400), nn.Dropout(0.1), nn.Linear(400, 3, bias=False))
        nn.init.ones_(self.inner[2].weight)

    def forward(self, x, sigma, label=None):
        return self.inner(x)


def test_dropout_is_on_for_the_guide_alone():
    network = Net().eval()
    guide = dropped_out(network, 0.5)
    plain = network(X, SIGMA)
    found = guide(X, SIGMA)
    assert not torch.allclose(found, plain)
    assert torch.equal(guide(X, SIGMA), found)
    assert not torch.equal(guide(X, 2 * SIGMA), found)
    assert torch.equal(network(X, SIGMA), plain)
    assert (network.inner[1].p, network.inner[1].training) == (0.1, False)
    many = torch.stack([guide(X, SIGMA * (1 + i / 100)) for i in range(400)]).detach()
    assert torch.allclose(many.mean(0), plain, atol=4 * many.std(0).max().item() / 400**0.5)


def test_networks_of_images_have_dropout_and_those_of_the_tree_have_none():
    task = small_images()
    network = task.network("learner", 0).eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "gain" in name:
                weight.fill_(0.5)
        x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        sigma, label = torch.tensor([0.5, 0.5]), torch.tensor([0, 1])
        before = {k: v.clone() for k, v in network.state_dict().items()}
        assert not torch.equal(dropped_out(network, 0.5)(x, sigma, label), network(x, sigma, label))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    with pytest.raises(UserError, match="no dropout to turn on"):
        dropped_out(small_task().network("learner", 0), 0.1)
    with pytest.raises(UserError, match="between 0 and 1"):
        dropped_out(Net(), math.nan)


@pytest.fixture
def run(tmp_path):
    """A run of a few steps on the tree."""
    config = RunConfig(small_task(), "learner", small_recipe(super_batch=64), ARMS["baseline"], 0, 4)
    assert execute(tmp_path / "run", config, Schedule()) == "done"
    return tmp_path / "run"


def test_a_run_guides_itself_from_the_command_line(run, command, refused):
    network, _ = load_network(run)
    task = small_task()
    wanted = Guided(network, noisier(network, 2.0), 3.0, rule="reg").denoiser
    guided = ("--guide", run, "--guide-noisier", 2)
    done = command("sample", run, *guided, "--guide-rule", "reg", "--weight", 3, "--n", 16, "--out", "out")
    assert done.code == 0, done.err
    found = np.loadtxt("out/samples.csv", delimiter=",", skiprows=1)
    assert np.allclose(found, task._sample(wanted, task.start(16, 0, "cpu"), 0).numpy(), atol=1e-5)
    for rule in ("autoguide", "apg"):
        done = command("evaluate", run, *guided, "--guide-rule", rule, "--weights", 2, "--n", 64)
        assert done.code == 0, done.err
    first, second = jsonl.read(run / "metrics.jsonl")
    assert first["settings"]["guide"] == {"noisier": 2.0}
    assert second["settings"]["guide"] == {"noisier": 2.0, "rule": "apg"}
    assert first["metrics"] != second["metrics"]
    refused("sample", run, "--guide", run, "--out", "out", says="would guide itself")
    width = read_config(run).recipe.ema_widths[0]  # the one that is taken where none is named
    refused("sample", run, "--guide", run, "--guide-width", width, "--out", "out", says="would guide itself")
    refused("sample", run, "--guide", run, "--guide-dropout", 0.1, "--out", "out", says="no dropout to turn on")
    refused("sample", run, "--guide", run, "--guide-noisier", 0, "--out", "out", says="times the noise, not 0")


def test_a_rule_takes_no_classifier_free_guidance_beside_it():
    with pytest.raises(UserError, match="leave out one"):
        Guided(shrunk(), shrunk(0.25), 2.0, cfg=2.0, rule="apg")


def test_rules_act_within_the_interval_of_a_guided_denoiser():
    model = Guided(shrunk(), shrunk(0.25), 2.0, (0.3, 1.0), rule="reg")
    assert torch.equal(
        model.denoiser(X, SIGMA), within(reg(shrunk(), shrunk(0.25), 2.0), shrunk(), (0.3, 1.0))(X, SIGMA)
    )


def test_studies_judge_free_guides_with_what_they_cost():
    told = {guide.name: guide for guide in GUIDES}
    twice = told["itself, told twice the noise"]
    model = twice.model(shrunk(), shrunk(), 1.5, 0.5)
    assert torch.allclose(model.denoiser(X, SIGMA), autoguide(shrunk(), shrunk(0.25), 1.5)(X, SIGMA))
    assert (twice.passes, twice.trained) == ("2", False)
    assert told["own snapshot at 1/8, rectified (REG)"].passes == "4"
    assert told["trained"].passes == "1 + g"
    middle = told["own snapshot at 1/8, at middle noise"].model(shrunk(), shrunk(0.25), 2.0, 0.5)
    assert middle.interval == pytest.approx((0.28, 2.9))
    dropping = told["itself, a tenth dropped"]
    assert dropping in guides_of(small_images())
    assert dropping not in guides_of(small_task())  # its network has no dropout
    network = small_images().network("learner", 0).eval()
    assert dropping.model(network, network, 2.0, 0.5).guide is not network
