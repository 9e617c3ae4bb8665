"""Tables of labels that lie beside images: metadata.csv, metadata.jsonl, labels.csv, train_labels.csv, ..."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ajest.errors import listed

from .edm import plain
from .splits import Role, role_of, words_of

FORMS = (".csv", ".tsv", ".jsonl")
_STEMS = frozenset(
    ["metadata", "label", "labels", "annotation", "annotations", "class", "classes", "target", "targets"]
)
#: What columns are called that hold a class, whatever else there is.
_COLUMNS = frozenset(
    [
        "label",
        "labels",
        "class",
        "classname",
        "classlabel",
        "category",
        "categoryname",
        "labelname",
        "target",
        "species",
        "breed",
    ]
)


class Unusable(Exception):
    """A table that does not tell the classes of images; the message says why."""


@dataclass(frozen=True)
class Classes:
    """Class key by image, and which column told it. Images that the table does not label are `missing`."""

    column: str
    keys: dict[str, str]
    missing: tuple[str, ...]


def is_label_table(name: str, roles: Iterable[Role]) -> bool:
    """Whether a file's name says that it holds labels: of all parts, or of one of these."""
    stem, dot, form = name.rpartition(".")
    if dot + form.lower() not in FORMS:
        return False
    role, rest = role_of(stem)
    words = set(rest.split())
    return (bool(words) if role is None else role in roles) and words <= _STEMS


def classes_of(text: bytes, form: str, images: list[str]) -> Classes:
    """Read a table.

    Args:
        text: of the file.
        form: its suffix, one of FORMS.
        images: names below the table's folder. A row may name one by its whole path, file name or stem.

    Raises:
        Unusable: it names none of them, or tells no class.
    """
    columns, rows = _json_lines(text) if form == ".jsonl" else _separated(text, form, images)
    find = _finder(images)
    named = [{find(row[c] or "") for row in rows} - {None} for c in range(len(columns))]
    names = max(range(len(columns)), key=lambda c: len(named[c]), default=0)
    if not columns or not named[names]:
        raise Unusable("it names none of the images")
    column = _label_column(columns, names)
    keys: dict[str, str] = {}
    for row in rows:
        image, cell = find(row[names] or ""), (row[column] or "").strip()
        if image is None or not cell:
            continue
        if keys.setdefault(image, cell) != cell:
            raise Unusable(f"it gives several labels to {listed([image])}")
    keys = _whole(keys, columns[column])
    # Captions, measures and addresses are no classes. A column that is called a label is one, however few images.
    if not is_label_column(columns[column]) and 2 * len(set(keys.values())) > len(keys):
        raise Unusable(f"nearly every image has a {columns[column]} of its own")
    return Classes(columns[column], keys, tuple(p for p in images if p not in keys))


def _finder(images: list[str]) -> Callable[[str], str | None]:
    """Which image a cell names: by its path, else by its file name or stem where no two share it."""
    index: dict[str, str] = {}
    for short in (_stem, _base, _name):  # the later ones are the better ones
        shared = Counter(map(short, images))
        index |= {short(p): p for p in images if shared[short(p)] == 1}
    return lambda cell: index.get(_name(cell))


def _name(cell: str) -> str:
    return unicodedata.normalize("NFC", plain(cell.strip()))


def _base(image: str) -> str:
    return _name(image).rpartition("/")[2]


def _stem(image: str) -> str:
    return _base(image).rpartition(".")[0]


Rows = tuple[list[str], list[list[str | None]]]


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unusable("it is not in UTF-8") from error


def _separated(data: bytes, form: str, images: list[str]) -> Rows:
    text = _text(data)
    separator = "\t" if form == ".tsv" else max(",;\t", key=text.partition("\n")[0].count)
    try:
        read = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        rows: list[list[str | None]] = [list(row) for row in read if row]
    except csv.Error as error:
        raise Unusable(f"it is damaged ({error})") from error
    find = _finder(images)
    width = max(map(len, rows), default=0)
    rows = [row + [None] * (width - len(row)) for row in rows]
    if rows and any(cell and find(cell) is not None for cell in rows[0]):  # no line of headings
        return [f"column {c + 1}" for c in range(width)], rows
    return [cell or f"column {c + 1}" for c, cell in enumerate(rows[0] if rows else [])], rows[1:]


def _json_lines(data: bytes) -> Rows:
    found: list[dict[str, object]] = []
    for i, line in enumerate(filter(None, map(str.strip, _text(data).split("\n")))):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Unusable(f"line {i + 1} is no JSON") from error
        if not isinstance(row, dict):
            raise Unusable(f"line {i + 1} is no object")
        found.append(row)
    columns = list(dict.fromkeys(name for row in found for name in row))
    return columns, [[_cell(row.get(name)) for name in columns] for row in found]


def _cell(value: object) -> str | None:
    """A text, number or truth value; lists and tables within a table are no classes."""
    return None if value is None or isinstance(value, dict | list) else str(value)


def is_label_column(name: str) -> bool:
    """Whether a column is called as those are that hold a class."""
    return "".join(words_of(name)) in _COLUMNS


def _label_column(columns: list[str], names: int) -> int:
    others = [c for c in range(len(columns)) if c != names]
    known = [c for c in others if is_label_column(columns[c])]
    first = [c for c in known if columns[c].strip().casefold() == "label"]
    for chosen in (first, known, others):
        if len(chosen) == 1:
            return chosen[0]
        if chosen and chosen is not others:
            raise Unusable(f"several columns may be the label: {listed(columns[c] for c in chosen)}")
    raise Unusable(f"it has no column `label`, only {listed(columns[c] for c in others) or 'names'}")


def _whole(keys: dict[str, str], column: str) -> dict[str, str]:
    """Class keys; numbers, which tables like to write as 3.0, without their point.

    Raises:
        Unusable: they are fractions, which are degrees of something.
    """
    try:
        numbers = {cell: float(cell) for cell in set(keys.values())}
    except ValueError:
        return keys
    broken = [cell for cell, number in numbers.items() if not number.is_integer()]
    if broken:
        raise Unusable(f"its column {column} holds numbers that are no classes, such as {listed(broken[:1])}")
    return {image: cell if cell.isdigit() else str(int(numbers[cell])) for image, cell in keys.items()}
