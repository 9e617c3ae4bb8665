"""Data sets of vectors: rows to learn and rows held out, in coordinates of mean 0 and standard deviation 1."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ajest.errors import UserError, check, listed
from ajest.runtime.seeding import generator

from . import builtin
from .readers import Table, read

LEAST_LEARNED, LEAST_HELD_OUT = 128, 32
MOST_HELD_OUT = 10_000
MOST_CLASSES = 1000


@dataclass(frozen=True)
class Standard:
    """What the user's coordinates were before they were brought to mean 0 and standard deviation 1.

    Attributes:
        mean: of each coordinate, d numbers.
        scale: standard deviation of each; 0 for one that is constant.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @staticmethod
    def of(x: np.ndarray) -> Standard:
        """The standard of some rows, shape (n, d).

        Raises:
            UserError: numbers are so large or so close together that their standard deviation is no number.
        """
        constant = x.min(0) == x.max(0)
        with np.errstate(all="ignore"):
            mean = np.where(constant, x[0], x.mean(0))
            scale = np.where(constant, 0.0, x.std(0))
        bad = ~np.isfinite(mean) | ~np.isfinite(scale) | (~constant & (scale == 0))
        check(
            not bad.any(),
            f"column {int(bad.argmax())} has no standard deviation in float64: bring its numbers to a usual size",
        )
        return Standard(tuple(mean.tolist()), tuple(scale.tolist()))

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Rows (n, d) of the user's as float32 of mean 0 and standard deviation 1; constants become 0."""
        scale = np.array(self.scale)
        return ((x - np.array(self.mean)) / np.where(scale == 0, 1.0, scale)).astype(np.float32)

    def undo(self, z: np.ndarray) -> np.ndarray:
        """Standardised rows (n, d) in the user's coordinates, float64; constants are what they were."""
        return z.astype(np.float64) * np.array(self.scale) + np.array(self.mean)


@dataclass(frozen=True)
class Rows:
    """Rows of a data set.

    Attributes:
        x: float64, shape (N, d), in the user's coordinates.
        labels: key of each row's class, or None.
        columns: names of the coordinates, or ().
        number: of each row in the data set, shape (N,).
        notes: on what was left out or taken for something.
    """

    x: np.ndarray
    labels: list[str] | None
    columns: tuple[str, ...]
    number: np.ndarray
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: np.ndarray) -> Rows:
        """Some of the rows, by their places."""
        labels = None if self.labels is None else [self.labels[i] for i in rows]
        return Rows(self.x[rows], labels, self.columns, self.number[rows], self.notes)

    @property
    def digest(self) -> str:
        """Of all numbers and labels."""
        found = hashlib.blake2b(json.dumps([self.x.shape, self.labels]).encode(), digest_size=16)
        found.update(np.ascontiguousarray(self.x, dtype="<f8").data)
        return found.hexdigest()


def opened(specs: tuple[str, ...]) -> Rows:
    """All rows of some data sets of the same columns, one after the other.

    Args:
        specs: files (.npy, .npz, .csv, .parquet), or names of built-in sets.

    Raises:
        UserError: one cannot be read, or they differ in columns or in whether they have labels.
    """
    check(bool(specs), f"no vectors are named: name a file, or one of {listed(builtin.NAMES)}")
    tables = [builtin.built_in(s) if builtin.is_keyword(s) else read(Path(s)) for s in specs]
    first = tables[0]
    for spec, table in zip(specs, tables, strict=True):
        _check_alike(f"{specs[0]} and {spec}", first, table)
    x = first.x if len(tables) == 1 else np.concatenate([t.x for t in tables])
    labels = None if first.labels is None else [key for t in tables for key in t.labels or ()]
    notes = tuple(note for t in tables for note in t.notes)
    return Rows(x, labels, first.columns, np.arange(len(x)), notes)


