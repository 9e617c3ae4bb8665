"""A run's folder: whose it is, where it stands, and the networks that lie in it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import checkpoint
from .arms import Arm
from .checkpoint import Stored, unwritable, write_json
from .config import check, differences, from_json, to_json
from .denoising import Denoiser
from .ema import TOLERANCE, average_of, posthoc_coefficients, posthoc_residual, reconstruct
from .errors import Corrupt, UserError, listed
from .guidance import relabelled
from .tasks import AnyTask, Role
from .training import Recipe

_LOOKS = 5  # at a lock


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's weights.

    Attributes:
        task: what is learned.
        role: which of the task's networks; names the random streams together with the seed.
        recipe: how.
        arm: from which examples.
        seed: names the random streams.
        iterations: steps to take.
        guide: folder of the reference's run relative to this run's folder, None where none is used.
    """

    task: AnyTask
    role: Role
    recipe: Recipe
    arm: Arm
    seed: int
    iterations: int
    guide: str | None = None

    def __post_init__(self) -> None:
        check(self.iterations >= 1, f"iterations must be at least 1, not {self.iterations}")
        self.arm.kept(self.recipe.super_batch)

    @property
    def stretched(self) -> str:
        """What of it goes by the share of the run that is done, so that a longer run differs from its beginning; ""
        where nothing does."""
        rate = self.recipe.learning_rate
        goes = {
            "its learning rate falls": rate.clock == "share" and rate.decay > 0,
            "its selection fades": self.arm.cooling,
            "its selection stops": self.arm.trigger.mode == "share",
        }
        return next((f"{what} by the share of the run that is done" for what, is_so in goes.items() if is_so), "")


def adopt(folder: Path, config: Any, name: str = "config.json") -> None:
    """Write the config into a new folder, or make sure that the folder has this very config.

    A run may be given more steps, unless what it learns on the way depends on its length.

    Raises:
        UserError: the folder has another config; the message names the fields that differ.
    """
    path = folder / name
    if not path.exists():
        write_json(path, to_json(config))
        return
    stored = checkpoint.read_json(path)
    known = from_json(type(config), stored, str(path))
    changed = differences(known, config)
    if changed and isinstance(config, RunConfig) and known == replace(config, iterations=known.iterations):
        _extend(folder, known, config)
    elif changed:
        raise UserError(
            f"{folder} holds a run of another config ({listed(changed)}): name a new folder with --out, "
            "or go on with the old settings"
        )
    if stored != json.loads(json.dumps(to_json(config))):  # what may change: where the data lies, summaries
        write_json(path, to_json(config))


def _extend(folder: Path, known: RunConfig, config: RunConfig) -> None:
    """Let a run go on beyond its end.

    Raises:
        UserError: it would not become what a run of that length becomes.
    """
    why = config.stretched
    if config.iterations < known.iterations:
        why = "it cannot be shortened"
    check(
        not why,
        f"{folder} holds a run of {known.iterations:,} steps, which cannot become one of {config.iterations:,}: {why}; "
        "name a new folder with --out, or keep the number of steps",
    )
    if read_status(folder).get("state") == "done":
        (folder / "status.json").unlink()


def read_config(folder: Path) -> RunConfig:
    path = folder / "config.json"
    check(path.exists(), f"{folder} is not a run: it has no config.json")
    try:
        return from_json(RunConfig, checkpoint.read_json(path), str(path))
    except Corrupt as error:
        raise UserError(str(error)) from error


def read_status(folder: Path) -> dict[str, Any]:
    """The status a run ended with, or {}."""
    try:
        return checkpoint.read_sealed(folder / "status.json")
    except Corrupt:
        return {}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process out of the folder.

    Raises:
        UserError: another process is at work in it, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        for attempt in range(_LOOKS):  # who looks whether it is in use holds it for an instant
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if attempt == _LOOKS - 1:
                    raise UserError(
                        f"another process is at work in {folder}: wait for it or name another folder"
                    ) from error
                time.sleep(0.02)
        yield
    finally:
        os.close(handle)


