"""Readers of images: damage, false facts and full disks, each of which once went wrong."""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ajest.cli.data import prepare as prepare_verb
from ajest.errors import UserError
from ajest.tasks.images.data import describe, open_images, prepare
from ajest.tasks.images.data.decoding import decode
from ajest.tasks.images.data.files import Unreadable
from ajest.tasks.images.setup import image_task
from image_files import folder as written

RED, BLUE = (200, 30, 40), (30, 40, 200)


def encoded(drawn, form="PNG", **options) -> bytes:
    image = drawn if isinstance(drawn, Image.Image) else Image.new("RGB", (8, 8), drawn)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def photograph(seed=0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG")


def archive(path: Path, members: dict[str, bytes | str]) -> str:
    with zipfile.ZipFile(path, "w") as out:
        for name, content in members.items():
            out.writestr(name, content)
    return str(path)


def read(*spec, **options):
    return open_images(spec, 8, **options)


PETS = {"cat/1.png": encoded(RED), "dog/1.png": encoded(BLUE)}


# Layouts


def test_labels_stay_with_their_images_where_ids_are_in_another_order(tmp_path):
    images = np.stack([np.full((8, 8, 3), level, dtype=np.uint8) for level in (10, 20, 30)])
    np.savez(tmp_path / "x.npz", images=images, labels=np.array([1, 2, 3]), ids=np.array(["c", "b", "a"]))
    found = read(str(tmp_path / "x.npz"))
    levels = {i: (level, c) for i, level, c in zip(found.ids, found.images[:, 0, 0, 0], found.labels, strict=True)}
    assert levels == {"c": (10, 0), "b": (20, 1), "a": (30, 2)}


def test_a_stray_file_beside_the_root_folder(tmp_path):
    members = {f"tiny/train/{name}": content for name, content in PETS.items()}
    found = read(archive(tmp_path / "x.zip", members | {"README.txt": "about"}))
    assert found.classes == ("cat", "dog")
    assert list(found.ids) == ["train/cat/1.png", "train/dog/1.png"]


def test_names_that_start_with_a_dot_and_slash(tmp_path):
    found = read(archive(tmp_path / "x.zip", {f"./{name}": content for name, content in PETS.items()}))
    assert list(found.ids) == list(PETS)
    assert found.classes == ("cat", "dog")


@pytest.mark.parametrize("name", [".", "./", "//"])
def test_members_without_a_name(tmp_path, name):
    assert len(read(archive(tmp_path / "x.zip", PETS | {name: b""}))) == 2


def test_flat_splits_have_no_classes(tmp_path):
    spec = archive(tmp_path / "x.zip", {"train/1.png": encoded(RED), "train/2.png": encoded(RED), "val/1.png": b""})
    found = read(spec)
    assert found.labels is None
    assert list(found.ids) == ["train/1.png", "train/2.png"]


def test_validation_images_need_their_annotations(tmp_path):
    with pytest.raises(UserError, match=r"val/images without val/val_annotations\.txt"):
        read(archive(tmp_path / "x.zip", {"val/images/1.png": encoded(RED)}), split="val")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ('{"labels": [["a.png", Infinity], ["b.png", 0]]}', "a.png has the label Infinity"),
        ('{"labels": [["a.png", -1], ["b.png", 0]]}', "a label is below 0"),
        ("[" * 200_000, "nested too deeply"),
        (json.dumps({"labels": None, "ids": {"a.png": "x", "b.png": "x"}}), "one id to several images"),
    ],
)
def test_false_facts_in_dataset_json(tmp_path, facts, message):
    with pytest.raises(UserError, match=message):
        read(archive(tmp_path / "x.zip", {"a.png": encoded(RED), "b.png": encoded(RED), "dataset.json": facts}))


