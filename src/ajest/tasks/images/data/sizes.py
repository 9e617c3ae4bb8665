"""How large the images of a data set are, before they are cropped and resized."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ajest.errors import Corrupt, UserError
from ajest.storage.checkpoint import read_sealed, write_sealed

from .cache import cache_folder
from .files import Unreadable
from .joining import distinct, several
from .loading import in_order, progress
from .parts import Part, part_of
from .splits import Split

#: Heights and widths that every network of `images.architecture.SIZES` can learn.
RESOLUTIONS = range(16, 257, 8)
USUAL_RESOLUTION = 64  # that of the published networks (docs/method.md#images), and of presets' times


def check_resolution(resolution: int) -> None:
    """Raise a UserError unless networks can learn images of this height and width."""
    if resolution not in RESOLUTIONS:
        near = min(RESOLUTIONS, key=lambda r: (abs(r - resolution), -r))
        raise UserError(f"resolution {resolution}: it must be a multiple of 8 from 16 to 256, such as {near}")


def resolution_of(sizes: Counter[tuple[int, int]]) -> int:
    """The images' own height and width if all are square and of one size that networks can learn, else the usual
    one."""
    width, height = next(iter(sizes)) if len(sizes) == 1 else (0, 1)
    return width if width == height and width in RESOLUTIONS else USUAL_RESOLUTION


def what_is_changed(sizes: Counter[tuple[int, int]], resolution: int, what: str = "images", mend: str = "") -> str:
    """What happens to images of these sizes, in one sentence with `mend` at its end; empty if nothing does."""
    total, square = sizes.total(), f"{resolution} x {resolution}"
    resized = total - sizes[resolution, resolution]
    cropped = sum(n for (w, h), n in sizes.items() if w != h)
    how = f"resized to {square}" + (f", {cropped:,} of them cropped to a square first" if cropped else "")
    where = f" (all are {' x '.join(map(str, next(iter(sizes))))})" if len(sizes) == 1 else ""
    return f"{resized:,} of {total:,} {what} are {how}{where}{mend}" if resized else ""


def sizes_of(spec: Sequence[str], split: Split = "train", cache: Path | None = None) -> Counter[tuple[int, int]]:
    """(width, height) of the stored images, and how many are so; looked up once and kept in the cache.

    Images that cannot be read are not counted.

    Raises:
        UserError: nothing to read.
    """
    parts = distinct([part_of(s, 64, split) for s in several(spec)])
    folder = cache_folder() if cache is None else cache
    return sum((_sizes(part, folder) for part in parts), Counter())


def _sizes(part: Part, cache: Path) -> Counter[tuple[int, int]]:
    if part.one_size:  # to look at a million one by one would take a minute
        return Counter({part.size(0): len(part.ids)})
    key = hashlib.blake2b(part.identity.encode(errors="surrogateescape"), digest_size=16).hexdigest()
    path = cache / "sizes" / f"{key}.json"
    with suppress(Corrupt, KeyError, TypeError, ValueError):
        return Counter({(int(w), int(h)): int(n) for w, h, n in read_sealed(path)["sizes"]})

    def look(i: int) -> tuple[int, int] | None:
        try:
            return part.size(i)
        except Unreadable:
            return None

    found: Counter[tuple[int, int]] = Counter()
    with progress("looking at sizes", len(part.ids)) as advance:
        for size in in_order(look, range(len(part.ids))):
            advance()
            if size is not None:
                found[size] += 1
    with suppress(UserError):  # a cache that cannot be written costs time only
        write_sealed(path, {"sizes": [[w, h, n] for (w, h), n in found.items()]})
    return found
