"""What ajest runs with: versions, extras, cores, memory, cards."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from typing import Any

import torch

from ajest.errors import UserError

from . import cards
from .threads import cores, limited

#: Extras for who changes ajest; the others are for who uses it.
_FOR_DEVELOPERS = ("test", "dev", "docs")
#: A requirement as package metadata has it, such as `submitit>=1.5; extra == "slurm"`.
_REQUIREMENT = re.compile(r"^([\w.-]+)[^;]*(?:;.*\bextra\s*==\s*['\"]([\w.-]+)['\"])?")


def requirements() -> dict[str, tuple[str, ...]]:
    """The packages that ajest asks for, by extra; "" are those that it always needs. {} where it was not installed."""
    try:
        asked = metadata.requires("ajest") or []
    except metadata.PackageNotFoundError:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for match in filter(None, map(_REQUIREMENT.match, asked)):
        package, extra = match[1], match[2] or ""
        found[extra] = (*found.get(extra, ()), package)
    return found


def version_of(package: str) -> str | None:
    """Of a package, None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def missing() -> dict[str, tuple[str, ...]]:
    """The packages of each extra that are not installed; () for an extra that is whole."""
    return {
        extra: tuple(package for package in packages if version_of(package) is None)
        for extra, packages in sorted(requirements().items())
        if extra and extra not in _FOR_DEVELOPERS
    }


def versions() -> dict[str, str]:
    """Of ajest, Python and every package that ajest asks for and finds."""
    from ajest import __version__

    packages = sorted({package for packages in requirements().values() for package in packages} - {"ajest"})
    known = {package: version for package in packages if (version := version_of(package)) is not None}
    known["torch"] = torch.__version__  # with its build, such as +cu130
    return {"ajest": __version__, "python": platform.python_version(), **known}


def facts() -> dict[str, Any]:
    """What a report of a fault should say of the machine and the environment, as JSON. Memory is in bytes."""
    graphics: list[dict[str, Any]] | str
    try:
        graphics = [{"name": card.name, "total": card.total, "free": card.free} for card in cards.visible()]
    except UserError as error:
        graphics = str(error)
    return {
        "versions": versions(),
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": cores(),
        "threads": limited(cores()),
        "memory": memory(),
        "cards": graphics,
        "missing": missing(),
    }


def memory() -> int:
    """Bytes of memory of this machine, 0 where it does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0
