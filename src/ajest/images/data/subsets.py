"""Parts of a data set: its classes by name, and examples spread over them."""

from __future__ import annotations

import numpy as np

from ...config import check
from ...errors import listed, unknown
from .sets import ImageSet


def classes_wanted(pictures: ImageSet, wanted: int | tuple[str, ...] | None) -> tuple[str, ...]:
    """The keys of classes asked for by number or name."""
    known = pictures.classes
    if wanted is None or not known or (isinstance(wanted, int) and wanted >= len(known)):
        return known
    if isinstance(wanted, int):
        check(wanted >= 1, f"at least one class must be learned, not {wanted}")
        return tuple(known[i * len(known) // wanted] for i in range(wanted))
    return tuple(sorted({known[class_number(name, known, pictures.names)] for name in wanted}))


def class_number(name: str, keys: tuple[str, ...], names: tuple[str, ...]) -> int:
    """The number of a class by its key or its name.

    Raises:
        UserError: there is no such class.
    """
    known = {**{n.lower(): i for i, n in enumerate(names)}, **{k.lower(): i for i, k in enumerate(keys)}}
    if name.lower() not in known:
        raise unknown("class", name, known)
    return known[name.lower()]


def of_classes(held_out: ImageSet, known: tuple[str, ...], learned: tuple[str, ...]) -> tuple[ImageSet, list[str]]:
    """(The held-out pictures of the classes that are learned, what is to be said of the others).

    Args:
        held_out: pictures of any classes.
        known: classes of the training pictures.
        learned: those that are learned.

    Raises:
        UserError: none of them has such a class.
    """
    found = held_out.only(learned)
    if not learned:
        return found, []
    notes = []
    strange = [c for c in held_out.classes if c not in known]
    if strange and held_out.labels is not None:
        count = int(np.isin(held_out.labels, [held_out.classes.index(c) for c in strange]).sum())
        folded = {c.casefold(): c for c in known}
        alike = [folded[c.casefold()] for c in strange if c.casefold() in folded]
        hint = f" (is it another spelling of {listed(alike)}?)" if alike else ""
        notes.append(
            f"{count:,} of {len(held_out):,} held-out pictures are left out, as no training picture is of "
            f"{listed(strange)}{hint}"
        )
    absent = [c for c in learned if c not in held_out.classes]
    if absent:
        notes.append(f"no held-out picture is of {listed(absent)}")
    return found, notes


def balanced(labels: np.ndarray | None, size: int, count: int) -> np.ndarray:
    """Numbers of `count` examples, rising: spread evenly, the classes in equal parts as far as they have them."""
    count = min(count, size)
    if labels is None:
        return np.linspace(0, size - 1, count).round().astype(np.int64)
    order = np.argsort(labels, kind="stable")
    # The k-th example of every class comes before the (k + 1)-th of any.
    rank = np.empty(size, dtype=np.int64)
    starts = np.searchsorted(labels[order], labels[order], side="left")
    rank[order] = np.arange(size) - starts
    return np.sort(np.lexsort((labels, rank))[:count])
