"""What a metric is and what an evaluation gives, whatever the task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

#: What a network is for, which is part of the names of its random streams: the one that is compared, the smaller one
#: that guides it, a reference as large as the learner, or a small one that scores in the learner's place.
Role = Literal["learner", "guide", "strong", "proxy"]
#: Those whose network is as large as the learner's; the others are as large as the guide.
LARGE: tuple[Role, ...] = ("learner", "strong")


@dataclass(frozen=True)
class Metric:
    """A number by which models are compared.

    Attributes:
        name: key in metrics files.
        label: for people.
        better: which direction is better.
        meaning: one sentence for someone who has read nothing.
        guided: whether it is also measured with autoguidance.
        headline: whether the verdict rests on it, and with which guidance: the tests of one reading are
            corrected for all of these together.
        curve: whether its learning curve is shown though it is no headline.
        scale: what people see is the value times this.
    """

    name: str
    label: str
    better: Literal["lower", "higher"]
    meaning: str
    guided: bool = True
    headline: Literal["no", "unguided", "guided", "both"] = "no"
    curve: bool = False
    scale: float = 1.0

    def headline_weights(self, weight: float) -> tuple[float, ...]:
        """The guidance weights at which it is a headline, where `weight` is that of autoguidance."""
        return {"no": (), "unguided": (1.0,), "guided": (weight,), "both": (1.0, weight)}[self.headline]

    @property
    def sign(self) -> int:
        """Times a difference: positive is an improvement."""
        return 1 if self.better == "higher" else -1


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name, and tensors worth a picture (samples, for instance)."""

    metrics: dict[str, float]
    tensors: dict[str, Tensor] = field(default_factory=dict)
