"""Frozen dataclasses to JSON and back, and what differs between two of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import cattrs

from ajest.errors import UserError, listed

T = TypeVar("T")


_converter = cattrs.Converter(forbid_extra_keys=True)


def register(kind: type, write: Callable[[Any], Any], read: Callable[[Any, Any], Any]) -> None:
    """Say how values of a class that others derive from become JSON (`write`) and come back (`read`, of the JSON and
    the class)."""
    _converter.register_unstructure_hook(kind, write)
    _converter.register_structure_hook_func(lambda wanted: wanted is kind, read)


def structured(value: Any, kind: type[T]) -> T:
    """A dataclass of JSON, within a `read` of `register`."""
    return _converter.structure(value, kind)


def to_json(value: Any) -> Any:
    return _converter.unstructure(value)


def from_json(kind: type[T], value: Any, where: str) -> T:
    """The dataclass that `to_json` wrote.

    Raises:
        UserError: a field is missing, unknown or of the wrong kind; the message names it and `where`.
    """
    if not isinstance(value, dict):
        raise UserError(f"{where}: an object with the fields of a {kind.__name__} should stand there")
    try:
        return _converter.structure(value, kind)
    except cattrs.BaseValidationError as error:
        mistake = _mistake(error)
        said = listed(cattrs.transform_error(error)) if mistake is None else str(mistake)
        raise UserError(f"{where}: {said}") from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:  # of fields of another form
        raise UserError(f"{where}: {error}") from error


def _mistake(error: BaseException) -> UserError | None:
    """The first line meant for a person among the errors of fields."""
    if isinstance(error, UserError):
        return error
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return next((found for part in inner if (found := _mistake(part)) is not None), None)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Fields in which two configurations differ, each as `path: old -> new`."""
    if is_dataclass(old) and type(old) is type(new):
        found = []
        for f in (f for f in fields(old) if f.compare):
            found += differences(getattr(old, f.name), getattr(new, f.name), f"{path}{f.name}.")
        return found
    if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        found = []
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            found += differences(a, b, f"{path.rstrip('.')}[{getattr(a, 'name', i)}].")
        return found
    return [] if old == new else [f"{path.rstrip('.')}: {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({listed((getattr(v, 'name', v) for v in value), 5)})"
    return str(value)
