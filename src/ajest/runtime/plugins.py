"""Code of the user's: objects in a file or a module that are named as `path/to/file.py:NAME` or `package.module:NAME`.

The file's digest belongs to what is named, so that a worker, a cluster's job or a bench that goes on has the same code.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ajest.errors import UserError, check, listed


@dataclass(frozen=True)
class Origin:
    """Where code comes from.

    Attributes:
        place: an absolute path that ends in .py, or the name of a module; "" for what lives in this process alone.
        digest: of the file's content.
    """

    place: str
    digest: str


_origins: dict[str, Origin] = {}  # of modules, by name
_reading: list[str] = []  # files and modules whose code runs at present, for what it defines


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
    check(hasattr(module, name), f"{place} has no {name}; it defines {listed(_defined(module)) or 'nothing'}")
    return getattr(module, name), origin


def _defined(module: ModuleType) -> list[str]:
    """Names of the classes and functions whose code stands in a module."""
    found = vars(module).items()
    return [name for name, value in found if getattr(value, "__module__", None) == module.__name__]


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
        described = ran(place, lambda: importlib.util.find_spec(place))
        check(described is not None, f"there is no module {place}")
        file = described.origin or ""
        found = Origin(place, _digest(Path(file)) if file.endswith(".py") else "")
    check(
        digest is None or digest == found.digest,
        f"{found.place} has changed since then: put the old file back, or name a new folder with --out",
    )
    if place.endswith(".py"):
        return _from_file(found), found
    return _read(place, lambda: importlib.import_module(place)), found


def origin_of(module: ModuleType) -> Origin:
    """Where a module comes from: the file of one that a file was loaded as or that runs as a program, else its name.

    Its digest is that of the first look: a file that is changed later is other code than what runs.
    """
    name = module.__name__
    if name not in _origins:
        file = getattr(module, "__file__", None)
        path = Path(file) if file else None
        program = name in ("__main__", "__mp_main__")
        if path is None or path.suffix != ".py":
            _origins[name] = Origin("" if program else name, "")
        else:
            _origins[name] = Origin(str(path.resolve()) if program else name, _digest(path))
    return _origins[name]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _from_file(origin: Origin) -> ModuleType:
    """The module of a file: one for each place and content, and the program itself where it is that file."""
    path, program = Path(origin.place), sys.modules.get("__main__")
    if program is not None and origin_of(program) == origin:
        return program
    where = hashlib.sha256(origin.place.encode()).hexdigest()[:8]
    name = f"ajest_file_{path.stem}_{where}_{origin.digest}"
    if name in sys.modules:
        return sys.modules[name]
    _origins[name] = origin
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
        _read(str(path), lambda: loader.exec_module(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def check_not_reading(what: str) -> None:
    """Raise where the user's code is but read for what it defines, as workers do, and starts something meanwhile.

    Args:
        what: it starts, with its article.

    Raises:
        UserError: names the file and the mend.
    """
    place = _reading[-1] if _reading else ""
    check(
        not place,
        f"{place} starts {what} whenever it is read for what it defines, which each worker does: put the start under "
        'if __name__ == "__main__":',
    )


def _read(place: str, code: Callable[[], Any]) -> Any:
    """What the code of a file or module returns while it is read for what it defines; see `ran`."""
    _reading.append(place)
    try:
        return ran(place, code)
    finally:
        _reading.pop()


def ran(place: str, code: Callable[[], Any]) -> Any:
    """What user code returns; what it raises is said in one line, with the line of the file."""
    try:
        return code()
    except UserError:
        raise
    except Exception as error:
        file = place.rpartition(":")[0] if is_spec(place) else place
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename) == Path(file).resolve()]
        where = f", line {lines[-1]}" if lines else ""
        raise UserError(f"{place}{where}: {type(error).__name__}: {error}") from error
