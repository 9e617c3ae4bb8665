"""Arrays of images in an .npz: `images`, `labels`, `classes`, `names`, `ids`, and others that mean one thing only."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from ajest.errors import UserError, listed

from .edm import numbered
from .splits import Role, Split, role_of, roles_of, wanted_parts

MAX_INFLATED = 4 << 30  # bytes of a compressed array
_TEXTS = ("classes", "names", "ids")
_LABELS = frozenset(["label", "labels", "class", "target", "targets", "category", "y"])


@dataclass(frozen=True)
class Arrays:
    """What an .npz holds.

    Attributes:
        images: uint8, shape (N, H, W, 3), memory-mapped if they are stored uncompressed.
        ids: stable, one an image.
        keys: class key of each image, None for an unconditional set.
        words: names of classes for people, by key.
        identity: changes when the content does.
        notes: on arrays that are not used.
    """

    images: np.ndarray
    ids: list[str]
    keys: list[str] | None
    words: dict[str, str]
    identity: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype


def read_npz(path: Path, split: Split) -> Arrays:
    """Read what an .npz holds of a split.

    Raises:
        UserError: it is damaged; no array or several may be the images or their labels; or one is of another form.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            headers = {i.filename.removesuffix(".npy"): _header(archive, i) for i in members}
        check_sizes(path, members)
        return _arrays(path, headers, sorted(f"{i.filename} {i.file_size} {i.CRC}" for i in members), split)
    except UserError:
        raise
    except Exception as error:  # zlib.error, MemoryError of a false header, KeyError: a damaged file raises anything
        raise UserError(f"{path} cannot be read as .npz: {error}") from error


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> _Header:
    with archive.open(member) as file:
        shape, _, dtype = _read_header(file)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > member.file_size:  # before anything counts on it
        raise ValueError(f"{member.filename} says that it is larger than it is")
    return _Header(shape, dtype)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def check_sizes(path: Path, members: Iterable[zipfile.ZipInfo]) -> None:
    """Raise a UserError if a packed array would take more memory than `MAX_INFLATED`."""
    large = [i for i in members if i.compress_type != zipfile.ZIP_STORED and i.file_size > MAX_INFLATED]
    if large:
        raise UserError(
            f"{path}: {large[0].filename} would be inflated to {large[0].file_size / 2**30:.1f} GiB of memory: "
            "store it uncompressed (np.savez), so that it can be used in place"
        )


def _arrays(path: Path, headers: dict[str, _Header], marks: list[str], split: Split) -> Arrays:
    images, role = _images(path, headers, split)
    header = headers[images]
    mend = "" if header.dtype == np.uint8 else ": save levels from 0 to 255, whole, as uint8"
    if header.dtype != np.uint8 or len(header.shape) != 4 or header.shape[3] != 3 or 0 in header.shape:
        raise UserError(
            f"{path}: {images} must be uint8 of shape (N, H, W, 3), not {header.dtype} {header.shape}{mend}"
        )
    n = header.shape[0]
    labels = _labels(path, headers, role, n)
    texts = {name: _texts(path, headers, name) for name in _TEXTS if name in headers and name != labels}
    keys, words = _classes(path, headers, labels, n, texts) if labels else (None, {})
    ids = texts.get("ids", [f"{i:07d}" for i in range(n)])
    if len(ids) != n or len(set(ids)) < n:
        raise UserError(f"{path}: ids must be {n} different names, not {len(ids)} of which {len(set(ids))} differ")
    told = "\n".join([*marks, images, labels])
    identity = hashlib.blake2b(told.encode(errors="surrogateescape"), digest_size=16).hexdigest()
    by_name = labels and headers[labels].dtype.kind in "iu"
    idle = headers.keys() - {images, labels, "ids", *(texts if by_name else ())}
    notes = _notes(idle, images, n, role)
    if labels not in ("", "labels"):
        notes = (f"the labels are those of {labels}: call it otherwise to have it ignored", *notes)
    return Arrays(_mapped(path, images), ids, keys, words, identity, notes)


