"""Which files are examples, and of which class: the layouts that data sets come in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ajest.errors import UserError, listed

from .edm import label_table
from .files import Files, Unreadable
from .formats import is_image, overlooked
from .splits import ANY_FOLDER, READ_AS, Chosen, Role, Split, chosen_part, role_of, roles_of, words_of
from .tables import FORMS, Unusable, classes_of, is_label_column, is_label_table

_LISTS = frozenset(("dataset.json", "wnids.txt", "words.txt"))
#: Files beside images without a class that may tell it.
_DATA_FORMS = (*FORMS, ".json", ".txt", ".parquet", ".xml", ".mat", ".npy", ".pkl", ".xlsx", ".h5", ".lst")
_TEXTS = frozenset(("readme", "license", "licence", "copying", "requirements", "notes"))  # words of files to read
#: Folders that lie beside images and hold what belongs to them.
_BESIDE = frozenset(("mask", "masks", "label", "labels", "annotation", "annotations", "jpegimages", "thumbnails"))
#: Files that may hold the images, and what to do with them.
_PACKED = {
    **dict.fromkeys((".zip", ".npz"), "name the archives themselves"),
    ".tar": "name the archives themselves",
    **dict.fromkeys((".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar"), "unpack them"),
    ".arrow": "name the folder as hf:FOLDER",
}


@dataclass(frozen=True)
class Listing:
    """The examples of one folder or archive.

    Attributes:
        layout: which it is, for people.
        files: where they are.
        names: of the example files, as `files` knows them, by stable id (the name below the data set's root).
        keys: class key of each id; {} for an unconditional set.
        words: names of classes for people, as far as the data set tells.
        refused: what is named as an image and was not let in, with the reason.
        notes: what was left out, merged or taken for something, a sentence each.
    """

    layout: str
    files: Files
    names: dict[str, str]
    keys: dict[str, str]
    words: dict[str, str]
    refused: dict[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Classes:
    """What tells the class of each image ({} for an unconditional set), and what is to be said of it."""

    layout: str
    keys: dict[str, str]
    notes: tuple[str, ...] = ()
    ids: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)


def listing(files: Files, split: Split) -> Listing:
    """Recognise the layout of a folder or archive.

    Raises:
        UserError: it holds no image, none for this split, or images both beside folders and in them; or what
            tells their classes is damaged.
    """
    # Found from images and lists alone: a stray README beside the root folder would hide that folder.
    root = _root(n for n in files.marks if is_image(n) or n.rpartition("/")[2] in _LISTS)
    inner = {name[len(root) :]: name for name in files.marks if name.startswith(root)}
    images = sorted(name for name in inner if is_image(name))
    refused = {n: why for n, why in files.refused.items() if is_image(n) or "link" in why or "leads" in why}
    unread = {n: why for n, why in files.refused.items() if n.rpartition("/")[2] in _LISTS}
    if unread:  # without it, the images would be taken for others
        name, why = next(iter(unread.items()))
        raise UserError(f"{files.path}: {name} tells what its images are and may not be read: {why}")
    if not images:
        raise UserError(f"{files.path} holds no image{_why(files, refused)}")
    chosen = chosen_part(images, split, str(files.path))
    found = (
        _by_json(files, inner, chosen) or _by_annotations(files, inner, chosen) or _by_siblings(files, inner, chosen)
    )
    found = found or _by_table_or_folder(files, inner, root, chosen, split)
    names = {found.ids.get(p, p): inner[p] for p in chosen.below}
    keys = {found.ids.get(p, p): key for p, key in found.keys.items()}
    layout = f"{found.layout}, {chosen.folder.rstrip('/')}" if chosen.folder else found.layout
    words = _words(files, inner) | found.words
    return Listing(layout, files, names, keys, words, refused, (*files.notes, *chosen.notes, *found.notes))


def _root(names: Iterable[str]) -> str:
    """The folders that everything lies in, as a prefix, as long as there are more folders (or a list) below."""
    names, root = list(names), ""
    while names:
        inner = [n[len(root) :] for n in names]
        first = inner[0].partition("/")[0]
        prefix = first + "/"
        if not all(n.startswith(prefix) for n in inner):
            break
        below = [n[len(prefix) :] for n in inner]
        folders = {n.partition("/")[0] for n in below if "/" in n}
        if role_of(first)[0] and not role_of(first)[1] and not (folders and folders <= roles_of(folders).keys()):
            break
        if not folders and not _LISTS & set(below) and first.casefold() not in ANY_FOLDER:
            break
        root += prefix
    return root


def _parents(folder: str) -> Iterator[str]:
    """A folder given as a prefix, and those that it lies in, up to the root ""."""
    while folder:
        yield folder
        folder = folder[: folder.rstrip("/").rfind("/") + 1]
    yield ""


def _by_json(files: Files, inner: Mapping[str, str], chosen: Chosen) -> _Classes | None:
    """EDM's archives: a `dataset.json` above the images."""
    base = next((b for b in _parents(chosen.folder) if f"{b}dataset.json" in inner), None)
    if base is None:
        return None
    where = f"{files.path}: {base}dataset.json"
    try:
        text = files.read(inner[f"{base}dataset.json"])
    except Unreadable as error:
        raise UserError(f"{where} cannot be read: {error}") from error
    known = [name[len(base) :] for name in inner if name.startswith(base)]
    table = label_table(text, [p[len(base) :] for p in chosen.below], known, where)
    notes = (f"dataset.json labels what is not there: {listed(table.absent)}",)
    keys, ids = ({base + p: value for p, value in found.items()} for found in (table.keys or {}, table.ids))
    return _Classes("EDM's, with dataset.json", keys, notes if table.absent else (), ids, table.words)


def _by_annotations(files: Files, inner: Mapping[str, str], chosen: Chosen) -> _Classes | None:
    """Tiny ImageNet's validation part: val/val_annotations.txt tells the classes of val/images."""
    part = chosen.folder.partition("/")[0]
    annotations = f"{part}/{part}_annotations.txt"
    if annotations not in inner:
        return None
    table = _tabbed(files, inner[annotations])
    keys = {p: table.get(p.rpartition("/")[2], "") for p in chosen.below}
    unknown = [p for p, key in keys.items() if not key]
    if unknown:
        raise UserError(f"{files.path}: {annotations} has no line for {unknown[0]} ({len(unknown)} such images)")
    return _Classes("Tiny ImageNet's", keys)


def _by_siblings(files: Files, inner: Mapping[str, str], chosen: Chosen) -> _Classes | None:
    """WebDataset's samples: beside KEY.jpg a KEY.cls that holds the class, or a KEY.json with a field for it."""
    keys = {p: _key(p) for p in chosen.below}
    form = next((form for form in (".cls", ".json") if any(f"{key}{form}" in inner for key in keys.values())), None)
    if form is None:
        return None
    found, missing = {}, list[str]()
    for image, key in keys.items():
        told = _told(files, inner[f"{key}{form}"], form) if f"{key}{form}" in inner else ""
        if told:
            found[image] = told
        else:
            missing.append(image)
    if form == ".json" and not found:  # captions, addresses: what tells no class
        return None
    if missing:
        raise UserError(
            f"{files.path}: {missing[0]} has no class in a {form} of its name ({len(missing):,} such images): add it, "
            "or take these images away"
        )
    return _Classes(f"WebDataset's, with {form}", found)


def _key(name: str) -> str:
    """What the files of one of WebDataset's samples are called: up to the first dot of the file's name."""
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}"


