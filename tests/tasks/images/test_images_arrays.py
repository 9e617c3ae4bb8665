"""Arrays that are no images of 8 bits are refused where they come in, whoever hands them over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ajest.diffusion.denoising import LogNormal
from ajest.errors import UserError
from ajest.tasks.images.data import sizes_of
from ajest.tasks.images.data.cache import content_digest, write_rows
from ajest.tasks.images.extractors import Features, extract, extractor
from ajest.tasks.images.references import references_of
from ajest.tasks.images.source import ImageSource, to_float, to_uint8

OTHERS = [
    np.random.default_rng(0).random((4, 3, 8, 8)),
    np.random.default_rng(0).random((4, 3, 8, 8)).astype(np.float32) * 255,
    np.zeros((4, 3, 8, 8), np.int64),
    np.zeros((4, 3, 8, 8), np.uint16),
    np.zeros((4, 8, 8), np.uint8),
]


class Custom:
    """A feature network of one's own, which takes anything."""

    name, key, distance, width, classifies, identity = "custom", "fd", "FD", 1, False, "custom"

    def __call__(self, images):
        return Features(images.float().mean((1, 2, 3))[:, None])


@pytest.mark.parametrize("images", OTHERS, ids=lambda a: f"{a.dtype}-{a.ndim}")
def test_other_arrays_are_refused_where_they_come_in(images, tmp_path):
    says = r"must be uint8 of shape \(N, channels, height, width\)"
    with pytest.raises(UserError, match=says):
        ImageSource(images, None, LogNormal(-0.4, 1.0))
    for network in (Custom(), extractor("lite0")):
        with pytest.raises(UserError, match=says):
            extract(images, network)
        with pytest.raises(UserError, match=says):
            extract(torch.from_numpy(images), network)
        with pytest.raises(UserError, match=says):
            references_of(images, np.arange(4), np.arange(4), "x", network, tmp_path)
    if images.ndim == 4:
        with pytest.raises(UserError, match="uint8"):
            to_float(torch.from_numpy(images))


def test_the_message_tells_the_range_and_the_mend():
    with pytest.raises(UserError, match=r"float64 .* from 0 to 1: multiply by 255, round"):
        ImageSource(np.linspace(0, 1, 4 * 3 * 64).reshape(4, 3, 8, 8), None, LogNormal(-0.4, 1.0))
    with pytest.raises(UserError, match=r"float64 .* from nan to nan"):
        ImageSource(np.full((4, 3, 8, 8), np.nan), None, LogNormal(-0.4, 1.0))
    with pytest.raises(UserError, match="from 0 to 255: round them to uint8"):
        ImageSource(np.linspace(0, 255, 4 * 3 * 64).reshape(4, 3, 8, 8), None, LogNormal(-0.4, 1.0))


def test_samples_that_are_no_numbers_do_not_become_black():
    with pytest.raises(UserError, match="images are NaN"):
        to_uint8(torch.tensor([0.0, float("nan")]))
    assert to_uint8(torch.tensor([float("inf"), -float("inf"), 0.0])).tolist() == [255, 0, 128]


def test_sizes_of_arrays_are_known_without_a_look_at_each(tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", images=np.zeros((5, 24, 16, 3), np.uint8))
    monkeypatch.setattr("ajest.tasks.images.data.sizes.in_order", lambda *_: pytest.fail("looked at"))
    assert sizes_of([str(tmp_path / "x.npz")], cache=tmp_path / "cache") == {(16, 24): 5}
    assert not (tmp_path / "cache").exists()


def mapped():
    """Bytes of files that this process holds in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssFile"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells what is mapped on Linux alone")
def test_going_through_images_that_lie_in_a_file_takes_the_memory_of_a_part(tmp_path):
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (16384, 3, 32, 32))[:] = 7
    images = np.load(tmp_path / "x.npy", mmap_mode="r")
    before = mapped()
    digest = content_digest(images.transpose(0, 2, 3, 1), None, ())
    with (tmp_path / "y.npy").open("wb") as file:
        write_rows(file, images, images.shape)
    assert mapped() - before < images.nbytes / 4
    assert content_digest(np.array(images).transpose(0, 2, 3, 1), None, ()) == digest
    assert np.array_equal(np.load(tmp_path / "y.npy"), images)
