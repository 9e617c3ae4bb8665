"""Parquet files of images, as the Hugging Face hub and others write them, read in place a row group at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from ajest.errors import UserError, check, listed

from .files import MAX_BYTES, Unreadable, reason
from .formats import is_image
from .splits import Split, roles_of, wanted_parts
from .tables import is_label_column

MAX_GROUP = 2 << 30  # bytes of a row group, of which a few are held
_HELD = 2
_IMAGES = frozenset(("image", "img", "images", "picture", "photo", "jpg", "jpeg", "png", "webp"))


@dataclass(frozen=True)
class ParquetRows:
    """Rows of Parquet files.

    Attributes:
        ids: stable, one a row: its file's name and its number there.
        keys: class key of each row, None for an unconditional set.
        words: names of classes for people, where they are not the keys.
        read: the bytes of an image by its row; raises Unreadable.
        identity: changes when the content does.
        notes: on columns and files that are not used.
    """

    ids: list[str]
    keys: list[str] | None
    words: dict[str, str]
    read: Callable[[int], bytes]
    identity: str
    notes: tuple[str, ...]


def parquet_files(path: Path) -> list[Path]:
    """The file itself, or the Parquet files of a folder without images; empty for anything else."""
    if path.suffix.lower() == ".parquet" and path.is_file():
        return [path]
    if not path.is_dir():
        return []
    found = []
    for file in path.rglob("*"):
        if is_image(file.name):
            return []
        plain = file.is_file() and not file.is_symlink() and not file.name.startswith(".")
        if plain and file.suffix.lower() == ".parquet":
            found.append(file)
    return sorted(found)


def parquet_rows(spec: str, files: list[Path], split: Split) -> ParquetRows:
    """Read what Parquet files hold of a split.

    Raises:
        UserError: pyarrow is not there; a file is damaged or unlike the others; no column or several may be the images
            or their classes; or rows have no class.
    """
    try:
        import pyarrow.parquet as library
    except ImportError as error:
        raise UserError(f"{spec}: Parquet needs the package pyarrow: pip install 'ajest[parquet]'") from error
    files, notes = _of_split(spec, files, split)
    stems = [file.stem for file in files]
    check(
        len(set(stems)) == len(stems), f"{spec}: two files are called {listed(s for s in stems if stems.count(s) > 1)}"
    )
    opened = [_opened(library, file) for file in files]
    schema = opened[0].schema_arrow
    image = _image_column(spec, schema)
    label, names = _label_column(spec, schema)
    _check_groups(files, opened)
    keys = None if label is None else _keys(spec, files, opened, label, names)
    counts = [file.metadata.num_rows for file in opened]
    ids = [f"{stem}/{row:07d}" for stem, count in zip(stems, counts, strict=True) for row in range(count)]
    marks = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    identity = hashlib.blake2b("\n".join([*marks, image, str(label)]).encode(), digest_size=16).hexdigest()
    idle = sorted(set(schema.names) - {image, label})
    if label is None and idle:
        notes = (*notes, f"no classes are read from its columns {listed(idle)}: call the right one label")
    return ParquetRows(ids, keys, {}, _reader(opened, image), identity, notes)


def _of_split(spec: str, files: list[Path], split: Split) -> tuple[list[Path], tuple[str, ...]]:
    roles = roles_of({file.stem for file in files})
    taken = wanted_parts(roles, split, spec, "name the files themselves") if roles and len(files) > 1 else ()
    chosen = [file for file in files if file.stem in taken] if taken else files
    left = len(files) - len(chosen)
    return chosen, (
        (f"{len(chosen)} of {len(files)} files are read; left out are those of other parts",) if left else ()
    )


def _opened(library: Any, path: Path) -> Any:
    try:
        return library.ParquetFile(path, memory_map=True)
    except Exception as error:  # ArrowInvalid, OSError: of a damaged file anything
        raise UserError(f"{path} cannot be read as Parquet: {reason(error)}") from error


def _image_column(spec: str, schema: Any) -> str:
    """The column of encoded images: bytes, or a struct of bytes and path, as `datasets` writes it."""
    found = [field.name for field in schema if _holds_bytes(field.type)]
    named = [name for name in found if name.lower() in _IMAGES]
    chosen = named if len(named) == 1 else found
    if not chosen:
        raise UserError(f"{spec} has no column of images as bytes, only {listed(schema.names)}")
    if len(chosen) > 1:
        raise UserError(f"{spec} has several columns of bytes, {listed(chosen)}: call the one of images image")
    return chosen[0]


def _holds_bytes(kind: Any) -> bool:
    if str(kind).startswith("struct"):
        return any(inner.name == "bytes" and _holds_bytes(inner.type) for inner in kind)
    return str(kind) in ("binary", "large_binary")


def _label_column(spec: str, schema: Any) -> tuple[str | None, list[str]]:
    """(the column of classes, their names where `datasets` has written them)."""
    features = _features(schema)
    made_for = [name for name, kind in features.items() if isinstance(kind, dict) and kind.get("_type") == "ClassLabel"]
    plain = [
        f.name
        for f in schema
        if is_label_column(f.name) and str(f.type).removeprefix("u").startswith(("int", "string", "large_string"))
    ]
    found = [name for name in made_for if name in schema.names] or plain
    if len(found) > 1:
        raise UserError(f"{spec} has several columns of classes, {listed(found)}: call the right one label")
    if not found:
        return None, []
    kind = features.get(found[0])
    names = kind.get("names") if isinstance(kind, dict) else None
    return found[0], list(map(str, names)) if isinstance(names, list) else []


def _features(schema: Any) -> dict[str, Any]:
    """What `datasets` has written about the columns; {} where nothing."""
    try:
        said = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = said["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _check_groups(files: list[Path], opened: list[Any]) -> None:
    for path, file in zip(files, opened, strict=True):
        check(file.schema_arrow.names == opened[0].schema_arrow.names, f"{path} has other columns than {files[0]}")
        sizes = [file.metadata.row_group(g).total_byte_size for g in range(file.metadata.num_row_groups)]
        check(
            max(sizes, default=0) <= MAX_GROUP,
            f"{path} has row groups of {max(sizes, default=0) / 2**30:.1f} GiB, which are read whole: write it with "
            "row_group_size=1000",
        )


def _keys(spec: str, files: list[Path], opened: list[Any], label: str, names: list[str]) -> list[str]:
    values: list[Any] = []
    for path, file in zip(files, opened, strict=True):
        try:
            values += file.read([label]).column(0).to_pylist()
        except Exception as error:  # of a damaged file anything
            raise UserError(f"{path} cannot be read as Parquet: {reason(error)}") from error
    none = [
        row
        for row, value in enumerate(values)
        if value is None or value == "" or (isinstance(value, int) and value < 0)
    ]
    if none:
        raise UserError(
            f"{spec} has {len(none):,} images without a class ({label} is empty in row {listed(none, 3)}): fill the "
            "column, or leave it out"
        )
    named = len(set(names)) == len(names) and all(isinstance(v, int) and v < len(names) for v in set(values))
    return [names[value] if names and named else str(value) for value in values]


def _reader(opened: list[Any], image: str) -> Callable[[int], bytes]:
    """The bytes of an image by its row. Rows are asked for nearly in order, so a few row groups are held."""
    groups = [(f, g) for f, file in enumerate(opened) for g in range(file.metadata.num_row_groups)]
    starts = np.array(list(accumulate((opened[f].metadata.row_group(g).num_rows for f, g in groups), initial=0)))
    lock = Lock()

    @lru_cache(maxsize=_HELD)
    def column(number: int) -> Any:
        f, g = groups[number]
        return opened[f].read_row_group(g, columns=[image]).column(0)

    def read(row: int) -> bytes:
        number = int(np.searchsorted(starts, row, side="right")) - 1
        try:
            with lock:
                cell = column(number)[row - int(starts[number])]
            value = cell.as_py()
        except Exception as error:  # of a damaged file anything
            raise Unreadable(f"damaged ({reason(error)})") from error
        data = value.get("bytes") if isinstance(value, dict) else value
        if data is None:
            raise Unreadable("the row has no image")
        if len(data) > MAX_BYTES:
            raise Unreadable(f"more than {MAX_BYTES >> 20} MiB")
        return data

    return read
