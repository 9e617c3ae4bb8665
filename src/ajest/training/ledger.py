"""What training cost: seconds by phase, counts of examples (docs/method.md#counts), operations of the networks.

Time on CUDA is taken by events on its stream, which the device stamps as it comes by: nothing waits for it within a
step, and times between events of one stream never overlap, so that phases add up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from ajest.runtime import compiling, distributed
from ajest.runtime.compiling import CompileCounts
from ajest.selection.counts import Counts

#: The phases of a training step. `target` is apart from `draw` because the tree's exact target is a cost that no
#: real data set asks for.
PHASES = ("draw", "target", "learner scoring", "reference scoring", "select", "update", "ema")


#: Steps of each kind after a start whose time is reported apart: memory, threads and caches are still settling.
WARMUP_STEPS = 4


class _HostClock:
    """Moments on the host, where work on the CPU is done when it is asked for."""

    def now(self) -> float:
        return time.perf_counter()

    def wait(self, moment: float) -> None:
        """It has passed."""

    def between(self, begin: float, end: float) -> float:
        return end - begin


class _DeviceClock:
    """Moments on a CUDA device's present stream."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def now(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def wait(self, moment: torch.cuda.Event) -> None:
        if not moment.query():
            moment.synchronize()

    def between(self, begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
        return begin.elapsed_time(end) / 1000


class StepSeconds(Mapping[str, float]):
    """Seconds of a step by phase: those of the slowest process, so that all have to look at it or none.

    On CUDA the first look waits for the device to come to the end of the step.

    Args:
        spans: (phase, begin, end) of each part of the step, in their order.
        clock: of these moments.
    """

    def __init__(self, spans: list[tuple[str, Any, Any]], clock: _HostClock | _DeviceClock) -> None:
        self._spans, self._clock = spans, clock

    @cached_property
    def _found(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for _, _, end in self._spans[-1:]:
            self._clock.wait(end)
        for name, begin, end in self._spans:
            found[name] = found.get(name, 0.0) + self._clock.between(begin, end)
        return dict(zip(found, distributed.largest([*found.values()]), strict=True))

    def __getitem__(self, name: str) -> float:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


@dataclass(frozen=True)
class _Step:
    """A step whose seconds are not booked yet."""

    kind: str
    seconds: StepSeconds
    warmup: bool


@dataclass
class Ledger:
    """Running totals of one run.

    On CUDA the seconds of a step are booked when the next one is closed, by when they are known, so they are one step
    behind until `settle`; everything else is exact at once.

    Attributes:
        seconds: by phase, without warm-up.
        seconds_by_kind: the same for each kind of step.
        timed_by_kind: steps of each kind that these seconds are of.
        warmup_seconds: of the first steps of each kind after each start, and of those in which something was compiled;
            all phases.
        compile_seconds: of these, what compiling took.
        by_kind: steps taken by the label of their kind (what a step of a kind costs is calibrated in a bench).
        counts: examples drawn, scored and trained on.
        flops: analytic network operations.
        scores_not_finite: scored examples that could not be chosen because their score was not finite.
        not_finite: steps whose loss or gradient was not finite.
        compilations: graphs that were compiled within steps.
        eager_calls: calls of compiled networks that ran as they are written all the same, within steps.
        last_step: seconds of the last step that is booked.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    seconds_by_kind: dict[str, dict[str, float]] = field(default_factory=dict)
    timed_by_kind: dict[str, int] = field(default_factory=dict)
    warmup_seconds: float = 0.0
    compile_seconds: float = 0.0
    by_kind: dict[str, int] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    flops: float = 0.0
    scores_not_finite: int = 0
    not_finite: int = 0
    compilations: int = 0
    eager_calls: int = 0
    last_step: float = 0.0

    def __post_init__(self) -> None:
        cuda = self.device.type == "cuda"
        self._clock: _HostClock | _DeviceClock = _DeviceClock(self.device) if cuda else _HostClock()
        self._spans: list[tuple[str, Any, Any]] = []  # of the present step
        self._compiled = CompileCounts()  # when it began
        self._unbooked: _Step | None = None
        self._since_start: dict[str, int] = {}  # steps by the label of their kind

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside as a part of the present step. Phases lie beside each other, not in each other."""
        if not self._spans:
            self._compiled = compiling.so_far()
        begin = self._clock.now()
        try:
            yield
        finally:
            self._spans.append((name, begin, self._clock.now()))

    def abandon_step(self) -> None:
        """Forget the phases of a step that was given up."""
        self._spans = []

    def close_step(
        self, kind: str, counts: Counts, flops: float, scores_not_finite: int = 0, not_finite: bool = False
    ) -> StepSeconds:
        """Book the present step and return its seconds by phase."""
        self.settle()
        compiled = compiling.so_far() - self._compiled
        before = self._since_start.get(kind, 0)
        self._since_start[kind] = before + 1
        seconds = StepSeconds(self._spans, self._clock)
        self._unbooked = _Step(kind, seconds, before < WARMUP_STEPS or compiled.compilations > 0)
        self._spans = []
        if self.device.type != "cuda":
            self.settle()
        self.by_kind[kind] = self.by_kind.get(kind, 0) + 1
        self.counts += counts
        self.flops += flops
        self.scores_not_finite += scores_not_finite
        self.not_finite += not_finite
        self.compilations += compiled.compilations
        self.eager_calls += compiled.eager_calls
        self.compile_seconds += compiled.seconds
        return seconds

    def settle(self) -> None:
        """Book the seconds of the last step, for which the device is waited for. All processes have to, or none."""
        step, self._unbooked = self._unbooked, None
        if step is None:
            return
        self.last_step = sum(step.seconds.values())
        if step.warmup:
            self.warmup_seconds += self.last_step
            return
        self.timed_by_kind[step.kind] = self.timed_by_kind.get(step.kind, 0) + 1
        of_kind = self.seconds_by_kind.setdefault(step.kind, {})
        for name, seconds in step.seconds.items():
            for total in (self.seconds, of_kind):
                total[name] = total.get(name, 0.0) + seconds

    @property
    def total_seconds(self) -> float:
        """Of all phases, without warm-up."""
        return sum(self.seconds.values())

    def facts(self) -> dict[str, Any]:
        """Everything as JSON."""
        return {
            "seconds": dict(self.seconds),
            "seconds_by_kind": {kind: dict(seconds) for kind, seconds in self.seconds_by_kind.items()},
            "timed_by_kind": dict(self.timed_by_kind),
            "warmup_seconds": self.warmup_seconds,
            "compile_seconds": self.compile_seconds,
            "by_kind": dict(self.by_kind),
            "drawn": self.counts.drawn,
            "scored": self.counts.scored,
            "trained": self.counts.trained,
            "flops": self.flops,
            "scores_not_finite": self.scores_not_finite,
            "not_finite": self.not_finite,
            "compilations": self.compilations,
            "eager_calls": self.eager_calls,
        }

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Go on from `facts()`; the next steps of each kind are warm-up again."""
        self.seconds = dict(facts["seconds"])
        self.warmup_seconds = facts["warmup_seconds"]
        self.by_kind = dict(facts["by_kind"])
        self.counts = Counts(facts["drawn"], facts["scored"], facts["trained"])
        self.flops = facts["flops"]
        self.scores_not_finite, self.not_finite = facts["scores_not_finite"], facts["not_finite"]
        # Runs that were begun before these were counted have none.
        self.seconds_by_kind = {kind: dict(seconds) for kind, seconds in facts.get("seconds_by_kind", {}).items()}
        self.timed_by_kind = dict(facts.get("timed_by_kind", {}))
        self.compile_seconds = facts.get("compile_seconds", 0.0)
        self.compilations, self.eager_calls = facts.get("compilations", 0), facts.get("eager_calls", 0)
        self._spans, self._unbooked, self._since_start = [], None, {}
