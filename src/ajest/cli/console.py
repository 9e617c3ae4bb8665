"""What all verbs of the command line share: where to compute, and how to speak."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ajest.runtime.device import Device, device_of

__all__ = ["Device", "console", "device_of", "readable", "warn"]

if TYPE_CHECKING:
    from rich.console import Console


def warn(text: str) -> None:
    """A line on stderr."""
    print(f"ajest: {text}", file=sys.stderr)


def console(width: int = 150) -> Console:
    """The terminal, or a file of this width."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:  # `readable` sees to it
            raise

    found = Plain()
    return found if found.is_terminal else Plain(width=width)


@contextmanager
def readable() -> Iterator[None]:
    """Ends the program without a word if whoever reads stdout has left, as `head` does.

    Raises:
        SystemExit: with the code that a shell gives to programs ended by SIGPIPE, or that of a program that failed.
    """
    ended: SystemExit | None = None
    try:
        try:
            yield
        except SystemExit as error:
            ended = error
        if sys.stdout is not None:  # it may have been closed from the start
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to fail at the very end
        ended = ended if ended is not None and ended.code else SystemExit(128 + signal.SIGPIPE)
    if ended is not None:
        raise ended
