"""Embeddings of images, such as features of their captions, in the place of classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zipfile import ZipFile

import numpy as np

from ajest.errors import UserError, check, listed

from .npz import check_sizes
from .sets import ImageSet

#: What a file of embeddings holds.
IDS, EMBEDDINGS = "ids", "embeddings"


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Embeddings by the ids of their images.

    Attributes:
        rows: where each id lies.
        values: floats, shape (N, d), or (N, l, d) such as l tokens of a text.
        digest: of both.
    """

    rows: dict[str, int]
    values: np.ndarray
    digest: str

    def of(self, images: ImageSet) -> ImageSet:
        """The images with these embeddings, and without classes.

        Raises:
            UserError: some images have none.
        """
        missing = [str(name) for name in images.ids if str(name) not in self.rows]
        check(
            not missing,
            f"{len(missing):,} of {len(images):,} images have no embedding: {listed(missing, 3)}; name a file that has "
            "them too (an id is the path of an image within its data set)",
        )
        return images.embedded(self.values[[self.rows[str(name)] for name in images.ids]], self.digest)


def read_embeddings(paths: Sequence[str]) -> Embeddings:
    """What .npz files hold: `ids`, the ids of images, and `embeddings`, a row of finite floats for each.

    Args:
        paths: of one file or several, whose rows have one shape.

    Raises:
        UserError: no such file, or one of another form; an id that is there twice.
    """
    changed = tuple((path, *_stamp(Path(path))) for path in paths)
    return _read(changed)


def _stamp(path: Path) -> tuple[int, int]:
    check(path.is_file(), f"there is no file of embeddings {path}")
    found = path.stat()
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=2)
def _read(files: tuple[tuple[str, int, int], ...]) -> Embeddings:
    names, parts = list[str](), list[np.ndarray]()
    for path, *_ in files:
        ids, values = _one(path)
        shape = parts[0].shape[1:] if parts else values.shape[1:]
        check(
            values.shape[1:] == shape,
            f"embeddings of {path} have shape {values.shape[1:]}, those of {files[0][0]} {shape}: they must be alike",
        )
        names += ids
        parts.append(values)
    rows = {name: row for row, name in enumerate(names)}
    if len(rows) < len(names):
        twice = [name for row, name in enumerate(names) if rows[name] != row]
        raise UserError(f"embeddings are there twice of {listed(twice, 3)}: keep one of each")
    values = np.concatenate(parts) if len(parts) > 1 else parts[0]
    digest = hashlib.blake2b("\n".join(names).encode(errors="surrogateescape"), digest_size=16)
    digest.update(np.ascontiguousarray(values).data)
    return Embeddings(rows, values, digest.hexdigest())


def _one(path: str) -> tuple[list[str], np.ndarray]:
    try:
        with ZipFile(path) as archive:
            kept = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            lacking = [name for name in (IDS, EMBEDDINGS) if name not in kept]
            check(not lacking, f"{path} lacks {listed(lacking)}: write it by np.savez({Path(path).name!r}, ids=..., "
                  "embeddings=...)")  # fmt: skip
            check_sizes(Path(path), kept.values())
        with np.load(path, allow_pickle=False) as stored:
            ids, values = stored[IDS], stored[EMBEDDINGS]
    except UserError:
        raise
    except Exception as error:  # a damaged file raises anything
        raise UserError(f"{path} is no .npz of embeddings: {error}") from error
    check(
        values.dtype.kind == "f" and values.ndim in (2, 3) and ids.shape == values.shape[:1] and values.size > 0,
        f"{path} holds {len(ids) if ids.ndim else 0:,} ids and embeddings of {values.dtype} and shape {values.shape}: "
        "give an id and a row of floats, shape (N, d) or (N, l, d), for each image",
    )
    values = values.astype(np.float32, copy=False)
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(1))
    check(not len(bad), f"embeddings of {path} are not finite for {listed(ids[bad], 3)}")
    return [str(name) for name in ids], values
