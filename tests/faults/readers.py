"""Everything that reads a file which may come from elsewhere, as functions of bytes; and bytes to begin with.

A reader may accept what it is given or refuse it by one of `REFUSALS`. Anything else is a fault.
"""

from __future__ import annotations

import atexit
import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, PngImagePlugin, features

from ajest.bench.plan.config import BenchConfig
from ajest.bench.read.folder import read_bench
from ajest.errors import Corrupt, UserError
from ajest.jobs.failures import noted
from ajest.selection.catalogue import ARMS
from ajest.storage import checkpoint, jsonl
from ajest.storage.config_file import stored
from ajest.tasks.images.data.decoding import decode
from ajest.tasks.images.data.files import Unreadable
from ajest.tasks.images.data.parts import Part, part_of
from ajest.tasks.tree.task import TreeTask
from ajest.training.recipe import Recipe
from ajest.training.run_folder import RunConfig, load_snapshot, read_config, read_status

REFUSALS = (UserError, Corrupt, Unreadable)


@dataclass(frozen=True)
class Reader:
    """What is read, bytes that it accepts, and how: `read` takes bytes and a folder for them."""

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[bytes, Path], object]

    def accepts(self, data: bytes) -> bool:
        """Whether the reader takes these bytes.

        Raises:
            Exception: whatever else it does than accept and refuse.
        """
        try:
            self.read(data, _place())
        except REFUSALS:
            return False
        return True


