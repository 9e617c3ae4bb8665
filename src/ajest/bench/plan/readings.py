"""The budgets at which arms are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Reading:
    """A budget at which arms are compared.

    Attributes:
        clock: the clock that is equal.
        title: for people.
        full: whether samples number `n_final` (else `n_curve`).
    """

    clock: str
    title: str
    full: bool


#: In the order of the report. "calibrated" is the one a verdict on time rests on: measured seconds of runs that
#: share a machine drift, interleaved timing does not.
READINGS: dict[str, Reading] = {
    "calibrated": Reading("calibrated", "equal time", True),
    "samples": Reading("samples", "equal samples", True),
    "steps": Reading("steps", "equal steps (the whole run)", True),
    "seconds": Reading("seconds", "equal time as measured in the runs", False),
    "net": Reading("net", "equal time without the exact target", False),
    "flops": Reading("flops", "equal operations of the networks", True),
}


#: What all runs of a bench may end at, and the clock of each.
End = Literal["steps", "time", "net", "samples", "flops"]


END_CLOCKS: dict[End, str] = {
    "steps": "steps", "time": "calibrated", "net": "net", "samples": "samples", "flops": "flops",
}  # fmt: skip
