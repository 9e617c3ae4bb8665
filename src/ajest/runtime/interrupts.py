"""Ctrl-C and SIGTERM that wait for the end of a training step, so that where a run stands can be saved.

While a run is at work a signal is remembered and heeded between two steps. A step may be given up where it can be
undone: when it takes much longer than those before it, or on a second signal. Nothing else is ever broken off.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Seconds that a step has left when the signal comes, beside as many as two steps take; then it is given up.
PATIENCE = 3.0

#: Seconds in which a second signal is the first one again: terminals and torchrun both pass it on.
ECHO = 1.0

_asked_at: float | None = None
_over = False  # the patience
_held: list[Callable[[], float]] = []
_open = 0


def leave() -> None:
    """What a signal does that need not wait, unless `listen` was told otherwise."""
    raise KeyboardInterrupt


_leave: Callable[[], None] = leave


def listen(leave: Callable[[], None] = leave, *more: int) -> None:
    """Take SIGINT and SIGTERM from now on.

    Args:
        leave: what to do on a signal that need not wait.
        more: other signals to take likewise.
    """
    global _leave
    _leave = leave
    for number in (signal.SIGINT, signal.SIGTERM, *more):
        signal.signal(number, _take)
    signal.signal(signal.SIGALRM, lambda number, frame: _give_up())


def asked() -> bool:
    """Whether a signal came while it was held. Whoever asks sees to it, without a limit of time."""
    if _asked_at is not None:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return _asked_at is not None


@contextmanager
def held(step_seconds: Callable[[], float]) -> Iterator[None]:
    """A signal that comes inside is remembered for `asked`.

    Args:
        step_seconds: tells how long a step takes, by which the patience goes.
    """
    _held.append(step_seconds)
    try:
        yield
    finally:
        _held.remove(step_seconds)


@contextmanager
def undoable() -> Iterator[None]:
    """What is done inside may be given up by a KeyboardInterrupt, even while signals are held."""
    global _open
    if _over:
        raise KeyboardInterrupt
    _open += 1
    try:
        yield
    finally:
        _open -= 1


def _take(number: int, frame: object) -> None:
    global _asked_at
    if not _held:
        _leave()
    elif _asked_at is None:
        _asked_at = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, PATIENCE + 2 * max(seconds() for seconds in _held))
    elif time.monotonic() - _asked_at > ECHO:
        _give_up()


def _give_up() -> None:
    global _over
    _over = bool(_held)
    if _over and _open:
        raise KeyboardInterrupt