def test_damaged_npz(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 64, 64, 3)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("images.npy", header.getvalue())  # says 11 petabytes
    with pytest.raises(UserError, match=r"x\.npz cannot be read"):
        read(str(tmp_path / "x.npz"))
    archive(tmp_path / "x.npz", {"images": "no array"})
    with pytest.raises(UserError, match=r"x\.npz cannot be read"):
        read(str(tmp_path / "x.npz"))
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((3, 8, 8, 3), dtype=np.uint8))
    whole = (tmp_path / "x.npz").read_bytes()
    for start in range(50, len(whole) - 120, 5):
        (tmp_path / "x.npz").write_bytes(whole[:start] + b"\xff" * 20 + whole[start + 20 :])
        with pytest.raises(UserError, match=r"x\.npz"):
            read(str(tmp_path / "x.npz"))


@pytest.mark.parametrize("spec", ["shapes:²", "shapes:999999999999"])
def test_shapes_of_an_odd_number(spec):
    with pytest.raises(UserError, match="shapes:1000"):
        read(spec)


# Images


def test_dark_images_of_sixteen_bits_stay_dark():
    assert decode(encoded(Image.fromarray(np.full((8, 8), 200, np.uint16))), 8).max() == 1


def test_refused_and_damaged_files_are_named_together(tmp_path):
    members = {"cat/cut.jpg": photograph()[:600], "cat/../up.png": encoded(RED)}
    spec, said = archive(tmp_path / "x.zip", PETS | members), []
    with pytest.raises(UserError, match=r"^2 files") as caught:
        read(spec)
    assert all(name in str(caught.value) for name in members)
    for _ in range(2):
        read(spec, skip_bad=True, warn=said.append)
    assert [text[:7] for text in said] == ["2 files", "2 files"]


def test_a_description_sees_every_truncated_file(tmp_path):
    cut = photograph()[:700]  # its header is sound
    members = {f"cat/{i:03}.jpg": photograph(i % 4) for i in range(300)} | {"cat/150.jpg": cut, "cat/201.jpg": cut}
    found = describe([archive(tmp_path / "x.zip", members)], 8)
    assert sorted(found.bad) == ["cat/150.jpg", "cat/201.jpg"]
    assert found.sizes == {(32, 32): 298}


# The cache


@pytest.mark.parametrize("left", [0, 4, 60, 127])
def test_a_cache_cut_within_its_header_is_made_again(tmp_path, left):
    spec, cache = archive(tmp_path / "x.zip", PETS), tmp_path / "cache"
    digest = read(spec, cache=cache).digest
    (path,) = cache.rglob("*.npy")
    short = path.read_bytes()[:left]
    path.unlink()
    path.write_bytes(short)
    assert read(spec, cache=cache).digest == digest


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room on the disk cannot be reserved here")
def test_a_full_disk_costs_the_cache_only(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    said = []
    found = read(archive(tmp_path / "x.zip", PETS), cache=tmp_path / "cache", warn=said.append)
    assert found.images[0, :, 0, 0].tolist() == list(RED)
    assert len(said) == 1
    assert "No space left on device" in said[0]
    assert not list((tmp_path / "cache/images").iterdir())


# Packing


def test_an_archive_is_not_packed_over(tmp_path):
    one, two = archive(tmp_path / "1.zip", {"cat/1.png": encoded(RED)}), archive(tmp_path / "2.zip", PETS)
    before = zlib.crc32(Path(two).read_bytes())
    with pytest.raises(UserError, match=r"2\.zip exists already"):
        prepare_verb((one, two), 8)  # OUT was forgotten
    with pytest.raises(UserError, match=r"2\.zip is read"):
        prepare([two], Path(two), 8)
    assert zlib.crc32(Path(two).read_bytes()) == before


def test_postscript_under_the_name_of_a_image_is_no_image(tmp_path):
    """Pillow would hand it to Ghostscript."""
    with pytest.raises(Unreadable):
        decode(encoded(RED, "EPS"), 8)
    with pytest.raises(UserError, match=r"cat/2.png: not an image"):
        read(archive(tmp_path / "x.zip", PETS | {"cat/2.png": encoded(RED, "EPS")}))


@pytest.mark.parametrize("folders", [("train", "valid"), ("Train", "Validation"), ("train", "val")])
def test_parts_of_a_data_set_by_any_usual_name(tmp_path, folders):
    members = {f"{folder}/{name}": content for folder in folders for name, content in PETS.items()}
    spec = archive(tmp_path / "x.zip", members | {"test/cat/1.png": encoded(RED)})
    for split, folder in zip(("train", "val"), folders, strict=True):
        found = read(spec, split=split)
        assert found.classes == ("cat", "dog")
        assert all(i.startswith(folder) for i in found.ids)


def test_a_list_that_may_not_be_read_is_no_reason_to_guess(tmp_path, monkeypatch):
    monkeypatch.setattr("ajest.tasks.images.data.files.MAX_LIST_BYTES", 40)
    facts = json.dumps({"labels": [["00000/a.png", 0], ["00000/b.png", 1]]})
    members = {"00000/a.png": encoded(RED), "00000/b.png": encoded(BLUE), "dataset.json": facts}
    with pytest.raises(UserError, match=r"dataset.json tells what its images are"):
        read(archive(tmp_path / "x.zip", members))


def test_archives_with_equal_names_inside_are_one_data_set(tmp_path):
    for name, colour, label in (("a", RED, 9), ("b", BLUE, 150)):
        drawn = np.array(Image.open(io.BytesIO(encoded(colour))))
        np.savez(tmp_path / f"{name}.npz", images=np.stack([drawn] * 2), labels=np.array([label, 3]))
    found = read(str(tmp_path / "b.npz"), str(tmp_path / "a.npz"))
    assert list(found.ids) == ["a/0000000", "a/0000001", "b/0000000", "b/0000001"]
    assert found.classes == ("3", "9", "150")
    assert found.labels.tolist() == [1, 0, 2, 0]
    assert np.array_equal(found.images[0, :, 0, 0], RED)


def test_compressed_arrays_have_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("ajest.tasks.images.data.npz.MAX_INFLATED", 100)
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((4, 8, 8, 3), dtype=np.uint8))
    with pytest.raises(UserError, match="store it uncompressed"):
        read(str(tmp_path / "x.npz"))


