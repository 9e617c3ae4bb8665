"""Images of one channel: the luminance of decoded ones, made once and memory-mapped from then on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from .cache import cache_folder
from .locks import sole_writer
from .sets import ImageSet

_BLOCK = 1024
#: Of red, green and blue in 65,536ths (ITU-R BT.601), as Pillow's mode L has them.
_WEIGHTS = np.array([19_595, 38_470, 7_471], dtype=np.uint32)


def luminance(images: np.ndarray) -> np.ndarray:
    """uint8 (n, 3, h, w) to uint8 (n, 1, h, w)."""
    weighed = np.tensordot(images.astype(np.uint32), _WEIGHTS, axes=(1, 0))
    return ((weighed + 0x8000) >> 16).astype(np.uint8)[:, None]


def grey(found: ImageSet, warn: Callable[[str], None] = print, cache: Path | None = None) -> ImageSet:
    """The same set in grey. Where the cache cannot be written to, it is held in memory."""
    digest = hashlib.blake2b(f"grey {found.digest}".encode(), digest_size=16).hexdigest()
    folder = (cache_folder() if cache is None else cache) / "grey"
    path, shape = folder / f"{digest}.npy", (len(found), 1, *found.images.shape[2:])
    with sole_writer(folder.parent / "locks" / digest, warn):
        with suppress(OSError, ValueError, EOFError):
            kept = np.load(path, mmap_mode="r", allow_pickle=False)
            if kept.shape == shape:
                return replace(found, images=kept, digest=digest)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".tmp")
            made = np.lib.format.open_memmap(unfinished, "w+", np.uint8, shape)
            _fill(made, found.images)
            made.flush()
            unfinished.replace(path)
            images = np.load(path, mmap_mode="r", allow_pickle=False)
        except OSError:
            images = np.empty(shape, np.uint8)
            _fill(images, found.images)
        return replace(found, images=images, digest=digest)


def _fill(made: np.ndarray, images: np.ndarray) -> None:
    for start in range(0, len(images), _BLOCK):
        made[start : start + _BLOCK] = luminance(np.array(images[start : start + _BLOCK]))
