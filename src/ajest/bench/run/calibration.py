"""What a step of each kind costs: all kinds timed in turns, so that a machine's drift hits all alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ajest.bench.plan.config import BenchConfig, Costs, run_folder
from ajest.bench.plan.objectives import objective_of
from ajest.errors import check
from ajest.selection.arm import Arm
from ajest.selection.catalogue import ARMS
from ajest.selection.kinds import StepKind
from ajest.storage.checkpoint import read_sealed, write_sealed
from ajest.training.run import make_trainer
from ajest.training.run_folder import RunConfig
from ajest.training.trainer import Step, Trainer

WARMUP_ROUNDS = 4
THREAD_ROUNDS = 5
_GENTLE = 1e-3


def calibrate(root: Path, config: BenchConfig, device: torch.device | str = "cpu") -> Costs:
    """Median seconds of each phase of each kind of step, and of the "guide"'s; kept in calibration.json and not
    measured again.

    Raises:
        UserError: they were measured on another device.
    """
    known, here = calibrated_costs(root), _named(device)
    if known:
        there = read_sealed(root / "calibration.json").get("device", here)
        check(
            there == here,
            f"steps of {root} were timed on {there}, and this is {here}: equal time holds on one device alone; go on "
            "there (--device), or name a new folder with --out",
        )
        return known
    costs = measure(root, config, device)
    source = config.task.source("cpu")
    objectives = {arm.name: objective_of(arm, source) for arm in config.arms}
    facts = {"costs": costs, "rounds": config.calibration_rounds, "objectives": objectives, "device": here}
    write_sealed(root / "calibration.json", facts)
    return costs


def _named(device: torch.device | str) -> str:
    """The kind of device; of a CUDA device the card."""
    kind = torch.device(device).type
    return torch.cuda.get_device_name(device) if kind == "cuda" else kind


def calibrated_costs(root: Path) -> Costs:
    """What `calibrate` found, {} before that."""
    path = root / "calibration.json"
    return read_sealed(path)["costs"] if path.exists() else {}


def known_objectives(root: Path) -> dict[str, str]:
    """Of each arm whether its expected objective is the task's own, see `objective_of`; {} before `calibrate`."""
    path = root / "calibration.json"
    return read_sealed(path).get("objectives", {}) if path.exists() else {}


def agreed_threads(root: Path) -> int | None:
    """Threads that all runs of a folder compute with, None before `agree_on_threads`."""
    path = root / "threads.json"
    return int(read_sealed(path)["threads"]) if path.exists() else None


def agree_on_threads(root: Path, config: BenchConfig, device: str, asked: int, say: Callable[[str], None]) -> int:
    """Threads of each run from now on, kept in threads.json: as many as are asked for, unless one alone is faster.

    Threads wait for each other many times in a step. Where another process takes a core, they wait for that.

    Args:
        root, config: the bench.
        device: where it computes.
        asked: how many there could be.
        say: told if fewer are taken.
    """
    known = agreed_threads(root)
    if known is not None:
        return known
    seconds = step_seconds(root, config, (1, asked)) if asked > 1 and device == "cpu" else {}
    threads = 1 if seconds and seconds[1] <= seconds[asked] else asked
    if threads < asked:
        say(
            f"with {asked} threads a step takes {seconds[asked] / seconds[1]:.3g} times as long as with one: another "
            "process takes a core, or the network is too small to share; each run gets one"
        )
    write_sealed(root / "threads.json", {"threads": threads, "asked": asked, "seconds": list(seconds.values())})
    return threads


def step_seconds(
    root: Path, config: BenchConfig, threads: tuple[int, ...], device: torch.device | str = "cpu"
) -> dict[int, float]:
    """Median seconds of the baseline's step with so many threads, timed in turns."""
    before = torch.get_num_threads()
    trainer = make_trainer(root / "guide", _gently(config.run(ARMS["baseline"], config.seeds[0])), device)
    times: dict[int, list[float]] = {count: [] for count in threads}
    for turn in range(1 + THREAD_ROUNDS):
        for count, found in times.items():
            torch.set_num_threads(count)
            step = trainer.step()
            if turn:
                found.append(sum(step.seconds.values()))
    torch.set_num_threads(before)
    return {count: float(np.median(found)) for count, found in times.items()}


def _gently(run: RunConfig) -> RunConfig:
    """A run at a rate that hardly moves its weights."""
    rate = run.recipe.learning_rate
    return replace(run, recipe=replace(run.recipe, learning_rate=replace(rate, peak=_GENTLE * rate.peak)))


def measure(root: Path, config: BenchConfig, device: torch.device | str = "cpu") -> Costs:
    """`calibrate` without its file. Among the kinds is always the uniform step, which others are held against.

    One source, one learner with its optimiser and averages, and one of each reference are enough for all kinds: what a
    step costs does not hang on what the weights are. Nor does it on the learning rate, which is so low that many steps
    of all kinds in turns do not diverge. Updates of as many examples share one median.
    """
    shared, seed = config.task.source(device), config.seeds[0]
    # One that reads ahead of a run would read for whoever comes next in turn.
    source_of = partial(config.task.source, device) if getattr(shared, "reads_ahead", False) else lambda: shared
    trainers: dict[StepKind, Trainer] = {}
    for arm in (ARMS["baseline"], *config.arms):
        kinds = [kind for kind in arm.kinds() if kind not in trainers]
        if not kinds:
            continue
        folder, run = run_folder(root, arm.name, seed), _gently(config.run(arm, seed))
        trainer = make_trainer(folder, run, device, source_of(), beside=tuple(trainers.values()))
        trainers |= dict.fromkeys(kinds, trainer)
        if any(kind.mode == "recall" for kind in kinds):  # looking up in an empty memory takes less time
            trainer.step(arm.kinds()[0])
    steps: dict[str, Callable[[], Step]] = {k.label: partial(_forced, t, k) for k, t in trainers.items()}
    arms: dict[str, Arm] = {k.label: t.arm for k, t in trainers.items()}
    steps["guide"] = make_trainer(root / "guide", _gently(config.guide()), device, source_of()).step
    times: dict[Hashable, list[float]] = defaultdict(list)
    works: dict[str, dict[str, Hashable]] = {label: {} for label in steps}
    for turn in range(WARMUP_ROUNDS + config.calibration_rounds):
        for label, step in steps.items():
            taken = step()
            if turn >= WARMUP_ROUNDS:
                for phase, seconds in taken.seconds.items():
                    work = works[label][phase] = _work(phase, label, arms.get(label), taken)
                    times[work].append(seconds)
    return {label: {p: float(np.median(times[work])) for p, work in found.items()} for label, found in works.items()}


def _work(phase: str, label: str, arm: Arm | None, taken: Step) -> Hashable:
    """What a phase's seconds are the median over: those of its kind of step, and of all kinds that do the same in it.

    Arms that train on as many examples would else be given unequal budgets by chance: what is left of it differs by a
    few percent.
    """
    if arm is None or phase not in ("update", "ema"):
        return phase, label
    trained = len(taken.batch if taken.kept is None else taken.kept)
    return phase, trained, arm.updates.work, arm.noising.contrast is None, arm.scoring.scorer


def _forced(trainer: Trainer, kind: StepKind) -> Step:
    """A step of a kind as it is before the trigger has fired: after it nothing is compared any more."""
    trainer.selector.trigger = trainer.arm.trigger.begin()
    return trainer.step(kind)
