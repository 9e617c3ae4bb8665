"""One training run in a folder: resumable, with snapshots where budgets are crossed.

A run's folder holds config.json, ledger.jsonl, status.json, checkpoint-STEP.*, snapshots/snapshot-STEP.*,
selection/step-STEP.*, metrics.jsonl, and reference.json where there is a reference. Everything a report needs is there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from . import checkpoint, distributed, interrupts, jsonl, references
from .batch import Source
from .checkpoint import write_sealed
from .config import to_json
from .errors import Diverged
from .folders import RunConfig, adopt, load_network, locked, read_config, read_status
from .trackers import Trackers
from .training import Step, Trainer

_STORED_NUMBERS = 1 << 20  # of the examples of a super-batch that is stored for figures


@dataclass(frozen=True)
class Schedule:
    """When a run writes what, and when it ends. It never changes the weights on the way.

    Attributes:
        budgets: for each clock the values at whose crossing a snapshot is taken, rising.
        costs: seconds of a step of each kind by phase, from a calibration; empty: no calibrated clock.
        checkpoint_every, ledger_every: steps.
        checkpoint_seconds: a checkpoint is written at the latest so long after the last.
        selection_at: steps whose super-batch and kept examples are stored for figures.
        end: (clock, value) at which a run ends, even if steps are left; None: when its steps are taken.
        trackers: that are told of the ledger's lines, see `trackers.TRACKERS`.
    """

    budgets: dict[str, tuple[float, ...]] = field(default_factory=dict)
    costs: dict[str, dict[str, float]] = field(default_factory=dict)
    checkpoint_every: int = 256
    checkpoint_seconds: float = 120.0
    ledger_every: int = 32
    selection_at: tuple[int, ...] = ()
    end: tuple[str, float] | None = None
    trackers: tuple[str, ...] = ()

    def over(self, now: Mapping[str, float]) -> bool:
        """Whether these clocks say that the run is to end."""
        return self.end is not None and now[self.end[0]] >= self.end[1] * (1 - 1e-9)


def clocks(facts: Mapping[str, Any], step: int, costs: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """All clocks of a ledger: steps, samples trained on, network operations, measured, calibrated and net seconds
    (METHOD 6).

    Calibrated time is steps times the median cost of their kind, measured interleaved with all other kinds;
    net time is calibrated time without the tree's exact target.
    """
    values = {
        "steps": float(step),
        "samples": float(facts["trained"]),
        "seconds": sum(facts["seconds"].values()),
        "flops": float(facts["flops"]),
    }
    if all(kind in costs for kind in facts["by_kind"]):
        values["calibrated"] = sum(n * sum(costs[k].values()) for k, n in facts["by_kind"].items())
        spared = sum(n * costs[k].get("target", 0.0) for k, n in facts["by_kind"].items())
        values["net"] = values["calibrated"] - spared
    return values


def execute(
    folder: Path,
    config: RunConfig,
    schedule: Schedule,
    device: torch.device | str = "cpu",
    progress: Callable[[int, Trainer], None] | None = None,
    complain: Callable[[str], None] = print,
) -> str:
    """Train to the end, from wherever the folder stands. Returns "done" or "diverged".

    Raises:
        UserError: the folder belongs to another config or is in use, or cannot be written to.
        KeyboardInterrupt: a signal came. The last finished step was saved, the running one too unless it was given up
            (see `interrupts`).
    """
    for trainer in execution(folder, config, schedule, device, complain):
        if progress is not None and trainer.steps_taken:
            progress(trainer.steps_taken, trainer)
    return str(read_status(folder)["state"])


def execution(
    folder: Path,
    config: RunConfig,
    schedule: Schedule,
    device: torch.device | str = "cpu",
    complain: Callable[[str], None] = print,
    source: Source | None = None,
) -> Generator[Trainer, None, None]:
    """`execute` step by step: yields before the first step and after each, so that runs can be made in turns.

    Args:
        folder, config, schedule, device, complain: as for `execute`.
        source: in place of the task's own, for runs that share their draws.
    """
    with ExitStack() as stack:

        def begin() -> tuple[bool, int | None]:
            stack.enter_context(locked(folder))
            adopt(folder, config)
            return read_status(folder).get("state") in ("done", "diverged"), references.settled(folder, config)

        ended, at = distributed.once(begin)
        if ended:
            return
        trainer = make_trainer(folder, config, device, source, at, complain)
        losses = resume(folder, trainer, complain)
        recorder = _Recorder(folder, config, schedule, trainer, losses, complain)
        stack.callback(recorder.close)
        with interrupts.held(recorder.step_seconds):  # between steps too: whatever is done there, the run is saved
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
    complain: Callable[[str], None] = print,
) -> Trainer:
    """The trainer of a config at step 0, its reference loaded: the latest snapshot, or that of step `at`."""
    network = config.task.network(config.role, config.seed).to(device)
    reference = proxy = None
    place = references.place_of(folder, config)
    if place is not None:
        reference, _ = load_network(place, at, device=device, beside=config.task)
        other = read_config(place)
        if (other.role, other.seed) == (config.role, config.seed):
            complain(
                f"{place} is a {other.role} of seed {other.seed} too: it learned from the very examples that this run "
                "draws; train references with --network guide or strong, or with another seed"
            )
    if config.arm.scoring.scorer == "proxy":
        proxy = config.task.network("proxy", config.seed).to(device)
    source = config.task.source(device) if source is None else source
    return Trainer(source, network, config.recipe, config.arm, config.seed, reference, proxy, config.role)


def resume(folder: Path, trainer: Trainer, complain: Callable[[str], None]) -> list[float]:
    """Restore the newest whole checkpoint and forget what was written after it. Returns the losses since the last line
    of the ledger."""
    stored = checkpoint.latest(folder, "checkpoint", complain) if distributed.rank() == 0 else None

    def forget() -> int:
        checkpoint.sweep(folder)
        at = 0 if stored is None else int(stored.facts["step"])
        for prefix in ("", "snapshots", "selection"):
            name = {"": "checkpoint", "snapshots": "snapshot", "selection": "step"}[prefix]
            for number, stem in checkpoint.stems(folder / prefix, name).items():
                if number > at:
                    checkpoint.delete(stem)
        lines = jsonl.read(folder / "ledger.jsonl")
        if any(line["step"] > at for line in lines):
            jsonl.rewrite(folder / "ledger.jsonl", [line for line in lines if line["step"] <= at])
        _prune(folder)  # a kill may have come between a checkpoint and the end of the one before the last
        return at

    at = distributed.once(forget)
    if at and stored is None:
        stored = checkpoint.load(checkpoint.stems(folder, "checkpoint")[at])
    if stored is None:
        return []
    trainer.restore(stored.tensors, stored.facts)
    return list(stored.facts.get("losses", ()))


def _prune(folder: Path, keep: int = 2) -> None:
    """Keep the newest checkpoints: the one to go on from, and the one before it in case that is damaged."""
    for stem in list(checkpoint.stems(folder, "checkpoint").values())[:-keep]:
        checkpoint.delete(stem)


class _Recorder:
    """Writes ledger lines, snapshots and checkpoints as steps go by; of several processes the first writes."""

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        schedule: Schedule,
        trainer: Trainer,
        losses: list[float],
        complain: Callable[[str], None],
    ) -> None:
        self.folder, self.schedule, self.trainer, self.iterations = folder, schedule, trainer, config.iterations
        names = schedule.trackers if distributed.rank() == 0 else ()
        self._trackers = Trackers(names, folder, to_json(config), trainer.steps_taken, complain)
        self._last = self.clocks()
        self._saved = time.monotonic()
        self._saved_step = self._recorded_step = trainer.steps_taken
        self._step_seconds: deque[float] = deque(maxlen=16)
        self._losses = losses
        self._fired = trainer.trigger.fired_at

    def step_seconds(self) -> float:
        """The longest of the last steps; 0 before the first."""
        return max(self._step_seconds, default=0.0)

    def record(self, step: Step) -> None:
        self._step_seconds.append(sum(step.seconds.values()))
        self._losses.append(step.loss)
        now = self.clocks()
        last = step.number == self.iterations or self.schedule.over(now)
        clock, value = self.schedule.end or ("steps", float(self.iterations))
        self.trainer.share = min(1.0, now[clock] / value)
        reached = {
            clock: [b for b in self.schedule.budgets.get(clock, ()) if self._last[clock] < b <= now[clock] * (1 + 1e-9)]
            for clock in now
        }
        reached = {clock: budgets for clock, budgets in reached.items() if budgets}
        self._last = now
        if distributed.rank() == 0:
            self._write(step, now, reached, last)
        self._recorded_step = step.number

    def _write(self, step: Step, now: dict[str, float], reached: Mapping[str, Sequence[float]], last: bool) -> None:
        if step.number in self.schedule.selection_at and step.kept is not None:
            self._store_selection(step)
        if reached or last:
            facts = {"step": step.number, "clocks": now, "reached": reached}
            stem = self.folder / "snapshots" / f"snapshot-{step.number:07d}"
            checkpoint.save(stem, self.trainer.ema.state_dict(), facts)
        every = self.schedule.ledger_every
        if last or step.number % every == 0 or self.trainer.trigger.fired_at != self._fired:
            self._fired = self.trainer.trigger.fired_at
            line = {
                "step": step.number,
                "kind": step.kind,
                "loss": sum(finite) / len(finite) if (finite := [x for x in self._losses if isfinite(x)]) else None,
                "advantage": step.advantage,
                "fired_at": self._fired,
                "clocks": now,
                "scores": self.trainer.curator.reliability(step.number, self.trainer.share),
                **self.trainer.ledger.facts(),
            }
            jsonl.append(self.folder / "ledger.jsonl", line)
            self._trackers.log(line)
            self._losses = []
        old = time.monotonic() - self._saved > self.schedule.checkpoint_seconds
        if last or old or step.number % self.schedule.checkpoint_every == 0:
            self.save()

    def clocks(self) -> dict[str, float]:
        return clocks(self.trainer.ledger.facts(), self.trainer.steps_taken, self.schedule.costs)

    def close(self) -> None:
        self._trackers.close()

    def end(self, state: str, why: str | None = None) -> None:
        """Note how the run ended. Of its checkpoints the last one stays, in case it is given more steps."""
        said = {"state": state, "step": self.trainer.steps_taken} | ({} if why is None else {"why": why})

        def note() -> None:
            write_sealed(self.folder / "status.json", said)
            _prune(self.folder, keep=1)

        distributed.once(note)

    def save(self) -> None:
        """Write a checkpoint, and keep the one before it."""
        self._saved = time.monotonic()
        tensors, facts = self.trainer.state()
        facts["losses"] = self._losses
        checkpoint.save(self.folder / f"checkpoint-{facts['step']:07d}", tensors, facts)
        _prune(self.folder)
        self._saved_step = facts["step"]

    def save_last(self) -> None:
        """Write a checkpoint of the last finished step, unless that is there or was not seen to its end."""
        whole = self.trainer.whole and self._recorded_step == self.trainer.steps_taken
        if whole and self._saved_step != self.trainer.steps_taken:
            self.save()

    def _store_selection(self, step: Step) -> None:
        mask = torch.zeros(len(step.batch), dtype=torch.bool)
        if step.kept is not None:
            mask[step.kept.cpu()] = True
        # Pictures are large, and a figure shows a few.
        batch = step.batch[: max(1, _STORED_NUMBERS // step.batch.x[0].numel())]
        tensors = {"x": batch.x, "sigma": step.batch.sigma, "id": step.batch.id, "kept": mask}
        tensors |= {name: part for name in ("target", "label") if (part := getattr(batch, name)) is not None}
        for name in ("learner", "reference"):
            losses = getattr(step.scores, name, None)
            if losses is not None:
                tensors[name] = losses
        checkpoint.save(self.folder / "selection" / f"step-{step.number:07d}", tensors, {"step": step.number})
