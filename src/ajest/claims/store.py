"""What was judged, as a file that outlives its benches: pages of several folders, or machines, are made of these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ajest.errors import Corrupt, check, unknown
from ajest.storage.checkpoint import read_json, read_sealed, write_sealed
from ajest.storage.config import from_json, register, to_json

from .catalogue import CLAIMS, Claim
from .findings import Judged, in_order
from .settings import SETTINGS, Setting

#: File in the folder of all benches.
VERDICTS = "claims.json"


@dataclass(frozen=True)
class Verdicts:
    """What is left of some claims.

    Attributes:
        commands: that made the benches, one after the other.
        found: what the benches say.
    """

    commands: tuple[str, ...]
    found: tuple[Judged, ...]


def _named(known: Mapping[str, Any], what: str) -> Any:
    def read(name: Any, _: Any) -> Any:
        if name not in known:
            raise unknown(what, str(name), known)
        return known[name]

    return read


# Both are what the catalogue says today: their texts are not kept, and a setting has functions.
register(Claim, lambda claim: claim.name, _named(CLAIMS, "claim"))
register(Setting, lambda setting: setting.name, _named(SETTINGS, "setting"))


def write_verdicts(path: Path, verdicts: Verdicts) -> None:
    """Write them for `read_verdicts`."""
    write_sealed(path, to_json(verdicts))


def read_verdicts(path: Path) -> Verdicts:
    """What `write_verdicts` wrote, of a file or of a folder with a `VERDICTS`.

    Raises:
        UserError: it is not there, of another kind, or of claims that are not known here.
        Corrupt: it is damaged.
    """
    file = path / VERDICTS if path.is_dir() else path
    mend = f"name the {VERDICTS} that `ajest claims` wrote, or its folder"
    check(file.exists(), f"{file} is not there: {mend}")
    try:
        held = read_json(file)
    except Corrupt:
        if file.name == VERDICTS:
            raise
        held = None
    known = {field.name for field in fields(Verdicts)}
    check(isinstance(held, dict) and known <= held.keys(), f"{file} holds no verdicts on claims: {mend}")
    return from_json(Verdicts, read_sealed(file), str(file))


def joined(all_: Iterable[Verdicts]) -> Verdicts:
    """Verdicts of several folders as one.

    Raises:
        UserError: two have the same claim at the same budget of the same setting.
    """
    parts = list(all_)
    found = in_order(one for part in parts for one in part.found)
    places = [(one.claim.name, one.setting.name, one.end) for one in found]
    twice = next((place for place in places if places.count(place) > 1), None)
    said = "" if twice is None else f"{twice[0]} on {twice[1]} at equal {twice[2]}"
    check(twice is None, f"{said} is judged in two of these: leave one out, as which counts is not for a page to say")
    return Verdicts(tuple(dict.fromkeys(command for part in parts for command in part.commands)), found)


def narrowed(verdicts: Verdicts, claims: Sequence[Claim], settings: Sequence[str], ends: Sequence[str]) -> Verdicts:
    """Those of some claims, settings and budgets alone.

    Raises:
        UserError: nothing is left.
    """
    found = tuple(
        one for one in verdicts.found if one.claim in claims and one.setting.name in settings and one.end in ends
    )
    check(bool(found), "none of these claims is judged there: name others, or leave out --only, --settings and --ends")
    return Verdicts(verdicts.commands, found)
