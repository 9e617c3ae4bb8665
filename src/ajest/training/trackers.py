"""Where a run's numbers go beside its ledger: TensorBoard, Weights & Biases, trackio.

The ledger is always written; a tracker is told of every line of it, with the same names everywhere. A tracker that
fails is named once and left alone: it never stops a run.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
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


class TensorBoard:
    """Event files in the folder `tensorboard` of the run."""

    def __init__(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What was written after the checkpoint that the run goes on from is to be forgotten.
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of the project "ajest" at Weights & Biases; WANDB_MODE=offline keeps it in the folder."""

    def __init__(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        import wandb

        settings: dict[str, Any] = {"dir": str(folder), "id": _identity(folder), "resume": "allow"}
        self._run = wandb.init(project="ajest", name=_title(folder), config=dict(config), **settings)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A run of the project "ajest" in trackio."""

    def __init__(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        import trackio

        self._trackio = trackio
        trackio.init(project="ajest", name=_title(folder), config=dict(config), resume="allow")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._trackio.log(dict(values), step=step)

    def close(self) -> None:
        self._trackio.finish()


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any], int], Tracker]] = {
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
        names: of them, see `TRACKERS`.
        folder: of the run.
        config: of the run, as plain data.
        step: that the run goes on from.
        warn: told once of each that fails.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        folder: Path,
        config: Mapping[str, Any],
        step: int,
        warn: Callable[[str], None],
    ) -> None:
        self._warn = warn
        self._open: dict[str, Tracker] = {}
        for name in names:
            self._guarded(name, partial(self._begin, name, folder, config, step))

    def _begin(self, name: str, folder: Path, config: Mapping[str, Any], step: int) -> None:
        self._open[name] = TRACKERS[name](folder, config, step)

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


def checked(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, if all are of trackers that are installed.

    Raises:
        UserError: one is unknown or not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS)
        if importlib.util.find_spec(name) is None:
            raise UserError(f"the tracker {name} is not installed: pip install 'ajest[{name}]'")
    return names
