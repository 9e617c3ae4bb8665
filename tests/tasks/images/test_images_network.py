import json
import re
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ajest.errors import UserError
from ajest.runtime.seeding import generator
from ajest.tasks.images import denoiser
from ajest.tasks.images.architecture import SIZES, Architecture
from ajest.tasks.images.denoiser import EDM2Denoiser
from ajest.tasks.images.layers import MPConv, mp_cat, mp_sum, normalize
from ajest.tasks.images.transformer import TransformerBlock
from ajest.tasks.images.unet import Block, UNet
from conftest import small_images

TINY = Architecture(channels=8, multipliers=(1, 2), blocks=1, attention=(8,))


def batch(n=4, side=16, classes=5):
    g = generator(0, "test")
    return torch.randn(n, 3, side, side, generator=g), torch.rand(n, generator=g) + 0.1, torch.arange(n) % classes


def drawn(name, shape):
    """A weight by its name, as `scripts/reference_vectors.py` draws it."""
    numbers = np.random.RandomState(zlib.crc32(name.encode()))
    if not shape:
        return torch.tensor(0.5)
    if name.endswith("phases"):
        return torch.from_numpy(2 * np.pi * numbers.uniform(size=shape)).float()
    return torch.from_numpy((2 * np.pi if name.endswith("freqs") else 1.0) * numbers.standard_normal(shape)).float()


@pytest.mark.parametrize("case", ["heads", "levels"])
def test_the_network_equals_a_plain_one_in_float64(reference, case):
    stored = {k.removeprefix(f"{case}."): v for k, v in np.load(reference / "edm2.npz").items() if k.startswith(case)}
    dials = json.loads(str(stored["config"]))
    layout = (dials["multipliers"], dials["blocks"], dials["attention"])
    raw = UNet(dials["resolution"], dials["channels"], dials["labels"], *layout)
    network = EDM2Denoiser(raw, stored["x"].shape[1:])
    network.load_state_dict({name: drawn(name, (*weight.shape,)) for name, weight in network.state_dict().items()})
    network.eval()
    x, sigma, labels = (torch.from_numpy(stored[name]) for name in ("x", "sigma", "labels"))
    wanted = torch.from_numpy(stored["denoised"])
    with torch.no_grad():
        for label in (labels, torch.eye(dials["labels"])[labels]) if dials["labels"] else (None,):
            torch.testing.assert_close(network(x, sigma, label).double(), wanted, rtol=0, atol=2e-5)
        found = network.uncertainty(sigma).double()
    torch.testing.assert_close(found, torch.from_numpy(stored["uncertainty"]), rtol=0, atol=2e-5)


def test_the_network_equals_the_large_reference(large_reference):
    stored = load_file(large_reference / "edm2_unet.safetensors")
    network = EDM2Denoiser(UNet(16, 64, 5, (1, 2), 1), (3, 16, 16))
    weights = {k.removeprefix("weights."): v for k, v in stored.items() if k.startswith("weights.")}
    network.load_state_dict(weights)
    network.eval()
    x, sigma, labels = stored["in.x"], stored["in.sigma"], stored["in.labels"]
    with torch.no_grad():
        torch.testing.assert_close(network(x, sigma, labels), stored["out.denoised"], rtol=0, atol=1e-4)
        torch.testing.assert_close(network(x, sigma, labels.argmax(1)), stored["out.denoised"], rtol=0, atol=1e-4)
        torch.testing.assert_close(network.uncertainty(sigma), stored["out.logvar"].flatten(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "parameters"), [("xxs", 31_103_077), ("xs", 124_301_349), ("s", 279_594_981), ("m", 496_983_973)]
)
def test_sizes_have_the_published_parameters(size, parameters):
    with torch.device("meta"):
        network = SIZES[size].denoiser(64, 200)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_flops_are_the_published_ones():
    with torch.device("meta"):
        network = SIZES["xxs"].denoiser(64, 200)
    assert network.flops() / 1e9 == pytest.approx(22.7, abs=0.05)


def test_operations_are_counted_once_for_all_networks_that_are_made_alike(monkeypatch):
    made = {settings: TINY.denoiser(*settings).flops() for settings in ((16, 5), (8, 5), (16, 6), (16, 0))}
    assert len(set(made.values())) == len(made)
    without = replace(TINY, attention=())
    assert without.denoiser(16, 5).flops() < made[16, 5]
    monkeypatch.setattr(denoiser, "FlopCounterMode", lambda **_: pytest.fail("counted again"))
    for settings, operations in made.items():
        assert TINY.denoiser(*settings).eval().flops() == operations


def test_an_untrained_network_is_its_skip_connection():
    x, sigma, label = batch()
    network = TINY.denoiser(16, 5, generator=generator(0, "weights"))
    skip = 0.25 / (sigma**2 + 0.25)
    torch.testing.assert_close(network(x, sigma, label), x * skip[:, None, None, None])


@pytest.mark.parametrize("architecture", [TINY, Architecture("transformer", 32, blocks=2, patch=4)])
def test_magnitudes_are_preserved_inside(architecture):
    x, sigma, label = batch(16)
    raw = architecture.denoiser(16, 5, generator=generator(1, "weights")).unet
    raw.out_gain.data.fill_(1.0)
    with torch.no_grad():
        out = raw(x, sigma.log() / 4, label)
    assert 0.6 < float(out.square().mean().sqrt()) < 1.4