def _told(files: Files, name: str, form: str) -> str:
    """The class that a file beside an image tells, "" for none."""
    try:
        text = files.read(name).decode("utf-8-sig").strip()
        if form == ".cls":
            return text
        fields = json.loads(text)
    except (Unreadable, ValueError, RecursionError):
        return ""
    told = [value for field, value in fields.items() if is_label_column(field)] if isinstance(fields, dict) else []
    return str(told[0]) if len(told) == 1 and isinstance(told[0], str | int) else ""


def _by_table_or_folder(files: Files, inner: Mapping[str, str], root: str, chosen: Chosen, split: Split) -> _Classes:
    """A table of labels above the images, unless it tells the same as their folders; or else these."""
    flat = [p for p, below in chosen.below.items() if "/" not in below]
    folders = {} if flat else {p: below.partition("/")[0] for p, below in chosen.below.items()}
    place, notes, gaps = root + chosen.folder, list[str](), list[str]()
    for base, table in _tables(files, place, READ_AS[split] if chosen.role is None else (chosen.role,)):
        stored = {inner[p][len(base) :]: p for p in chosen.below}
        try:
            found = classes_of(files.read(base + table), f".{table.rpartition('.')[2].lower()}", list(stored))
        except (Unusable, Unreadable) as error:
            notes.append(f"{table} is not used: {error}")
            continue
        keys = {stored[name]: key for name, key in found.keys.items()}
        if found.missing:
            gaps.append(f"{table} has no label for {listed(found.missing[:1])} ({len(found.missing):,} such images)")
        elif not _alike(keys, folders):
            said = f"the classes are those of {table}, column {found.column}"
            return _Classes(f"classes by {table}", keys, (*notes, said + (", not the folders" if folders else "")))
    if flat and gaps:
        raise UserError(f"{files.path}: {gaps[0]}: add the labels, or take the images or the table away")
    if flat and len(flat) < len(chosen.below):
        raise UserError(
            f"{files.path} holds images both beside its folders ({flat[0]}) and in them: put each class into a folder"
        )
    notes += [f"not used: {gap}" for gap in gaps]
    if folders:
        odd = sorted(c for c in set(folders.values()) if c.casefold() in ANY_FOLDER | _BESIDE)
        notes += [f"taken for classes, though nothing is called so: {listed(odd)}"] if odd else []
        return _Classes("a folder for each class", folders, (*notes, *_empty(files, place, chosen)))
    _check_told(files, inner, chosen)
    return _Classes("one folder, no classes", {}, (*notes, *_idle(files, place, notes)))


