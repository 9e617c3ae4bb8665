"""Which files are examples, and of which class: the layouts that data sets come in."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ...errors import UserError
from .files import Files, Unreadable
from .formats import is_image

Split = Literal["train", "val"]
#: What the folders of a data set's parts are called.
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_LISTS = {"dataset.json", "wnids.txt", "words.txt"}


@dataclass(frozen=True)
class Listing:
    """The examples of one folder or archive.

    Attributes:
        layout: which it is, for people.
        files: where they are.
        names: of the example files, as `files` knows them, by stable id (the name below the data set's root).
        keys: class key of each id; {} for an unconditional set.
        words: names of classes for people, as far as the data set tells.
        refused: what is named as a picture and was not let in, with the reason.
        notes: what was left out, merged or taken for something, a sentence each.
    """

    layout: str
    files: Files
    names: dict[str, str]
    keys: dict[str, str]
    words: dict[str, str]
    refused: dict[str, str]
    notes: tuple[str, ...] = ()


def listing(files: Files, split: Split) -> Listing:
    """Recognise the layout of a folder or archive.

    Raises:
        UserError: it holds no picture, or pictures both beside folders and in them.
    """
    # Found from pictures and lists alone: a stray README beside the root folder would hide that folder.
    root = _root(n for n in files.marks if is_image(n) or n.rpartition("/")[2] in _LISTS)
    inner = {name[len(root) :]: name for name in files.marks if name.startswith(root)}
    pictures = sorted(name for name in inner if is_image(name))
    refused = {n: why for n, why in files.refused.items() if is_image(n) or "link" in why or "leads" in why}
    words = _words(files, inner)
    if "dataset.json" in inner:
        return _edm(files, inner, pictures, words, refused)
    unread = {n: why for n, why in files.refused.items() if n.rpartition("/")[2] in _LISTS}
    if unread:  # without it, the pictures would be taken for others
        name, why = next(iter(unread.items()))
        raise UserError(f"{files.path}: {name} tells what its pictures are and may not be read: {why}")
    tops = {_split_of(p) for p in pictures if "/" in p}
    if tops & {"train", "val"} and "" not in tops:
        return _splits(files, inner, pictures, words, refused, split)
    if not pictures:
        raise UserError(f"{files.path} holds no picture{_why(refused)}")
    flat = [p for p in pictures if "/" not in p]
    if flat and len(flat) < len(pictures):
        raise UserError(
            f"{files.path} holds pictures both beside its folders ({flat[0]}) and in them: put each class into a folder"
        )
    names = {p: inner[p] for p in pictures}
    if flat:
        return Listing("one folder, no classes", files, names, {}, words, refused)
    keys = {p: p.partition("/")[0] for p in pictures}
    return Listing("a folder for each class", files, names, keys, words, refused)


def _root(names: Iterable[str]) -> str:
    """The folders that everything lies in, as a prefix, as long as there are more folders (or a list) below."""
    names, root = list(names), ""
    while names:
        inner = [n[len(root) :] for n in names]
        first = inner[0].partition("/")[0]
        prefix = first + "/"
        if _split_of(prefix) or not all(n.startswith(prefix) for n in inner):
            break
        below = [n[len(prefix) :] for n in inner]
        if "dataset.json" not in below and not any("/" in n for n in below):
            break
        root += prefix
    return root


def _split_of(name: str) -> str:
    """The part of a data set whose folder a name begins with: train, val, test, or none."""
    return _SPLITS.get(name.partition("/")[0].lower(), "")


def _splits(
    files: Files,
    inner: dict[str, str],
    pictures: list[str],
    words: dict[str, str],
    refused: dict[str, str],
    split: Split,
) -> Listing:
    """Tiny ImageNet's own layout, and any other with folders `train` and `val`."""
    there = {_split_of(p) for p in pictures if "/" in p}
    wanted = split if split in there else {"train": "val", "val": "train"}[split]
    chosen = [p for p in pictures if "/" in p and _split_of(p) == wanted]
    part = chosen[0].partition("/")[0]
    annotations = f"{part}/{part}_annotations.txt"
    if annotations in inner:
        table = _table(files, inner[annotations])
        keys = {p: table.get(p.rpartition("/")[2], "") for p in chosen}
        unknown = [p for p, key in keys.items() if not key]
        if unknown:
            raise UserError(f"{files.path}: {annotations} has no line for {unknown[0]} ({len(unknown)} such pictures)")
    else:
        folders = {p: p.split("/")[1:-1] for p in chosen}
        flat = next((p for p, below in folders.items() if not below), None)
        if flat is not None and any(folders.values()):
            raise UserError(f"{files.path} holds pictures both beside its folders ({flat}) and in them")
        if flat is not None:
            keys = {}
        elif {below[0] for below in folders.values()} == {"images"}:
            raise UserError(f"{files.path} holds {part}/images without {annotations}, which tells their classes")
        else:
            keys = {p: below[0] for p, below in folders.items()}
    return Listing(f"Tiny ImageNet's, {part}", files, {p: inner[p] for p in chosen}, keys, words, refused)


def _edm(
    files: Files, inner: dict[str, str], pictures: list[str], words: dict[str, str], refused: dict[str, str]
) -> Listing:
    """EDM's archives: `dataset.json` holds {"labels": [[name, number], ...]} or null, and what `prepare` adds."""
    try:
        facts = json.loads(files.read(inner["dataset.json"]))
        labels = facts.get("labels")
        table = {} if labels is None else {str(name): int(label) for name, label in labels}
        classes = [str(c) for c in facts.get("classes", [])]
        words = words | dict(zip(classes, map(str, facts.get("names", [])), strict=False))
        ids = {str(k): str(v) for k, v in facts.get("ids", {}).items()}
        if any(label < 0 for label in table.values()):
            raise ValueError("a label is below 0")
    except (Unreadable, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{files.path}: dataset.json cannot be read: {error}") from error
    if not pictures:
        raise UserError(f"{files.path} holds no picture{_why(refused)}")
    missing = [p for p in pictures if p not in table] if table else []
    if missing:
        raise UserError(f"{files.path}: dataset.json has no label for {missing[0]} ({len(missing)} such pictures)")

    def key(picture: str) -> str:
        number = table[picture]
        return classes[number] if number < len(classes) else str(number)

    names = {ids.get(p, p): inner[p] for p in pictures}
    if len(names) < len(pictures):
        raise UserError(f"{files.path}: dataset.json gives one id to several pictures")
    keys = {ids.get(p, p): key(p) for p in pictures} if table else {}
    return Listing("EDM's, with dataset.json", files, names, keys, words, refused)


def _words(files: Files, inner: dict[str, str]) -> dict[str, str]:
    """First synonym of each class of words.txt."""
    if "words.txt" not in inner:
        return {}
    return {key: text.split(",")[0].strip() for key, text in _table(files, inner["words.txt"]).items()}


def _table(files: Files, name: str) -> dict[str, str]:
    """The first two columns of a tab-separated file."""
    try:
        lines = files.read(name).decode("utf-8", "replace").splitlines()
    except Unreadable as error:
        raise UserError(f"{files.path}: {name}: {error}") from error
    return {row[0]: row[1] for row in (line.split("\t") for line in lines) if len(row) >= 2}


def _why(refused: dict[str, str]) -> str:
    if not refused:
        return ""
    name, why = next(iter(refused.items()))
    return f" that may be read ({name}: {why})"
