"""What one SPEC of `--data` stands for: a list of examples, each of which can be loaded by its number."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import UserError
from . import shapes
from .decoding import Picture, from_image, picture
from .files import Unreadable, open_files, reason
from .formats import overlooked
from .layouts import Split, listing

MAX_INFLATED = 4 << 30  # bytes of a compressed array
SHAPES = {"train": 4096, "val": 1024}


@dataclass(frozen=True)
class Part:
    """The examples of one SPEC.

    Attributes:
        spec, layout: for people.
        identity: changes when the content does.
        ids: stable, one an example.
        keys: class key of each example, None for an unconditional set.
        words: names of classes for people, as far as they are known.
        load: an example by its number; raises Unreadable.
        refused: files that are not let in, with the reason.
        direct: all pictures at once, uint8 (N, 3, R, R), where they lie ready for use.
        notes: what was left out, merged or taken for something, a sentence each.
    """

    spec: str
    layout: str
    identity: str
    ids: Sequence[str]
    keys: Sequence[str] | None
    words: dict[str, str]
    load: Callable[[int], Picture] = field(repr=False)
    refused: dict[str, str] = field(default_factory=dict)
    direct: np.ndarray | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()


def part_of(spec: str, resolution: int, split: Split) -> Part:
    """Recognise a SPEC.

    Raises:
        UserError: it names nothing that can be read as pictures.
    """
    name, _, rest = spec.partition(":")
    if name == "shapes":
        return _shapes(spec, rest, resolution, split)
    if name == "hf":
        return _hub(spec, rest, resolution, split)
    if spec.endswith(".npz"):
        return _npz(Path(spec), resolution)
    return _files(spec, resolution, split)


def _resized(pixels: np.ndarray, resolution: int) -> Picture:
    """A picture from uint8 (h, w, 3)."""
    return from_image(Image.fromarray(np.ascontiguousarray(pixels)), resolution)


def _files(spec: str, resolution: int, split: Split) -> Part:
    files = open_files(Path(spec))
    found = listing(files, split)
    unread = filter(None, [overlooked(files.marks, files.head)])
    ids = sorted(found.names)
    read, names = found.files.read, found.names

    keys = [found.keys[i] for i in ids] if found.keys else None
    listed = "\n".join(f"{i}\t{key}" for i, key in zip(ids, keys or ids, strict=True))
    marks = found.files.digest([names[i] for i in ids])
    identity = hashlib.blake2b(f"{marks}\n{listed}".encode(errors="surrogateescape"), digest_size=16).hexdigest()
    return Part(
        spec, found.layout, identity, ids, keys, found.words,
        lambda i: picture(read(names[ids[i]]), resolution), found.refused, notes=(*found.notes, *unread),
    )  # fmt: skip


def _shapes(spec: str, rest: str, resolution: int, split: Split) -> Part:
    count = SHAPES[split] if not rest else int(rest) if rest.isdecimal() and len(rest) < 9 else 0
    if count < 1:
        raise UserError(f"{spec!r}: after shapes: stands the number of pictures, as in shapes:1000")
    seed = 0 if split == "train" else 1
    keys = [shapes.CLASSES[i % len(shapes.CLASSES)] for i in range(count)]
    ids = [f"{split}/shape-{i:06d}" for i in range(count)]
    return Part(
        spec, f"procedural, {split}", f"shapes {seed} {count}", ids, keys, {},
        lambda i: _resized(shapes.draw(shapes.factors(i, seed)).transpose(1, 2, 0), resolution),
    )  # fmt: skip


def _npz(path: Path, resolution: int) -> Part:
    if not path.exists():
        raise UserError(f"{path} does not exist")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            marks = sorted(f"{i.filename} {i.file_size} {i.CRC}" for i in members)
        large = [i for i in members if i.compress_type != zipfile.ZIP_STORED and i.file_size > MAX_INFLATED]
        if large:
            raise UserError(
                f"{path}: {large[0].filename} would be inflated to {large[0].file_size / 2**30:.1f} GiB of memory: "
                "store it uncompressed (np.savez), so that it can be used in place"
            )
        with np.load(path, allow_pickle=False) as content:
            missing = {"images"} - set(content.files)
            if missing:
                raise UserError(f"{path} has no array `images`, only {', '.join(content.files) or 'nothing'}")
            extra = {k: content[k] for k in ("labels", "classes", "names", "ids") if k in content.files}
        images = _mapped(path)
    except UserError:
        raise
    except Exception as error:  # zlib.error, MemoryError of a false header, KeyError: a damaged file raises anything
        raise UserError(f"{path} cannot be read as .npz: {error}") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
        raise UserError(f"{path}: images must be uint8 of shape (N, H, W, 3), not {images.dtype} {images.shape}")
    n = len(images)
    labels = extra.get("labels")
    if labels is not None and (labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0):
        raise UserError(f"{path}: labels must be {n} whole numbers from 0 on, not {labels.dtype} {labels.shape}")
    classes = [str(c) for c in extra.get("classes", [])]
    keys = None
    if labels is not None:
        keys = [classes[k] if k < len(classes) else str(k) for k in labels.tolist()]
    given = extra.get("ids")
    ids = [str(i) for i in given] if given is not None and len(given) == n else [f"{i:07d}" for i in range(n)]
    words = dict(zip(classes, map(str, extra.get("names", [])), strict=False))
    square = images.shape[1] == images.shape[2] == resolution
    identity = hashlib.blake2b("\n".join(marks).encode(), digest_size=16).hexdigest()
    return Part(
        str(path), ".npz", identity, ids, keys, words,
        lambda i: _resized(images[i], resolution),
        direct=images.transpose(0, 3, 1, 2) if square else None,
    )  # fmt: skip


def _mapped(path: Path) -> np.ndarray:
    """The array `images`, memory-mapped in place if it is stored uncompressed."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("images.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        with np.load(path, allow_pickle=False) as content:
            return content["images"]
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        lengths = int.from_bytes(file.read(2), "little") + int.from_bytes(file.read(2), "little")
        file.seek(info.header_offset + 30 + lengths)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if fortran or dtype.hasobject:
            raise ValueError("images must be a plain array in C order")
        return np.memmap(path, dtype, "r", file.tell(), shape)


