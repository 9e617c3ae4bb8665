"""The library itself, imported once it is needed, and its classes by name."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

from ajest.errors import UserError, check, unknown

#: Where a folder that `from_pretrained` reads keeps the parts of a pipeline that denoise.
PARTS = ("unet", "transformer")


def library() -> ModuleType:
    """The package diffusers.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module("diffusers")
    except ImportError as error:
        raise UserError(f"models of diffusers need that package ({error}): pip install 'ajest[diffusers]'") from error


def class_named(name: str, base: str) -> Any:
    """A class of diffusers; code of any other place is never run.

    Args:
        name: of the class, as `_class_name` in a config.
        base: name of the class of diffusers from which it must be derived.

    Raises:
        UserError: there is none, it is no such class, or it needs a package that is not there.
    """
    package = library()
    kind, wanted = getattr(package, name, None), getattr(package, base)
    if kind is None:
        raise unknown("class of diffusers", name, (n for n in dir(package) if n.endswith(base.removesuffix("Mixin"))))
    check(isinstance(kind, type) and issubclass(kind, wanted), f"{name} is no {base} of diffusers")
    return kind


def made(kind: Any, config: dict[str, Any]) -> Any:
    """An object of a class of diffusers from its config.

    Raises:
        UserError: the config cannot be.
    """
    try:
        return kind.from_config(config)
    except Exception as error:  # of whatever class: values of a config are checked by use
        first = (str(error).splitlines() or [""])[0]
        raise UserError(f"{kind.__name__} cannot be made of this config: {type(error).__name__}: {first}") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: it cannot be read as one.
    """
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    check(isinstance(value, dict), f"{path} should hold an object with the settings of a class of diffusers")
    return dict(value)