def in_use(folder: Path) -> bool:
    """Whether a process is at work in the folder."""
    try:
        handle = os.open(folder / ".lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def snapshots(folder: Path) -> dict[int, Path]:
    """The snapshots of a run by step."""
    return checkpoint.stems(folder / "snapshots", "snapshot")


def load_snapshot(folder: Path, step: int | None = None, complain: Callable[[str], None] = print) -> Stored:
    """A snapshot, the latest whole one unless a step is named.

    Raises:
        UserError: the run has none, or not that one.
        Corrupt: the named one is damaged.
    """
    known = snapshots(folder)
    if step is None:
        stored = checkpoint.latest(folder / "snapshots", "snapshot", complain)
        if stored is None:
            raise UserError(f"{folder} has no whole snapshot: train it first, or let its training go on")
        return stored
    if step not in known:
        raise UserError(f"{folder} has no snapshot of step {step}; it has {listed(known) or 'none'}")
    return checkpoint.load(known[step])


@dataclass(frozen=True)
class Guidance:
    """Which network guides, and where.

    Attributes:
        run: folder of the guide's run.
        step: of its snapshot; None is the latest whole one.
        width: of its EMA; None is the first that was kept.
        interval: noise levels between which it guides; None is all.
        unconditional: it is asked without labels (classifier-free guidance).
        inexact: its width is taken however far it is off, see `check_width`.
    """

    run: Path
    step: int | None = None
    width: float | None = None
    interval: tuple[float, float] | None = None
    unconditional: bool = False
    inexact: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if self.interval is not None:
            low, high = self.interval
            check(0 <= low < high, f"an interval goes from a lower to a higher noise level, not from {low} to {high}")


def load_network(
    folder: Path,
    step: int | None = None,
    width: float | None = None,
    device: torch.device | str = "cpu",
    beside: AnyTask | None = None,
    inexact: bool = False,
    say: Callable[[str], None] = print,
) -> tuple[nn.Module, int]:
    """(an averaged network of a run in evaluation mode, the step it was taken at).

    Args:
        folder: of the run.
        step: of the snapshot; None takes the latest whole one.
        width: of the EMA; None takes the first; a width that was not kept is reconstructed post hoc from all
            snapshots up to that step.
        device: where the network goes.
        beside: the task of a network that it is to be compared with.
        inexact: take a reconstructed width however far it is off, see `check_width`.
        say: told how far a reconstructed width is off.

    Raises:
        UserError: no such snapshot; a width that no average has, or that the snapshots are too few for; or the run
            learned something else than `beside`.
    """
    config = read_config(folder)
    if beside is not None:
        _same_domain(folder, config.task, beside)
        check(
            config.task.classes == beside.classes,
            f"{folder} learned {config.task.subject}, and what it is compared with learned {beside.subject}: both must "
            "have learned the same classes",
        )
        check(
            config.task.label_dropout > 0 or beside.label_dropout == 0,
            f"{folder} learned with every label, and what it is compared with drops some: train both with "
            "--label-dropout",
        )
    stored = load_snapshot(folder, step)
    kept = config.recipe.ema_widths
    width = kept[0] if width is None else width
    if width in kept:
        weights = average_of(stored.tensors, width)
    else:
        check_width(folder, int(stored.facts["step"]), width, inexact, say)
        weights = _posthoc(folder, int(stored.facts["step"]), kept, width)
    network = config.task.network(config.role, config.seed).to(device)
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False), int(stored.facts["step"])


def load_guide(
    guidance: Guidance, beside: AnyTask, device: torch.device | str = "cpu", say: Callable[[str], None] = print
) -> tuple[Denoiser, int]:
    """(a run's averaged network, to be asked with the labels of what it guides; the step it was taken at).

    A guide of other classes is asked by their keys, one that learned no classes without labels (METHOD 4).

    Args:
        guidance: which.
        beside: the task of what it guides.
        device: where the network goes.
        say: see `load_network`.

    Raises:
        UserError: see `load_network`; or the guide lacks a class, or cannot answer without labels and is to.
    """
    task = read_config(guidance.run).task
    _same_domain(guidance.run, task, beside)
    network, step = load_network(guidance.run, guidance.step, guidance.width, device, None, guidance.inexact, say)
    if guidance.unconditional or not task.classes or not beside.classes:
        check(
            not guidance.unconditional or bool(beside.classes),
            f"{guidance.run} guides what was learned without labels ({beside.subject}): leave out "
            "--unconditional-guide",
        )
        check(
            not task.classes or task.label_dropout > 0,
            f"{guidance.run} learned with every label, so that it cannot be asked without one: train it with "
            "--label-dropout 0.1, or name another guide",
        )
        return relabelled(network, None), step
    if task.classes == beside.classes:
        return network, step
    missing = [c for c in beside.classes if c not in task.classes]
    check(
        not missing,
        f"{guidance.run} cannot guide: it has not learned {listed(missing, 5)}; name a guide of these classes, or of "
        "none",
    )
    return relabelled(network, torch.tensor([task.classes.index(c) for c in beside.classes])), step


def _same_domain(folder: Path, task: AnyTask, beside: AnyTask) -> None:
    check(
        task.domain == beside.domain,
        f"{folder} learned {task.subject}, and the network beside it learned {beside.subject}: both must have learned "
        "the same task, at the same resolution",
    )


def check_width(
    folder: Path, step: int, width: float, inexact: bool = False, say: Callable[[str], None] = print
) -> None:
    """Say how far an average of a width that was not kept would be off, reconstructed from a run's snapshots up to a
    step; nothing where it was kept.

    Raises:
        UserError: more than 2 % (`ema.TOLERANCE`) and not `inexact`; or no average has such a width.
    """
    kept = read_config(folder).recipe.ema_widths
    if width in kept:
        return
    stems, times, widths = _stored(folder, step, kept)
    try:
        residual = posthoc_residual(times, widths, float(step), width)
    except ValueError as error:
        raise UserError(str(error)) from error
    made_of = "1 snapshot" if len(stems) == 1 else f"{len(stems)} snapshots"
    what = (
        f"{folder}: an EMA of width {width:g} at step {step}, made of {made_of} of {', '.join(f'{w:g}' for w in kept)}"
    )
    what += f", is {residual:.2%} off its profile"
    check(
        inexact or residual <= TOLERANCE,
        f"{what}, and more than {TOLERANCE:.0%} is another width: name one that was kept, or take it as it is with "
        "--allow-inexact-ema",
    )
    say(what)


def _posthoc(folder: Path, step: int, kept: tuple[float, ...], width: float) -> dict[str, Tensor]:
    stems, times, widths = _stored(folder, step, kept)
    each = (checkpoint.load(stem).tensors for stem in stems)
    coefficients = posthoc_coefficients(times, widths, float(step), width)
    return reconstruct((average_of(tensors, w) for tensors in each for w in kept), coefficients)


def _stored(folder: Path, step: int, kept: tuple[float, ...]) -> tuple[list[Path], list[float], list[float]]:
    """(the snapshots up to a step, time and width of each average in them)."""
    known = {at: stem for at, stem in snapshots(folder).items() if at <= step}
    return list(known.values()), [float(at) for at in known for _ in kept], list(kept) * len(known)
