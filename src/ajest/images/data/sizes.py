"""How large the pictures of a data set are, before they are cropped and resized."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ...checkpoint import read_sealed, write_sealed
from ...errors import Corrupt, UserError
from .cache import cache_folder
from .files import Unreadable
from .joining import distinct, several
from .loading import in_order, progress
from .parts import Part, part_of
from .splits import Split


def sizes_of(spec: Sequence[str], split: Split = "train", cache: Path | None = None) -> Counter[tuple[int, int]]:
    """(width, height) of the stored pictures, and how many are so; looked up once and kept in the cache.

    Pictures that cannot be read are not counted.

    Raises:
        UserError: nothing to read.
    """
    parts = distinct([part_of(s, 64, split) for s in several(spec)])
    folder = cache_folder() if cache is None else cache
    return sum((_sizes(part, folder) for part in parts), Counter())


def _sizes(part: Part, cache: Path) -> Counter[tuple[int, int]]:
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
