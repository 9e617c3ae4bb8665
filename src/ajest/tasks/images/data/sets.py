"""Data sets of images, decoded once and memory-mapped from then on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ajest.errors import UserError, listed
from ajest.runtime.distributed import rank

from .cache import Wanted, cache_folder, decoded, remembered
from .changes import phrase
from .decoding import VERSION
from .joining import distinct, joined, notes_of, report_bad, several
from .parts import part_of
from .splits import Split


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Decoded images.

    Attributes:
        images: uint8, shape (N, 3, R, R), memory-mapped where possible.
        labels: int64, shape (N,), numbers into `classes`; None for an unconditional set.
        classes: key of each class, sorted: WordNet id or folder name.
        names: of each class for people.
        ids: stable id of each image, shape (N,), str: its path inside the data set; where two archives share paths,
            after the archive's name.
        digest: of images, labels and classes.
        latents: of the images, where these are what is learned, see `data.latents`.
        embeddings: of the images, shape (N, d) or (N, l, d), where networks are told these in the place of labels.
    """

    images: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    names: tuple[str, ...]
    ids: np.ndarray
    digest: str
    latents: np.ndarray | None = None
    embeddings: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)

    def only(self, classes: tuple[str, ...]) -> ImageSet:
        """The images of some classes alone, labelled by numbers into these; all of them without labels for ().

        Raises:
            UserError: none of the images has such a class, or they have no classes at all.
        """
        if classes == self.classes:
            return self
        if self.labels is None:
            raise UserError("the validation images have no classes, and the training images have")
        if not classes:
            return replace(self, labels=None, classes=(), names=(), digest=self._digest_of(()))
        here = tuple(c for c in self.classes if c in classes)
        if not here:
            raise UserError(f"no image has one of the classes {listed(classes)}")
        rows = np.flatnonzero(np.isin(self.labels, [self.classes.index(c) for c in here]))
        numbers = np.array([here.index(c) if c in here else -1 for c in self.classes])
        names = tuple(n for n, c in zip(self.names, self.classes, strict=True) if c in here)
        whole = len(rows) == len(self)  # a mapped file stays one
        images = self.images if whole else self.images[rows]
        latents = self.latents if whole or self.latents is None else self.latents[rows]
        labels, digest = numbers[self.labels[rows]], self._digest_of(here)
        found = ImageSet(images, labels, here, names, self.ids[rows], digest, latents)
        return found.relabelled(classes)

    def embedded(self, embeddings: np.ndarray, digest: str) -> ImageSet:
        """All of the images, without classes, with an embedding each.

        Args:
            embeddings: shape (N, d) or (N, l, d).
            digest: of where they come from.
        """
        plain = self.only(())
        return replace(plain, embeddings=embeddings, digest=plain._digest_of((digest,)))

    def _digest_of(self, classes: tuple[str, ...]) -> str:
        return hashlib.blake2b(json.dumps([self.digest, classes]).encode(), digest_size=16).hexdigest()

    def relabelled(self, classes: tuple[str, ...]) -> ImageSet:
        """With labels as numbers into these classes, as for validation images of another set's classes.

        Raises:
            UserError: a class of this set is not among them, or only one of both has classes.
        """
        if classes == self.classes:
            return self
        missing = sorted(set(self.classes) - set(classes))
        if missing or self.labels is None:
            what = f"classes that the training images lack: {listed(missing)}" if missing else "no classes"
            raise UserError(f"the validation images have {what}")
        places = np.array([classes.index(c) for c in self.classes])
        known = dict(zip(self.classes, self.names, strict=True))
        names = tuple(known.get(c, c) for c in classes)
        return replace(self, labels=places[self.labels], classes=classes, names=names)


def open_images(
    spec: Sequence[str],
    resolution: int = 64,
    split: Split = "train",
    skip_bad: bool = False,
    cache: Path | None = None,
    warn: Callable[[str], None] = print,
) -> ImageSet:
    """Read a data set; what had to be decoded is kept in the cache and memory-mapped the next time.

    Args:
        spec: one SPEC or several that make one data set: a folder or zip in Tiny ImageNet's layout, with a folder for
            each class, flat, or with EDM's dataset.json; an .npz; a .tar or a folder of
            them, as WebDataset has them; Parquet; `hf:NAME[:split]`; `shapes[:N]`.
        resolution: images are centre-cropped and resized to this height and width.
        split: which part of a data set that has both; others are taken whole.
        skip_bad: go on without files that cannot be read.
        cache: folder for decoded images; None is `cache_folder()`.
        warn: told what was left out, merged, changed or taken for something; in the first process alone.

    Raises:
        UserError: nothing to read; bad files, all named; a SPEC that is there twice.
    """
    if rank():
        warn = _silent
    parts = distinct([part_of(s, resolution, split) for s in several(spec)])
    refused = {name: why for part in parts for name, why in part.refused.items()}
    order, labels, classes, names = joined(parts)
    for note in notes_of(parts, classes):
        warn(note)
    ids = np.array([parts[p].ids[i] for p, i in order])
    ordered = hashlib.blake2b("\n".join(map(str, ids)).encode(errors="surrogateescape")).hexdigest()  # and their order
    identity = "\n".join([str(VERSION), str(resolution), *sorted(p.identity for p in parts), *classes, ordered])
    key = hashlib.blake2b(identity.encode(errors="surrogateescape"), digest_size=16).hexdigest()
    folder = (cache_folder() if cache is None else cache) / "images" / key
    direct = parts[0].direct
    # Only where ids are in order: labels are sorted by id, the images lie as they lie.
    if len(parts) == 1 and direct is not None and all(i == row for row, (_, i) in enumerate(order)):
        return ImageSet(direct, labels, classes, names, ids, remembered(folder, direct, labels, classes, warn))

    def judge(bad: dict[str, str]) -> None:
        report_bad(refused | bad, skip_bad, warn)

    found = decoded(folder, Wanted(parts, order, ids, labels, classes, resolution), judge, warn)
    if found.changes:
        warn(f"{listed([part.spec for part in parts])}: {phrase(found.changes)}")
    if found.bad:
        whole = ~np.isin(ids, list(found.bad))
        ids, labels = ids[whole], None if labels is None else labels[whole]
    read = ImageSet(found.images, labels, classes, names, ids, found.digest)
    left = classes if labels is None else tuple(classes[k] for k in np.unique(labels))
    if len(left) < len(classes):
        warn(f"no image that can be read is of {listed(c for c in classes if c not in left)}: left out")
    return read.only(left)


def _silent(text: str) -> None:
    """Say nothing."""
