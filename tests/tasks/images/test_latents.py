"""Latents of an autoencoder, made on the spot: encoded, drawn, learned, decoded."""

import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ajest.errors import UserError
from ajest.integrations.diffusers.autoencoder import load_autoencoder
from ajest.runtime.counter import CounterStream
from ajest.runtime.seeding import Streams, generator
from ajest.selection.catalogue import arms_named
from ajest.selection.flow import Networks
from ajest.tasks.base import Guided, Measurement
from ajest.tasks.images.architecture import Architecture
from ajest.tasks.images.data import latents as module
from ajest.tasks.images.data import open_images
from ajest.tasks.images.data.latents import encode, read_latents
from ajest.tasks.images.setup import image_task
from ajest.tasks.images.source import to_float
from ajest.training.trainer import Trainer
from conftest import small_recipe

diffusers = pytest.importorskip("diffusers")
CHANNELS, SIDE = 5, 8
NETWORK = Architecture(channels=8, multipliers=(1, 2), blocks=1, attention=(8,))


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    """A tiny AutoencoderKL of random weights, which halves 16 x 16 images."""
    torch.manual_seed(0)
    model = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8), norm_num_groups=2, latent_channels=CHANNELS, scaling_factor=0.5, shift_factor=0.1,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("vae")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoded(autoencoder, tmp_path_factory):
    """256 shapes as latents."""
    folder = tmp_path_factory.mktemp("latents") / "set"
    encode(open_images(("shapes:256",), 16, warn=lambda _: None), autoencoder, folder)
    return folder


def task_of(encoded, **settings):
    small = {"learner": NETWORK, "guide": NETWORK, "sampler_steps": 3, "references": 96, "flip": True}
    return image_task((str(encoded),), warn=lambda _: None, **{**small, **settings})


def test_means_and_variances_of_both_mirrors_are_the_autoencoders(encoded, autoencoder):
    found = read_latents(encoded)
    model = diffusers.AutoencoderKL.from_pretrained(autoencoder, low_cpu_mem_usage=False)
    latents, images = found.images.latents, found.images.images
    assert isinstance(latents, np.memmap)
    assert latents.shape == (256, 2, 2, CHANNELS, SIDE, SIDE)
    x = to_float(torch.from_numpy(np.array(images[:3])))
    for form, seen in enumerate((x, x.flip(3))):
        with torch.no_grad():
            posterior = model.encode(seen).latent_dist
        mean, log_variance = torch.from_numpy(np.array(latents[:3, form])).float().unbind(1)
        torch.testing.assert_close(mean, (posterior.mean - 0.1) * 0.5, atol=1e-3, rtol=1e-2)
        torch.testing.assert_close(log_variance, posterior.logvar + 2 * math.log(0.5), atol=1e-2, rtol=1e-2)
    drawn = latents[:, :, 0] + np.exp(latents[:, :, 1].astype(float) / 2) * np.random.default_rng(0).normal(
        size=latents[:, :, 0].shape
    )
    assert found.sigma_data == pytest.approx(drawn.std(), rel=0.01)
    assert task_of(encoded).sigma_data == found.sigma_data


def test_latents_are_drawn_anew_from_their_distributions(encoded):
    task, latents = task_of(encoded), torch.from_numpy(np.array(read_latents(encoded).images.latents)).float()
    source = task.source("cpu")
    long, short = (source.draw(n, generator(3, "draw", 0)) for n in (400, 7))
    for name in ("x", "sigma", "id", "target", "label"):
        assert torch.equal(getattr(long, name)[:7], getattr(short, name)), name
    by_place = source.draw_rows(range(400), CounterStream.named("a"), CounterStream.named("b"))
    few = source.draw_rows(torch.tensor([5, 399]), CounterStream.named("a"), CounterStream.named("b"))
    assert torch.equal(by_place.target[[5, 399]], few.target)
    for batch in (long, by_place):
        forms = latents[batch.id]  # (n, mirrored, mean or log-variance, ...)
        scaled = (batch.target[:, None] - forms[:, :, 0]) / (forms[:, :, 1] / 2).exp()
        size = scaled.square().flatten(2).mean(2)  # 1 for the form that was drawn
        mirrored = size[:, 1] < size[:, 0]
        assert 0.4 < mirrored.float().mean() < 0.6
        right = scaled[torch.arange(400), mirrored.long()]
        assert float(right.mean()) == pytest.approx(0, abs=0.02)
        assert float(right.std()) == pytest.approx(1, abs=0.02)
        twice = next((i, j) for i in range(400) for j in range(i) if batch.id[i] == batch.id[j])
        assert not torch.equal(*batch.target[list(twice)])
    plain = task_of(encoded, flip=False).source("cpu").draw(400, generator(3, "draw", 0))
    scaled = (plain.target - latents[plain.id, 0, 0]) / (latents[plain.id, 0, 1] / 2).exp()
    assert float(scaled.std()) == pytest.approx(1, abs=0.02)


