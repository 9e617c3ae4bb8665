import io
import json
import os
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ajest.errors import UserError
from ajest.tasks.images.data import describe, files, open_images, prepare, shapes
from ajest.tasks.images.data.decoding import decode
from ajest.tasks.images.data.files import Unreadable
from ajest.tasks.images.sheets import encode, mosaic


def drawn(seed, size=(64, 64), mode="RGB"):
    rng = np.random.default_rng(seed)
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    pixels = rng.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    return (
        Image.fromarray(pixels.squeeze(), mode=None) if channels < 4 else Image.frombytes(mode, size, pixels.tobytes())
    )


def png(seed=0, **options):
    return encode(drawn(seed, **options))


def tree(root, content):
    for name, data in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def archive(path, content):
    with zipfile.ZipFile(path, "w") as z:
        for name, data in content.items():
            z.writestr(name, data)
    return path


CLASSES = {f"{c}/{i}.png": png(10 * k + i) for k, c in enumerate(("cat", "dog")) for i in range(3)}
TINY = {
    "tiny-imagenet-200/wnids.txt": b"n01443537\nn04398044\n",
    "tiny-imagenet-200/words.txt": b"n01443537\tgoldfish, Carassius auratus\nn04398044\tteapot\n",
    "tiny-imagenet-200/val/val_annotations.txt": b"val_0.JPEG\tn04398044\t0\t0\nval_1.JPEG\tn01443537\t0\t0\n",
    **{
        f"tiny-imagenet-200/train/{w}/images/{w}_{i}.JPEG": png(i + len(w))
        for w in ("n01443537", "n04398044")
        for i in range(2)
    },
    **{f"tiny-imagenet-200/val/images/val_{i}.JPEG": png(40 + i) for i in range(2)},
}


def same(a, b):
    assert np.array_equal(a.images, b.images)
    assert (a.labels is None) == (b.labels is None)
    assert a.labels is None or np.array_equal(a.labels, b.labels)
    assert (a.classes, a.names, list(a.ids), a.digest) == (b.classes, b.names, list(b.ids), b.digest)


def test_a_folder_and_a_zip_with_a_folder_for_each_class_are_the_same(tmp_path):
    folder = open_images([str(tree(tmp_path / "pets", CLASSES))])
    assert folder.images.shape == (6, 3, 64, 64)
    assert folder.images.dtype == np.uint8
    assert isinstance(folder.images, np.memmap)
    assert folder.classes == folder.names == ("cat", "dog")
    assert folder.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert list(folder.ids) == sorted(CLASSES)
    assert np.array_equal(folder.images[0], np.asarray(drawn(0)).transpose(2, 0, 1))
    same(folder, open_images([str(archive(tmp_path / "pets.zip", CLASSES))]))
    below = {f"all/pets/{name}": data for name, data in CLASSES.items()}
    same(folder, open_images([str(archive(tmp_path / "below.zip", below))]))


def test_tiny_imagenets_own_layout(tmp_path):
    spec = [str(archive(tmp_path / "tiny.zip", TINY))]
    train, val = open_images(spec), open_images(spec, split="val")
    assert train.classes == val.classes == ("n01443537", "n04398044")
    assert train.names == ("goldfish", "teapot")
    assert str(train.ids[0]) == "train/n01443537/images/n01443537_0.JPEG"
    assert val.labels.tolist() == [1, 0]
    assert list(val.ids) == ["val/images/val_0.JPEG", "val/images/val_1.JPEG"]
    only_val = {n: d for n, d in TINY.items() if "/val/" in n}
    found = open_images([str(archive(tmp_path / "val.zip", only_val))], split="val")
    assert found.names == ("goldfish", "teapot")  # from ImageNet's own names
    assert found.digest == val.digest
    lost = {**only_val, "tiny-imagenet-200/val/images/val_9.JPEG": png(1)}
    with pytest.raises(UserError, match=r"no line for val/images/val_9"):
        open_images([str(archive(tmp_path / "lost.zip", lost))])


def test_several_archives_are_one_data_set_whatever_their_order(tmp_path):
    names = [n for n in TINY if "/train/" in n]
    texts = {n: d for n, d in TINY.items() if n.endswith("s.txt") and "val" not in n}
    one = str(archive(tmp_path / "1.zip", texts | {n: TINY[n] for n in names[::2]}))
    two = str(archive(tmp_path / "2.zip", {n: TINY[n] for n in names[1::2]}))
    whole = open_images([str(archive(tmp_path / "whole.zip", texts | {n: TINY[n] for n in names}))])
    same(open_images([one, two]), whole)
    same(open_images([two, one]), whole)
    with pytest.raises(UserError, match=r"twice: .*are the same; name each archive once"):
        open_images([one, one])


