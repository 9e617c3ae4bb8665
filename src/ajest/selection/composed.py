"""An arm that is composed of others: each brings what it changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from ajest.errors import UserError, check

from .arm import Arm

#: Between the names of the parts in the name of the whole.
AND = "+"
#: Fields of an arm that are no change: what it is called, and where what it names comes from.
_SAID = {"name", "summary", "paper", "rules"}


def composed(parts: Sequence[Arm]) -> Arm:
    """The arm that differs from training on every drawn example in all in which one of its parts does.

    Args:
        parts: two or more, such as random choice and another optimizer.

    Raises:
        UserError: two parts change the same thing in two ways, one changes nothing, or what they change together
            cannot be had.
    """
    plain = Arm("baseline", "uniform")
    found = replace(parts[0], name=AND.join(arm.name for arm in parts))
    for k, part in enumerate(parts):
        check(
            _changes(part, plain),
            f"arm {found.name!r}: {part.name!r} changes nothing, so nothing can be composed with it",
        )
        if k:
            found = _merged(found, part, plain, found.name, "")
    summaries = "; ".join(arm.summary for arm in parts)
    papers = ", ".join(dict.fromkeys(arm.paper for arm in parts if arm.paper))
    return replace(found, summary=summaries, paper=papers)


def _changes(part: Arm, plain: Arm) -> bool:
    return any(getattr(part, name) != getattr(plain, name) for name in _names(plain))


def _names(plain: Any) -> list[str]:
    return [f.name for f in fields(plain) if f.init and not (isinstance(plain, Arm) and f.name in _SAID)]


def _merged(found: Any, part: Any, plain: Any, name: str, what: str) -> Any:
    """What is found so far, with what a part changes of what is plain."""
    if part in (plain, found):
        return found
    if found == plain:
        return part
    if is_dataclass(plain) and not isinstance(plain, type) and type(found) is type(part) is type(plain):
        each = {
            field: _merged(getattr(found, field), getattr(part, field), getattr(plain, field), name, field)
            for field in _names(plain)
        }
        return replace(found, **each)
    raise UserError(f"arm {name!r}: two of its parts change the same, {what.replace('_', ' ')}: leave out one")
