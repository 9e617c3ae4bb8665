"""`dataset.json`: EDM's table of labels, and what `prepare` adds to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ajest.errors import UserError, listed

_FORM = 'wanted is {"labels": [["name", whole number], ...]}, or {"labels": null} where there are no classes'


@dataclass(frozen=True)
class LabelTable:
    """What a dataset.json tells.

    Attributes:
        keys: class key by image; None for an unconditional set.
        ids: stable id by image, where it is not the image's name.
        words: names of classes for people, by key.
        absent: images that it labels and that are not there.
    """

    keys: dict[str, str] | None
    ids: dict[str, str]
    words: dict[str, str]
    absent: tuple[str, ...]


def label_table(text: bytes, images: Collection[str], known: Collection[str], where: str) -> LabelTable:
    """Read a dataset.json.

    Args:
        text: of the file.
        images: names that must have a label, as the file names them.
        known: all names that are there.
        where: the file, for messages.

    Raises:
        UserError: it has another form; the message names the entry, its value and the form that is wanted.
    """
    facts = _json(text, where)
    if not isinstance(facts, dict):
        raise UserError(f"{where} holds {_kind(facts)}: {_FORM}")
    if "labels" not in facts:
        raise UserError(
            f"{where} has no `labels`, only {listed(facts) or 'nothing'}: it belongs to another tool, or {_FORM}; "
            "rename it, and the folders are read instead"
        )
    classes, names = _texts(facts, "classes", where), _texts(facts, "names", where)
    ids = facts.get("ids") or {}
    if not isinstance(ids, dict) or not all(isinstance(i, str) for i in ids.values()):
        raise UserError(f"{where}: `ids` must be an object of names: {listed([_shown(ids)])}")
    if max(Counter(ids.get(p, p) for p in images).values(), default=1) > 1:
        raise UserError(f"{where} gives one id to several images")
    if facts["labels"] is None:
        return LabelTable(None, ids, {}, ())
    numbers = _labels(facts["labels"], where)
    missing = [p for p in images if p not in numbers]
    if missing:
        raise UserError(f"{where} has no label for {listed(missing[:1])} ({len(missing):,} such images)")
    keys, words = numbered(max(numbers.values()), classes, names, where)
    found = {p: keys[numbers[p]] if keys else str(numbers[p]) for p in images}
    return LabelTable(found, ids, words, tuple(sorted(numbers.keys() - set(known))))


def numbered(most: int, classes: list[str], names: list[str], where: str) -> tuple[list[str], dict[str, str]]:
    """(Class key of each label, [] where it is the number itself; names of classes for people, by key).

    Args:
        most: the largest label.
        classes: key of each; may be [].
        names: of each; may be [].
        where: the labels are, for messages.

    Raises:
        UserError: these do not fit together.
    """
    if classes and names and len(names) != len(classes):
        raise UserError(f"{where}: there are {len(classes)} `classes` and {len(names)} `names`: there must be as many")
    keys = classes or [str(i) for i in range(len(names))]
    if len(set(keys)) < len(keys):
        raise UserError(f"{where}: `classes` must differ: {listed(sorted({k for k in keys if keys.count(k) > 1}))}")
    if keys and most >= len(keys):
        raise UserError(f"{where}: the label {most} has no class, as there are {len(keys)}, numbered from 0 on")
    return keys, dict(zip(keys, names, strict=False))


def plain(name: str) -> str:
    """A name as archives have it: `./a\\b.png` is `a/b.png`."""
    return name.replace("\\", "/").removeprefix("./")


def _json(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise UserError(f"{where} is nested too deeply: {_FORM}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is no whole JSON (line {error.lineno}, column {error.colno}): {_FORM}") from error
    except ValueError as error:  # not Unicode, or a number of too many digits
        raise UserError(f"{where} is no JSON text: {_FORM}") from error


def _labels(entries: Any, where: str) -> dict[str, int]:
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{where}: `labels` is {_kind(entries)}: {_FORM}")
    found: dict[str, int] = {}
    for i, entry in enumerate(entries):
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise UserError(f"{where}: entry {i} of `labels` is {listed([_shown(entry)])}: {_FORM}")
        name, label = plain(entry[0]), entry[1]
        if not isinstance(label, int) or isinstance(label, bool) or label < 0:
            said = "a label is below 0: " if isinstance(label, int) and label < 0 else ""
            raise UserError(f"{where}: {said}{listed([name])} has the label {listed([_shown(label)])}: {_FORM}")
        if name in found:
            raise UserError(f"{where} labels {listed([name])} twice, {found[name]} and {label}: leave one of them")
        found[name] = label
    return found


def _texts(facts: dict[str, Any], name: str, where: str) -> list[str]:
    value = facts.get(name) or []
    if not isinstance(value, list) or not all(isinstance(v, str | int) for v in value):
        raise UserError(f"{where}: `{name}` must be a list of names, not {listed([_shown(value)])}")
    return list(map(str, value))


def _kind(value: Any) -> str:
    if isinstance(value, dict | list) and not value:
        return "empty"
    kinds = ((dict, "a table"), (list, "a list"), (str, "a text"), (bool, "a truth value"), (int | float, "a number"))
    return next((said for kind, said in kinds if isinstance(value, kind)), "null")


def _shown(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "a value nested too deeply"
