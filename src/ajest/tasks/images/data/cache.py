"""Decoded images on the disk: made once, memory-mapped from then on."""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from ajest.errors import Corrupt, UserError
from ajest.storage.checkpoint import read_sealed, write_sealed

from .changes import Changes
from .loading import loaded
from .locks import is_free, sole_writer
from .parts import Part

_TOGETHER = 1024  # images that are gone through at a time
_MAKING = ".making-"  # begins the name of a folder that is being filled


def cache_folder() -> Path:
    """$AJEST_CACHE, or `ajest` in the user's cache folder."""
    if "AJEST_CACHE" in os.environ:
        return Path(os.environ["AJEST_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ajest"


def let_go(images: np.ndarray) -> None:
    """Give back the memory of an array that lies in a file, so that whoever goes through it needs no more than a part:
    what is in the file stays there, what was written is kept. Nothing happens to other arrays."""
    base: Any = images
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def content_digest(images: np.ndarray, labels: np.ndarray | None, classes: Sequence[str]) -> str:
    """Of images, labels and classes."""
    found = hashlib.blake2b(json.dumps([list(classes), images.shape]).encode(), digest_size=16)
    for start in range(0, len(images), _TOGETHER):
        found.update(np.ascontiguousarray(images[start : start + _TOGETHER]).data)
        let_go(images)
    found.update(b"" if labels is None else np.ascontiguousarray(labels, dtype="<i8").tobytes())
    return found.hexdigest()


def remembered(
    folder: Path,
    images: np.ndarray,
    labels: np.ndarray | None,
    classes: Sequence[str],
    warn: Callable[[str], None],
) -> str:
    """The digest of images that lie ready, computed once."""
    path = folder.with_suffix(".json")
    with sole_writer(_lock_of(folder), warn):
        with suppress(Corrupt, KeyError, TypeError):
            return str(read_sealed(path)["digest"])
        digest = content_digest(images, labels, classes)
        with suppress(UserError):  # a cache that cannot be written costs time only
            write_sealed(path, {"digest": digest})
        return digest


@dataclass(frozen=True)
class Wanted:
    """What is to be decoded.

    Attributes:
        parts: where it comes from.
        order: (part, number) of each example.
        ids: of the examples.
        labels: of the examples, or None.
        classes: their keys.
        resolution: height and width.
    """

    parts: list[Part]
    order: list[tuple[int, int]]
    ids: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    resolution: int


@dataclass(frozen=True)
class Decoded:
    """Decoded images.

    Attributes:
        images: uint8, shape (N, 3, R, R), without the bad ones.
        digest: of images, labels and classes.
        bad: files that cannot be read, with the reason.
        changes: what was done to how many images.
    """

    images: np.ndarray
    digest: str
    bad: dict[str, str]
    changes: dict[str, int]


def _stored(folder: Path) -> Decoded | None:
    """What lies in the cache; None if there is nothing, or it is damaged."""
    try:
        facts: dict[str, Any] = read_sealed(folder / "facts.json")
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        if list(images.shape) != facts["shape"]:
            return None
        return Decoded(images, str(facts["digest"]), dict(facts["bad"]), dict(facts["changes"]))
    except (Corrupt, OSError, EOFError, ValueError, KeyError, TypeError):
        return None


def decoded(
    folder: Path, wanted: Wanted, judge: Callable[[dict[str, str]], None], warn: Callable[[str], None]
) -> Decoded:
    """Decoded images from the folder; where there are none, one process decodes while others wait for it.

    Args:
        folder: in the cache, named by what decides its content.
        wanted: what to decode.
        judge: told about bad files before anything is kept; raises UserError where these are not to be left out.
        warn: told about waiting, and about a cache that cannot be written to: then they are decoded into memory.

    Raises:
        UserError: no image can be read, or they contradict each other; the disk or the memory is full.
    """
    found = _stored(folder)
    if found is not None:
        judge(found.bad)
        return found
    with sole_writer(_lock_of(folder), warn) as sole:
        found = _stored(folder)  # by the one that was waited for
        if found is not None:
            judge(found.bad)
            return found
        if sole:
            _sweep(folder)
        return _made(folder, wanted, judge, warn)


def _made(
    folder: Path, wanted: Wanted, judge: Callable[[dict[str, str]], None], warn: Callable[[str], None]
) -> Decoded:
    shape = (len(wanted.order), 3, wanted.resolution, wanted.resolution)
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{_MAKING}{folder.name}-"))
        images = _reserved(temporary / "images.npy", shape)
    except OSError as error:
        warn(
            f"{math.prod(shape) / 2**30:,.2f} GiB of decoded images cannot be kept in {folder.parent} "
            f"({error.strerror or error}), so they are held in memory: set AJEST_CACHE to a folder with room"
        )
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        temporary, images = None, _in_memory(shape)
    try:
        images, bad, changes = _fill(images, wanted, judge)
        whole = ~np.isin(wanted.ids, list(bad))
        labels = None if wanted.labels is None else wanted.labels[whole]
        found = Decoded(images, content_digest(images, labels, wanted.classes), bad, dict(changes.counts))
        return found if temporary is None else _kept(folder, temporary, found)
    except OSError as error:
        raise UserError(
            f"decoded images cannot be written to {folder.parent} ({error.strerror or error}): free some space, or "
            "set AJEST_CACHE to a folder with room"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _in_memory(shape: tuple[int, ...]) -> np.ndarray:
    try:
        return np.empty(shape, dtype=np.uint8)
    except MemoryError as error:
        raise UserError("decoded images fit neither on the disk nor into memory: set AJEST_CACHE") from error


def _fill(
    images: np.ndarray, wanted: Wanted, judge: Callable[[dict[str, str]], None]
) -> tuple[np.ndarray, dict[str, str], Changes]:
    """(The part of `images` that holds images now, bad files, what was done to the others)."""
    bad: dict[str, str] = {}
    changes, n = Changes(), 0
    for name, found in zip(wanted.ids, loaded(wanted.parts, wanted.order, "decoding images"), strict=True):
        if isinstance(found, str):
            bad[str(name)] = found
            continue
        images[n] = found.pixels
        changes.add(str(name), found)
        n += 1
        if n % _TOGETHER == 0:
            let_go(images)
    judge(bad)
    if not n:
        raise UserError(f"{wanted.parts[0].spec} holds no image that can be read")
    against = changes.contradiction()
    if against:
        raise UserError(f"{wanted.parts[0].spec}: {against}")
    return images[:n], bad, changes


def _kept(folder: Path, temporary: Path, found: Decoded) -> Decoded:
    """What was decoded into a temporary folder, at its place."""
    path, facts = temporary / "images.npy", temporary / "facts.json"
    if isinstance(found.images, np.memmap):
        found.images.flush()
    _shorten(path, found.images.shape)
    content = {"shape": list(found.images.shape), "digest": found.digest, "bad": found.bad, "changes": found.changes}
    write_sealed(facts, content)
    shutil.rmtree(folder, ignore_errors=True)  # damaged, if there at all
    try:
        temporary.rename(folder)
    except OSError:
        if _stored(folder) is None:  # where locks do not work, another was faster
            raise
    return _stored(folder) or replace(found, images=np.array(found.images))


def _lock_of(folder: Path) -> Path:
    return folder.parent.parent / "locks" / folder.name


def _sweep(folder: Path) -> None:
    """Remove what killed processes left beside a folder whose lock this one holds: theirs are free."""
    for left in folder.parent.glob(f"{_MAKING}*-*"):
        name = left.name.removeprefix(_MAKING).rpartition("-")[0]
        if name == folder.name or is_free(_lock_of(folder.with_name(name))):
            shutil.rmtree(left, ignore_errors=True)


def _reserved(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A new memory-mapped array whose room on the disk is taken: a full disk would kill the process while it is filled.

    Raises:
        OSError: there is no room.
    """
    with path.open("wb") as file:
        _write_header(file, shape)
        file.flush()
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, file.tell() + math.prod(shape))
        else:
            file.truncate(file.tell() + math.prod(shape))
    return np.lib.format.open_memmap(path, "r+")


def _shorten(path: Path, shape: tuple[int, ...]) -> None:
    """Cut an array's file after its first rows."""
    with path.open("r+b") as file:
        _write_header(file, shape)  # as long as the old one: numpy leaves room for the number of rows
        file.truncate(file.tell() + math.prod(shape))


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def write_rows(file: IO[bytes], rows: np.ndarray, shape: tuple[int, ...], axes: tuple[int, ...] | None = None) -> None:
    """An array of images as .npy, some at a time; with `axes`, each transposed by these (0 stays the rows)."""
    _write_header(file, shape)
    for start in range(0, len(rows), _TOGETHER):
        part = rows[start : start + _TOGETHER]
        file.write(np.ascontiguousarray(part if axes is None else part.transpose(axes)).data)
        let_go(rows)
