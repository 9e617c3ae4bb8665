"""Which reference a run began with: it goes on with that one or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ajest.errors import Corrupt, check
from ajest.storage import checkpoint

from .run_folder import RunConfig, load_snapshot, read_status, snapshots


def place_of(folder: Path, config: RunConfig) -> Path | None:
    """The folder of the reference's run; None for a run without one.

    Raises:
        UserError: the arm needs one and none is named.
    """
    if config.arm.reference not in ("guide", "strong"):
        return None
    check(config.guide is not None, f"arm {config.arm.name!r} needs a reference: name its run with --guide")
    return Path(os.path.normpath(folder / str(config.guide)))


def settled(folder: Path, config: RunConfig) -> int | None:
    """The step of the snapshot that is a run's reference: the one that it began with, which is kept in the run's
    folder; the latest where it has yet to begin. None for a run without a reference.

    Raises:
        UserError: the one it began with is gone or is another one by now, or there is none yet.
    """
    place, record = place_of(folder, config), folder / "reference.json"
    if place is None:
        return None
    ended = bool(read_status(folder))
    begun = ended or bool(checkpoint.stems(folder, "checkpoint"))
    if not begun or not record.exists():
        step = int(load_snapshot(place).facts["step"])
        checkpoint.write_sealed(record, {"step": step, "sha256": _digest(place, step)})
        return step
    known = checkpoint.read_sealed(record)
    step = int(known["step"])
    there = _digest(place, step)
    check(
        there == known["sha256"] or (ended and there is None),  # what has ended needs it no more
        f"{place} is not the reference that the run in {folder} began with: its snapshot of step {step:,} is gone or "
        f"was trained anew. Put the old one back, or delete {folder} to begin again with the new one",
    )
    return step


def _digest(place: Path, step: int) -> Any:
    """Of a snapshot's content; None where it cannot be read."""
    try:
        return checkpoint.facts(snapshots(place)[step])["sha256"]
    except (Corrupt, KeyError):
        return None
