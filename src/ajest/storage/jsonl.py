"""Files of one JSON object a line, to which lines are added as they come. Each line carries its own digest."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .checkpoint import sealed, unsealed, unwritable, write_atomic


def append(path: Path, *values: Mapping[str, Any]) -> None:
    """Add lines. A line torn by a kill is closed first, so that it spoils only itself."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(_lines(values).encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritable(path, error) from error


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines; those that were torn or altered are passed over."""
    if not path.exists():
        return []
    values = []
    for line in path.read_bytes().split(b"\n"):
        try:
            values.append(unsealed(line.decode() + "\n"))
        except (ValueError, RecursionError):
            continue
    return values


def rewrite(path: Path, values: list[dict[str, Any]]) -> None:
    write_atomic(path, _lines(values))


def _lines(values: Iterable[Mapping[str, Any]]) -> str:
    return "".join(map(sealed, values))
