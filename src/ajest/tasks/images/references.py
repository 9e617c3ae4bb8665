"""What samples are compared with: statistics of real images in a network's features, kept by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ajest.errors import Corrupt
from ajest.runtime import distributed
from ajest.storage import checkpoint
from ajest.tasks.images.data.cache import sole_writer
from ajest.tasks.images.data.loading import progress

from . import quality
from .data import balanced
from .extractors import BATCH, Extractor, extract
from .quality import Moments

NEAR = 5000  # references whose features are kept one by one, for KID and the neighbour metrics
_BLOCK = 512  # images read and joined at a time


#: Where real images come from that are compared with the references as samples are.
Pool = Literal["validation", "spare", "references"]


@dataclass(frozen=True)
class Stock:
    """How many real images there are, and what each is for.

    Attributes:
        size: training images.
        references: those that samples are compared with; more than `size` are all.
        held_out: validation images.
    """

    size: int
    references: int
    held_out: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "references", min(self.references, self.size))

    def rows(self, labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the references among training images of these labels, and of those that KID and the neighbour
        metrics look at; both rising, both of all classes alike."""
        rows = balanced(labels, self.size, self.references)
        return rows, rows[balanced(labels if labels is None else labels[rows], len(rows), NEAR)]

    def pool(self, n: int) -> tuple[Pool, int]:
        """(where n other real images come from, how many there are): the first of three pools that has enough, or
        else the largest. Of the references at most half are taken."""
        pools: tuple[tuple[Pool, int], ...] = (
            ("validation", self.held_out),
            ("spare", self.size - self.references),
            ("references", self.references // 2),
        )
        return next((pool for pool in pools if pool[1] >= n), max(pools, key=lambda pool: pool[1]))

    def others(self, pool: Pool, labels: np.ndarray | None, n: int) -> np.ndarray:
        """Numbers of n images of a pool, of all classes alike: of validation images or of training images, which
        the labels belong to. Of the references those come first that KID and the neighbour metrics do not look at."""
        if pool == "validation":
            return balanced(labels, self.held_out, n)
        rows, near = self.rows(labels)
        free = np.setdiff1d(np.arange(self.size), rows) if pool == "spare" else np.setdiff1d(rows, near)
        free = rows if len(free) < n else free
        return free[balanced(labels if labels is None else labels[free], len(free), n)]

    def notes(self, n: int) -> tuple[str, str]:
        """What n samples are compared with, and which real images are compared as they are, in a sentence each."""
        part = f"all {self.size:,}" if self.references == self.size else f"{self.references:,} of the {self.size:,}"
        fewer = f", in KID and the neighbour metrics with {NEAR:,} of these" if self.references > NEAR else ""
        pool, there = self.pool(n)
        taken = min(n, there)
        kind = {
            "validation": "validation images",
            "spare": "training images that are no references",
            "references": f"training images, compared with the other {self.references - taken:,}",
        }[pool]
        less = "" if there >= n else ": too few for metrics that depend on their number"
        return (
            f"Samples are compared with {part} training images{fewer}.",
            f"Real examples are {taken:,} {kind}{less}.",
        )


@dataclass(frozen=True, eq=False)
class References:
    """Real images as a network sees them.

    Attributes:
        moments: of the features of all of them.
        near: features of some of them, float32, shape (m, d).
        rows: numbers of these in the data set, rising, shape (m,).
    """

    moments: Moments
    near: Tensor
    rows: np.ndarray

    def without(self, rows: np.ndarray, features: Tensor) -> References:
        """What is left when images, at most half of all, are taken away.

        Args:
            rows: their numbers in the data set.
            features: of them, in this order.
        """
        stays = ~np.isin(self.rows, rows)
        moments = quality.without(self.moments, quality.moments(features))
        return References(moments, self.near[torch.from_numpy(stays)], self.rows[stays])


def references_of(
    images: np.ndarray,
    rows: np.ndarray,
    near: np.ndarray,
    digest: str,
    network: Extractor,
    cache: Path,
    batch: int = BATCH,
) -> References:
    """Statistics of real images, kept in the folder `cache` by content and network.

    No more than a block of images and the features of `near` are in memory at a time.

    Args:
        images: uint8, shape (N, 3, R, R).
        rows: numbers of the references, rising.
        near: numbers of those whose features are kept one by one, rising, among `rows`.
        digest: of the content and order of all images.
        network: the feature network; its `identity` tells its weights.
        cache: folder. What is damaged in there is made anew.
        batch: images that the network looks at together, see `extract`.

    Raises:
        UserError: the folder cannot be written to.
    """
    chosen = hashlib.blake2b(rows.astype("<i8").tobytes() + near.astype("<i8").tobytes(), digest_size=16).hexdigest()
    what = f"{digest}\n{network.identity}\n{images.shape[1:]}\n{len(rows)} {len(near)} {chosen}"
    stem = cache / "references" / hashlib.blake2b(what.encode(), digest_size=16).hexdigest()
    with _alone(stem):
        kept = _kept(stem, near, network.width)
        if not distributed.anywhere(kept is None) and kept is not None:
            return kept
        found = _measured(images, rows, near, network, batch)
        tensors = {"mean": found.moments.mean, "cov": found.moments.cov, "near": found.near}
        checkpoint.save(stem, tensors, {"images": len(rows), "data": digest, "network": network.identity})
        return found


@contextmanager
def _alone(stem: Path) -> Iterator[None]:
    """Other commands that want the same wait; the processes of one command work together."""
    if distributed.world() > 1:
        yield
        return
    with sole_writer(stem, lambda _: None):
        yield


def _measured(images: np.ndarray, rows: np.ndarray, near: np.ndarray, network: Extractor, batch: int) -> References:
    close: list[Tensor] = []

    def blocks() -> Iterator[Tensor]:
        with progress(f"features for {network.distance}", -(-len(rows) // _BLOCK)) as advance:
            for start in range(0, len(rows), _BLOCK):
                block = rows[start : start + _BLOCK]
                found = extract(images[block], network, batch).features
                close.append(found[torch.from_numpy(np.isin(block, near))])
                advance()
                yield found

    return References(quality.streamed(blocks()), torch.cat(close), near)


def _kept(stem: Path, near: np.ndarray, width: int) -> References | None:
    try:
        stored = checkpoint.load(stem)
        mean, cov, close = (stored.tensors[name] for name in ("mean", "cov", "near"))
        whole = mean.shape == (width,) and cov.shape == (width, width) and close.shape == (len(near), width)
        return References(Moments(mean, cov, int(stored.facts["images"])), close, near) if whole else None
    except (Corrupt, KeyError, ValueError, TypeError):
        return None


def remembered(
    name: str, what: Sequence[object], cache: Path, make: Callable[[], dict[str, float]]
) -> dict[str, float]:
    """Numbers that are made once and then kept in the folder `cache` by all that decides them.

    Raises:
        UserError: the folder cannot be written to.
    """
    path = (
        cache / "references" / f"{name}-{hashlib.blake2b(json.dumps(what).encode(), digest_size=16).hexdigest()}.json"
    )
    try:
        kept: dict[str, float] | None = checkpoint.read_sealed(path)
    except Corrupt:
        kept = None
    if not distributed.anywhere(kept is None) and kept is not None:
        return kept
    found = make()
    checkpoint.write_sealed(path, found)
    return found