def test_bad_files_leave_the_others_in_their_order(tmp_path):
    members = {f"cat/{i}.png": encoded((i, 0, 0)) for i in range(9)} | {"cat/4.png": b"no", "cat/7.png": b"no"}
    for _ in range(2):  # made, then from the cache
        found = read(archive(tmp_path / "x.zip", members), skip_bad=True, warn=lambda _: None)
        assert found.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 5, 6, 8]
        assert len(found.ids) == 7


def test_held_out_images_are_others_than_those_of_training(tmp_path):
    spec = archive(tmp_path / "x.zip", {f"cat/{i}.png": encoded((i, 9, 9)) for i in range(140)})
    with pytest.raises(UserError, match="the training images themselves"):
        image_task((spec,), (spec,), resolution=16)
    few = archive(tmp_path / "y.zip", {f"cat/{i}.png": encoded((i, 9, 9)) for i in range(3)})
    with pytest.raises(UserError, match="3 images of these classes"):
        image_task((spec,), (few,), resolution=16)


def test_the_folder_of_a_bench_is_refused_and_within_images_left_out(tmp_path):
    """Its figures are images, and nobody means to learn them."""
    place = written(tmp_path / "all", {f"cats/{k}.png": encoded(RED) for k in range(3)})
    written(
        tmp_path / "all",
        {"runs/b/bench.json": b"{}", "runs/b/figures/lead.png": encoded(BLUE), "runs/b/0.png": encoded(BLUE)},
    )
    with pytest.raises(UserError, match=r"b is the folder of a bench \(bench.json is in it\): name a folder of images"):
        describe([str(tmp_path / "all" / "runs" / "b")])
    found = describe([place])
    assert found.total == 3
    assert found.notes[0].endswith("left out, as the folder of a bench is no part of the images: runs/b")


def test_a_description_says_that_a_set_is_too_small_for_a_bench(command):
    assert "40 images are too few for a bench: 128 are the least" in command("data", "describe", "shapes:40").out
    assert "too few" not in command("data", "describe", "shapes:128").out
    assert "too few" not in command("data", "describe", "shapes:40", "--validation").out
