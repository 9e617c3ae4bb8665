"""A config in its folder, with the layout of that folder, so that one of another layout is known as such."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from ajest.errors import UserError

from .checkpoint import read_json, write_json
from .config import from_json, to_json

#: Of run, bench and study folders. It rises with every change after which old folders cannot be read.
LAYOUT = 2

T = TypeVar("T")


def write_config(path: Path, config: Any) -> None:
    """Write a config for `read_config_file`."""
    write_json(path, stored(config))


def stored(config: Any) -> dict[str, Any]:
    """What `write_config` writes, as JSON."""
    return {"layout": LAYOUT, **to_json(config)}


def read_config_file(path: Path, kind: type[T]) -> T:
    """The config that `write_config` wrote.

    Raises:
        Corrupt: the file cannot be read as JSON.
        UserError: it is of another layout, or a field is missing, unknown or of the wrong kind.
    """
    value = read_json(path)
    if isinstance(value, dict):
        value = dict(value)
        layout = value.pop("layout", 1)
        if layout != LAYOUT:
            age = "an older" if isinstance(layout, int) and layout < LAYOUT else "another"
            raise UserError(
                f"{path} is of {age} layout than this version of ajest reads: make it anew in another folder, "
                "or use the version that made it"
            )
    return from_json(kind, value, str(path))
