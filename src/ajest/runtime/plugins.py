"""Code of the user's: objects in a file or a module that are named as `path/to/file.py:NAME` or `package.module:NAME`.

The file's digest belongs to what is named, so that a worker, a cluster's job or a bench that goes on has the same code.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ajest.errors import UserError, check

_PREFIX = "ajest_file_"


@dataclass(frozen=True)
class Origin:
    """Where code comes from.

    Attributes:
        place: an absolute path that ends in .py, or the name of a module; "" for what lives in this process alone.
        digest: of the file's content.
    """

    place: str
    digest: str


def is_spec(text: str) -> bool:
    """Whether a text names an object in a file or a module."""
    place, colon, name = text.rpartition(":")
    return bool(colon) and bool(place) and name.isidentifier()


def load(spec: str) -> tuple[Any, Origin]:
    """(the object that a spec names, where it comes from).

    Raises:
        UserError: there is no such file, module or name, or its code fails.
    """
    check(is_spec(spec), f"{spec} names no object: write path/to/file.py:NAME or package.module:NAME")
    place, _, name = spec.rpartition(":")
    module, origin = load_module(place)
    check(hasattr(module, name), f"{place} has no {name}")
    return getattr(module, name), origin


def load_module(place: str, digest: str | None = None) -> tuple[ModuleType, Origin]:
    """(the module of a file or of a name, where it comes from).

    Args:
        place: path of a file that ends in .py, or name of a module.
        digest: that the file must have; None takes it as it is.

    Raises:
        UserError: there is no such file or module, its code fails, or it is not what it was.
    """
    if place.endswith(".py"):
        path = Path(place).resolve()
        check(path.is_file(), f"there is no file {path}")
        found = Origin(str(path), _digest(path))
    else:
        module = _ran(place, lambda: importlib.import_module(place))
        found = origin_of(module)
    check(
        digest is None or digest == found.digest,
        f"{found.place} has changed since then: put the old file back, or name a new folder with --out",
    )
    return (_from_file(Path(found.place), found.digest), found) if place.endswith(".py") else (module, found)


def origin_of(module: ModuleType) -> Origin:
    """Where a module comes from: the file of one that a file was loaded as or that runs as a program, else its name."""
    file = getattr(module, "__file__", None)
    path = Path(file) if file else None
    if path is None or path.suffix != ".py":
        return Origin("" if module.__name__ == "__main__" else module.__name__, "")
    by_file = module.__name__.startswith(_PREFIX) or module.__name__ in ("__main__", "__mp_main__")
    return Origin(str(path.resolve()) if by_file else module.__name__, _digest(path))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _from_file(path: Path, digest: str) -> ModuleType:
    """The module of a file: one for each content, and the program itself where it is that file."""
    program = sys.modules.get("__main__")
    if program is not None and getattr(program, "__file__", None) and Path(str(program.__file__)).resolve() == path:
        return program
    name = f"{_PREFIX}{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    described = importlib.util.spec_from_file_location(name, path)
    assert described is not None
    loader = described.loader
    assert loader is not None
    module = importlib.util.module_from_spec(described)
    sys.modules[name] = module  # dataclasses look there for their module
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)  # for what lies beside the file
    try:
        _ran(str(path), lambda: loader.exec_module(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _ran(place: str, code: Any) -> Any:
    """What user code returns; what it raises is said in one line, with the line of the file."""
    try:
        return code()
    except UserError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == place]
        where = f", line {lines[-1]}" if lines else ""
        raise UserError(f"{place}{where}: {type(error).__name__}: {error}") from error