def test_weights_are_normalised_at_every_training_forward_and_only_there():
    x, sigma, label = batch()
    network = TINY.denoiser(16, 5)
    convolution = next(m for m in network.modules() if isinstance(m, MPConv) and m.weight.ndim == 4)
    with torch.no_grad():
        convolution.weight.mul_(7)
        before = network.train()(x, sigma, label)
    assert float(convolution.weight.detach().square().mean()) > 10
    after = network(x, sigma, label)
    rms = convolution.weight.detach().square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(rms, torch.ones_like(rms), rtol=0, atol=1e-3)
    torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-4)


def test_the_scale_of_a_weight_does_not_matter():
    x, sigma, label = batch()
    network = TINY.denoiser(16, 5, generator=generator(0, "weights")).eval()
    network.unet.out_gain.data.fill_(1.0)
    with torch.no_grad():
        one = network(x, sigma, label)
        for module in network.modules():
            if isinstance(module, MPConv):
                module.weight.mul_(3)
        torch.testing.assert_close(network(x, sigma, label), one, rtol=0, atol=2e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_stays_near_and_answers_in_float32(precision):
    x, sigma, label = batch()
    networks = [TINY.denoiser(16, 5, precision=p, generator=generator(0, "weights")) for p in ("float32", precision)]
    for network in networks:
        network.unet.out_gain.data.fill_(0.5)
    with torch.no_grad():
        exact, rough = (network.eval()(x, sigma, label) for network in networks)
    assert rough.dtype == torch.float32
    assert float((exact - rough).abs().max()) < 0.05
    assert all(p.dtype == torch.float32 for p in networks[1].parameters())


def test_unconditional_networks_and_patches():
    x, sigma, _ = batch()
    assert Architecture(channels=8, multipliers=(1, 2), blocks=1, patch=2).denoiser(16, 0)(x, sigma).shape == x.shape
    assert TINY.denoiser(16, 5)(x, sigma).shape == x.shape  # without a label
    with pytest.raises(UserError, match="resolution that 8 divides, not 20"):
        SIZES["xxs"].build(20, 0)


def test_sums_and_joins_keep_the_magnitude():
    g = generator(0, "joins")
    a, b = torch.randn(64, 48, 8, 8, generator=g), torch.randn(64, 16, 8, 8, generator=g)
    assert float(mp_cat(a, b, 0.5).square().mean()) == pytest.approx(1, abs=0.02)
    assert float(mp_sum(a, torch.randn(a.shape, generator=g), 0.3).square().mean()) == pytest.approx(1, abs=0.02)
    rms = normalize(3 * a, (1,)).square().mean(1).sqrt()
    torch.testing.assert_close(rms, torch.ones_like(rms), rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ["unet", "transformer"])
def test_any_number_of_channels_is_built_or_refused_in_one_line(kind):
    x, refused = torch.randn(1, 1024, 2, 2), 0
    for channels in range(1, 1025):
        architecture = Architecture(kind, channels, multipliers=(1,))
        error = architecture_error(architecture)
        if error is not None:
            refused += 1
            assert re.fullmatch(r"attention over \d+ channels cannot be parted into \d+ heads: .*", str(error))
        elif channels < 260 and channels % 64 in (0, 1, 32, 63):  # what attends is all that could fail
            if kind == "unet":
                found = Block(channels, channels, 1, "enc", attention=True)(x[:, :channels], x[0, :1, 0, :1])
            else:
                found = TransformerBlock(channels, 1)(x[:, :channels].flatten(2).mT, x[0, :1, 0, :1])
            assert found.numel() == 4 * channels
    assert 0 < refused < 1024


def architecture_error(architecture):
    try:
        architecture.fit(16)
    except UserError as error:
        return error
    return None


def test_channels_that_cannot_be_parted_are_told_before_anything_is_built():
    for channels in (100, 200):
        with pytest.raises(
            UserError, match=r"attention over \d+ channels cannot be parted into \d heads: take multiples"
        ):
            Architecture(channels=channels).fit(64)
    Architecture(channels=96, multipliers=(1, 2)).fit(64)  # 192 are three heads
    with pytest.raises(UserError, match="attention over 200 channels"):
        small_images(learner=Architecture(channels=200))


@pytest.mark.parametrize("patch", [2, 4])
def test_a_transformer_takes_half_the_resolution(patch):
    network = Architecture("transformer", 32, blocks=2, patch=patch).denoiser(16, 5, generator=generator(0, "weights"))
    network.unet.out_gain.data.fill_(1.0)
    network.eval()
    x, sigma, labels = batch(side=8)
    with torch.no_grad():
        half = network(x, sigma, labels)
    assert half.shape == x.shape
    assert half.isfinite().all()
    # The embedding of a place is the mean of those that it covers: equal ones stay what they are.
    network.unet.position.data[:] = network.unet.position.data[:1]
    same = Architecture("transformer", 32, blocks=2, patch=patch).denoiser(8, 5)
    weights = {k: v[: (8 // patch) ** 2] if k == "unet.position" else v for k, v in network.state_dict().items()}
    same.load_state_dict(weights)
    with torch.no_grad():
        torch.testing.assert_close(network(x, sigma, labels), same.eval()(x, sigma, labels))


@pytest.mark.parametrize(
    "architecture",
    [Architecture("transformer", 32, blocks=1, patch=4), Architecture(channels=8, multipliers=(1, 2, 2))],
)
def test_a_resolution_that_a_network_cannot_take_is_named(architecture):
    network = architecture.denoiser(16, 5)
    with pytest.raises(UserError, match="needs a resolution that 4 divides, not 6"):
        network(*batch(side=6))
