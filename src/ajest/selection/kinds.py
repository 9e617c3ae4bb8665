"""Kinds of training steps: steps of one kind do equal work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

#: What a step does with what it draws: train on all of it ("uniform") and compare it with the reference too ("watch");
#: draw only a random part ("random"); choose by scores of this step ("select"), or by remembered ones ("recall").
StepMode = Literal["uniform", "random", "select", "recall", "watch"]


@dataclass(frozen=True)
class StepKind:
    """A kind of step.

    Attributes:
        mode: what it does with what it draws.
        label: its name for people, and its key in ledgers and calibrations; kinds of equal work have equal labels.
    """

    mode: StepMode
    label: str

    def __str__(self) -> str:
        return self.label

    def differing(self, how: str) -> StepKind:
        """The kind of step whose examples are noised, or whose weights are updated, in another way than the task's and
        the recipe's; "" is theirs."""
        return replace(self, label=f"{self.label}, {how}") if how else self

    @property
    def chooses(self) -> bool:
        """Whether a policy chooses from the super-batch."""
        return self.mode in ("select", "recall")

    @property
    def trains_on_all(self) -> bool:
        """Whether the whole super-batch is trained on."""
        return self.mode in ("uniform", "watch")


#: The step that others are held against.
UNIFORM = StepKind("uniform", "uniform")

WATCH = StepKind("watch", "watch")
