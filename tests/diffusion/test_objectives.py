"""Networks of noise, v, data and velocity as denoisers and back, their losses, levels, guidance and samples."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from ajest.diffusion import (
    EDM,
    PARAMETRISATIONS,
    CosineVP,
    DiscreteVP,
    LinearVP,
    Preconditioned,
    RectifiedFlow,
    VarianceExploding,
    as_denoiser,
    as_network,
    autoguide,
    flow_times,
    per_example_loss,
    sample,
    sample_flow,
    sigma_schedule,
)
from ajest.diffusion.batch import Batch
from ajest.diffusion.noising import Levels
from ajest.errors import UserError
from ajest.runtime.seeding import generator

DOUBLE = torch.float64
PROCESSES = (
    VarianceExploding(), EDM(0.5), EDM(), LinearVP(), LinearVP(0.7), CosineVP(), DiscreteVP.linear(),
    DiscreteVP.scaled_linear(sigma_data=2.0), DiscreteVP.cosine(), RectifiedFlow(), RectifiedFlow(0.5),
    RectifiedFlow(towards_data=True, multiplier=1000.0),
)  # fmt: skip


def draws(n, d=3, seed=0):
    return torch.randn(n, d, dtype=DOUBLE, generator=generator(seed))


def levels(process, n=40):
    """Levels that a process has."""
    if isinstance(process, DiscreteVP):
        return process.sigma(torch.linspace(0, 999, n, dtype=DOUBLE))
    return process.sigma_data * torch.logspace(-3, math.log10(140), n, dtype=DOUBLE)


def gaussian(mean=0.0, s=1.0):
    """The best denoiser of N(mean, s^2); with a label, of N(label, s^2)."""

    def denoise(x, sigma, label=None):
        centre = mean if label is None else label[:, None]
        return centre + (x - centre) * (s**2 / (s**2 + sigma.square()))[:, None]

    return denoise


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_levels_and_times_undo_each_other(process):
    sigma = levels(process)
    torch.testing.assert_close(process.sigma(process.time(sigma)), sigma, rtol=1e-12, atol=0)
    x = draws(len(sigma))
    torch.testing.assert_close(process.unshown(process.shown(x, sigma), sigma), x, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", PARAMETRISATIONS)
@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_a_network_as_denoiser_and_back_is_itself_and_so_is_a_denoiser(process, name):
    def network(z, time, label):
        return torch.sin(z * 3) + time.tanh()[:, None] + label[:, None]

    sigma, label = levels(process), draws(40, 1, 2)[:, 0]
    z, time = draws(40, seed=1), process.time(sigma)
    back = as_network(as_denoiser(network, name, process), name, process)
    torch.testing.assert_close(back(z, time, label), network(z, time, label), rtol=1e-12, atol=1e-12)

    denoiser = gaussian(s=process.sigma_data)
    again = as_denoiser(as_network(denoiser, name, process), name, process)
    x = draws(40, seed=3) * sigma[:, None]
    error = (again(x, sigma) - denoiser(x, sigma)).abs()
    assert (error <= 1e-12 * (1 + 1e-3 * sigma)[:, None]).all()  # of the last level of a chain, x is above 10,000


def made_of(name, process, x0, eps, sigma):
    """What a network is shown and is to answer, by the definitions of its paper alone, on data of deviation 1."""
    t = process.time(sigma)
    if isinstance(process, RectifiedFlow):
        t = t / process.multiplier
        t = (1 - t if process.towards_data else t)[:, None]
        z = (1 - t) * x0 + t * eps
    elif isinstance(process, VarianceExploding):
        z = x0 + t[:, None] * eps
    elif isinstance(process, EDM):
        sigma = (4 * t).exp()[:, None]
        z = (x0 + sigma * eps) / (1 + sigma**2).sqrt()
    else:
        if isinstance(process, CosineVP):
            alpha = (t * math.pi / 2).cos()
        elif isinstance(process, LinearVP):
            alpha = (-(0.1 * t + 19.9 * t**2 / 2) / 2).exp()
        else:
            alpha = torch.tensor(process.alphas_cumprod, dtype=DOUBLE)[t.round().long()].sqrt()
        z = alpha[:, None] * x0 + (1 - alpha**2).sqrt()[:, None] * eps
    cosine = (1 + process.sigma(process.time(sigma if sigma.dim() == 1 else sigma[:, 0])) ** 2).rsqrt()[:, None]
    sine = (1 - cosine**2).sqrt()
    v = cosine * eps - sine * x0
    towards = isinstance(process, RectifiedFlow) and process.towards_data
    flow = x0 - eps if towards else eps - x0
    return z, {"x0": x0, "eps": eps, "v": v, "flow": flow, "edm": -v}[name]


@pytest.mark.parametrize("name", PARAMETRISATIONS)
@pytest.mark.parametrize("process", [p for p in PROCESSES if p.sigma_data == 1], ids=lambda p: type(p).__name__)
def test_what_is_shown_and_asked_is_what_papers_define_and_the_loss_is_the_network_s_own(process, name):
    """The weighted squared error of the denoiser is the plain squared error of what the network predicts."""
    sigma = levels(process)
    if isinstance(process, DiscreteVP):
        sigma = process.sigma(process.time(sigma).round())
    x0, eps, noise = draws(40), draws(40, seed=1), draws(40, seed=2)
    z, answer = made_of(name, process, x0, eps, sigma)
    seen = {}

    def network(shown, time, label):
        seen.update(z=shown)
        return answer + 0.1 * noise

    x = x0 + sigma[:, None] * eps
    weight = PARAMETRISATIONS[name].weighting(sigma, process.sigma_data)
    batch = Batch(x, sigma, weight, torch.arange(40), x0)
    found = per_example_loss(as_denoiser(network, name, process)(x, sigma), batch)
    torch.testing.assert_close(seen["z"], z, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found, (0.1 * noise).square().mean(1), rtol=1e-7, atol=1e-10)


def test_data_of_another_deviation_are_the_same_in_its_units():
    """Shown, told, answered and weighted as data of deviation 1 would be."""
    sigma, x = levels(EDM()), draws(40)
    for name, parametrisation in PARAMETRISATIONS.items():
        unit, scaled = (as_denoiser(lambda z, t, y: z.cos() + t[:, None], name, RectifiedFlow(s)) for s in (1.0, 0.3))
        torch.testing.assert_close(scaled(0.3 * x, 0.3 * sigma), 0.3 * unit(x, sigma))
        torch.testing.assert_close(
            parametrisation.weighting(0.3 * sigma, 0.3) * 0.09, parametrisation.weighting(sigma, 1)
        )


def test_edm_s_preconditioning_is_the_table():
    s, sigma, x = 0.5, levels(EDM(0.5)), draws(40)
    found = as_denoiser(lambda z, t, y: (z + t[:, None]).sin(), "edm", EDM(s))(x, sigma)
    level = sigma[:, None]
    scale = (level**2 + s**2).sqrt()
    raw = (x / scale + level.log() / 4).sin()
    torch.testing.assert_close(found, s**2 / scale**2 * x + level * s / scale * raw)


@pytest.mark.parametrize("process", [LinearVP(), CosineVP(), RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_levels_of_a_process_are_those_of_its_uniform_times(process):
    u = torch.linspace(0.01, 0.99, 50, dtype=DOUBLE)
    first = 1e-3 if isinstance(process, LinearVP) else 0.0
    expected = process.sigma(first + u * (1 - first)).log()
    torch.testing.assert_close(process.levels.table("cpu").quantile(u), expected, rtol=1e-3, atol=2e-3)


def test_steps_between_and_nearest():
    chain = DiscreteVP.linear()
    torch.testing.assert_close(chain.sigma(torch.tensor([0, 999])), torch.tensor([0.0100, 157.4]), rtol=1e-3, atol=1e-4)
    between = (chain.sigma(torch.tensor(400.0)).log() + chain.sigma(torch.tensor(401.0)).log()).div(2).exp()
    assert chain.time(between).item() == pytest.approx(400.5, abs=1e-3)
    assert replace(chain, nearest=True).time(between * 1.001).item() == 401
    assert chain.time(torch.tensor([1e-9, 1e9])).tolist() == [0, 999]
    half = (1 - torch.tensor(DiscreteVP.cosine().alphas_cumprod[499])).sqrt()
    assert half.item() == pytest.approx(0.5**0.5, abs=0.01)


@pytest.mark.parametrize("name", PARAMETRISATIONS)
@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_guided_samples_are_equal_through_each(process, name):
    """Guidance in a network's own prediction is guidance of the denoiser: both are linear at one level."""
    s = process.sigma_data
    main, guide = gaussian(0.2, s), gaussian(-0.3, 1.2 * s)
    low, high = levels(process)[[1, -2]].tolist()
    start, sigmas = high * draws(8), sigma_schedule(6, high, low)
    wanted = sample(autoguide(main, guide, 2.5), start, sigmas)
    one, other = (as_network(d, name, process) for d in (main, guide))
    own = as_denoiser(lambda z, t, y: other(z, t) + 2.5 * (one(z, t) - other(z, t)), name, process)
    torch.testing.assert_close(sample(own, start, sigmas), wanted, rtol=1e-10, atol=1e-10)