def test_flat_folders_are_unconditional_and_mixtures_are_refused(tmp_path):
    flat = open_images(
        [str(tree(tmp_path / "flat", {"b.png": png(1), "a.png": png(2), "notes.txt": b"x", ".x.png": b""}))]
    )
    assert (flat.labels, flat.classes, list(flat.ids)) == (None, (), ["a.png", "b.png"])
    with pytest.raises(UserError, match="beside its folders"):
        open_images([str(tree(tmp_path / "mixed", {"a.png": png(1), "cat/b.png": png(2)}))])
    with pytest.raises(UserError, match="has no classes"):
        open_images([str(tmp_path / "flat"), str(tree(tmp_path / "pets", CLASSES))])
    with pytest.raises(UserError, match="holds no image"):
        open_images([str(tree(tmp_path / "none", {"a.txt": b""}))])


def test_edms_archives(tmp_path):
    labels = {"labels": [["0/a.png", 11], ["0/b.png", 2]]}
    content = {"0/a.png": png(1), "0/b.png": png(2), "dataset.json": json.dumps(labels).encode()}
    found = open_images([str(archive(tmp_path / "edm.zip", content))])
    assert found.classes == ("2", "11")
    assert found.labels.tolist() == [1, 0]
    content["dataset.json"] = b'{"labels": null}'
    assert open_images([str(archive(tmp_path / "plain.zip", content))]).labels is None
    content["dataset.json"] = b'{"labels": [["0/a.png", 1]]}'
    with pytest.raises(UserError, match=r"no label for 0/b\.png"):
        open_images([str(archive(tmp_path / "less.zip", content))])
    content["dataset.json"] = b"[1"
    with pytest.raises(UserError, match=r"dataset\.json is no whole JSON \(line 1, column 3\)"):
        open_images([str(archive(tmp_path / "broken.zip", content))])


@pytest.mark.parametrize("suffix", [".npz", ".zip"])
def test_packed_sets_are_what_they_were_made_from(tmp_path, suffix):
    spec = [str(archive(tmp_path / "tiny.zip", TINY))]
    out = tmp_path / f"packed{suffix}"
    same(prepare(spec, out), open_images([str(out)]))
    flat = [str(tree(tmp_path / "flat", {"a.png": png(1), "b.png": png(2)}))]
    same(prepare(flat, out), open_images([str(out)]))
    if suffix == ".npz":
        mapped = open_images([str(out)]).images
        while not isinstance(mapped, np.memmap):
            mapped = mapped.base
        assert str(out) == str(mapped.filename)
    with pytest.raises(UserError, match=r"\.npz or \.zip"):
        prepare(spec, tmp_path / "x.tar")


