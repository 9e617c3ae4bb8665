"""One writer at a time: locks on files, which end with the process that holds them."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_POLL = 0.2  # seconds between two looks at a lock


@contextmanager
def sole_writer(place: Path, warn: Callable[[str], None]) -> Iterator[bool]:
    """Of all that name one file as their lock, one at a time; the others wait, and say so once.

    Whether it is so: not where the file cannot be written to, or its file system has no locks.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(place, os.O_CREAT | os.O_RDWR, 0o644)
    except OSError:
        yield False
        return
    try:
        yield _acquired(handle, warn)
    finally:
        os.close(handle)


def _acquired(handle: int, warn: Callable[[str], None]) -> bool:
    """Wait for a lock; False where there are none."""
    said = False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if not said:
                who = os.pread(handle, 200, 0).decode("utf-8", "replace") or "another process"
                warn(f"{who} is reading these images into the cache: waiting for it")
                said = True
            time.sleep(_POLL)
        except OSError:
            return False
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"process {os.getpid()} of {socket.gethostname()}".encode(), 0)
    return True


def is_free(place: Path) -> bool:
    """Whether a file is there, and nobody holds it as a lock."""
    try:
        handle = os.open(place, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def hold(file: IO[bytes]) -> None:
    """Lock a file of one's own until it is closed, where there are locks."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
