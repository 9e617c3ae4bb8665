"""Stored tensors that are either whole or not there: safetensors beside a JSON that carries the digests of both.

`name.safetensors` is written first, `name.json` with the digest of its content and of itself second, each to a
temporary file that is flushed to the disk and renamed. A kill at any moment leaves the old pair or the new one; a file
that was truncated or altered later is found by its digest, and the one before it is used. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from ajest.errors import Corrupt, UserError

from .packing import Packed, pack

_UNFINISHED = ".tmp"
#: What `write_atomic` calls a file that is not whole yet.
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")
#: How the names of tensors in the folders of runs and benches begin.
_OURS = ("checkpoint-", "snapshot-", "step-", "truth-")


def sweep(folder: Path, idle: float = 0.0) -> None:
    """Remove what writers that were killed have left in a folder and below it: temporary files of `write_atomic`, and
    tensors of a run whose JSON was not written yet, or was deleted already. What has other names is somebody's own.

    Args:
        folder: in which nobody else writes, unless `idle` tells the living from the dead.
        idle: seconds for which nothing has been added to a file that is removed.
    """
    alone = (path for path in folder.rglob("*.safetensors") if not path.with_suffix(".json").exists())
    temporary = (path for path in folder.rglob(f".*{_UNFINISHED}") if _TEMPORARY.match(path.name))
    for path in [*temporary, *(path for path in alone if path.name.startswith(_OURS))]:
        with suppress(OSError):
            if not idle or time.time() - path.stat().st_mtime >= idle:  # the clock may have been set back
                path.unlink()


def write_atomic(path: Path, *content: bytes | str | memoryview) -> None:
    """Replace `path` by `content`, joined, whole or not at all.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=_UNFINISHED, delete=False
        ) as file:
            temporary = Path(file.name)
            for part in content:
                file.write(part.encode() if isinstance(part, str) else part)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> UserError:
    """What is to be done where a file or folder cannot be written."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        file = next((place for place in (path, *path.parents) if place.is_file()), path)
        return UserError(f"cannot write {path}: {file} is a file, no folder; name another folder with --out")
    return UserError(
        f"cannot write {path}: {error.strerror or error}; free some space or name another folder with --out"
    )


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        Corrupt: it cannot be read as JSON.
    """
    return _read(path, json.loads)


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(path.read_bytes().decode())  # as it is, with the ends of its lines
    except (OSError, ValueError, RecursionError) as error:  # a number of too many digits is a plain ValueError
        raise Corrupt(f"{path} cannot be read: {error}") from error


def sealed(value: Mapping[str, Any], indent: int | None = None) -> str:
    """A JSON object as text, with a digest of itself by which a bit that fell over is noticed."""
    seal = hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
    return json.dumps({**value, "seal": seal}, indent=indent) + "\n"


def unsealed(text: str, indent: int | None = None) -> dict[str, Any]:
    """The object of a text that `sealed` made.

    The text is compared and not only its value: another last digit of a number can stand for the same float, and a
    file in which bits fall over is not to be trusted even where they did no harm yet.

    Raises:
        ValueError, RecursionError: this is not such a text, or not what it was.
    """
    value = json.loads(text)
    if not isinstance(value, dict) or "seal" not in value:
        raise ValueError("it carries no digest")
    del value["seal"]
    if sealed(value, indent) != text:
        raise ValueError("it does not match its own digest")
    return value


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object for `read_sealed`."""
    write_atomic(path, sealed(value, indent=1))


def read_sealed(path: Path) -> dict[str, Any]:
    """The object that `write_sealed` wrote.

    Raises:
        Corrupt: it cannot be read, or is not what was written.
    """
    return _read(path, partial(unsealed, indent=1))


@dataclass(frozen=True)
class Stored:
    """Tensors and facts that were stored together."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def _parts(stem: Path) -> tuple[Path, Path]:
    return stem.with_name(stem.name + ".safetensors"), stem.with_name(stem.name + ".json")


def exists(stem: Path) -> bool:
    return _parts(stem)[1].exists()


def facts(stem: Path) -> dict[str, Any]:
    """The facts alone, without reading the tensors.

    Raises:
        Corrupt: they cannot be read, or are not what was written.
    """
    return read_sealed(_parts(stem)[1])


def save(stem: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write `stem.safetensors` and `stem.json`, each atomically, the JSON last.

    Raises:
        UserError: see `write_atomic`.
    """
    write(stem, pack(tensors), facts)


def write(stem: Path, packed: Packed, facts: Mapping[str, Any]) -> None:
    """`save` for tensors that were copied already; waits for the copies."""
    packed.settle()
    parts = packed.parts()
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    tensor_path, facts_path = _parts(stem)
    write_atomic(tensor_path, *parts)
    write_sealed(facts_path, {**facts, "sha256": digest.hexdigest(), "bytes": sum(map(len, parts))})


def load(stem: Path) -> Stored:
    """Read what `save` wrote.

    Raises:
        Corrupt: a file is missing, truncated or altered; the message names it.
    """
    path, about = _parts(stem)[0], facts(stem)
    try:
        if path.stat().st_size != about["bytes"]:
            raise Corrupt(f"{path} holds {path.stat().st_size} bytes instead of {about['bytes']}")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != about["sha256"]:
            raise Corrupt(f"{path} does not match its recorded digest")
        return Stored(safetensors.torch.load(data), about)
    except (OSError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise Corrupt(f"{path} cannot be read: {error}") from error


def stems(folder: Path, prefix: str) -> dict[int, Path]:
    """The stored pairs `prefix-NUMBER` of a folder, by number, in rising order."""
    found = {}
    for path in folder.glob(f"{prefix}-*.json"):
        number = path.stem.removeprefix(f"{prefix}-")
        if number.isdigit():
            found[int(number)] = path.with_suffix("")
    return dict(sorted(found.items()))


def delete(stem: Path) -> None:
    for path in reversed(_parts(stem)):
        path.unlink(missing_ok=True)


def latest(folder: Path, prefix: str, warn: Callable[[str], None]) -> Stored | None:
    """The newest whole `prefix-NUMBER` of a folder; each damaged one is named to `warn` and passed over."""
    for stem in reversed(stems(folder, prefix).values()):
        try:
            return load(stem)
        except Corrupt as error:
            warn(f"{error}; the one before it is used")
    return None
