"""One process at a time in a folder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ajest.errors import UserError

from .checkpoint import unwritable

_LOOKS = 5  # at a lock


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process out of the folder.

    Raises:
        UserError: another process is at work in it, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        for attempt in range(_LOOKS):  # who looks whether it is in use holds it for an instant
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if attempt == _LOOKS - 1:
                    raise UserError(
                        f"another process is at work in {folder}: wait for it or name another folder"
                    ) from error
                time.sleep(0.02)
        yield
    finally:
        os.close(handle)


def in_use(folder: Path) -> bool:
    """Whether a process is at work in the folder."""
    try:
        handle = os.open(folder / ".lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
