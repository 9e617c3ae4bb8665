"""What an arm may change of how weights are updated: the learning rate's fall, Adam's second moment, the optimizer, a
term beside the loss (docs/method.md#updates)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ajest.diffusion.ema import check_width
from ajest.diffusion.terms import Term
from ajest.errors import check, unknown

#: Adam; AdamW without a schedule (arXiv 2405.15682); or Muon for matrices and Adam for all else (arXiv 2502.16982).
OptimizerName = Literal["adam", "schedule-free", "muon"]
Axis = Literal["learning rate", "optimizer", "term", "average"]

#: EDM2's fall, whose decay may be counted by any clock; the others follow the share of the run.
INVERSE_SQRT = "inverse-sqrt"


def linear(share: float, decay: float) -> float:
    """To zero over the last `decay` of the run."""
    return max(min((1 - share) / decay, 1), 0)


def linear_to_tenth(share: float, decay: float) -> float:
    """To a tenth of the peak over the last `decay` of the run."""
    return 0.1 + 0.9 * linear(share, decay)


#: The part of the peak that is left at a share of the run, given the share of the run over which it falls.
FALLS: dict[str, Callable[[float, float], float]] = {"linear": linear, "linear-to-tenth": linear_to_tenth}


def check_fall(course: str, decay: float) -> None:
    """Raise a UserError unless a fall has this name and follows the share of a run over so much of it."""
    if course not in (INVERSE_SQRT, *FALLS):
        raise unknown("course", course, (INVERSE_SQRT, *FALLS))
    least = "at least" if course == INVERSE_SQRT else "above"
    check(
        0 <= decay <= 1 and (decay > 0 or course == INVERSE_SQRT),
        f"a {course} course falls by the share of the run: it takes a decay {least} 0 and at most 1, not {decay:g}",
    )


@dataclass(frozen=True)
class Updates:
    """How an arm's weights are updated; by default as the recipe says.

    Attributes:
        course: how the learning rate falls with the share of the run, "inverse-sqrt" or one of `FALLS`; None leaves the
            recipe's course.
        decay: when an inverse square root begins to fall, 0 keeps the peak; or over how much of the run a rate falls.
        beta2: of Adam's second moment, None for the recipe's.
        optimizer: None for the recipe's.
        term: what is minimised beside the loss, None for nothing.
        ema: relative width of the average that is judged, None for the recipe's first.
    """

    course: str | None = None
    decay: float = 1.0
    beta2: float | None = None
    optimizer: OptimizerName | None = None
    term: Term | None = None
    ema: float | None = None

    def __post_init__(self) -> None:
        if self.course is not None:
            check_fall(self.course, self.decay)
        check(self.course is not None or self.decay == 1, "updates: a decay needs a course: name it, or leave both out")
        if self.ema is not None:
            check_width(self.ema)
        check(self.beta2 is None or 0 < self.beta2 < 1, f"updates: beta2 must lie between 0 and 1, not {self.beta2}")

    @property
    def axes(self) -> tuple[Axis, ...]:
        """In what it differs from the recipe."""
        found: dict[Axis, bool] = {
            "learning rate": self.course is not None,
            "optimizer": self.beta2 is not None or self.optimizer is not None,
            "term": self.term is not None,
            "average": self.ema is not None,
        }
        return tuple(axis for axis, differs in found.items() if differs)

    @property
    def work(self) -> str:
        """What makes an update another piece of work than the recipe's; "" if nothing."""
        return ", ".join(filter(None, (self.optimizer, "" if self.term is None else f"term {self.term}")))

    @property
    def answers_twice(self) -> bool:
        """Whether the network has a second answer that can guide the first."""
        return self.term is not None and self.term.name == "head"
