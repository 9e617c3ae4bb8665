import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ajest import (
    Batch,
    PowerEMA,
    autoguide,
    per_example_loss,
    posthoc_coefficients,
    reconstruct,
    sample,
    score,
    sigma_schedule,
)
from ajest.diffusion.ema import average_of, decay, exponent
from ajest.errors import UserError
from ajest.selection.features import score_with_features
from ajest.tasks.base import Guided, Measurement
from conftest import small_images, small_task

SCALE = 0.5


def gaussian(x, sigma, label=None):
    """The ideal denoiser of N(0, SCALE^2)."""
    return x * (SCALE**2 / (SCALE**2 + sigma**2))[:, None]


def test_schedule_is_the_formula():
    sigmas = sigma_schedule(5, 80.0, 0.002, 7.0)
    assert len(sigmas) == 6
    assert sigmas[0] == pytest.approx(80)
    assert sigmas[4] == pytest.approx(0.002)
    assert sigmas[5] == 0
    assert sigmas[2] == pytest.approx(((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7)
    for bad in ((1, 80.0, 0.002), (8, 0.001, 0.002), (8, 1.0, 0.0)):
        with pytest.raises(ValueError, match="schedule"):
            sigma_schedule(*bad)


def test_heun_solves_the_gaussian_exactly_and_at_second_order():
    start = torch.randn(100, 2, dtype=torch.float64) * 5
    exact = start * SCALE / np.sqrt(SCALE**2 + 25)
    errors = [(sample(gaussian, start, sigma_schedule(n, 5.0, 1e-4)) - exact).abs().max().item() for n in (16, 32, 64)]
    assert errors[2] < 4e-3
    assert 3 < errors[0] / errors[1] < 6
    assert 3 < errors[1] / errors[2] < 6


def test_chunks_change_nothing_and_watch_sees_every_step():
    start, sigmas, seen = torch.randn(50, 2) * 5, sigma_schedule(8, 5.0, 0.01), []
    whole = sample(gaussian, start, sigmas, watch=lambda i, x: seen.append(i))
    torch.testing.assert_close(sample(gaussian, start, sigmas, chunk=7), whole)
    assert seen == list(range(9))


def test_labels_travel_with_their_chunk():
    labels = torch.arange(10.0)
    end = sample(
        lambda x, sigma, label: label[:, None].expand_as(x), torch.randn(10, 2), sigma_schedule(4), labels, chunk=3
    )
    torch.testing.assert_close(end, labels[:, None].expand(10, 2))


def test_churn_keeps_the_distribution():
    start = torch.randn(40_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * np.sqrt(25 + 0.25)
    stream = torch.Generator().manual_seed(1)
    end = sample(gaussian, start, sigma_schedule(64, 5.0, 0.002), churn=20, generator=stream)
    plain = sample(gaussian, start, sigma_schedule(64, 5.0, 0.002))
    assert end.std().item() == pytest.approx(SCALE, rel=0.02)
    assert (end - plain).abs().mean() > 0.1


def test_guidance_is_the_formula_everywhere_and_in_an_interval():
    main, guide = (lambda x, s, y=None: x * 2), (lambda x, s, y=None: x * 3)
    x, sigma = torch.randn(6, 2), torch.tensor([0.1, 0.5, 1.0, 2.0, 3.0, 9.0])
    assert autoguide(main, guide, 1.0) is main
    torch.testing.assert_close(autoguide(main, guide, 3.0)(x, sigma), x * 3 + 3 * (x * 2 - x * 3))
    inside = (sigma >= 0.5) & (sigma <= 2)
    expected = torch.where(inside[:, None], x * 0, x * 2)
    torch.testing.assert_close(autoguide(main, guide, 3.0, (0.5, 2.0))(x, sigma), expected)

    def forbidden(x, sigma, label=None):
        raise AssertionError("the guide was asked outside its interval")

    torch.testing.assert_close(autoguide(main, forbidden, 3.0, (20.0, 30.0))(x, sigma), x * 2)


def test_exponents_betas_and_posthoc_equal_the_reference(reference):
    stored = json.loads((reference / "ema.json").read_text())
    for width, value in stored["std_to_exponent"].items():
        assert exponent(float(width)) == pytest.approx(value, rel=1e-9)
    for case in stored["beta"]:
        assert decay(case["std"], case["t_next"], case["t_delta"]) == pytest.approx(case["beta"], rel=1e-9, abs=1e-15)
    case = stored["posthoc"]
    found = posthoc_coefficients(case["in_ofs"], case["in_std"], case["out_ofs"], case["out_std"])
    np.testing.assert_allclose(found, case["coefficients"], rtol=1e-6, atol=1e-12)


@given(width=st.floats(0.005, 0.28))
def test_an_exponent_has_its_width(width):
    g = exponent(width)
    assert np.sqrt((g + 1) / ((g + 2) ** 2 * (g + 3))) == pytest.approx(width, rel=1e-6)


def walk(steps):
    """A network on a smooth path, and its averages."""
    net = torch.nn.Linear(3, 2, bias=False).double()
    ema, path, states = PowerEMA(net, (0.05, 0.10)), [], {}
    for t in range(1, steps + 1):
        with torch.no_grad():
            net.weight.copy_(torch.sin(torch.arange(6.0).view(2, 3) + t / 40) + t / 100)
        path.append(net.weight.detach().clone())
        ema.update(t)
        if t % 16 == 0:
            states[t] = {k: v.clone() for k, v in ema.state_dict().items()}
    return ema, torch.stack(path), states


def test_the_running_average_is_the_power_profile():
    ema, path, _ = walk(200)
    for width in (0.05, 0.10):
        t = torch.arange(1, 201, dtype=torch.float64)
        g = exponent(width)
        profile = t ** (g + 1) - (t - 1) ** (g + 1)  # the integral of t^g over each step
        expected = (profile[:, None, None] * path).sum(0) / profile.sum()
        torch.testing.assert_close(ema[width].weight.detach(), expected, rtol=2e-3, atol=2e-3)
        assert not ema[width].training
        assert not ema[width].weight.requires_grad


def test_posthoc_reconstruction_equals_the_average_that_was_not_kept():
    ema, path, states = walk(256)
    wanted = PowerEMA(torch.nn.Linear(3, 2, bias=False).double(), (0.075,))
    for t, weight in enumerate(path, 1):
        wanted.network.weight.data.copy_(weight)
        wanted.update(t)
    times = [float(t) for t in states for _ in ema.averages]
    widths = [w for _ in states for w in ema.averages]
    coefficients = posthoc_coefficients(times, widths, 256.0, 0.075)
    assert coefficients.sum() == pytest.approx(1)
    found = reconstruct([average_of(s, w) for s in states.values() for w in ema.averages], coefficients)
    torch.testing.assert_close(found["weight"], wanted[0.075].weight.detach(), rtol=2e-4, atol=2e-4)


def test_bad_ema_requests_are_named():
    with pytest.raises(UserError, match="EMA width"):
        exponent(0.5)
    with pytest.raises(UserError, match="EMA width"):
        PowerEMA(torch.nn.Linear(2, 2), (0.05, 0.5))
    with pytest.raises(UserError, match="averages of bfloat16 weights stand still: keep the weights in float32"):
        PowerEMA(torch.nn.Linear(2, 2).bfloat16(), (0.05,))
    with pytest.raises(ValueError, match="at least one"):
        posthoc_coefficients([], [], 1.0, 0.1)
    with pytest.raises(ValueError, match="after the last"):
        posthoc_coefficients([1.0], [0.1], 2.0, 0.1)


class Energy(torch.nn.Module):
    """The ideal denoiser of N(0, SCALE^2) times `factor`, whose score is the gradient of an energy."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, x, sigma, label=None):
        shape = (-1, *[1] * (x.ndim - 1))
        variance = (SCALE**2 + sigma.square()).view(shape)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = (self.factor * x.square() / variance).sum() / -2
            (slope,) = torch.autograd.grad(energy, x, create_graph=self.training)
        return x + sigma.square().view(shape) * slope  # with a graph that nobody asked for


def test_a_denoiser_that_differentiates_for_its_score_is_sampled_guided_and_scored():
    start, sigmas = torch.randn(20, 2, dtype=torch.float64) * 5, sigma_schedule(8, 5.0, 0.01)
    energy, guide = Energy(), Energy(0.9)
    torch.testing.assert_close(sample(energy, start, sigmas, chunk=7), sample(gaussian, start, sigmas))
    ideal = autoguide(gaussian, lambda x, s, y=None: x - 0.9 * (x - gaussian(x, s)), 2.0)
    found = sample(autoguide(energy, guide, 2.0), start, sigmas)
    torch.testing.assert_close(found, sample(ideal, start, sigmas))
    assert not found.requires_grad
    assert not found.is_inference()
    seen = []
    sample(energy, start, sigmas, churn=4.0, watch=lambda _, x: seen.append(x.requires_grad))
    assert not any(seen)
    batch = Batch(x=start, sigma=torch.ones(20).double(), weight=torch.ones(20).double(), id=torch.arange(20))
    batch = replace(batch, target=torch.zeros_like(start))
    wanted = per_example_loss(gaussian(batch.x, batch.sigma), batch)
    torch.testing.assert_close(score(energy, batch, micro_batch=7), wanted)
    torch.testing.assert_close(score_with_features(energy, batch, "residual")[0], wanted)


@pytest.mark.parametrize("task", [small_task, small_images])
def test_a_task_judges_a_denoiser_that_differentiates_for_its_score(task, tmp_path):
    found = task().evaluate(Guided(Energy()), Measurement(64, 0, tmp_path, keep_tensors=True))
    assert np.isfinite(found.metrics["loss"])
    guided = task().evaluate(Guided(Energy(), Energy(0.9), 2.0), Measurement(64, 0, tmp_path))
    assert np.isfinite(list(guided.metrics.values())).all()


def test_buffers_are_averaged_as_weights_are_and_counters_copied():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).double()
    ema, plain, states = PowerEMA(net, (0.05, 0.1)), dict.fromkeys((0.05, 0.1)), {}
    for t in range(1, 33):
        net(torch.randn(16, 3, dtype=torch.float64) * t)
        ema.update(t)
        for width, mean in plain.items():
            live = net[1].running_var.clone()
            plain[width] = live if mean is None else mean.lerp(live, 1 - decay(width, t, 1))
        if t % 8 == 0:
            states[t] = {k: v.clone() for k, v in ema.state_dict().items()}
    for width, mean in plain.items():
        torch.testing.assert_close(ema[width][1].running_var, mean)
        assert ema[width][1].num_batches_tracked == net[1].num_batches_tracked == 32
    assert not torch.isclose(ema[0.1][1].running_var, net[1].running_var, rtol=0.02).any()

    again = PowerEMA(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).double(), (0.05, 0.1))
    again.load_state_dict(ema.state_dict())
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in ema.state_dict().items())

    times, widths = [float(t) for t in states for _ in plain], list(plain) * len(states)
    coefficients = posthoc_coefficients(times, widths, 32.0, 0.07)
    found = reconstruct([average_of(s, w) for s in states.values() for w in plain], coefficients)
    assert found["1.num_batches_tracked"] == 32
    between = sorted(ema[w][1].running_var[0].item() for w in plain)
    assert between[0] < found["1.running_var"][0] < between[1]