def test_a_network_learns_latents_and_is_judged_by_decoded_images(encoded, autoencoder, tmp_path, monkeypatch):
    monkeypatch.setenv("AJEST_CACHE", str(tmp_path / "cache"))
    task = task_of(encoded)
    assert task.shape == (CHANNELS, SIDE, SIDE)
    guide = task.network("guide", 5).eval().requires_grad_(False)
    networks = Networks(task.network("learner", 0), guide)
    trainer = Trainer(
        task.source("cpu"), networks, small_recipe(super_batch=40), *arms_named(("ajest",), chunks=2), Streams(0)
    )
    before = task.network("learner", 0).state_dict()
    trainer.step()
    assert any(not torch.equal(before[name], value) for name, value in networks.learner.state_dict().items())
    start = task.sampler.start(slice(0, 2), 0)
    assert start.shape == (2, CHANNELS, SIDE, SIDE)
    images = task.sampler.evaluated(networks.learner.eval(), slice(0, 2), 0, "cpu")
    assert (images.dtype, images.shape) == (torch.uint8, (2, 3, 16, 16))
    found = task.evaluate(Guided(networks.learner.eval()), Measurement(16, 0, tmp_path / "cache", keep_tensors=True))
    assert found.metrics["fd_lite0"] > 0
    assert found.tensors["samples"].shape == (16, 3, 16, 16)
    assert found.tensors["trajectories"].shape[2:] == (CHANNELS, SIDE, SIDE)


def test_decoding_undoes_encoding_as_far_as_the_autoencoder_does(autoencoder):
    model = load_autoencoder(autoencoder)
    x = torch.rand(2, 3, 16, 16, generator=generator(0, "x")) * 2 - 1
    plain = diffusers.AutoencoderKL.from_pretrained(autoencoder, low_cpu_mem_usage=False)
    with torch.no_grad():
        expected = plain.decode(plain.encode(x).latent_dist.mean).sample
    torch.testing.assert_close(model.decode(model.encode(x)[0]), expected, atol=1e-5, rtol=1e-4)


def test_latents_are_scaled_by_channel_where_the_autoencoder_says_so(autoencoder, tmp_path):
    """As SDXL's pipeline undoes it: latents std / scaling_factor + mean."""
    mean, std = [0.1, -0.2, 0.3, 0.0, 1.0], [1.0, 2.0, 0.5, 1.0, 4.0]
    plain = diffusers.AutoencoderKL.from_pretrained(autoencoder, low_cpu_mem_usage=False)
    plain.register_to_config(latents_mean=mean, latents_std=std)
    plain.save_pretrained(tmp_path)
    model, x = load_autoencoder(tmp_path), torch.rand(2, 3, 16, 16, generator=generator(0, "x")) * 2 - 1
    with torch.no_grad():
        posterior = plain.encode(x).latent_dist
    latents, log_variance = model.encode(x)
    by_channel = [torch.tensor(v)[:, None, None] for v in (mean, std)]
    torch.testing.assert_close(latents * by_channel[1] / 0.5 + by_channel[0], posterior.mean)
    torch.testing.assert_close(log_variance.exp().sqrt() * by_channel[1] / 0.5, posterior.std)
    torch.testing.assert_close(
        model.decode(latents), plain.decode(posterior.mean).sample.detach(), atol=1e-5, rtol=1e-4
    )


