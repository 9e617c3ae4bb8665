"""The tasks that there are: those of this package, of installed ones, and of the user's files.

A config names its task by `name` where any process knows that, else by where its class stands (`from`) and the digest
of that file, so that a worker or a later day can read it back.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from functools import cache
from importlib import metadata
from inspect import signature
from typing import Any, TypeVar

from ajest.errors import UserError, check, unknown
from ajest.runtime import plugins
from ajest.storage import config

from .base import Task

#: Where an installed package names its tasks: `NAME = "package.module:Class"`.
ENTRY_POINTS = "ajest.tasks"

_BUILT_IN = {
    "tree": "ajest.tasks.tree.task:TreeTask",
    "images": "ajest.tasks.images.task:ImageTask",
    "vectors": "ajest.tasks.vectors.task:VectorsTask",
}
#: What makes those that are learned from data, where none are named.
_MADE_BY = {"images": "ajest.tasks.images.setup:usual", "vectors": "ajest.tasks.vectors.setup:usual"}
_registered: dict[str, type[Task]] = {}
_memory: dict[str, type[Task]] = {}  # classes that stand in no file

T = TypeVar("T", bound=type[Task])


def register(kind: T) -> T:
    """Make a task known by its `name`, a class decorator.

    Raises:
        UserError: it is no frozen dataclass, has no name, or another task has that name.
    """
    _check_kind(kind)
    name = str(vars(kind)["name"])
    check(_registered.get(name, kind) is kind and name not in _BUILT_IN, f"there is another task {name!r}")
    _registered[name] = kind
    return kind


def known() -> list[str]:
    """The names of all registered tasks."""
    return sorted({*_BUILT_IN, *_registered, *(point.name for point in _entry_points())})


def kind_of(name: str) -> type[Task]:
    """The class of a registered task.

    Raises:
        UserError: there is none of that name.
    """
    if name in _registered:
        return _registered[name]
    place = _BUILT_IN.get(name) or next((point.value for point in _entry_points() if point.name == name), None)
    if place is None:
        raise unknown("task", name, known())
    kind, _ = plugins.load(place)
    _check_kind(kind)
    return kind


def make(name: str) -> Task:
    """A registered task with its own settings.

    Raises:
        UserError: there is none of that name, or it cannot be made of nothing.
    """
    maker: Any = plugins.load(_MADE_BY[name])[0] if name in _MADE_BY else kind_of(name)
    try:
        signature(maker).bind()
    except TypeError as error:
        raise UserError(f"the task {name} needs settings: make it in Python, or in a file as FILE.py:NAME") from error
    return maker()


def from_spec(spec: str) -> Task:
    """The task that a function or class of the user's makes, named as `path/to/file.py:NAME` or `package.module:NAME`.

    Raises:
        UserError: there is none, its code fails, or what it makes is no task.
    """
    made, _ = plugins.load(spec)
    task = plugins.ran(spec, made) if callable(made) else made
    check(isinstance(task, Task), f"{spec} makes no task but a {type(task).__name__}: derive it from ajest.tasks.Task")
    _check_kind(type(task))
    return task


def elsewhere(task: Task) -> bool:
    """Whether another process can make the task from a config: not if it lives in this one alone."""
    return bool(_origin(type(task)).place)


def _origin(kind: type[Task]) -> plugins.Origin:
    """Where a class stands; nowhere if it is of a notebook, or made by a function."""
    local = "<locals>" in kind.__qualname__
    return plugins.Origin("", "") if local else plugins.origin_of(sys.modules[kind.__module__])


def _check_kind(kind: Any) -> None:
    what = getattr(kind, "__name__", str(kind))
    check(isinstance(kind, type) and issubclass(kind, Task), f"{what} is no task: derive it from ajest.tasks.Task")
    check(
        "__dataclass_fields__" in vars(kind),
        f"{what} must be a frozen dataclass: its settings are what identifies it",
    )
    check(isinstance(getattr(kind, "name", None), str), f'{what} has no name: give it a field name: str = "..."')


@cache
def _entry_points() -> tuple[metadata.EntryPoint, ...]:
    return tuple(metadata.entry_points(group=ENTRY_POINTS))


def _to_json(task: Task) -> dict[str, Any]:
    settings = {f.name: config.to_json(getattr(task, f.name)) for f in fields(task)}
    kind = type(task)
    if task.name not in _registered and task.name in known() and kind_of(task.name) is kind:
        return settings  # any process knows it by its name
    origin = _origin(kind)
    if not origin.place:
        _memory[kind.__qualname__] = kind
    return {"from": {"place": origin.place, "class": kind.__qualname__, "digest": origin.digest}, **settings}


def _from_json(value: Any, _: Any) -> Task:
    if not isinstance(value, dict):
        raise ValueError(f"a task is an object with a name, not {value!r}")
    settings = dict(value)
    origin = settings.pop("from", None)
    if origin is None:
        return config.structured(settings, kind_of(str(settings.get("name"))))
    place, name = str(origin["place"]), str(origin["class"])
    if not place:
        check(name in _memory, f"the task {name} lives in no file: make it again in Python before its folder is read")
        return config.structured(settings, _memory[name])
    module, _ = plugins.load_module(place, str(origin["digest"]))
    kind: Any = getattr(module, name, None)
    _check_kind(kind)
    return config.structured(settings, kind)


config.register(Task, _to_json, _from_json)
