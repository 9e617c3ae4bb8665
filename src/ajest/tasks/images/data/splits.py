"""The parts of a data set, known by the names of their folders, arrays or splits: train, val, test, unlabeled."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from ajest.errors import UserError, listed

Split = Literal["train", "val"]
Role = Literal["train", "val", "test", "unlabeled"]

_WORDS: dict[Role, str] = {
    "train": "train training trn trainval",
    "val": "val valid validation validate dev devel development eval evaluation holdout heldout",
    "test": "test testing tst pred prediction",
    "unlabeled": "unlabeled unlabelled unsup unsupervised extra",
}
_ROLES: dict[str, Role] = {word: role for role, words in _WORDS.items() for word in words.split()}
#: Words that say nothing of which part a folder is.
_FILLERS = frozenset(
    [
        "set",
        "sets",
        "split",
        "splits",
        "part",
        "data",
        "dataset",
        "images",
        "image",
        "imgs",
        "img",
        "pictures",
        "folder",
        "files",
    ]
)
#: Folders that are called so say nothing of what they hold.
ANY_FOLDER = frozenset(
    ["images", "image", "imgs", "img", "pictures", "photos", "jpg", "jpeg", "jpegs", "png", "pngs", "files", "data"]
)
#: What is read where a split is asked for, the best first. A test part is held out, never trained on.
READ_AS: dict[Split, tuple[Role, ...]] = {"train": ("train",), "val": ("val", "test")}


def words_of(name: str) -> list[str]:
    """The words of a name in lower case: of `Train_images2`, train and images; of `trainLabels`, train and labels."""
    apart = re.sub(r"([a-z])([A-Z])", r"\1 \2", unicodedata.normalize("NFC", name))
    return re.findall(r"[^\W\d_]+", apart.casefold())


def role_of(name: str) -> tuple[Role | None, str]:
    """(the part that a name stands for, what else the name says): of `seg_Test`, test and "seg"."""
    words = [_bare(word) for word in words_of(name)]
    roles = {_ROLES[word] for word in words if word in _ROLES}
    rest = " ".join(word for word in words if word not in _ROLES and word not in _FILLERS)
    return (roles.pop() if len(roles) == 1 else None), rest


def _bare(word: str) -> str:
    """`trainset` without its `set`."""
    short = (word.removesuffix(filler) for filler in ("set", "images", "data"))
    return next((s for s in short if s in _ROLES), word)


def roles_of(names: Iterable[str]) -> dict[str, Role]:
    """The names that are parts. A name that says more than its part, such as `seg_train`, counts where another part
    says the same, such as `seg_test`: `bullet train` alone is a class."""
    read = {name: role_of(name) for name in sorted(names)}
    beside: dict[str, set[Role]] = {}
    for role, rest in read.values():
        if role:
            beside.setdefault(rest, set()).add(role)
    return {name: role for name, (role, rest) in read.items() if role and (not rest or len(beside[rest]) > 1)}


def wanted_parts(roles: Mapping[str, Role], split: Split, where: str, mend: str) -> tuple[str, ...]:
    """The names of the parts to read; `mend` says what to do where there is none.

    Raises:
        UserError: there is none for this split.
    """
    there = set(roles.values())
    role = next((r for r in READ_AS[split] if r in there), None)
    if role is None and split == "train" and there in ({"val"}, {"unlabeled"}):
        (role,) = there  # a set of this part alone, which was named to be learned from
    if role is None:
        what = "part to learn from" if split == "train" else "held-out part"
        raise UserError(f"{where} has no {what}, only {listed(roles)}: {mend}")
    return tuple(name for name, r in roles.items() if r == role)


@dataclass(frozen=True)
class Chosen:
    """The images of the part that is read.

    Attributes:
        below: by name: the name below its part's folder, of which the first folder is the class.
        folder: that they all lie in, as a prefix; "" where there is none.
        role: of the part; None where there are no parts.
        notes: on what was taken and left out.
    """

    below: dict[str, str]
    folder: str = ""
    role: Role | None = None
    notes: tuple[str, ...] = ()


def chosen_part(images: list[str], split: Split, where: str) -> Chosen:
    """The images of the part that is asked for, where a data set has parts: PART/CLASS/... or CLASS/PART/...

    Raises:
        UserError: the data set has parts, and none for this split.
    """
    tops = {p.partition("/")[0] for p in images if "/" in p}
    roles = roles_of(tops)
    if roles and _are_parts(images, roles, tops):
        return _part(images, roles, split, where, depth=0)
    within = roles_of({p.split("/")[1] for p in images if p.count("/") > 1})
    if not roles and "train" in within.values() and len(set(within.values())) > 1:
        return _part(images, within, split, where, depth=1)
    # Beside class folders, no class is called unlabeled.
    idle = {top for top in tops if len(tops) > 1 and roles.get(top) == "unlabeled" and top.casefold() != "extra"}
    classes = sorted(roles.keys() - idle)
    notes = []
    if idle:
        notes.append(_left_out(Counter(p.partition("/")[0] for p in images if p.partition("/")[0] in idle)))
    if classes:
        notes.append(f"beside other folders, {listed(classes)} is taken for a class: name its folder if it is a part")
    return Chosen({p: p for p in images if p.partition("/")[0] not in idle}, notes=tuple(notes))


def _are_parts(images: list[str], roles: Mapping[str, Role], tops: set[str]) -> bool:
    """Whether folders with names of parts are such. Beside folders of other names they may be classes: unless two of
    them hold the same class folders, and the others hold none of these."""
    others = tops - roles.keys()
    if not others:
        return True
    classes: dict[str, set[str]] = {top: set() for top in tops}
    for image in images:
        folders = image.split("/")[:-1]
        if len(folders) > 1:
            classes[folders[0]].add(folders[1].casefold())
    parts = [classes[top] for top in roles if classes[top]]
    shared = set.intersection(*parts) if len(parts) > 1 else set()
    return bool(shared) and not any(shared <= classes[other] for other in others)


def _part(images: list[str], roles: Mapping[str, Role], split: Split, where: str, depth: int) -> Chosen:
    taken = wanted_parts(roles, split, where, "name the folder itself if it is one")
    below: dict[str, str] = {}
    others: Counter[str] = Counter()
    for image in images:
        folders = image.split("/")
        part = folders[depth] if len(folders) > depth + 1 else "images beside the folders"
        if part in taken:
            below[image] = "/".join(folders[:depth] + folders[depth + 1 :])
        else:
            others[part] += 1
    folder = f"{taken[0]}/" if depth == 0 and len(taken) == 1 else ""
    while folder and (inner := _wrapper(below.values(), roles[taken[0]])):
        folder, below = folder + inner, {p: b.removeprefix(inner) for p, b in below.items()}
    notes = [f"{listed(taken)} is read ({len(below):,} images); {_left_out(others)}"] if others else []
    if depth:
        notes.append(f"the classes are the folders around {listed(taken)}, not those in it")
    return Chosen(below, folder, roles[taken[0]], tuple(notes))


def _wrapper(names: Iterable[str], role: Role) -> str:
    """A folder of all of these that says nothing more: `seg_train/` below seg_train, or `images/`."""
    first = {name.partition("/")[0] if "/" in name else "" for name in names}
    only = first.pop() if len(first) == 1 else ""
    return f"{only}/" if only.casefold() in ANY_FOLDER or (only and role_of(only)[0] == role) else ""


def _left_out(counts: Mapping[str, int]) -> str:
    return f"left out: {listed(f'{name} ({n:,})' for name, n in sorted(counts.items()))}"
