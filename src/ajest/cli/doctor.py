"""The verb doctor: what this machine has, and how fast it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .console import Device, console, device_of

#: Bytes of free disk below which a bench may not fit.
_LITTLE_DISK = 2 << 30


def doctor(device: Device = "auto") -> None:
    """Say what ajest finds on this machine, and time a step of the tree.

    Example: ajest doctor

    Args:
        device: where to time it.
    """
    from rich.table import Table

    from ajest.runtime.environment import facts

    table = Table(box=None, show_header=False, pad_edge=False)
    where = device_of(device)
    for name, text in [*_lines(facts()), *_disk(), ("step", _step(where))]:
        table.add_row(name, text)
    console().print(table, markup=False, highlight=False)


def _lines(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    versions = found["versions"]
    first = {name: versions.pop(name) for name in ("ajest", "python", "torch") if name in versions}
    yield "versions", ", ".join(f"{name} {version}" for name, version in first.items())
    yield "packages", ", ".join(f"{name} {version}" for name, version in versions.items()) or "none are known"
    yield "system", found["system"]
    cards = found["cards"]
    if isinstance(cards, str):
        yield "CUDA", cards
    else:
        each = (f"{card['name']}, {_gib(card['free'])} of {_gib(card['total'])} GiB free" for card in cards)
        yield "CUDA", "; ".join(each) or "no device: networks compute on the CPU"
    yield "CPU", f"{found['cores']} cores, {found['threads']} threads, {_gib(found['memory'])} GiB of memory"
    for extra, packages in found["missing"].items():
        yield f"extra {extra}", f"missing: pip install 'ajest[{extra}]'" if packages else "installed"


def _disk() -> Iterator[tuple[str, str]]:
    from ajest.tasks.images.data.cache import cache_folder

    for name, folder, mend in (
        ("disk", Path.cwd(), "name another folder with --out"),
        ("cache", cache_folder(), "set AJEST_CACHE to another folder"),
    ):
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        free = shutil.disk_usage(there).free
        yield name, f"{_gib(free)} GiB free in {folder}" + (f": little, {mend}" if free < _LITTLE_DISK else "")


def _step(device: str) -> str:
    """How long the baseline's step of the tree's first preset takes here, on one thread too where there are more."""
    import torch

    from ajest.bench.plan.presets import bench_of, presets_of
    from ajest.bench.run.calibration import step_seconds
    from ajest.runtime.threads import configure_threads

    configure_threads()
    preset = presets_of("tree")[0]
    counts = tuple(sorted({1, torch.get_num_threads()})) if device == "cpu" else (1,)
    seconds = step_seconds(Path(), bench_of("tree", preset), counts, device)
    found = ", ".join(
        f"{1000 * s:.3g} ms" + f" on {n} of {counts[-1]} threads" * (len(counts) > 1) for n, s in seconds.items()
    )
    slower = "; more threads are slower: does another process take a core?" if seconds[counts[-1]] > seconds[1] else ""
    return f"{found}{slower} (the baseline of `ajest bench tree`, {device})"


def _gib(size: float) -> str:
    return f"{size / 2**30:,.0f}"
