"""Parts of a data set: its classes by name, and examples spread over them."""

from __future__ import annotations

import unicodedata

import numpy as np

from ajest.errors import UserError, check, listed, unknown

from .sets import ImageSet


def classes_wanted(images: ImageSet, wanted: int | tuple[str, ...] | None) -> tuple[str, ...]:
    """The keys of classes asked for by number or name."""
    known = images.classes
    if wanted is None or not known or (isinstance(wanted, int) and wanted >= len(known)):
        return known
    if isinstance(wanted, int):
        check(wanted >= 1, f"at least one class must be learned, not {wanted}")
        return tuple(known[i * len(known) // wanted] for i in range(wanted))
    return tuple(sorted({known[class_number(name, known, images.names)] for name in wanted}))


def class_number(name: str, keys: tuple[str, ...], names: tuple[str, ...]) -> int:
    """The number of a class by its key or its name; Unicode's forms and upper case do not matter unless they must.

    Raises:
        UserError: there is no such class, or the name stands for several.
    """
    for known, plain in ((keys, str), (names, str), (keys, folded), (names, folded)):
        found = [i for i, other in enumerate(known) if plain(other) == plain(name)]
        if len(found) > 1:
            raise UserError(
                f"{name!r} stands for several classes: name one by its key, {listed([keys[i] for i in found])}"
            )
        if found:
            return found[0]
    error = unknown("class", name, {*map(folded, keys), *map(folded, names)})
    hint = "; a name with a comma in it stands in double quotes" if "," in "".join([*keys, *names]) else ""
    raise UserError(f"{error}{hint}")


def folded(name: str) -> str:
    """A name as people read it, whatever its Unicode form and case."""
    return unicodedata.normalize("NFC", name).casefold()


def spread_order(count: int) -> np.ndarray:
    """The numbers below `count` in an order of which every beginning is spread over all (van der Corput, base 2)."""
    bits = max(1, (count - 1).bit_length())
    numbers = np.arange(1 << bits)
    turned = np.zeros_like(numbers)
    for k in range(bits):
        turned |= (numbers >> k & 1) << (bits - 1 - k)
    return turned[turned < count]


def of_classes(held_out: ImageSet, known: tuple[str, ...], learned: tuple[str, ...]) -> tuple[ImageSet, list[str]]:
    """(The held-out images of the classes that are learned, what is to be said of the others).

    Args:
        held_out: images of any classes.
        known: classes of the training images.
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
        spelt = {folded(c): c for c in known}
        alike = [spelt[folded(c)] for c in strange if folded(c) in spelt]
        hint = f" (is it another spelling of {listed(alike)}?)" if alike else ""
        notes.append(
            f"{count:,} of {len(held_out):,} held-out images are left out, as no training image is of "
            f"{listed(strange)}{hint}"
        )
    absent = [c for c in learned if c not in held_out.classes]
    if absent:
        notes.append(f"no held-out image is of {listed(absent)}")
    return found, notes


def balanced(labels: np.ndarray | None, size: int, count: int) -> np.ndarray:
    """Numbers of `count` of `size` examples, rising: at random, but the same ones each time, and the classes in equal
    parts as far as they have them. Fewer examples than classes are of classes spread over all."""
    count = min(count, size)
    mixed = np.random.default_rng(0).permutation(size)
    if labels is None:
        return np.sort(mixed[:count])
    order = mixed[np.argsort(labels[mixed], kind="stable")]
    # The k-th example of every class comes before the (k + 1)-th of any.
    rank, place = np.empty(size, dtype=np.int64), np.argsort(spread_order(int(labels.max()) + 1))
    starts = np.searchsorted(labels[order], labels[order], side="left")
    rank[order] = np.arange(size) - starts
    return np.sort(np.lexsort((place[labels], rank))[:count])