def test_a_flow_s_times_are_uniform_or_shifted():
    assert flow_times(4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    shifted = flow_times(4, 3.0)
    assert shifted == pytest.approx([1, 0.9, 0.75, 0.5, 0])
    for first in (1.0, 0.9):
        times = flow_times(8, 3.0, first)
        assert times[0] == first
        u = torch.tensor([t / (3 - 2 * t) for t in times])
        torch.testing.assert_close(u.diff(), u.diff()[:1].expand(8))
    odds = [math.log(t / (1 - t)) for t in flow_times(6)[1:-1]]
    moved = [math.log(t / (1 - t)) for t in flow_times(6, 3.0)[1:-1]]
    assert [b - a for a, b in zip(odds, moved, strict=True)] == pytest.approx([math.log(3)] * 5)


def test_euler_in_a_flow_s_time_is_euler_in_sigma_and_heun_has_second_order():
    """Euler's steps are the same ones, at the levels r = t / (1 - t); both methods have the limit of the ODE."""
    s, sigma = 0.5, 5.0
    process, start = RectifiedFlow(s), 5 * draws(20)
    guided = autoguide(gaussian(0.1, s), gaussian(0.0, 0.7), 1.8)
    first = process.time(torch.tensor([sigma], dtype=DOUBLE)).item()

    def flow(denoiser, steps, heun):
        seen = as_network(denoiser, "flow", process)
        z = process.shown(start, torch.full((20,), sigma, dtype=DOUBLE))
        return s * sample_flow(seen, z, flow_times(steps, 2.0, first), heun=heun)

    x, times = start, flow_times(12, 2.0, first)
    for now, nxt in pairwise(times):
        now, nxt = (s * t / (1 - t) for t in (now, nxt))
        clean = guided(x, torch.full((20,), now, dtype=DOUBLE))
        x = clean + nxt / now * (x - clean)
    torch.testing.assert_close(flow(guided, 12, False), x, rtol=1e-10, atol=1e-10)

    exact = start * s / (s**2 + sigma**2) ** 0.5
    errors = {
        heun: [(flow(gaussian(s=s), n, heun) - exact).abs().max().item() for n in (32, 64, 128)]
        for heun in (False, True)
    }
    for heun, (coarse, middle, fine) in errors.items():
        order = (coarse / middle, middle / fine)
        assert all((3 if heun else 1.7) < ratio < (6 if heun else 2.4) for ratio in order), errors
    dense = sample(guided, start, sigma_schedule(400, sigma, 1e-3))
    torch.testing.assert_close(flow(guided, 400, True), dense, rtol=0, atol=2e-3)


def test_a_native_flow_begins_at_pure_noise_with_its_labels():
    """Straight paths to a point are solved by one step."""
    noise, label = draws(6), draws(6, 1, 3)[:, 0]
    seen = []
    for heun in (True, False):
        end = sample_flow(
            lambda z, t, y: noise - y[:, None], noise, flow_times(3), label, heun=heun,
            watch=lambda i, z: seen.append(i),
        )  # fmt: skip
        torch.testing.assert_close(end, label[:, None].expand(6, 3))
    assert seen == [0, 1, 2, 3] * 2


class Velocity(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)

    def forward(self, z, t, label=None):
        return self.linear(torch.cat([z, t[:, None]], 1))


def test_a_wrapped_network_is_trained_as_any_other():
    """Its gradient is that of its own loss, and it keeps nothing but its weights."""
    torch.manual_seed(0)
    raw = Velocity()
    wrapped = Preconditioned(raw, "flow", RectifiedFlow())
    x0, eps, t = torch.randn(32, 2), torch.randn(32, 2), torch.rand(32) * 0.9 + 0.05
    own = (raw((1 - t[:, None]) * x0 + t[:, None] * eps, t) - (eps - x0)).square().mean()
    own.backward()
    wanted, raw.linear.weight.grad = raw.linear.weight.grad, None
    sigma = t / (1 - t)
    weight = PARAMETRISATIONS["flow"].weighting(sigma, 1.0)
    batch = Batch(x0 + sigma[:, None] * eps, sigma, weight, torch.arange(32), x0)
    per_example_loss(wrapped(batch.x, sigma), batch).mean().backward()
    torch.testing.assert_close(raw.linear.weight.grad, wanted, rtol=1e-3, atol=1e-5)
    assert set(wrapped.state_dict()) == {"network.linear.weight", "network.linear.bias"}


def refused(says, do):
    with pytest.raises(UserError, match=says) as error:
        do()
    assert "\n" not in str(error.value)


def test_bad_input_is_one_clear_line():
    flow, x, one = RectifiedFlow(), draws(4), torch.ones(4, dtype=DOUBLE)
    refused("unknown parametrisation 'vv': did you mean 'v'", lambda: as_denoiser(gaussian(), "vv", flow))
    refused("a process is one of .*not 'flow'", lambda: as_network(gaussian(), "flow", "flow"))
    refused("times of RectifiedFlow lie between 0 and 1, not at 1", lambda: flow.sigma(one))
    refused("times of CosineVP .* not at -2", lambda: CosineVP().sigma(-2 * one))
    refused("times of DiscreteVP lie from 0 to 999, not at 1000", lambda: DiscreteVP.linear().sigma(1000 * one))
    refused("alphas_cumprod must be .* fall", lambda: DiscreteVP(1.0, (0.5, 0.9)))
    refused("sigma_data must be above 0", lambda: RectifiedFlow(0.0))
    refused("answers with shape .4, 2. to an input of .4, 3.", lambda: as_denoiser(
        lambda z, t, y: z[:, :2], "eps", LinearVP())(x, one))  # fmt: skip
    seen = as_network(gaussian(), "flow", flow)
    refused("not at 1", lambda: sample_flow(seen, x, flow_times(4)))
    refused("cannot take 'eps' in LinearVP", lambda: sample_flow(
        as_network(gaussian(), "eps", LinearVP()), x, flow_times(4)))  # fmt: skip
    refused("must fall from at most 1 to 0", lambda: sample_flow(seen, x, [80.0, 1.0, 0.0]))
    refused("times lie in .0, 1., not at 1.5", lambda: flow_times(4, first=1.5))
    refused("at least 1 step", lambda: flow_times(0))
    refused("shift .* above 0", lambda: flow_times(4, shift=0.0))


def test_edm_levels_are_a_flow_s_logit_normal_times():
    """ln(sigma / s) of a log-normal sigma is the logit of t: docs/how-to/objectives.md sets p_mean and p_std so."""
    u = torch.linspace(0.02, 0.98, 20, dtype=DOUBLE)
    sigma = 0.5 * Levels("normal").table("cpu").quantile(u).exp()
    t = RectifiedFlow(0.5).time(sigma)
    torch.testing.assert_close(torch.special.ndtr((t / (1 - t)).log()), u, rtol=1e-3, atol=1e-3)
