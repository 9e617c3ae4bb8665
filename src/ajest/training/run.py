"""One training run in a folder: resumable, with snapshots where budgets are crossed.

A run's folder holds config.json, ledger.jsonl, status.json, checkpoint-STEP.*, snapshots/snapshot-STEP.*,
selection/step-STEP.*, metrics.jsonl, and reference.json where there is a reference. Everything a report needs is there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import nn

from ajest.diffusion.batch import Source
from ajest.errors import Diverged, UserError
from ajest.runtime import distributed, interrupts
from ajest.runtime.seeding import Streams
from ajest.selection.flow import Networks
from ajest.selection.keep_list import restricted
from ajest.storage import checkpoint, jsonl
from ajest.storage.lock import locked

from . import references
from .networks import load_network, network_of
from .recorder import Recorder, prune
from .run_folder import RunConfig, claim_folder, read_config, read_status
from .schedule import Schedule
from .trainer import Trainer


def execute(
    folder: Path,
    config: RunConfig,
    schedule: Schedule,
    device: torch.device | str = "cpu",
    progress: Callable[[int, Trainer], None] | None = None,
    warn: Callable[[str], None] = print,
) -> str:
    """Train to the end, from wherever the folder stands. Returns "done" or "diverged".

    Raises:
        UserError: the folder belongs to another config or is in use, or cannot be written to.
        KeyboardInterrupt: a signal came. The last finished step was saved, the running one too unless it was given up
            (see `interrupts`).
    """
    for trainer in execution(folder, config, schedule, device, warn):
        if progress is not None and trainer.steps_taken:
            progress(trainer.steps_taken, trainer)
    return str(read_status(folder)["state"])


def execution(
    folder: Path,
    config: RunConfig,
    schedule: Schedule,
    device: torch.device | str = "cpu",
    warn: Callable[[str], None] = print,
    source: Source | None = None,
) -> Generator[Trainer, None, None]:
    """`execute` step by step: yields before the first step and after each, so that runs can be made in turns.

    Args:
        folder, config, schedule, device, warn: as for `execute`.
        source: in place of the task's own, for runs that share their draws.
    """
    with ExitStack() as stack:

        def begin() -> tuple[bool, int | None]:
            stack.enter_context(locked(folder))
            claim_folder(folder, config)
            return read_status(folder).get("state") in ("done", "diverged"), references.settled(folder, config)

        ended, at = distributed.once(begin)
        if ended:
            return
        trainer = make_trainer(folder, config, device, source, at, warn)
        losses = resume(folder, trainer, warn)
        recorder = Recorder(folder, config, schedule, trainer, losses, warn)
        stack.callback(recorder.close)
        # Between steps too: whatever is done there, the run is saved.
        with interrupts.held(recorder.step_seconds), recorder.writer:
            try:
                yield trainer
                while trainer.steps_taken < config.iterations and not schedule.over(recorder.clocks()):
                    recorder.record(trainer.step())
                    if distributed.anywhere(interrupts.asked()):
                        distributed.once(recorder.save_last)
                        raise KeyboardInterrupt
                    yield trainer
                recorder.end("done")
            except Diverged as error:
                recorder.end("diverged", str(error))
            except BaseException:
                # A step was given up; or another process, or another run of this one, had to end.
                if interrupts.asked() and distributed.rank() == 0:
                    recorder.save_last()
                raise
        if distributed.anywhere(interrupts.asked()):  # after the last step, or while other runs had their turns
            raise KeyboardInterrupt


def make_trainer(
    folder: Path,
    config: RunConfig,
    device: torch.device | str = "cpu",
    source: Source | None = None,
    at: int | None = None,
    warn: Callable[[str], None] = print,
    beside: Sequence[Trainer] = (),
) -> Trainer:
    """The trainer of a config at step 0, its reference loaded.

    Args:
        folder: of the run, relative to which its reference is named.
        config: of the run.
        device: where it computes.
        source: in place of the task's own.
        at: step of the reference's snapshot; None is the latest.
        warn: told of a reference that learned from the run's own examples.
        beside: trainers of other arms of the same task, recipe, seed and role, whose learner this one trains too, with
            its optimizer and averages, and whose references it takes: for measuring what steps cost, which does not
            hang on what the weights are. All of one optimizer together take hardly more memory than one.

    Raises:
        UserError: the reference is not there or learned something else; or the arm needs what the network lacks.
    """

    optimizer, term = config.recipe.of(config.arm).optimizer, config.arm.updates.term
    like = (t for t in beside if (t.recipe.optimizer, t.arm.updates.term) == (optimizer, term))
    first = next(like, None)
    learner = network_of(config).to(device) if first is None else first.network
    alike = next((other for other in beside if other.arm.reference == config.arm.reference), None)
    reference = _reference_of(folder, config, device, at, warn) if alike is None else alike.selector.networks.reference
    proxy = config.task.network("proxy", config.seed).to(device) if config.arm.scoring.scorer == "proxy" else None
    networks = Networks(learner, reference, proxy)
    source = config.task.source(device) if source is None else source
    if config.arm.examples is not None:
        source = restricted(source, config.arm.examples, config.task.example_names())
    return Trainer(source, networks, config.recipe, config.arm, Streams(config.seed, config.role), first)


def _reference_of(
    folder: Path, config: RunConfig, device: torch.device | str, at: int | None, warn: Callable[[str], None]
) -> nn.Module | None:
    if config.arm.reference == "exact":
        exact = config.task.exact_denoiser(device)
        if exact is None:
            raise UserError(
                f"arm {config.arm.name!r} scores against the best denoiser there is, which the task {config.task.name} "
                "does not know of these data: leave the arm out"
            )
        return exact
    place = references.place_of(folder, config)
    if place is None:
        return None
    reference, _ = load_network(place, at, device=device, beside=config.task)
    other = read_config(place)
    if (other.role, other.seed) == (config.role, config.seed):
        warn(
            f"{place} is a {other.role} of seed {other.seed} too: it learned from the very examples that this run "
            "draws; train references with --network guide or strong, or with another seed"
        )
    return reference


def resume(folder: Path, trainer: Trainer, warn: Callable[[str], None]) -> list[float]:
    """Restore the newest whole checkpoint and forget what was written after it. Returns the losses since the last line
    of the ledger."""
    stored = checkpoint.latest(folder, "checkpoint", warn) if distributed.rank() == 0 else None

    def forget() -> int:
        at = 0 if stored is None else int(stored.facts["step"])
        _forget_after(folder, at)
        return at

    at = distributed.once(forget)
    if at and stored is None:
        stored = checkpoint.load(checkpoint.stems(folder, "checkpoint")[at])
    if stored is None:
        return []
    trainer.restore(stored.tensors, stored.facts)
    return list(stored.facts.get("losses", ()))


def _forget_after(folder: Path, step: int) -> None:
    """Delete what a run has written of the steps after this one."""
    checkpoint.sweep(folder)
    for place, name in ((".", "checkpoint"), ("snapshots", "snapshot"), ("selection", "step")):
        for number, stem in checkpoint.stems(folder / place, name).items():
            if number > step:
                checkpoint.delete(stem)
    lines = jsonl.read(folder / "ledger.jsonl")
    if any(line["step"] > step for line in lines):
        jsonl.rewrite(folder / "ledger.jsonl", [line for line in lines if line["step"] <= step])
    prune(folder)  # a kill may have come between a checkpoint and the end of the one before the last
