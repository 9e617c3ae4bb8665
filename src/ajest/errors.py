"""The errors a person can mend, each one clear line that names the thing and the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what was asked for. The command line prints it as one line and exits with code 2."""


class Diverged(RuntimeError):
    """Training met a loss or gradient that is not finite. The weights are those before the bad step."""


class Corrupt(Exception):
    """A stored file whose content does not match its recorded digest, or that cannot be read."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """An error for a name that does not exist, with the nearest one that does."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {kind} {name!r}: {hint}known are {', '.join(known)}")


class Elsewhere(UserError):
    """Another process of the same run met with this and says it."""
