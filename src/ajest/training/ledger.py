"""What training cost: seconds by phase, counts of examples (docs/method.md#counts), operations of the networks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from ajest.runtime import distributed
from ajest.selection.counts import Counts

#: The phases of a training step. `target` is apart from `draw` because the tree's exact target is a cost that no
#: real data set asks for.
PHASES = ("draw", "target", "learner scoring", "reference scoring", "select", "update", "ema")


#: Steps after a start whose time is reported apart: memory, threads and caches are still settling.
WARMUP_STEPS = 4


@dataclass
class Ledger:
    """Running totals of one run. The clock is synchronised with the device at each phase's ends.

    Attributes:
        seconds: by phase, without warm-up.
        warmup_seconds: of the first steps after each start, all phases.
        by_kind: steps taken by the label of their kind (what a step of a kind costs is calibrated in a bench).
        counts: examples drawn, scored and trained on.
        flops: analytic network operations.
        scores_not_finite: scored examples that could not be chosen because their score was not finite.
        not_finite: steps whose loss or gradient was not finite.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    warmup_seconds: float = 0.0
    by_kind: dict[str, int] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    flops: float = 0.0
    scores_not_finite: int = 0
    not_finite: int = 0
    _warmup_left: int = WARMUP_STEPS
    _step: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside, device-synchronised, as a part of the present step."""
        self._synchronise()
        start = time.perf_counter()
        try:
            yield
        finally:
            self._synchronise()
            self._step[name] = self._step.get(name, 0.0) + time.perf_counter() - start

    def close_step(
        self, kind: str, counts: Counts, flops: float, scores_not_finite: int = 0, not_finite: bool = False
    ) -> dict[str, float]:
        """Book the present step and return its seconds by phase: those of the slowest process."""
        step = dict(zip(self._step, distributed.largest([*self._step.values()]), strict=True))
        self._step = {}
        if self._warmup_left > 0:
            self._warmup_left -= 1
            self.warmup_seconds += sum(step.values())
        else:
            for name, seconds in step.items():
                self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.by_kind[kind] = self.by_kind.get(kind, 0) + 1
        self.counts += counts
        self.flops += flops
        self.scores_not_finite += scores_not_finite
        self.not_finite += not_finite
        return step

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())

    def facts(self) -> dict[str, Any]:
        """Everything as JSON."""
        return {
            "seconds": dict(self.seconds),
            "warmup_seconds": self.warmup_seconds,
            "by_kind": dict(self.by_kind),
            "drawn": self.counts.drawn,
            "scored": self.counts.scored,
            "trained": self.counts.trained,
            "flops": self.flops,
            "scores_not_finite": self.scores_not_finite,
            "not_finite": self.not_finite,
        }

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Go on from `facts()`; the next steps are warm-up again."""
        self.seconds = dict(facts["seconds"])
        self.warmup_seconds = facts["warmup_seconds"]
        self.by_kind = dict(facts["by_kind"])
        self.counts = Counts(facts["drawn"], facts["scored"], facts["trained"])
        self.flops = facts["flops"]
        self.scores_not_finite, self.not_finite = facts["scores_not_finite"], facts["not_finite"]
        self._warmup_left = WARMUP_STEPS

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