def _check_alike(what: str, first: Table, other: Table) -> None:
    widths = first.x.shape[1], other.x.shape[1]
    check(widths[0] == widths[1], f"{what} have {widths[0]} and {widths[1]} columns: they must be the same ones")
    named = bool(first.columns and other.columns)
    check(
        not named or first.columns == other.columns,
        f"{what} have other columns, or in another order: {listed(first.columns, 5)}; {listed(other.columns, 5)}",
    )
    check((first.labels is None) == (other.labels is None), f"{what}: one has labels and the other has none")


def split(rows: Rows, validation: Rows | None = None) -> tuple[Rows, Rows]:
    """(rows to learn, rows held out): of data that come without held-out ones a fifth, at most 10,000. Which ones
    follows from their number alone.

    Raises:
        UserError: too few of either, or held-out rows of other columns, or the same ones.
    """
    if validation is None:
        held = max(LEAST_HELD_OUT, min(len(rows) // 5, MOST_HELD_OUT))
        least = LEAST_LEARNED + LEAST_HELD_OUT
        check(
            len(rows) >= least, f"{len(rows):,} vectors are too few to learn from and to judge by: {least} are needed"
        )
        order = torch.randperm(len(rows), generator=generator(0, "vectors", "held out", len(rows))).numpy()
        return rows.take(np.sort(order[held:])), rows.take(np.sort(order[:held]))
    _check_alike("data and validation", *(Table(r.x, r.labels, r.columns) for r in (rows, validation)))
    for what, found, least in (("learn from", rows, LEAST_LEARNED), ("judge by", validation, LEAST_HELD_OUT)):
        check(len(found) >= least, f"{len(found):,} vectors are too few to {what}: {least} are needed")
    check(rows.digest != validation.digest, "the held-out vectors are those to learn from: name others, or none")
    return rows, validation


def classes_of(learned: Rows, held_out: Rows) -> tuple[str, ...]:
    """Keys of the classes of rows to learn, in order; () where they have no labels.

    Raises:
        UserError: more classes than can be learned, or a held-out one that is not among them.
    """
    if learned.labels is None or held_out.labels is None:
        return ()
    counted = Counter(learned.labels)
    most = min(MOST_CLASSES, len(learned) // 2)
    check(
        len(counted) <= most,
        f"the labels of {len(learned):,} vectors are {len(counted):,} different ones: {most:,} are the most that can "
        "be learned; leave the labels out",
    )
    strange = sorted(set(held_out.labels) - counted.keys())
    check(not strange, f"held-out vectors have labels that no other has: {listed(strange, 5)}; leave these out")
    try:
        return tuple(sorted(counted, key=int))
    except ValueError:
        return tuple(sorted(counted))


@dataclass(frozen=True)
class Part:
    """Rows as they are learned or judged by.

    Attributes:
        x: float32, shape (n, d), standardised.
        label: number of each one's class, int64 of shape (n,), or None.
        number: of each row in the data set.
    """

    x: torch.Tensor
    label: torch.Tensor | None
    number: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def spread(self, most: int) -> Part:
        """At most so many of them, evenly spaced."""
        if len(self) <= most:
            return self
        rows = torch.linspace(0, len(self) - 1, most, dtype=torch.float64).round().long()
        return Part(self.x[rows], None if self.label is None else self.label[rows], self.number[rows.numpy()])


@lru_cache(maxsize=4)
def parts(
    data: tuple[str, ...], validation: tuple[str, ...], digests: tuple[str, str], standard: Standard
) -> tuple[Part, Part]:
    """(rows to learn, rows held out) of a task, standardised.

    Args:
        data, validation: see `opened`; no validation holds out a part of the data.
        digests: of both parts when the task was made.
        standard: of the coordinates.

    Raises:
        UserError: the data cannot be read, or are not what they were.
    """
    found = split(opened(data), opened(validation) if validation else None)
    if tuple(rows.digest for rows in found) != digests:
        raise UserError(f"{listed(data)} holds other vectors than this run was made with: name the old data set")
    keys = {key: i for i, key in enumerate(classes_of(*found))}
    learned, held_out = (
        Part(
            torch.from_numpy(standard.apply(rows.x)),
            None if rows.labels is None else torch.tensor([keys[key] for key in rows.labels]),
            rows.number,
        )
        for rows in found
    )
    return learned, held_out
