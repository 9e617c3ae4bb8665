"""Guides of other classes or of none, and classifier-free guidance (docs/method.md#guidance)."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ajest.diffusion.guidance import autoguide, relabelled
from ajest.runtime.seeding import generator
from ajest.tasks.images.architecture import Architecture
from ajest.tasks.images.layers import mp_sum
from conftest import small_images

SMALL = ("--iterations", "2", "--super-batch", "8", "--network", "nano")
SHAPES = ("images", "--data", "shapes:700", "--resolution", "16", *SMALL)


def means(x, sigma, label=None):
    """A denoiser that answers with the mean of a class, or of all: classes 0, 1, 2 have means 1, 4, 10."""
    mean = torch.tensor([1.0, 4.0, 10.0])
    return torch.full_like(x, 5.0) if label is None else mean[label][:, None].expand_as(x)


def test_classifier_free_guidance_in_closed_form():
    x, sigma, label = torch.zeros(3, 2), torch.ones(3), torch.tensor([0, 1, 2])
    guided = autoguide(means, relabelled(means, None), 2.5)
    expected = 5.0 + 2.5 * (torch.tensor([1.0, 4.0, 10.0]) - 5.0)
    torch.testing.assert_close(guided(x, sigma, label), expected[:, None].expand(3, 2))


def test_a_guide_of_other_classes_is_asked_by_its_own_numbers():
    x, sigma, label = torch.zeros(2, 2), torch.ones(2), torch.tensor([0, 1])
    guide = relabelled(means, torch.tensor([2, 0]))  # label 0 is its label 2, label 1 its label 0
    assert guide(x, sigma, label)[:, 0].tolist() == [10.0, 1.0]
    assert guide(x, sigma, None)[:, 0].tolist() == [5.0, 5.0]


@pytest.mark.parametrize("kind", ["unet", "transformer"])
def test_no_label_is_the_zero_vector(kind):
    """The label enters one-hot, by MP-sum with balance 0.5; no label is the zero vector in its place
    (EDM2, arXiv 2312.02696, figure 21; docs/method.md#images).
    """
    network = Architecture(kind, 16, (1, 2), 1, (), 2).denoiser(16, 3, generator=generator(0, "w")).eval()
    with torch.no_grad():
        for gain in (p for n, p in network.named_parameters() if n.endswith("gain")):
            gain.fill_(0.5)
        x, sigma = torch.randn(3, 3, 16, 16, generator=generator(0, "x")), torch.tensor([0.1, 1.0, 9.0])
        none, label = network(x, sigma), torch.tensor([0, 1, 2])
        assert not torch.equal(none, network(x, sigma, label))
        torch.testing.assert_close(network(x, sigma, torch.zeros(3, 3)), none)
        torch.testing.assert_close(network(x, sigma, torch.full((3,), -1)), none)
        mixed = network(x, sigma, torch.tensor([0, -1, 2]))
        expected = torch.stack([network(x, sigma, label)[0], none[1], network(x, sigma, label)[2]])
        torch.testing.assert_close(mixed, expected)
        unet = network.unet
        noise = unet.emb_noise(unet.emb_fourier(sigma.log() / 4))
        plain = torch.nn.functional.silu(mp_sum(noise, torch.zeros_like(noise), 0.5)) / 0.596
        torch.testing.assert_close(unet.embed(sigma.log() / 4, None), plain)


def test_labels_are_dropped_with_the_example():
    plain, dropping = small_images(), small_images(label_dropout=0.3)
    one, other = (task.source("cpu").draw(4096, generator(1, "draw", 0)) for task in (plain, dropping))
    for name in ("x", "sigma", "id", "weight"):  # arms that differ in nothing else see the same examples
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    dropped = other.label == -1
    assert torch.equal(other.label[~dropped], one.label[~dropped])
    assert abs(dropped.double().mean().item() - 0.3) < 4 * (0.3 * 0.7 / 4096) ** 0.5
    assert torch.equal(dropping.source("cpu").draw(64, generator(1, "draw", 0)).label, other.label[:64])
    again = dropping.source("cpu").draw(4096, generator(1, "draw", 0), generator(1, "noise"))
    assert torch.equal(again.label, other.label)  # new noise, the same labels
    assert not torch.equal(again.x, other.x)
    assert plain.domain == dropping.domain


def pixels(folder):
    return np.asarray(Image.open(folder / "sheet.png"))


def test_guides_of_other_classes_and_of_none(command, refused, tmp_path):
    def trained(name, *words):
        done = command("train", *SHAPES, *words, "--out", name)
        assert done.code == 0, done.err

    trained("two", "--classes", "star,heart", "--label-dropout", "0.5", "--learning-rate", "0.5")
    trained("ten", "--classes", "all", "--seed", "1", "--learning-rate", "0.5")
    flat = np.random.default_rng(0).integers(0, 256, (160, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "flat.npz", images=flat)
    none = ("images", "--data", "flat.npz", *SMALL, "--learning-rate", "0.5", "--out", "none")
    assert command("train", *none).code == 0

    found = {}

    def sampled(name, *words):
        done = command("sample", "two", *words, "--seeds", "0-3", "--sampler-steps", "3", "--out", name)
        assert done.code == 0, done.err
        found[name] = pixels(tmp_path / name)
        return done.out

    assert "guided" not in sampled("plain")
    assert "guided by ten at step 2 with weight 2.2" in sampled("of-ten", "--guide", "ten")
    sampled("of-none", "--guide", "none", "--weight", "2.2")
    assert "guided by two" in sampled("free", "--guide", "two", "--unconditional-guide", "--weight", "2.2")
    assert len({found[name].tobytes() for name in found}) == 4
    sampled("weight-1", "--guide", "ten", "--weight", "1")
    sampled("elsewhere", "--guide", "ten", "--interval", "1000", "2000")
    assert np.array_equal(found["weight-1"], found["plain"])
    assert np.array_equal(found["elsewhere"], found["plain"])

    there = ("--out", "s")
    refused("sample", "ten", "--guide", "two", *there, says="two cannot guide: it has not learned circle, .* 3 more")
    refused("sample", "two", "--guide", "two", *there, says="would guide itself")
    refused("sample", "ten", "--guide", "ten", "--unconditional-guide", *there, says="--label-dropout")
    refused("sample", "none", "--guide", "ten", *there, says="it cannot be asked without")
    refused(
        "sample", "none", "--guide", "none", "--unconditional-guide", *there, says="leave out --unconditional-guide"
    )
    refused("sample", "two", "--guide", "ten", "--interval", "2", "1", *there, says="from a lower to a higher")
    refused("sample", "two", "--n", "3", "--seeds", "0-3", *there, says="--n and --seeds both say")
    reference = ("--arm", "ajest", "--keep", "0.5", "--guide", "ten", "--out", "r")
    done = command("train", *SHAPES, "--classes", "all", "--label-dropout", "0.1", *reference)
    assert done.code == 2
    assert "ten learned with every label" in done.err


def test_evaluations_with_other_settings_are_others(command, refused, tmp_path):
    words = ("--classes", "all", "--learning-rate", "0.5")
    assert command("train", *SHAPES, *words, "--out", "r").code == 0
    longer = [word if word != "2" else "16" for word in SHAPES]
    assert command("train", *longer, *words, "--seed", "1", "--out", "g").code == 0
    guided = ("evaluate", "r", "--n", "8", "--guide", "g", "--weights", "2", "--sampler-steps", "2")

    def lines():
        return [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]

    other = ("--interval", "0.1", "2", "--guide-width", "0.05", "--guide-step", "3")
    for count, more in ((1, ()), (2, other), (3, ("--sampler-steps", "3")), (3, other)):  # the last is known
        done = command(*guided, *more)
        assert done.code == 0, done.err
        assert len(lines()) == count, more
    settings = [line.get("settings") for line in lines()]
    assert settings == [
        {"sampler_steps": 2},
        {"sampler_steps": 2, "guide": {"width": 0.05, "interval": [0.1, 2.0]}},
        {"sampler_steps": 3},
    ]
    assert lines()[0]["guide"] == lines()[2]["guide"] != lines()[1]["guide"]  # another step is another network
    assert len({json.dumps(line["metrics"]) for line in lines()}) == 3
    refused(*guided, "--guide-step", "99", says="no snapshot of step 99")
    refused(*guided[:-2], "--sampler-steps", "1", says="sampler_steps must be at least 2")
    refused("evaluate", "r", "--weights", "nan", "--guide", "g", says="--weights must be numbers")
