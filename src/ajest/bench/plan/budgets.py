"""The budgets at which arms are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Budget:
    """What is equal when arms are compared; how much of it a bench knows when its runs are there (`Results.amounts`).

    Attributes:
        clock: the clock that is equal, and the budget's name.
        title: for people.
        full: whether samples number `n_final` (else `n_curve`).
    """

    clock: str
    title: str
    full: bool


#: In the order of the report. "calibrated" is the one a verdict on time rests on: measured seconds of runs that
#: share a machine drift, interleaved timing does not.
BUDGETS: dict[str, Budget] = {
    "calibrated": Budget("calibrated", "equal time", True),
    "samples": Budget("samples", "equal samples", True),
    "steps": Budget("steps", "equal steps (the whole run)", True),
    "seconds": Budget("seconds", "equal time as measured in the runs", False),
    "time_without_target": Budget("time_without_target", "equal time without the exact target", False),
    "flops": Budget("flops", "equal operations of the networks", True),
}


#: What all runs of a bench may end at, and the clock of each.
End = Literal["steps", "time", "time_without_target", "samples", "flops"]


END_CLOCKS: dict[End, str] = {
    "steps": "steps", "time": "calibrated", "time_without_target": "time_without_target", "samples": "samples",
    "flops": "flops",
}  # fmt: skip
