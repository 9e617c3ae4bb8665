"""Functions that are registered by name, and the numbers that an arm gives them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from inspect import signature

from torch import Tensor

from ajest.errors import check, listed, unknown

Function = Callable[..., Tensor]


def check_named(
    what: str, name: str, known: Mapping[str, Function], parameters: tuple[float, ...], leading: int = 1
) -> None:
    """Raise a UserError unless there is a function of this name that takes so many parameters.

    Args:
        what: it is, for people.
        name: of the function.
        known: all of them.
        parameters: numbers that follow its first arguments.
        leading: how many of these there are.
    """
    if name not in known:
        raise unknown(what, name, known)
    takes = [*signature(known[name]).parameters][leading:]
    check(
        len(parameters) <= len(takes) and all(map(math.isfinite, parameters)),
        f"the {what} {name!r} takes at most {len(takes)} finite numbers ({listed(takes) or 'none'}), not {parameters}",
    )


def words_of(name: str, *numbers: float) -> str:
    """A name with its numbers, such as "laplace 0 0.25"."""
    return " ".join([name, *(f"{number:g}" for number in numbers)])