@cache
def _place() -> Path:
    """A folder of this process, in memory where there is such a place."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    place = tempfile.mkdtemp(prefix="ajest-faults-", dir=memory)
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return Path(place)


def drawn(kind: str = "PNG", mode: str = "RGB") -> bytes:
    values = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    image = Image.fromarray(values)
    (image.convert("L") if mode in ("F", "I;16") else image).convert(mode).save(out, kind)
    return out.getvalue()


#: What Pillow reads in every build, and the kinds that take ways of their own.
DRAWN = (
    ("PNG", "RGB"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("BMP", "RGB"), ("GIF", "P"), ("TIFF", "RGB"), ("TIFF", "F"),
    ("TIFF", "I;16"), ("PPM", "L"), ("TGA", "RGB"), ("PNG", "LA"),
    *((kind, "RGB") for kind, name in (("WEBP", "webp"), ("JPEG2000", "jpg_2000"), ("AVIF", "avif"))
      if name in features.get_supported()),
)  # fmt: skip


def _deep() -> bytes:
    """PNG with a text, a colour profile and 16 bits."""
    about, out = PngImagePlugin.PngInfo(), io.BytesIO()
    about.add_text("a", "b" * 99, zip=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.fromarray(np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8))
    image.save(out, "PNG", pnginfo=about, icc_profile=profile)
    return out.getvalue()


DEEP = _deep()


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        for name, data in members.items():
            file.writestr(zipfile.ZipInfo(name), data, compression)
    return out.getvalue()


def _look_at(part: Part) -> None:
    """As a data set is described and decoded: the first examples and the last."""
    for i in {0, 1, len(part.ids) - 1} & set(range(len(part.ids))):
        assert part.load(i).pixels.shape == (3, 8, 8)


def _data(data: bytes, name: str, folder: Path) -> None:
    path = folder / name
    path.write_bytes(data)
    _look_at(part_of(str(path), 8, "train"))


def _within(data: bytes, name: str, others: dict[str, bytes], folder: Path, split: str = "train") -> None:
    path = folder / "within.zip"
    path.write_bytes(archive({**others, name: data}))
    _look_at(part_of(str(path), 8, split))


COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
PETS = {"cat/a.png": drawn(), "cat/b.png": drawn(mode="L"), "dog/a.jpg": drawn("JPEG")}
EDM = {"0/a.png": drawn(), "0/b.png": drawn()}
TINY = {"tiny/val/images/val_0.JPEG": drawn("JPEG"), "tiny/val/images/val_1.JPEG": drawn("JPEG")}
ANNOTATIONS = b"val_0.JPEG\tn01443537\t0\t32\t44\t62\nval_1.JPEG\tn04398044\t52\t55\t57\t59\n"
FLAT = {"a.png": drawn(), "b.png": drawn()}
TABLES = {
    "metadata.csv": b'file_name;text;label\na.png;"a;\nb";1.0\nb.png;;2.0\n',
    "metadata.jsonl": b'{"file_name": "a.png", "label": "cat"}\n{"file_name": "b.png", "label": 3, "box": [1]}\n',
}
BOMB = archive({"cat/a.png": b"\0" * (66 << 20)}, zipfile.ZIP_DEFLATED)
OUTSIDE = archive({"../../a.png": drawn(), "/etc/b.png": drawn(), "C:\\c.png": drawn(), "cat/d.png": drawn()})


def _npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _compressed(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


IMAGES = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
LABELS = np.array([1, 0])


def _arrays(folder: Path) -> tuple[bytes, bytes]:
    checkpoint.save(folder / "seed-1", {"network/a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3)}, {"step": 1})
    return (folder / "seed-1.safetensors").read_bytes(), (folder / "seed-1.json").read_bytes()


TENSORS, FACTS = _arrays(_place())


def _tensors(data: bytes, folder: Path) -> None:
    """Behind facts that vouch for it: as if it had been written so."""
    (folder / "t-1.safetensors").write_bytes(data)
    facts = {"step": 1, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    checkpoint.write_sealed(folder / "t-1.json", facts)
    checkpoint.load(folder / "t-1")


def _facts(data: bytes, folder: Path) -> None:
    snapshots = folder / "snapshots"
    snapshots.mkdir(exist_ok=True)
    (snapshots / "snapshot-1.safetensors").write_bytes(TENSORS)
    (snapshots / "snapshot-1.json").write_bytes(data)
    load_snapshot(folder, warn=lambda _: None)


RUN = RunConfig(TreeTask(), "learner", Recipe(), ARMS["ajest"], 0, 100, "../guide")
BENCH = BenchConfig(TreeTask(), Recipe(), (ARMS["baseline"], ARMS["hard-unbiased"]), (0, 1), 64, 16)


def _config(data: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(data)
    read_config(folder)


def _bench(data: bytes, folder: Path) -> None:
    (folder / "bench.json").write_bytes(data)
    read_bench(folder)


def _lines(data: bytes, folder: Path) -> None:
    (folder / "ledger.jsonl").write_bytes(data)
    for line in jsonl.read(folder / "ledger.jsonl"):
        assert isinstance(line, dict)
    (folder / "status.json").write_bytes(data)
    read_status(folder)
    jsonl.append(folder / "ledger.jsonl", {"last": 1})
    assert jsonl.read(folder / "ledger.jsonl")[-1] == {"last": 1}


def _failures(data: bytes, folder: Path) -> None:
    (folder / "failures.jsonl").write_bytes(data)
    assert all(isinstance(failure.final, bool) for failure in noted(folder))


def _written(*values: dict[str, object]) -> bytes:
    path = _place() / "seed.jsonl"
    path.unlink(missing_ok=True)
    jsonl.append(path, *values)
    return path.read_bytes()


LINES = _written(
    {"step": 1, "loss": 0.5, "clocks": {"steps": 1.0}, "seconds": {}, "by_kind": {"uniform": 1}}, {"other": [None, "é"]}
)
FAILURES = _written({"job": "ajest, seed 0", "kind": "killed", "attempt": 1, "log": "a\nb"})


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


READERS = {
    reader.name: reader
    for reader in (
        Reader(
            "zip",
            (*(archive(PETS, how) for how in COMPRESSIONS), archive(TINY), BOMB, OUTSIDE),
            lambda data, folder: _data(data, "x.zip", folder),
        ),
        Reader(
            "npz",
            (
                _npz(images=IMAGES, labels=LABELS, classes=np.array(["a", "b"]), ids=np.array(["x", "y"])),
                _npz(images=IMAGES[:, :4]),
                _compressed(images=IMAGES, labels=LABELS),
            ),
            lambda data, folder: _data(data, "x.npz", folder),
        ),
        Reader(
            "dataset.json",
            (
                _json({"labels": [["0/a.png", 1], ["0/b.png", 0]], "classes": ["x", "y"], "names": ["<b>", "y"]}),
                _json({"labels": None, "ids": {"0/a.png": "one", "0/b.png": "two"}}),
            ),
            lambda data, folder: _within(data, "dataset.json", EDM, folder),
        ),
        Reader(
            "val_annotations",
            (ANNOTATIONS, b""),
            lambda data, folder: _within(data, "tiny/val/val_annotations.txt", TINY, folder, "val"),
        ),
        Reader(
            "words.txt",
            (b"n01443537\tgoldfish, Carassius auratus\nn04398044\tteapot\n",),
            lambda data, folder: _within(
                data, "tiny/words.txt", {**TINY, "tiny/val/val_annotations.txt": ANNOTATIONS}, folder, "val"
            ),
        ),
        *(
            Reader(name, (text,), lambda data, folder, name=name: _within(data, name, FLAT, folder))  # type: ignore[misc]
            for name, text in TABLES.items()
        ),
        Reader(
            "image",
            (*(drawn(kind, mode) for kind, mode in DRAWN), DEEP),
            lambda data, _: decode(data, 8),
        ),
        Reader("safetensors", (TENSORS,), _tensors),
        Reader("facts", (FACTS,), _facts),
        Reader("config", (_json(stored(RUN)),), _config),
        Reader("bench", (_json(stored(BENCH)),), _bench),
        Reader("ledger", (LINES,), _lines),
        Reader("failures", (FAILURES,), _failures),
    )
}
