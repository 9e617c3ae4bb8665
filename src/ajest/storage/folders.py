"""Folders that are there as a whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ajest.errors import UserError, check


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Within, a folder to fill, which is not there yet; after it, what was filled stands at `out`.

    Raises:
        UserError: there is something in `out` already, or it cannot be written.
    """
    empty = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    check(empty, f"{out} holds something already: name another folder to export to")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
            whole = Path(temporary) / "whole"
            yield whole
            if out.exists():
                out.rmdir()
            shutil.move(whole, out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from error