def _images(path: Path, headers: dict[str, _Header], split: Split) -> tuple[str, Role | None]:
    """(The array of images, the part that it is)."""
    if "images" in headers:
        return "images", None
    deep = [name for name, header in headers.items() if len(header.shape) > 2]
    roles = roles_of(deep)
    taken = wanted_parts(roles, split, str(path), "call the right array `images`") if roles else tuple(deep)
    if not taken:
        raise UserError(f"{path} has no array `images`, only {listed(headers) or 'nothing'}")
    if len(taken) > 1:
        raise UserError(f"{path}: several arrays may be the images, {listed(taken)}: call the right one `images`")
    return taken[0], role_of(taken[0])[0]


def _labels(path: Path, headers: dict[str, _Header], role: Role | None, n: int) -> str:
    """The array of labels; "" where there is none."""
    if "labels" in headers:
        return "labels"
    found = [name for name in headers if _may_be_labels(name) and role_of(name)[0] == role]
    if len(found) > 1:  # `classes` names the classes, and is as long as the images are many where it tells theirs
        found = [name for name in found if name != "classes"]
    elif found == ["classes"] and headers["classes"].shape[:1] != (n,):
        found = []
    if len(found) > 1:
        raise UserError(f"{path}: several arrays may be the labels, {listed(found)}: call the right one `labels`")
    return found[0] if found else ""


def _may_be_labels(name: str) -> bool:
    words = set(role_of(name)[1].split())
    return name == "arr_1" or (bool(words & _LABELS) and not words & {"name", "names"})


def _loaded(path: Path, headers: dict[str, _Header], name: str) -> np.ndarray:
    if headers[name].dtype.hasobject:
        raise UserError(f"{path}: {name} holds objects of Python, which are never loaded: save it as numbers or texts")
    with np.load(path, allow_pickle=False) as content:
        return content[name]


def _texts(path: Path, headers: dict[str, _Header], name: str) -> list[str]:
    return list(map(str, _loaded(path, headers, name).astype(str).reshape(-1).tolist()))


def _classes(
    path: Path, headers: dict[str, _Header], labels: str, n: int, texts: dict[str, list[str]]
) -> tuple[list[str], dict[str, str]]:
    """(Class key of each image, names of classes for people)."""
    values = _loaded(path, headers, labels)
    if values.shape not in ((n,), (n, 1)) or values.dtype.kind not in "iuUS":
        hint = ": of rows with a single 1, save argmax(1)" if values.ndim == 2 else ""
        raise UserError(
            f"{path}: {labels} must be {n} whole numbers from 0 on, or names, not {values.dtype} {values.shape}{hint}"
        )
    if values.dtype.kind in "US":
        return list(map(str, values.reshape(-1).astype(str).tolist())), {}
    numbers = [int(value) for value in values.reshape(-1).tolist()]
    if min(numbers) < 0:
        raise UserError(f"{path}: {labels} must be {n} whole numbers from 0 on, and one is {min(numbers)}")
    keys, words = numbered(max(numbers), texts.get("classes", []), texts.get("names", []), f"{path}: {labels}")
    return [keys[k] if keys else str(k) for k in numbers], words


def _notes(idle: Collection[str], images: str, n: int, role: Role | None) -> tuple[str, ...]:
    other = sorted(name for name in idle if role and role_of(name)[0] not in (role, None))
    left = sorted(set(idle) - set(other))
    notes = [f"{images} is read ({n:,} images); left out: {listed(other)}"] if other else []
    notes += [f"array{'s' if len(left) > 1 else ''} not used: {listed(left)}"] if left else []
    return tuple(notes)


def _mapped(path: Path, name: str) -> np.ndarray:
    """An array of images, memory-mapped in place if it is stored uncompressed."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        with np.load(path, allow_pickle=False) as content:
            return content[name]
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        lengths = int.from_bytes(file.read(2), "little") + int.from_bytes(file.read(2), "little")
        file.seek(info.header_offset + 30 + lengths)
        shape, fortran, dtype = _read_header(file)
        if fortran or dtype.hasobject:
            raise ValueError(f"{name} must be a plain array in C order")
        return np.memmap(path, dtype, "r", file.tell(), shape)
