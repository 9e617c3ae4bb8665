"""What is wrong with words that the parser of options refuses, as one line that names the thing and the mend.

The parser says it in a box of many lines, by the types of the program. This looks at the words again, and only then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from inspect import Parameter, signature, unwrap
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tyro.conf import Positional

from ajest.errors import listed, nearest, unknown

from .options import flag

#: Of a type what its values are: one, and several.
_KINDS: dict[type, tuple[str, str]] = {int: ("a whole number", "whole numbers"), float: ("a number", "numbers")}


@dataclass(frozen=True)
class _Asked:
    """What a command takes: an option, or words at a place of their own.

    Attributes:
        name: as it is typed.
        values: how many it takes; None for any number.
        kind: type of each.
        choices: which there are, where only some are allowed.
        shown: the values as the help shows them.
        placed: whether it has no name before it.
        required: whether nothing stands in for it.
    """

    name: str
    values: int | None
    kind: type
    choices: tuple[str, ...]
    shown: str
    placed: bool
    required: bool

    def wrong(self, values: Sequence[str]) -> str | None:
        """What is wrong with these values; None where nothing is."""
        if self.values == 0 and values:
            return f"{self.name} takes no value: leave out {listed(values)}"
        if len(values) < (self.values or 0):
            return f"{self.name} lacks its value: {self.name} {self.shown}"
        for value in values:
            if self.choices and value not in (*self.choices, str(None)):
                return str(unknown(f"value of {self.name},", value, self.choices))
            if self.kind in _KINDS and not _is(self.kind, value):
                return self._mended(value, values)
        return None

    def _mended(self, value: str, values: Sequence[str]) -> str:
        one, several = _KINDS[self.kind]
        apart = [part for word in values for part in word.split(",") if part]
        if self.values is None and all(_is(self.kind, part) for part in apart):
            return f"{self.name} {value}: {several} are separated by spaces: {self.name} {' '.join(apart)}"
        what = one if self.values == 1 else f"{several} with spaces between them"
        return f"{self.name} takes {what}, not {listed([value])!r}"


def mistake(program: str, function: Callable[..., Any], words: Sequence[str]) -> str | None:
    """What is wrong with the words behind a command; None where nothing is found.

    Args:
        program: the command, as it is typed.
        function: what it calls.
        words: behind the command.
    """
    found = list(_asked(function))
    options = {asked.name: asked for asked in found if not asked.placed}
    places = [asked for asked in found if asked.placed]
    left, placed, named = list(words), [], set()
    while left:
        word = left.pop(0)
        if not _is_option(word):
            placed.append(word)
            continue
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        asked = options.get(name, options.get(name.replace("--no-", "--")))
        if asked is None:
            return f"unknown option {listed([name])!r}: {nearest(name, options, 0.6)}`{program} --help` lists all"
        named.add(asked.name)
        values = [value] if equals else []
        while not equals and left and len(values) != asked.values and not _is_option(left[0]):
            values.append(left.pop(0))
        if wrong := asked.wrong(values):
            return wrong
    several = any(asked.values is None for asked in places)
    if len(placed) > len(places) and not several:
        takes = " and ".join([*(asked.shown for asked in places), "options"])
        return f"leave out {listed(placed[len(places) :])}: {program} takes {takes}"
    lacking = [asked.shown for asked in places[len(placed) :] if asked.required]
    lacking += [f"{o.name} {o.shown}" for o in options.values() if o.required and o.name not in named]
    return f"{program} lacks {' and '.join(lacking)}: `{program} --help` says what that is" if lacking else None


def _is_option(word: str) -> bool:
    return bool(re.match(r"--?[A-Za-z]", word))


def _is(kind: type, text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return text == str(None)
    return True


def _asked(function: Callable[..., Any]) -> Iterator[_Asked]:
    """All that a command takes, the options of groups among them."""
    hints = get_type_hints(unwrap(function), include_extras=True)
    for name, parameter in signature(function).parameters.items():
        group, *_ = get_args(hints[name]) or (hints[name],)
        if is_dataclass(group):
            own = get_type_hints(group, include_extras=True)
            for field in fields(group):
                yield _of(field.name, own[field.name], field.default is MISSING)
        else:
            yield _of(name, hints[name], parameter.default is Parameter.empty)


def _of(name: str, hint: Any, required: bool) -> _Asked:
    about = getattr(hint, "__metadata__", ())
    placed = Positional in about
    kind = _bare(hint)
    values: int | None = 0 if _bare(hint, optional=False) is bool else 1
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        values, kind = (None if ... in kinds else len(kinds)), _bare(kinds[0])
    choices = tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()
    choices = ("True", "False") if values and kind is bool else choices
    plain = name.upper() if placed else "PATH" if kind is Path else "VALUE"
    shown = next((one.metavar for one in about if getattr(one, "metavar", None)), plain)
    return _Asked(name if placed else flag(name), values, kind, choices, shown, placed, required)


def _bare(hint: Any, optional: bool = True) -> Any:
    """A type without what is said about it, and where that is `optional` without None."""
    while hasattr(hint, "__metadata__"):
        hint = hint.__origin__
    others = [one for one in get_args(hint) if one is not NoneType]
    return _bare(others[0]) if optional and NoneType in get_args(hint) else hint
