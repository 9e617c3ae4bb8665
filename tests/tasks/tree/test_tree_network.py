import pytest
import torch
from safetensors.torch import load_file

from ajest import autoguide, sample, sigma_schedule
from ajest.tasks.tree.distribution import TreeDistribution
from ajest.tasks.tree.network import EnergyMLP, normalize


@pytest.fixture(scope="module")
def stored(reference):
    return load_file(reference / "tree_denoiser.safetensors")


def network(stored, hidden):
    net = EnergyMLP(hidden)
    part = {k.removeprefix(f"h{hidden}."): v for k, v in stored.items() if k.startswith(f"h{hidden}.")}
    net.load_state_dict({k: v for k, v in part.items() if k.startswith("layer") or k == "gain"})
    return net.eval()


@pytest.mark.parametrize("hidden", [32, 64])
def test_energy_and_score_equal_the_reference(stored, hidden):
    net, x, sigma = network(stored, hidden), stored["x"], stored["sigma"]
    energy, score = stored[f"h{hidden}.logp"], stored[f"h{hidden}.score"]
    torch.testing.assert_close(net.energy(x, sigma), energy, rtol=1e-5, atol=2e-5)
    assert ((net.score(x, sigma) - score).norm(dim=1) / (1 + score.norm(dim=1))).max() < 2e-5


def test_endpoints_of_the_sampler_equal_the_reference(stored):
    sigmas = sigma_schedule(32, 5.0, 0.002)
    nets = {h: network(stored, h) for h in (32, 64)}
    for name, denoiser in {"h32": nets[32], "h64": nets[64], "truth": TreeDistribution().denoise}.items():
        end = sample(denoiser, stored[f"{name}.sampler_init"], sigmas)
        torch.testing.assert_close(end, stored[f"{name}.sampler_final"], rtol=0, atol=5e-5)
    # Guidance with weight 3 amplifies rounding along the path, so most points agree to rounding and none strays.
    guided = sample(autoguide(nets[64], nets[32], 3.0), stored["guided3.sampler_init"], sigmas)
    error = (guided - stored["guided3.sampler_final"]).norm(dim=1)
    assert error.median() < 2e-6
    assert error.max() < 0.02


def test_score_is_the_gradient_of_the_energy():
    net = EnergyMLP(24, 3, generator=torch.Generator().manual_seed(0)).double().eval()
    net.gain.data.fill_(0.7)
    x = torch.randn(50, 2, dtype=torch.float64, requires_grad=True)
    sigma = torch.rand(50, dtype=torch.float64) + 0.05
    (gradient,) = torch.autograd.grad(net.energy(x, sigma).sum(), x)
    torch.testing.assert_close(net.score(x, sigma), gradient, rtol=1e-10, atol=1e-12)


def test_one_backward_pass_equals_double_back_propagation():
    net = EnergyMLP(24, 3, generator=torch.Generator().manual_seed(0)).double().eval()
    net.gain.data.fill_(0.7)
    x = torch.randn(50, 2, dtype=torch.float64, requires_grad=True)
    sigma, target = torch.rand(50, dtype=torch.float64) + 0.05, torch.randn(50, 2, dtype=torch.float64)
    (slow,) = torch.autograd.grad(net.energy(x, sigma).sum(), x, create_graph=True)
    expected = torch.autograd.grad((slow - target).square().mean(), list(net.parameters()))
    found = torch.autograd.grad((net.score(x.detach(), sigma) - target).square().mean(), list(net.parameters()))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_a_training_pass_renormalises_the_stored_weights_and_scoring_does_not():
    net = EnergyMLP(16, 2).train()
    for p in net.parameters():
        p.data.mul_(3)
    before = net.layer1.weight.clone()
    with torch.no_grad():
        net(torch.randn(4, 2), torch.ones(4))
    torch.testing.assert_close(net.layer1.weight, before, rtol=0, atol=0)
    net(torch.randn(4, 2), torch.ones(4))
    torch.testing.assert_close(net.layer1.weight.square().mean(1), torch.ones(16), rtol=1e-3, atol=0)
    torch.testing.assert_close(net.layer1.weight, normalize(before), rtol=0, atol=0)


def test_an_untrained_network_knows_only_a_gaussian():
    x, sigma = torch.randn(9, 2), torch.full((9,), 0.5)
    torch.testing.assert_close(EnergyMLP(16).score(x, sigma), -x / (0.25 + 0.25), rtol=1e-5, atol=1e-6)


def test_flops_count_two_passes_over_the_weights():
    assert EnergyMLP(64, 4).flops() == 4 * (4 * 64 + 4 * 64 * 64)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("peak", [0.01, 0.2])
def test_a_gain_of_given_sign_keeps_it_whatever_the_steps(peak, sign):
    name = "negative" if sign < 0 else "positive"
    net = EnergyMLP(16, 2, generator=torch.Generator().manual_seed(0), gain_sign=name)
    assert net.scalars()["gain"] == pytest.approx(0.02 * sign)
    adam = torch.optim.Adam(net.parameters(), lr=peak)
    generator = torch.Generator().manual_seed(1)
    seen = []
    for _ in range(60):
        x, sigma = torch.randn(32, 2, generator=generator), torch.rand(32, generator=generator) + 0.1
        (net.score(x, sigma) + 5 * sign * x).square().mean().backward()  # what only the other sign could come near
        adam.step()
        adam.zero_grad()
        seen.append(sign * net.scalars()["gain"])
    assert min(seen) >= 0
    assert max(seen) > 1e-4
    x, sigma = torch.randn(8, 2, generator=generator), torch.rand(8, generator=generator) + 0.1
    where = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net.energy(where, sigma).sum(), where)
    torch.testing.assert_close(net.score(x, sigma), gradient, rtol=1e-4, atol=1e-4)


def test_a_gain_of_free_sign_is_the_published_one():
    net = EnergyMLP(16, 2)
    assert net.scalars() == {"gain": 0.0}
    assert net.acting_gain() is net.gain
