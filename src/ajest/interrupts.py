"""Ctrl-C and SIGTERM that wait for the end of a training step, so that where a run stands can be saved."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Seconds that a step has left when the signal comes; then the run ends without it.
PATIENCE = 3.0

_asked = False
_held = 0


def _interrupt() -> None:
    raise KeyboardInterrupt


_leave: Callable[[], None] = _interrupt


def listen(leave: Callable[[], None] = _interrupt) -> None:
    """Take SIGINT and SIGTERM from now on.

    Args:
        leave: what to do on a signal that need not wait.
    """
    global _leave
    _leave = leave
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _take)
    signal.signal(signal.SIGALRM, _give_up)


def asked() -> bool:
    """Whether a signal came while it was held. Whoever asks sees to it, without a limit of time."""
    if _asked:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return _asked


@contextmanager
def held() -> Iterator[None]:
    """A signal that comes inside is remembered for `asked`; a second one, or too long a step, is taken at once."""
    global _held
    _held += 1
    try:
        yield
    finally:
        _held -= 1


def _take(number: int, frame: object) -> None:
    global _asked
    if not _held or _asked:
        _leave()
    _asked = True
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)


def _give_up(number: int, frame: object) -> None:
    if _held:
        _leave()
