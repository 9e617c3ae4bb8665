"""Where a run's numbers go beside its ledger: TensorBoard, Weights & Biases, trackio.

The ledger is always written; a tracker is told of every line of it, with the same names everywhere. A tracker that
fails is named once and left alone: it never stops a run.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ajest.errors import UserError, unknown


class Tracker(Protocol):
    """What a run tells its numbers to."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take in the numbers of a step."""
        ...

    def close(self) -> None:
        """Write down what is not yet."""
        ...


@dataclass(frozen=True)
class Tracking:
    """Which trackers are told of a run, and where it stands there.

    Attributes:
        names: of the trackers, see `TRACKERS`.
        project: that the run belongs to.
        entity: user or team that it belongs to; None: who is logged in.
        group: of runs that are shown together.
        tags: of the run.
    """

    names: tuple[str, ...] = ()
    project: str = "ajest"
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tracked:
    """A run as a tracker begins with it.

    Attributes:
        folder: of the run.
        config: of the run, as plain data.
        step: that it goes on from.
        place: where it stands.
    """

    folder: Path
    config: Mapping[str, Any]
    step: int
    place: Tracking


class TensorBoard:
    """Event files in the folder `tensorboard` of the run."""

    def __init__(self, run: Tracked) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What was written after the checkpoint that the run goes on from is to be forgotten.
        purge = run.step + 1 if run.step else None
        self._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=purge)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run at Weights & Biases; WANDB_MODE=offline keeps it in the folder."""

    def __init__(self, run: Tracked) -> None:
        import wandb

        place = run.place
        settings: dict[str, Any] = {"entity": place.entity, "group": place.group, "tags": place.tags or None}
        settings |= {"dir": str(run.folder), "id": _identity(run.folder), "resume": "allow"}
        self._run = wandb.init(project=place.project, name=_title(run.folder), config=dict(run.config), **settings)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A run in trackio."""

    def __init__(self, run: Tracked) -> None:
        import trackio

        self._trackio = trackio
        own = {} if run.place.group is None else {"group": run.place.group}
        name = _title(run.folder)
        trackio.init(project=run.place.project, name=name, config=dict(run.config), resume="allow", **own)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._trackio.log(dict(values), step=step)

    def close(self) -> None:
        self._trackio.finish()


TRACKERS: dict[str, Callable[[Tracked], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "trackio": Trackio,
}


def _title(folder: Path) -> str:
    """A run's name among others: the last folders of its path."""
    return "/".join(folder.resolve().parts[-3:])


def _identity(folder: Path) -> str:
    return hashlib.blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest()


def numbers_of(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a ledger's line by name, nested ones as `outer/inner`: `loss`, `clocks/calibrated`,
    `seconds/update`, `scores/test_retest`."""
    found: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, Mapping):
            found |= {f"{name}/{inner}": number for inner, number in numbers_of(value).items()}
        elif isinstance(value, int | float) and name != "step":
            found[name] = float(value)
    return found


class Trackers:
    """All trackers of a run, of which none can stop it.

    Args:
        run: that they are told of.
        warn: told once of each that fails.
    """

    def __init__(self, run: Tracked, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._open: dict[str, Tracker] = {}
        for name in run.place.names:
            self._guarded(name, partial(self._begin, name, run))

    def _begin(self, name: str, run: Tracked) -> None:
        self._open[name] = TRACKERS[name](run)

    def log(self, line: Mapping[str, Any]) -> None:
        """Tell all of a line of the ledger."""
        values = numbers_of(line)
        for name, tracker in list(self._open.items()):
            self._guarded(name, partial(tracker.log, int(line["step"]), values))

    def close(self) -> None:
        for name, tracker in list(self._open.items()):
            self._guarded(name, tracker.close)

    def _guarded(self, name: str, do: Callable[[], object]) -> None:
        try:
            do()
        except Exception as error:  # whatever goes wrong in there is no reason to lose a run
            self._open.pop(name, None)
            self._warn(f"the tracker {name} failed, and the run goes on without it: {type(error).__name__}: {error}")


#: Which trackers know of what a run's place says.
_KNOW = {
    "project": ("wandb", "trackio"),
    "group": ("wandb", "trackio"),
    "entity": ("wandb",),
    "tags": ("wandb",),
}


def checked(tracking: Tracking) -> Tracking:
    """The same, if all trackers are installed and one of them has a use for all that is said.

    Raises:
        UserError: one is unknown or not installed, or something means nothing to any of them.
    """
    for field in fields(Tracking):
        who = _KNOW.get(field.name, tracking.names)
        if getattr(tracking, field.name) != field.default and not set(who) & set(tracking.names):
            raise UserError(f"--track-{field.name} means something to {' and '.join(who)} alone: name it with --track")
    for name in tracking.names:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS)
        if importlib.util.find_spec(name) is None:
            raise UserError(f"the tracker {name} is not installed: pip install 'ajest[{name}]'")
    return tracking