def test_npz_files_are_checked(tmp_path):
    def fails(says, **arrays):
        np.savez(tmp_path / "x.npz", **arrays)
        with pytest.raises(UserError, match=says):
            open_images([str(tmp_path / "x.npz")])

    good = np.zeros((4, 64, 64, 3), dtype=np.uint8)
    fails("no array `images`, only labels", labels=np.arange(4))
    fails("must be uint8", images=good.astype(np.float32))
    fails("must be uint8", images=good[..., 0])
    fails("labels must be 4 whole numbers", images=good, labels=np.arange(3))
    fails("must be uint8", images=np.array([{}], dtype=object))
    np.savez_compressed(tmp_path / "c.npz", images=good, labels=np.array([0, 1, 1, 0]))
    found = open_images([str(tmp_path / "c.npz")], resolution=32)
    assert found.images.shape == (4, 3, 32, 32)
    assert found.labels.tolist() == [0, 1, 1, 0]
    (tmp_path / "t.npz").write_bytes((tmp_path / "c.npz").read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read"):
        open_images([str(tmp_path / "t.npz")])


def test_every_mode_becomes_rgb():
    assert decode(png(1, mode="L"), 64).shape == (3, 64, 64)
    grey = decode(png(1, mode="L"), 64)
    assert np.array_equal(grey[0], grey[2])
    clear = Image.new("RGBA", (64, 64), (10, 20, 30, 0))
    assert np.unique(decode(encode(clear), 64)).tolist() == [255]  # transparent pixels lie on white
    palette = drawn(1).quantize(16)
    assert np.array_equal(decode(encode(palette), 64), np.asarray(palette.convert("RGB")).transpose(2, 0, 1))
    buffer = io.BytesIO()
    drawn(1, mode="CMYK").save(buffer, format="JPEG")
    assert decode(buffer.getvalue(), 64).shape == (3, 64, 64)
    deep = Image.fromarray(np.linspace(0, 65535, 4096).reshape(64, 64).astype(np.uint16))
    levels = decode(encode(deep), 64)[0]
    assert (int(levels.min()), int(levels.max())) == (0, 255)
    assert abs(int(levels[32, 0]) - 128) < 3


def test_images_are_upright():
    image, buffer = Image.new("RGB", (64, 64), "black"), io.BytesIO()
    image.paste("white", (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(buffer, format="JPEG", exif=exif)
    found = decode(buffer.getvalue(), 64)
    assert found[:, 8].mean() < 20
    assert found[:, 56].mean() > 235


@given(st.integers(16, 90), st.integers(16, 90), st.integers(8, 48))
def test_any_size_is_cropped_in_the_middle_and_keeps_its_mean(width, height, resolution):
    side = min(width, height)
    pixels = np.full((height, width, 3), 200, dtype=np.uint8)
    left, top = (width - side) // 2, (height - side) // 2
    pixels[top : top + side, left : left + side] = 60
    found = decode(encode(Image.fromarray(pixels)), resolution)
    assert found.shape == (3, resolution, resolution)
    assert (found == 60).all()


def test_bad_files_are_all_named_at_once_or_left_out(tmp_path):
    content = {**CLASSES, "cat/broken.png": png(1)[:300], "dog/empty.jpg": b"", "dog/text.gif": b"hello"}
    path = str(tree(tmp_path / "pets", content))
    with pytest.raises(UserError) as caught:
        open_images([path])
    for name in ("cat/broken.png", "dog/empty.jpg", "dog/text.gif"):
        assert name in str(caught.value)
    assert "--skip-bad" in str(caught.value)
    assert "\n" not in str(caught.value)
    for _ in range(2):  # decoded, and out of the cache
        said: list[str] = []
        found = open_images([path], skip_bad=True, warn=said.append)
        assert len(found) == len(found.labels) == len(found.ids) == 6
        assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert len(said) == 1
        assert said[0].startswith("3 files")
    with pytest.raises(UserError, match="3 files"):
        open_images([path])
    found = describe([path])
    assert sorted(found.bad) == ["cat/broken.png", "dog/empty.jpg", "dog/text.gif"]
    with pytest.raises(UserError, match="can be read"):
        open_images([str(tree(tmp_path / "all-bad", {"x.png": b"?"}))], skip_bad=True, warn=said.append)


def test_nothing_outside_an_archive_or_folder_is_followed(tmp_path):
    (tmp_path / "secret.png").write_bytes(png(1))
    evil = {"../secret.png": png(1), "/etc/x.png": png(1), "C:/x.png": png(1), "a.png": png(2)}
    path = archive(tmp_path / "evil.zip", evil)
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as z:
        z.writestr(link, "../secret.png")
    with pytest.raises(UserError, match="4 files cannot be read"):
        open_images([str(path)])
    said: list[str] = []
    assert list(open_images([str(path)], skip_bad=True, warn=said.append).ids) == ["a.png"]
    folder = tree(tmp_path / "folder", {"a.png": png(2)})
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "loop").symlink_to(folder)
    said.clear()
    assert list(open_images([str(folder)], skip_bad=True, warn=said.append).ids) == ["a.png"]
    assert "outside the folder" in said[0]


def test_sizes_are_limited_before_anything_is_decoded(tmp_path, monkeypatch):
    def chunk(kind, data):
        import zlib

        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    huge = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(Unreadable, match="30000 x 30000"):
        decode(huge, 64)
    monkeypatch.setattr(files, "MAX_BYTES", 1000)
    path = archive(tmp_path / "big.zip", {"a.png": png(1), "b.png": encode(Image.new("RGB", (8, 8)))})
    with pytest.raises(UserError, match=r"a\.png: more than"):
        open_images([str(path)])
    with pytest.raises(UserError, match=r"a\.png: more than"):
        open_images([str(tree(tmp_path / "big", {"a.png": png(1)}))])


def test_damaged_and_encrypted_archives(tmp_path):
    path = archive(tmp_path / "x.zip", {"a.png": png(1), "b.png": png(2)})
    data = bytearray(path.read_bytes())
    data[200] ^= 255  # inside the first image
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"1 file cannot be read \(a\.png"):
        open_images([str(path)])
    data = bytearray(archive(tmp_path / "y.zip", {"a.png": png(1), "b.png": png(2)}).read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    (tmp_path / "y.zip").write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"a\.png: it is encrypted"):
        open_images([str(tmp_path / "y.zip")])
    (tmp_path / "z.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match="neither a folder nor a whole zip"):
        open_images([str(tmp_path / "z.zip")])
    with pytest.raises(UserError, match="does not exist"):
        open_images([str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="name a data set"):
        open_images([])


def test_decoded_images_are_kept_and_made_again_when_damaged(tmp_path):
    spec, cache = [str(tree(tmp_path / "pets", CLASSES))], tmp_path / "cache"
    first = open_images(spec, cache=cache)
    (kept,) = (cache / "images").iterdir()
    stamp = (kept / "images.npy").stat().st_mtime_ns
    open_images(spec, cache=cache)
    assert (kept / "images.npy").stat().st_mtime_ns == stamp
    short = (kept / "images.npy").read_bytes()[:5000]
    (kept / "images.npy").unlink()  # the old file is still mapped
    (kept / "images.npy").write_bytes(short)
    same(open_images(spec, cache=cache), first)
    os.utime(tmp_path / "pets" / "cat" / "0.png", ns=(1, 1))  # changed, as far as anyone can tell
    same(open_images(spec, cache=cache), first)
    assert len(list((cache / "images").iterdir())) == 2
    (tmp_path / "blocked").write_text("")
    said: list[str] = []
    found = open_images(spec, cache=tmp_path / "blocked", warn=said.append)
    assert found.digest == first.digest
    assert "AJEST_CACHE" in said[0]


def test_labels_can_follow_another_sets_classes(tmp_path):
    found = open_images([str(tree(tmp_path / "pets", CLASSES))])
    moved = found.relabelled(("ant", "cat", "dog"))
    assert moved.labels.tolist() == [1, 1, 1, 2, 2, 2]
    with pytest.raises(UserError, match="training images lack: dog"):
        found.relabelled(("ant", "cat"))


def test_shapes_have_known_factors_and_stable_prefixes():
    small, large = open_images(["shapes:20"]), open_images(["shapes:40"])
    assert np.array_equal(small.images, large.images[:20])
    assert small.classes == shapes.CLASSES
    assert small.labels.tolist() == [i % 10 for i in range(20)]
    assert not np.array_equal(small.images, open_images(["shapes:20"], split="val").images)
    for i in range(20):
        f = shapes.factors(i)
        at = [round((f.y + 1) * 31.5), round((f.x + 1) * 31.5)]
        if shapes.CLASSES[f.shape] not in ("ring", "moon"):
            assert np.abs(small.images[i][:, at[0], at[1]].astype(int) - f.colour).max() <= 1
    with pytest.raises(UserError, match="shapes:1000"):
        open_images(["shapes:many"])


def test_a_description_counts_what_is_there(tmp_path):
    content = {**CLASSES, "dog/wide.png": png(5, size=(80, 40)), "dog/grey.png": png(6, mode="L")}
    found = describe([str(tree(tmp_path / "pets", content))])
    assert found.total == 8
    assert found.sizes == {(64, 64): 7, (80, 40): 1}
    assert found.modes == {"RGB": 7, "L": 1}
    assert found.classes == {"cat": 3, "dog": 5}
    assert found.sheet.shape == (64, 8 * 67 - 3, 3)
    assert mosaic(np.zeros((5, 3, 4, 4), dtype=np.uint8), 3).shape == (11, 18, 3)


def test_real_archives_are_described(tiny_imagenet):
    _, val = tiny_imagenet
    found = describe([val], split="val")
    assert (found.total, len(found.classes), found.bad) == (5000, 200, {})
    assert found.sizes == {(64, 64): 5000}
    assert set(found.modes) == {"RGB", "L"}
    assert "goldfish" in found.names.values()