def _tables(files: Files, place: str, roles: Sequence[Role]) -> Iterator[tuple[str, str]]:
    """(folder, name) of the tables of labels in a folder and above it, metadata first."""
    for base, names in _above(files, place):
        for name in sorted(names, key=lambda n: (not n.startswith("metadata"), n)):
            if is_label_table(name, roles):
                yield base, name


def _above(files: Files, place: str) -> Iterator[tuple[str, list[str]]]:
    """Folders from a place up to the root, each with the names of the files in it that are no images."""
    others = [n for n in files.marks if not is_image(n)]
    for base in _parents(place):
        yield base, [n[len(base) :] for n in others if n.startswith(base) and "/" not in n[len(base) :]]


def _alike(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two sets of classes part the images in the same way."""
    pairs = {(one[p], other[p]) for p in one.keys() & other.keys()}
    return len(pairs) == len(set(one.values())) == len(set(other.values()))


def _empty(files: Files, place: str, chosen: Chosen) -> list[str]:
    """Folders beside the classes that hold no image."""
    if chosen.role and not chosen.folder:  # the classes do not lie in one place
        return []
    beside = {f[len(place) :] for f in files.folders if f.startswith(place) and "/" not in f[len(place) :]}
    full = {n[len(place) :].partition("/")[0] for n in files.marks if n.startswith(place) and is_image(n)}
    return [f"no image in {listed(sorted(beside - full))}: left out"] if beside - full else []


def _check_told(files: Files, inner: Iterable[str], chosen: Chosen) -> None:
    """Refuse val/images without its annotations, unless the training part has no classes either."""
    part = chosen.folder.removesuffix("/images/")
    if chosen.role != "val" or not chosen.folder.endswith("/images/"):
        return
    if not any(n.split("/")[1:-1] == ["images"] and role_of(n.partition("/")[0])[0] == "train" for n in inner):
        raise UserError(
            f"{files.path} holds {part}/images without {part}/{part}_annotations.txt, which tells their classes"
        )


def _idle(files: Files, place: str, notes: list[str]) -> list[str]:
    """Files that may tell classes and are not read, besides those that notes name."""
    found = [n for _, names in _above(files, place) for n in names if n.lower().endswith(_DATA_FORMS)]
    other = sorted(n for n in found if not any(n in note for note in notes) and not _TEXTS & set(words_of(n)))
    return [f"no classes are read from {listed(other)}"] if other else []


def _words(files: Files, inner: Mapping[str, str]) -> dict[str, str]:
    """First synonym of each class of words.txt."""
    if "words.txt" not in inner:
        return {}
    return {key: text.split(",")[0].strip() for key, text in _tabbed(files, inner["words.txt"]).items()}


def _tabbed(files: Files, name: str) -> dict[str, str]:
    """The first two columns of a tab-separated file."""
    try:
        lines = files.read(name).decode("utf-8", "replace").splitlines()
    except Unreadable as error:
        raise UserError(f"{files.path}: {name}: {error}") from error
    return {row[0]: row[1] for row in (line.split("\t") for line in lines) if len(row) >= 2}


def _why(files: Files, refused: dict[str, str]) -> str:
    """What there is in the place of images."""
    if refused:
        name, why = next(iter(refused.items()))
        return f" that may be read ({listed([name])}: {why})"
    if unread := overlooked(files.marks, files.head):
        return f": {unread}"
    packed = sorted(n for n in files.marks if n.lower().endswith(tuple(_PACKED)))
    mends = {mend for n in packed for suffix, mend in _PACKED.items() if n.lower().endswith(suffix)}
    return f", but {listed(packed)}: {' and '.join(sorted(mends))}" if packed else ""
