"""What a data set holds, before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ajest.tasks.images.sheets import mosaic

from .changes import Changes, phrase
from .joining import distinct, joined, notes_of, several
from .loading import loaded
from .parts import part_of
from .splits import Split

_COLUMNS = 16


@dataclass(frozen=True)
class Description:
    """Counts of a data set.

    Attributes:
        layouts: of each SPEC.
        total: images, bad ones too.
        sizes: (width, height) and how often.
        modes: of pixels (RGB, L, CMYK, ...) and how often.
        classes: images by class key, rarest first; {} for an unconditional set.
        names: of the classes.
        bad: files that cannot be read, with the reason.
        notes: what was left out, merged, changed or taken for something.
        sheet: some images of different classes, uint8 (h, w, 3).
    """

    layouts: tuple[str, ...]
    total: int
    sizes: Counter[tuple[int, int]]
    modes: Counter[str]
    classes: dict[str, int]
    names: dict[str, str]
    bad: dict[str, str]
    notes: tuple[str, ...]
    sheet: np.ndarray


def describe(spec: Sequence[str], resolution: int = 64, split: Split = "train", shown: int = 96) -> Description:
    """Look at every image whole: a truncated one has a sound header.

    Raises:
        UserError: nothing to read.
    """
    parts = distinct([part_of(s, resolution, split) for s in several(spec)])
    order, labels, classes, names = joined(parts)
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    bad = {name: why for part in parts for name, why in part.refused.items()}

    changes = Changes()
    # Spread over the list, which is sorted by class in most layouts.
    places = set(np.linspace(0, len(order) - 1, min(shown, len(order))).round().astype(int).tolist())
    thumbnails = []

    for row, ((p, i), seen) in enumerate(zip(order, loaded(parts, order, "looking at images"), strict=True)):
        if isinstance(seen, str):
            bad[parts[p].ids[i]] = seen
            continue
        sizes[seen.size] += 1
        modes[seen.mode] += 1
        changes.add(parts[p].ids[i], seen)
        if row in places:
            thumbnails.append(seen.pixels)
    counted = Counter() if labels is None else Counter(labels.tolist())
    balance = {classes[k]: n for k, n in sorted(counted.items(), key=lambda kn: (kn[1], kn[0]))}
    said = (*notes_of(parts, classes), phrase(changes.counts), changes.contradiction())
    notes = tuple(text for text in said if text)
    layouts = tuple(part.layout for part in parts)
    sheet = mosaic(thumbnails, _COLUMNS)
    words = dict(zip(classes, names, strict=True))
    return Description(layouts, len(order), sizes, modes, balance, words, bad, notes, sheet)
