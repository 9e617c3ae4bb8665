"""Did the steps of the runs take what they were calibrated at, and did compiled networks run compiled?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .results import Results
from .table import Table
from .wording import series

#: How far a step may be from its calibrated seconds before a verdict says so.
TOLERANCE = 0.15

#: Phases that runs of a seed may share, so that one of them pays for all.
_SHARED = ("draw", "target")


@dataclass(frozen=True)
class StepTime:
    """What a kind of step took in the runs of one arm, without drawing and targets.

    Attributes:
        arm: its name.
        kind: label of the kind.
        steps: that were timed, of all runs.
        calibrated: median seconds of a step in the calibration.
        measured: mean seconds of a step in the runs.
    """

    arm: str
    kind: str
    steps: int
    calibrated: float
    measured: float

    @property
    def ratio(self) -> float:
        """Measured over calibrated."""
        return self.measured / self.calibrated

    @property
    def differs(self) -> bool:
        """By more than the `TOLERANCE`."""
        return abs(self.ratio - 1) > TOLERANCE


def step_times(results: Results) -> list[StepTime]:
    """By arm and kind of step, of finished runs and kinds that were both calibrated and timed."""
    found = []
    for arm in results.arms:
        lines = _last_lines(results, arm)
        kinds = dict.fromkeys(kind for line in lines for kind in line.get("timed_by_kind", {}))
        for kind in kinds:
            of_kind = [line for line in lines if kind in line.get("timed_by_kind", {})]
            steps = sum(line["timed_by_kind"][kind] for line in of_kind)
            seconds = sum(_own(line["seconds_by_kind"][kind]) for line in of_kind)
            calibrated = _own(results.costs.get(kind, {}))
            if steps and calibrated > 0:
                found.append(StepTime(arm, kind, steps, calibrated, seconds / steps))
    return found


def fallbacks(results: Results) -> dict[str, int]:
    """Calls of compiled networks that ran eager, in training and in evaluations, by arm, for arms that have any."""
    calls = {
        arm: sum(line.get("eager_calls", 0) for line in (*_last_lines(results, arm), *_evaluations(results, arm)))
        for arm in results.arms
    }
    return {arm: count for arm, count in calls.items() if count}


def timing_notes(times: Sequence[StepTime], eager: Mapping[str, int]) -> list[str]:
    """What a verdict has to say of it, a sentence each.

    Args:
        times: what steps took.
        eager: see `fallbacks`.
    """
    said = []
    if eager:
        said.append(
            f"A compiled network fell back to eager {sum(eager.values()):,} times, in runs of {series([*eager])}."
        )
        said.append("Such steps take longer than those that were calibrated.")
    different = [time for time in times if time.differs]
    if different:
        ratios = sorted(time.ratio for time in different)
        span = f"{ratios[0]:.2f}" if len(ratios) == 1 else f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        arms = list(dict.fromkeys(time.arm for time in different))
        said += [
            f"In the runs, steps of {series(arms)} took {span} times their calibrated seconds.",
            "Runs beside each other, or other work, can cause that; equal time goes by the calibrated seconds.",
        ]
    return said


def step_times_table(times: Sequence[StepTime]) -> Table:
    """`step_times` for people."""
    rows = [
        [t.arm, t.kind, f"{t.steps:,}", f"{1000 * t.calibrated:.2f}", f"{1000 * t.measured:.2f}", f"{t.ratio:.2f}"]
        for t in times
    ]
    heads = ("arm", "kind of step", "steps timed", "calibrated, ms", "in the runs, ms", "runs over calibration")
    notes = (
        "Means over the timed steps of all finished runs, without drawing and targets, which runs of a seed may "
        "share. Calibrated: medians of steps that were timed in turns.",
    )
    return Table.of("What steps took in the runs, and what they were calibrated at", heads, rows, notes)


def _last_lines(results: Results, arm: str) -> list[dict[str, Any]]:
    """Of the ledgers of an arm's finished runs."""
    return [run.ledger[-1] for (name, _), run in results.runs.items() if name == arm and run.state == "done"]


def _evaluations(results: Results, arm: str) -> list[dict[str, Any]]:
    """Of an arm's finished runs."""
    return [
        line for (name, _), run in results.runs.items() if name == arm and run.state == "done" for line in run.lines
    ]


def _own(seconds: Mapping[str, float]) -> float:
    return sum(spent for phase, spent in seconds.items() if phase not in _SHARED)