def test_encoding_goes_on_where_it_was_stopped(autoencoder, encoded, tmp_path, monkeypatch):
    images, looks = open_images(("shapes:256",), 16, warn=lambda _: None), []
    monkeypatch.setattr(module, "KEPT", 64)
    real = module._encoded

    def counted(rows, *rest):
        if len(looks) == 6:
            looks.append("killed")
            raise KeyboardInterrupt
        looks.append(len(rows))
        return real(rows, *rest)

    monkeypatch.setattr(module, "_encoded", counted)
    with pytest.raises(KeyboardInterrupt):
        encode(images, autoencoder, tmp_path / "set")
    assert not (tmp_path / "set").exists()
    whole = encode(images, autoencoder, tmp_path / "set")
    assert len(looks) == 6 + 1 + 12  # of 16 batches 4 were kept
    assert np.array_equal(whole.images.latents, read_latents(encoded).images.latents)
    assert whole.images.digest == read_latents(encoded).images.digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set"]


def test_what_does_not_fit_is_refused_in_one_line(encoded, autoencoder, command, refused, tmp_path):
    other = tmp_path / "other"
    torch.manual_seed(1)
    model = diffusers.AutoencoderKL(latent_channels=CHANNELS, norm_num_groups=2, block_out_channels=(8,))
    model.save_pretrained(other)
    with pytest.raises(UserError, match=r"holds another autoencoder .* than the one that made the latents"):
        task_of(encoded, autoencoder=str(other))
    with pytest.raises(UserError, match="holds no autoencoder: name a folder"):
        task_of(encoded, autoencoder=str(tmp_path / "gone"))
    with pytest.raises(UserError, match="holds latents of images of 16 x 16: leave out --resolution"):
        task_of(encoded, resolution=32)
    with pytest.raises(UserError, match="none of the same autoencoder: encode these images too"):
        image_task((str(encoded),), ("shapes:128",), warn=lambda _: None, learner=NETWORK, guide=NETWORK)
    moved = shutil.copytree(autoencoder, tmp_path / "moved")
    assert task_of(encoded, autoencoder=str(moved)) == task_of(encoded)
    (moved / "diffusion_pytorch_model.safetensors").rename(moved / "diffusion_pytorch_model.bin")
    refused("data", "encode", "shapes:128", "out", "--autoencoder", moved, says="has no safetensors, and other forms")
    assert command("data", "encode", "shapes:128", "out", "--autoencoder", autoencoder, "--resolution", "16").code == 0
    refused("data", "encode", "shapes:128", "out", "--autoencoder", autoencoder, says="exists already")
    damaged = shutil.copytree(encoded, tmp_path / "damaged")
    (damaged / "latents.npy").write_bytes(b"no")
    with pytest.raises(UserError, match="holds no whole set of latents"):
        task_of(damaged)


def test_a_preset_of_another_resolution_takes_latents_as_they_are(encoded):
    """Only an option asks for a resolution; a preset's is for images."""
    from ajest.bench.plan.presets import CPU_SMALL
    from ajest.cli.asked import images_of

    dials = replace(CPU_SMALL, resolution=32)
    asked = {"data": (str(encoded),), "classes": "all"}
    assert images_of(dials, asked) == images_of(replace(dials, resolution=16), asked)
    assert images_of(dials, {"data": ("shapes:128",), "classes": "all"}).resolution == 32
    with pytest.raises(UserError, match="leave out --resolution"):
        images_of(dials, asked | {"resolution": 32})


def test_the_example_encodes_learns_and_decodes(tmp_path):
    path = Path(__file__).parents[3] / "examples" / "latents.py"
    words = ("--seconds", "1", "--steps", "1", "--out", str(tmp_path / "out"))
    done = subprocess.run([sys.executable, str(path), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out" / "drawn").rglob("*.png"))) >= 8
    assert "decodes with a mean error of" in done.stdout
    latents = read_latents(tmp_path / "out" / "encoded").images.latents
    means = latents[:, :, 0].astype(np.float32)
    assert means.shape[2:] == (4, 8, 8)
    assert means.std() == pytest.approx(1, rel=0.2)  # by the scale that the example measures
