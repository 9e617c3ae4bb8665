"""Data sets of the Hugging Face hub: hf:NAME[:SPLIT][:image=COLUMN][:label=COLUMN]."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ajest.errors import UserError, listed, unknown

from .files import MAX_BYTES, Unreadable
from .splits import Split, roles_of, wanted_parts
from .tables import is_label_column

_KEPT = re.compile(r":(?![^\[]*\])")  # not within train[:100]
_PLAIN = re.compile(r"u?int\d+|bool|(large_)?string")


@dataclass(frozen=True)
class HubTable:
    """Rows of a data set.

    Attributes:
        split: their name.
        keys: class key of each row, None for an unconditional set.
        words: names of classes for people, where they are not the keys.
        read: the bytes of an image by its row; raises Unreadable.
        size: number of rows.
        identity: changes when the content does.
        notes: on columns that are not used.
    """

    split: str
    keys: list[str] | None
    words: dict[str, str]
    read: Callable[[int], bytes]
    size: int
    identity: str
    notes: tuple[str, ...]


def hub_table(spec: str, split: Split) -> HubTable:
    """Read a data set of the hub, or one in its forms on the disk.

    Raises:
        UserError: it cannot be loaded; it has no column of images, or several columns may be meant; rows without a
            label.
    """
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{spec!r} needs the package datasets: pip install 'ajest[hf]'") from error
    name, *rest = _KEPT.split(spec.removeprefix("hf:"))
    chosen = dict(word.split("=", 1) for word in rest if "=" in word)
    parts = [word for word in rest if "=" not in word]
    if chosen.keys() - {"image", "label"} or len(parts) > 1:
        raise UserError(f"{spec!r}: after the name may stand a split, image=COLUMN and label=COLUMN, each once")
    part = parts[0] if parts else _split(datasets, name, split, spec)
    try:
        table: Any = datasets.load_dataset(name, split=part)
    except Exception as error:  # the library and what it calls raise anything
        raise UserError(f"{spec!r} cannot be loaded: {_first_line(error)}") from error
    kinds = {column: type(feature).__name__ for column, feature in table.features.items()}
    image = _image_column(spec, kinds, chosen.get("image"))
    label = _label_column(spec, table.features, kinds, chosen.get("label"))
    keys, words = (None, {}) if label is None else _classes(spec, table, label)
    stored = table.select_columns([image]).cast_column(image, datasets.Image(decode=False))

    def read(row: int) -> bytes:
        return _bytes(stored[row][image])

    others = sorted(kinds.keys() - {image, label}) if label is None and "label" not in chosen else []
    notes = (f"no classes are read from its columns {listed(others)}: choose one by :label=COLUMN",) if others else ()
    identity = f"{spec} {part} {image} {label} {getattr(table, '_fingerprint', len(table))}"
    return HubTable(part, keys, words, read, len(table), identity, notes)


def _first_line(error: Exception) -> str:
    return listed([next(iter(str(error).splitlines()), type(error).__name__)])


def _split(datasets: Any, name: str, split: Split, spec: str) -> str:
    try:
        there = list(datasets.get_dataset_split_names(name))
    except Exception as error:  # the library and what it calls raise anything
        raise UserError(f"{spec!r} cannot be loaded: {_first_line(error)}") from error
    roles = roles_of(there)
    mend = f"name the split to read, as in hf:{name}:SPLIT"
    taken = list(wanted_parts(roles, split, repr(spec), mend)) if roles else there
    if len(taken) != 1 or not (roles or split == "train"):
        raise UserError(f"{spec!r} has the splits {listed(there)}: {mend}")
    return taken[0]


def _image_column(spec: str, kinds: dict[str, str], asked: str | None) -> str:
    found = [column for column, kind in kinds.items() if kind == "Image"]
    if asked is not None and asked not in found:
        raise unknown("column of images", asked, found)
    if not found:
        raise UserError(f"{spec!r} has no column of images, only {listed(kinds)}")
    if asked is None and len(found) > 1:
        raise UserError(f"{spec!r} has several columns of images, {listed(found)}: choose one by :image=COLUMN")
    return asked or found[0]


def _label_column(spec: str, features: Any, kinds: dict[str, str], asked: str | None) -> str | None:
    """The column of classes: one of the kind made for them, or else of numbers or texts and called a label."""
    if asked == "":
        return None
    plain = [c for c, kind in kinds.items() if kind == "Value" and _PLAIN.fullmatch(str(features[c].dtype))]
    classes = [c for c, kind in kinds.items() if kind == "ClassLabel"]
    if asked is not None:
        if asked not in classes + plain:
            raise unknown("column of classes", asked, classes + plain)
        return asked
    found = classes or [c for c in plain if is_label_column(c)]
    if len(found) > 1:
        raise UserError(
            f"{spec!r} has several columns of classes, {listed(found)}: choose one by :label=COLUMN, or none by :label="
        )
    return found[0] if found else None


def _classes(spec: str, table: Any, label: str) -> tuple[list[str], dict[str, str]]:
    """(Class key of each row, names of classes for people)."""
    values = list(table[label])
    names = [str(n) for n in getattr(table.features[label], "names", None) or ()]
    none = [row for row, value in enumerate(values) if _is_none(value, len(names))]
    if none:
        raise UserError(
            f"{spec!r} has images without a class, {len(none):,} in all ({label} is empty in row {listed(none)}): "
            "name a split that has all, or learn without classes by :label="
        )
    if len(set(names)) < len(names):  # two classes of one name
        return [str(value) for value in values], {str(number): name for number, name in enumerate(names)}
    return [names[value] if names else str(value) for value in values], {}


def _is_none(value: Any, names: int) -> bool:
    if value is None or value == "":
        return True
    return isinstance(value, int) and (value < 0 or 0 < names <= value)


def _bytes(stored: Any) -> bytes:
    """The file of an image, as the library keeps it: its bytes, or a path on this machine."""
    if stored is None or (stored.get("bytes") is None and stored.get("path") is None):
        raise Unreadable("the row has no image")
    if stored.get("bytes") is not None:
        return stored["bytes"]
    try:
        with Path(stored["path"]).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Unreadable(error.strerror or "its file cannot be read") from error
    if len(data) > MAX_BYTES:
        raise Unreadable(f"more than {MAX_BYTES >> 20} MiB")
    return data
