"""Decoded pictures on the disk: made once, memory-mapped from then on."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...checkpoint import read_sealed, write_sealed
from ...errors import Corrupt, UserError
from .files import Unreadable
from .parts import Part


def cache_folder() -> Path:
    """$AJEST_CACHE, or `ajest` in the user's cache folder."""
    if "AJEST_CACHE" in os.environ:
        return Path(os.environ["AJEST_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ajest"


def content_digest(images: np.ndarray, labels: np.ndarray | None, classes: Sequence[str]) -> str:
    """Of pictures, labels and classes."""
    found = hashlib.blake2b(json.dumps([list(classes), images.shape]).encode(), digest_size=16)
    for start in range(0, len(images), 1024):
        found.update(np.ascontiguousarray(images[start : start + 1024]).data)
    found.update(b"" if labels is None else np.ascontiguousarray(labels, dtype="<i8").tobytes())
    return found.hexdigest()


def remembered(folder: Path, images: np.ndarray, labels: np.ndarray | None, classes: Sequence[str]) -> str:
    """The digest of pictures that lie ready, computed once."""
    path = folder.with_suffix(".json")
    with suppress(Corrupt, KeyError, TypeError):
        return str(read_sealed(path)["digest"])
    digest = content_digest(images, labels, classes)
    with suppress(UserError):  # a cache that cannot be written costs time only
        write_sealed(path, {"digest": digest})
    return digest


Found = tuple[np.ndarray, str, dict[str, str]]


def stored(folder: Path) -> Found | None:
    """(pictures, digest, bad files) from the cache; None if they are not there or damaged."""
    try:
        facts: dict[str, Any] = read_sealed(folder / "facts.json")
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        if list(images.shape) != facts["shape"]:
            return None
        return images, str(facts["digest"]), dict(facts["bad"])
    except (Corrupt, OSError, EOFError, ValueError, KeyError, TypeError):
        return None


def decoded(
    folder: Path,
    parts: list[Part],
    order: list[tuple[int, int]],
    ids: np.ndarray,
    labels: np.ndarray | None,
    classes: Sequence[str],
    resolution: int,
    judge: Callable[[dict[str, str]], None],
    complain: Callable[[str], None],
) -> Found:
    """Decode everything into the cache, or into memory where that cannot be written. `judge` is told of bad files."""
    shape = (len(order), 3, resolution, resolution)
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
        images = _reserved(temporary / "images.npy", shape)
    except OSError as error:
        complain(f"decoded pictures cannot be kept in {folder.parent} ({error.strerror or error}): set AJEST_CACHE")
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        temporary, images = None, np.empty(shape, dtype=np.uint8)
    try:
        bad = _fill(images, parts, order, ids)
        judge(bad)
        if len(bad) == len(order):
            raise UserError(f"{parts[0].spec} holds no picture that can be read")
        if bad:
            whole = np.array([i not in bad for i in ids])
            labels = None if labels is None else labels[whole]
            images = _moved_up(images, whole)
            if temporary is not None:
                images = _shortened(temporary / "images.npy", images)
        digest = content_digest(images, labels, classes)
        if temporary is None:
            return images, digest, bad
        if isinstance(images, np.memmap):
            images.flush()
        write_sealed(temporary / "facts.json", {"shape": list(images.shape), "digest": digest, "bad": bad})
        faster = stored(folder)
        if faster is not None:  # another process was: it uses what lies there
            return faster
        shutil.rmtree(folder, ignore_errors=True)  # damaged, if there at all
        try:
            temporary.rename(folder)
        except OSError:
            if stored(folder) is None:
                raise
        return stored(folder) or (np.array(images), digest, bad)
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _reserved(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A new memory-mapped array whose room on the disk is taken: a full disk would kill the process while it is filled.

    Raises:
        OSError: there is no room.
    """
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.flush()
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, file.tell() + math.prod(shape))
        else:
            file.truncate(file.tell() + math.prod(shape))
    return np.lib.format.open_memmap(path, "r+")


def _moved_up(images: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The pictures that are whole, in place: a copy of a large set would not fit into memory."""
    rows = np.flatnonzero(whole)
    for start in range(0, len(rows), 1024):
        part = rows[start : start + 1024]
        images[start : start + len(part)] = images[part]
    return images[: len(rows)]


def _shortened(path: Path, images: np.ndarray) -> np.ndarray:
    """The file with the array's first rows alone."""
    final = path.with_suffix(".short")
    with final.open("wb") as file:
        write_rows(file, images, images.shape)
    final.replace(path)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def write_rows(file: IO[bytes], rows: np.ndarray, shape: tuple[int, ...], axes: tuple[int, ...] | None = None) -> None:
    """An array of pictures as .npy, some at a time; with `axes`, each transposed by these (0 stays the rows)."""
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    for start in range(0, len(rows), 1024):
        part = rows[start : start + 1024]
        file.write(np.ascontiguousarray(part if axes is None else part.transpose(axes)).data)


def _fill(images: np.ndarray, parts: list[Part], order: list[tuple[int, int]], ids: np.ndarray) -> dict[str, str]:
    """Decode all pictures, in threads; returns the bad ones with the reason."""
    bad: dict[str, str] = {}

    def one(row: int) -> None:
        part, number = order[row]
        try:
            images[row] = parts[part].load(number)
        except Unreadable as error:
            bad[str(ids[row])] = str(error)

    with progress("decoding pictures", len(order)) as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(one, range(len(order))):
            advance()
    return dict(sorted(bad.items()))


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(title), total=total)
        yield lambda: bar.advance(task)
