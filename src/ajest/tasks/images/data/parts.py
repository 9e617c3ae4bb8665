"""What one SPEC of `--data` stands for: a list of examples, each of which can be loaded by its number."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ajest.errors import UserError, listed

from . import shapes
from .decoding import Decoded, decoded, from_image, size_of
from .files import Files, open_files
from .formats import overlooked
from .hub import hub_table
from .layouts import listing
from .npz import read_npz
from .parquet import parquet_files, parquet_rows
from .splits import Split
from .tars import shards, tar_files

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
        size: (width, height) of a stored image by its number, without decoding it; raises Unreadable.
        one_size: whether all stored images are of one size.
        refused: files that are not let in, with the reason.
        direct: all images at once, uint8 (N, 3, R, R), where they lie ready for use.
        notes: what was left out, merged or taken for something, a sentence each.
    """

    spec: str
    layout: str
    identity: str
    ids: Sequence[str]
    keys: Sequence[str] | None
    words: dict[str, str]
    load: Callable[[int], Decoded] = field(repr=False)
    size: Callable[[int], tuple[int, int]] = field(repr=False)
    one_size: bool = False
    refused: dict[str, str] = field(default_factory=dict)
    direct: np.ndarray | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()


def is_keyword(spec: str) -> bool:
    """Whether a SPEC is no path, whatever there is of its name."""
    return spec == "shapes" or spec.startswith(("shapes:", "hf:"))


def part_of(spec: str, resolution: int, split: Split) -> Part:
    """Recognise a SPEC.

    Raises:
        UserError: it names nothing that can be read as images.
    """
    name, _, rest = spec.partition(":")
    if is_keyword(spec):
        part = _shapes(spec, rest, resolution, split) if name == "shapes" else _hub(spec, resolution, split)
        hidden = [path for path in (spec, *(["shapes"] if name == "shapes" else [])) if Path(path).exists()]
        notes = [f"{name} is a word of this program: what is called {p} here is meant by ./{p}" for p in hidden[:1]]
        part = replace(part, notes=(*part.notes, *notes))
    elif spec.lower().endswith(".npz") and not Path(spec).is_dir():
        part = _npz(Path(spec), resolution, split)
    elif tables := parquet_files(Path(spec)):
        part = _parquet(spec, tables, resolution, split)
    else:
        part = _files(spec, resolution, split)
    return _in_one_form(part)


def _resized(pixels: np.ndarray, resolution: int) -> Decoded:
    """An image from uint8 (h, w, 3)."""
    return from_image(Image.fromarray(np.ascontiguousarray(pixels)), resolution)


def _opened(path: Path, split: Split) -> Files:
    """A folder, the archives of a folder, or one archive."""
    if path.suffix.lower() == ".tar" and path.is_file():
        return tar_files(path)
    files = open_files(path)
    return (shards(files, split) or files) if path.is_dir() else files


def _files(spec: str, resolution: int, split: Split) -> Part:
    files = _opened(Path(spec), split)
    found = listing(files, split)
    unread = filter(None, [overlooked(files.marks, files.head)])
    ids = sorted(found.names)
    read, names = found.files.read, found.names

    keys = [found.keys[i] for i in ids] if found.keys else None
    told = "\n".join(f"{i}\t{key}" for i, key in zip(ids, keys or ids, strict=True))
    marks = found.files.digest([names[i] for i in ids])
    identity = hashlib.blake2b(f"{marks}\n{told}".encode(errors="surrogateescape"), digest_size=16).hexdigest()
    return Part(
        spec, found.layout, identity, ids, keys, found.words,
        lambda i: decoded(read(names[ids[i]]), resolution), lambda i: size_of(read(names[ids[i]])),
        refused=found.refused, notes=(*found.notes, *unread),
    )  # fmt: skip


def _shapes(spec: str, rest: str, resolution: int, split: Split) -> Part:
    count = SHAPES[split] if not rest else int(rest) if rest.isdecimal() and len(rest) < 9 else 0
    if count < 1:
        raise UserError(f"{spec!r}: after shapes: stands the number of images, as in shapes:1000")
    seed = 0 if split == "train" else 1
    keys = [shapes.CLASSES[i % len(shapes.CLASSES)] for i in range(count)]
    ids = [f"{split}/shape-{i:06d}" for i in range(count)]
    return Part(
        spec, f"procedural, {split}", f"shapes {seed} {count}", ids, keys, {},
        lambda i: _resized(shapes.draw(shapes.factors(i, seed)).transpose(1, 2, 0), resolution),
        lambda i: (shapes.RESOLUTION, shapes.RESOLUTION), one_size=True,
    )  # fmt: skip


def _npz(path: Path, resolution: int, split: Split) -> Part:
    found = read_npz(path, split)
    images = found.images
    square = images.shape[1] == images.shape[2] == resolution
    return Part(
        str(path), ".npz", found.identity, found.ids, found.keys, found.words,
        lambda i: _resized(images[i], resolution), lambda i: (images.shape[2], images.shape[1]),
        one_size=True, direct=images.transpose(0, 3, 1, 2) if square else None, notes=found.notes,
    )  # fmt: skip


def _parquet(spec: str, files: list[Path], resolution: int, split: Split) -> Part:
    rows = parquet_rows(spec, files, split)
    return Part(
        spec, "Parquet", rows.identity, rows.ids, rows.keys, rows.words,
        lambda i: decoded(rows.read(i), resolution), lambda i: size_of(rows.read(i)), notes=rows.notes,
    )  # fmt: skip


def _hub(spec: str, resolution: int, split: Split) -> Part:
    table = hub_table(spec, split)
    ids = [f"{table.split}/{i:07d}" for i in range(table.size)]
    return Part(
        spec, "hub", table.identity, ids, table.keys, table.words,
        lambda i: decoded(table.read(i), resolution), lambda i: size_of(table.read(i)), notes=table.notes,
    )  # fmt: skip


def _in_one_form(part: Part) -> Part:
    """With names that are Unicode, those of classes composed (NFC): systems write names in several forms."""
    part = replace(part, ids=part.ids if _is_unicode(part.ids) else list(map(_escaped, part.ids)))
    if part.keys is None:
        return part
    composed = {key: _composed(key) for key in set(part.keys)}
    merged = sorted(key for key, n in Counter(composed.values()).items() if n > 1)
    notes = []
    if merged:
        notes.append(f"classes whose names differ in their Unicode form alone are one: {listed(merged)}")
    strange = sorted(key for key in composed if not _is_unicode([key]))
    if strange:
        notes.append(f"names of classes that are not Unicode are written with escapes: {listed(strange)}")
    words = {_composed(key): _composed(name) for key, name in part.words.items()}
    return replace(part, keys=[composed[key] for key in part.keys], words=words, notes=(*part.notes, *notes))


def _composed(name: str) -> str:
    return _escaped(unicodedata.normalize("NFC", name))


def _escaped(name: str) -> str:
    """Without the marks that stand for bytes which are no text: they can be written nowhere."""
    return name.encode(errors="backslashreplace").decode()


def _is_unicode(names: Iterable[str]) -> bool:
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        return False
    return True