def _hub(spec: str, rest: str, resolution: int, split: Split) -> Part:
    """A data set of the Hugging Face hub, `hf:NAME[:split]`."""
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{spec!r} needs the package datasets: pip install 'ajest[hf]'") from error
    name, _, part = rest.partition(":")
    part = part or {"train": "train", "val": "validation"}[split]
    try:
        table: Any = datasets.load_dataset(name, split=part)
    except Exception as error:  # the library and what it calls raise anything
        raise UserError(f"{spec!r} cannot be loaded: {error}") from error
    columns = table.features
    image = next((c for c in columns if type(columns[c]).__name__ == "Image"), None)
    label = next((c for c in columns if type(columns[c]).__name__ == "ClassLabel"), None)
    if image is None:
        raise UserError(f"{spec!r} has no column of pictures, only {', '.join(columns)}")
    keys = None
    if label is not None:
        names = columns[label].names
        numbers = list(table[label])
        if not all(0 <= k < len(names) for k in numbers):
            raise UserError(f"{spec!r} has pictures without a class: name a split that has all, as in hf:{name}:train")
        keys = [str(names[k]) for k in numbers]

    def load(i: int) -> Picture:
        try:
            return from_image(table[i][image], resolution)
        except Unreadable:
            raise
        except Exception as error:  # the library and what it calls raise anything
            raise Unreadable(reason(error)) from error

    ids = [f"{part}/{i:07d}" for i in range(len(table))]
    return Part(spec, "hub", f"{spec} {part} {getattr(table, '_fingerprint', len(table))}", ids, keys, {}, load)
