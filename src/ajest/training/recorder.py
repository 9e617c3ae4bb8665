"""Ledger lines, snapshots and checkpoints, as steps go by."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from ajest.diffusion.network import scalars_of
from ajest.runtime import distributed
from ajest.selection.diagnostics import diagnose
from ajest.storage import checkpoint, jsonl
from ajest.storage.checkpoint import write_sealed
from ajest.storage.config import to_json
from ajest.storage.writer import Writer

from .run_folder import RunConfig
from .schedule import Schedule, clocks
from .trackers import Tracked, Trackers, Tracking
from .trainer import Step, Trainer

_STORED_NUMBERS = 1 << 20  # of the examples of a super-batch that is stored for figures

#: Share of the time of training that copying it for checkpoints may take.
COPYING_SHARE = 0.02


def prune(folder: Path, keep: int = 2) -> None:
    """Keep the newest checkpoints: the one to go on from, and the one before it in case that is damaged."""
    for stem in list(checkpoint.stems(folder, "checkpoint").values())[:-keep]:
        checkpoint.delete(stem)


class Recorder:
    """Writes ledger lines, snapshots and checkpoints as steps go by; of several processes the first writes.

    Tensors are copied between two steps and written while the next ones are made. What is written is whole at the
    latest when the run has ended, and an error is met with at the step after it.

    Args:
        folder: of the run.
        config: of the run.
        schedule: when it writes what.
        trainer: of the run.
        losses: of the steps since the last line of the ledger.
        warn: told of a tracker that fails.

    Attributes:
        writer: of what is stored, a context to be in while there are steps.
    """

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        schedule: Schedule,
        trainer: Trainer,
        losses: list[float],
        warn: Callable[[str], None],
    ) -> None:
        self.folder, self.schedule, self.trainer, self.iterations = folder, schedule, trainer, config.iterations
        place = schedule.tracking if distributed.rank() == 0 else Tracking()
        self._trackers = Trackers(Tracked(folder, to_json(config), trainer.steps_taken, place), warn)
        self.writer = Writer()
        self._last = self.clocks()
        self._saved, self._copying = time.monotonic(), 0.0
        self._saved_step = self._recorded_step = trainer.steps_taken
        self._step_seconds: deque[float] = deque(maxlen=16)
        self._losses = losses
        self._fired = trainer.trigger.fired_at

    def step_seconds(self) -> float:
        """The longest of the last steps; 0 before the first."""
        return max(self._step_seconds, default=0.0)

    def record(self, step: Step) -> None:
        """Take in a step that was taken, and write what is due.

        Raises:
            UserError: something cannot be written, or could not be at an earlier step.
        """
        self.writer.check()
        self._step_seconds.append(self.trainer.ledger.last_step)
        before, self._last = self._last, self.clocks()
        last = step.number == self.iterations or self.schedule.over(self._last)
        if last:
            self.trainer.ledger.settle()
            self._last = self.clocks()
        clock, value = self.schedule.end or ("steps", float(self.iterations))
        self.trainer.progress = min(1.0, self._last[clock] / value)
        if distributed.rank() == 0:
            self._losses.append(step.loss)
            if step.number in self.schedule.selection_at and step.kept is not None:
                self._store_selection_snapshot(step, step.kept)
            self._store_snapshot(step, self._reached(before), last)
            self._write_line(step, last)
            if last or self._checkpoint_due(step.number):
                self.save()
        self._recorded_step = step.number

    def _checkpoint_due(self, step: int) -> bool:
        """Whether the last one is old enough, in steps or seconds, and another would not hold up training."""
        seconds = time.monotonic() - self._saved
        old = seconds > self.schedule.checkpoint_seconds or step - self._saved_step >= self.schedule.checkpoint_every
        return old and not self.writer.busy and self._copying <= COPYING_SHARE * seconds

    def _reached(self, before: Mapping[str, float]) -> dict[str, list[float]]:
        """The budgets of each clock that were crossed in the last step; clocks without any are left out."""
        budgets = self.schedule.budgets
        crossed = {
            clock: [b for b in budgets.get(clock, ()) if before[clock] * (1 + 1e-9) < b <= now * (1 + 1e-9)]
            for clock, now in self._last.items()
        }
        return {clock: found for clock, found in crossed.items() if found}

    def _store_snapshot(self, step: Step, reached: Mapping[str, Sequence[float]], last: bool) -> None:
        if reached or last:
            facts = {"step": step.number, "clocks": self._last, "reached": reached}
            stem = self.folder / "snapshots" / f"snapshot-{step.number:07d}"
            self.writer.save(stem, self.trainer.ema.state_dict(), facts)

    def _write_line(self, step: Step, last: bool) -> None:
        """A line of the ledger, if one is due."""
        fired_at = self.trainer.trigger.fired_at
        if not last and step.number % self.schedule.ledger_every and fired_at == self._fired:
            return
        self._fired = fired_at
        finite = [loss for loss in self._losses if isfinite(loss)]
        line = {
            "step": step.number,
            "kind": step.kind.label,
            "loss": sum(finite) / len(finite) if finite else None,
            "advantage": step.advantage,
            "fired_at": fired_at,
            "clocks": self._last,
            "scores": diagnose(self.trainer.selector, step.number, self.trainer.progress),
            **self.trainer.ledger.facts(),
        }
        if scalars := scalars_of(self.trainer.network):
            line["network"] = scalars
        jsonl.append(self.folder / "ledger.jsonl", line)
        self._trackers.log(line)
        self._losses = []

    def clocks(self) -> dict[str, float]:
        """All clocks as they stand."""
        return clocks(self.trainer.ledger.facts(), self.trainer.steps_taken, self.schedule.costs)

    def close(self) -> None:
        """Let trackers write down what they have not yet."""
        self._trackers.close()

    def end(self, state: str, why: str | None = None) -> None:
        """Note how the run ended, once all is written. Of its checkpoints the last one stays, in case it is given more
        steps."""
        said = {"state": state, "step": self.trainer.steps_taken} | ({} if why is None else {"why": why})

        def note() -> None:
            self.save_last()
            write_sealed(self.folder / "status.json", said)
            prune(self.folder, keep=1)

        distributed.once(note)

    def save(self) -> None:
        """Have a checkpoint written, and keep the one before it."""
        tensors, facts = self.trainer.state()
        facts["losses"] = self._losses

        def written(copying: float) -> None:
            self._copying = copying
            prune(self.folder)

        self.writer.save(self.folder / f"checkpoint-{facts['step']:07d}", tensors, facts, written)
        self._saved, self._saved_step = time.monotonic(), facts["step"]

    def save_last(self) -> None:
        """Write a checkpoint of the last finished step, unless that is there or was not seen to its end; and wait until
        all is written."""
        whole = self.trainer.whole and self._recorded_step == self.trainer.steps_taken
        if whole and self._saved_step != self.trainer.steps_taken:
            self.save()
        self.writer.wait()

    def _store_selection_snapshot(self, step: Step, kept: Tensor) -> None:
        """A super-batch with what was kept of it, for figures."""
        mask = torch.zeros(len(step.batch), dtype=torch.bool)
        mask[kept.cpu()] = True
        # Images are large, and a figure shows a few.
        one = step.batch[:1]
        largest = max(one.x.numel(), 0 if one.label is None else one.label.numel())
        batch = step.batch[: max(1, _STORED_NUMBERS // largest)].whole()
        tensors = {"x": batch.x, "sigma": step.batch.sigma, "id": step.batch.id, "kept": mask}
        tensors |= {name: part for name in ("target", "label") if (part := getattr(batch, name)) is not None}
        for name in ("learner", "reference"):
            losses = getattr(step.scores, name, None)
            if losses is not None:
                tensors[name] = losses
        self.writer.save(self.folder / "selection" / f"step-{step.number:07d}", tensors, {"step": step.number})
