"""Images of one channel, and networks at every resolution."""

import numpy as np
import pytest
import torch
from PIL import Image

from ajest.runtime.seeding import generator
from ajest.tasks.base import Guided, Measurement
from ajest.tasks.images.architecture import SIZES, Architecture
from ajest.tasks.images.data.grey import luminance
from conftest import small_images


def test_luminance_is_pillows():
    colours = np.random.default_rng(0).integers(0, 256, (3, 3, 9, 7), dtype=np.uint8)
    expected = [np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L")) for image in colours]
    assert np.array_equal(luminance(colours)[:, 0], np.stack(expected))


def test_grey_images_go_through_all_of_it(tmp_path):
    task, colours = small_images(grey=True), small_images()
    assert (task.shape, task.subject[:15]) == ((1, 16, 16), "256 grey images")
    assert task.domain != colours.domain
    assert task.digest != colours.digest
    batch, same = (t.source("cpu").draw(20, generator(0, "draw")) for t in (task, colours))
    assert batch.x.shape == (20, 1, 16, 16)
    assert torch.equal(batch.id, same.id)
    expected = luminance((same.target * 127.5 + 127.5).round().numpy().astype(np.uint8))
    assert np.array_equal((batch.target * 127.5 + 127.5).round().numpy(), expected)
    network = task.network("learner", 0)
    (network(batch.x, batch.sigma, batch.label) - batch.target).square().mean().backward()
    assert network.flops() > 0
    how = Measurement(16, 0, tmp_path / "cache", keep_tensors=True)
    found = task.evaluate(Guided(network.eval()), how)
    assert found.metrics["fd_lite0"] > 0
    assert found.tensors["samples"].shape == (16, 1, 16, 16)
    paths = task.write_samples(network, tmp_path / "out", n=2)
    for path in paths:
        with Image.open(path) as image:
            assert image.mode == "RGB"


@pytest.mark.parametrize(
    ("size", "resolution", "sides"),
    [
        ("xxs", 64, (16, 8)), ("xxs", 16, (16, 8)), ("xxs", 24, (12, 6)), ("xxs", 40, (20, 10)), ("xxs", 128, (16,)),
        ("xxs", 256, (32,)), ("mini", 64, (8,)), ("mini", 256, (32,)), ("nano", 24, (6,)),
    ],
)  # fmt: skip
def test_attention_lies_at_the_nearest_levels(size, resolution, sides):
    assert SIZES[size].attending(resolution) == sides


@pytest.mark.parametrize("channels", [1, 4, 7])
@pytest.mark.parametrize("kind", ["unet", "transformer"])
def test_networks_of_any_channel_count(kind, channels):
    network = Architecture(kind, 16, (1, 2), 1, (8,), 2).denoiser(24, 3, channels=channels)
    x = torch.randn(2, channels, 24, 24, generator=generator(0, "x"))
    assert network(x, torch.ones(2), torch.tensor([0, -1])).shape == x.shape
