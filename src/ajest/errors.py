"""The errors a person can mend, each one clear line that names the thing and the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what was asked for. The command line prints it as one line and exits with code 2."""


class NotFinite(UserError):
    """Samples that are NaN: nothing can be said of their quality."""


class Diverged(RuntimeError):
    """Training met a loss or gradient that is not finite. The weights are those before the bad step."""


class Corrupt(Exception):
    """A stored file whose content does not match its recorded digest, or that cannot be read."""


def listed(names: Iterable[object], most: int = 20) -> str:
    """Names for one line of bounded length: the first `most`, and how many more there are.

    A long name loses its middle, and what a terminal would not show is written as an escape.
    """
    names = list(names)
    shown = ", ".join(_short(str(name)) for name in names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


def _short(name: str, most: int = 160) -> str:
    plain = name if name.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
    return plain if len(plain) <= most else f"{plain[: most // 2]}...{plain[-most // 2 :]}"


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """An error for a name that does not exist, with the nearest one that does."""
    known = sorted(known)
    return UserError(f"unknown {kind} {_short(name)!r}: {nearest(name, known)}known are {listed(known) or 'none'}")


def nearest(name: str, known: Iterable[str], cutoff: float = 0.4) -> str:
    """Words to go on with that ask for the nearest name that exists; "" where none is as near as `cutoff`, of 1."""
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=cutoff)
    return f"did you mean {near[0]!r}? " if near else ""


class PeerError(UserError):
    """Another process of the same run met with this and says it."""


def check(condition: bool, message: str) -> None:
    """Raise a UserError with `message` unless the condition holds; for `__post_init__`."""
    if not condition:
        raise UserError(message)
