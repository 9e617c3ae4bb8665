"""How a network is trained, apart from what it is trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Literal

from ajest.diffusion.ema import check_width
from ajest.errors import check
from ajest.runtime.seeding import Drawing
from ajest.selection.arm import Arm
from ajest.selection.updates import FALLS, INVERSE_SQRT, OptimizerName, check_fall

NotFinite = Literal["stop", "skip", "zero"]
Course = Literal["inverse-sqrt", "linear"]  # of presets; arms may have others
#: A rate that ends below this part of its peak leaves a network unfinished until then.
LOW = 0.1


@dataclass(frozen=True)
class LearningRate:
    """The course of the learning rate: a rise, then a fall (docs/method.md#learning-rate).

    - "inverse-sqrt": `peak * min(n / rampup, 1) / sqrt(max(t / decay, 1))`, n examples trained on, t the clock (EDM2
      equation 67).
    - "linear": `peak * min(n / rampup, 1) * min((1 - s) / decay, 1)`, s the share of the run that is done: to zero over
      the whole run with a decay of 1, or warm-up, stable, decay with a smaller one (MiniCPM, arXiv 2404.06395).

    Attributes:
        peak: the highest rate.
        decay: when it begins to fall, 0 keeps it constant; of other courses than the first the share of the run over
            which it falls.
        rampup: examples over which it rises from 0; 0 starts at the peak.
        clock: what `decay` counts: steps; examples trained on, which arms of different batches share; or the share
            of the run, so that the whole course is stretched to each budget (No Train No Gain, arXiv 2307.06440), as
            all but the first always are.
        course: of the fall: "inverse-sqrt" or one of `updates.FALLS`.
    """

    peak: float = 0.01
    decay: float = 512
    rampup: float = 0
    clock: Literal["steps", "examples", "share"] = "steps"
    course: str = INVERSE_SQRT

    def __post_init__(self) -> None:
        check(0 < self.peak < inf, f"the learning rate must be above 0, not {self.peak}")
        check(self.rampup >= 0, f"the learning rate rises over 0 examples or more, not {self.rampup}")
        check(self.decay >= 0, f"the decay of the learning rate must be 0 or more, not {self.decay}")
        if self.course != INVERSE_SQRT:
            check_fall(self.course, self.decay)
            check(
                self.clock == "share",
                f'a {self.course} course falls by the share of the run: it takes clock="share", not {self.clock!r}',
            )

    @property
    def follows_share(self) -> bool:
        """Whether it depends on how much of the run is done."""
        return self.clock == "share" and self.decay > 0

    @property
    def ends_low(self) -> bool:
        """Whether it ends so low that what is read before the end of a run is of a network that is not finished."""
        return self.course != INVERSE_SQRT and FALLS[self.course](1.0, self.decay) < LOW

    def __call__(self, step: int, examples: int, share: float = 0.0) -> float:
        rate = self.peak
        if self.rampup:
            rate *= min(examples / self.rampup, 1)
        if self.course != INVERSE_SQRT:
            rate *= FALLS[self.course](share, self.decay)
        elif self.decay:
            rate /= max({"steps": step, "examples": examples, "share": share}[self.clock] / self.decay, 1) ** 0.5
        return rate


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, apart from what it is trained on.

    Attributes:
        super_batch: examples drawn for a step, B.
        learning_rate: its course.
        betas: of Adam, and of schedule-free steps in its place. Muon has a momentum of its own, and these are of the
            weights that are no matrices.
        ema_widths: relative widths of the averages kept; the first is the one reported.
        micro_batch: examples that are scored or trained on at a time, which bounds memory and keeps a CPU's caches
            warm; selection acts on the whole super-batch all the same. None takes all at once.
        scope: where several processes train, choose from the whole super-batch ("global"), which gives what one process
            would, or each from its own part of it ("rank"), as the published code does.
        drawing: where random numbers of examples are made: on the "host" by torch's generator, or on the "device" by
            counters, where each of several processes draws its part alone. They are other numbers
            (docs/method.md#drawing).
        not_finite: what to do where a loss or gradient is not finite: "stop" the run, "skip" the step, which leaves the
            weights as they were, or put "zero" in the place of such gradients (EDM2). The ledger counts them.
        optimizer: that makes the steps.
    """

    super_batch: int = 4096
    learning_rate: LearningRate = LearningRate()
    betas: tuple[float, float] = (0.9, 0.99)
    ema_widths: tuple[float, ...] = (0.01, 0.05, 0.1)
    micro_batch: int | None = None
    scope: Literal["global", "rank"] = "global"
    not_finite: NotFinite = "stop"
    drawing: Drawing = "host"
    optimizer: OptimizerName = "adam"

    def __post_init__(self) -> None:
        check(
            self.micro_batch is None or self.micro_batch >= 1, f"micro_batch must be at least 1, not {self.micro_batch}"
        )
        check(self.super_batch >= 1, f"super_batch must be at least 1, not {self.super_batch}")
        check(len(self.ema_widths) >= 1, "ema_widths must name at least one width")
        for width in self.ema_widths:
            check_width(width)

    @property
    def moments(self) -> int:
        """Numbers that the optimizer keeps of each weight at most; Muon of a matrix one."""
        return 3 if self.optimizer == "schedule-free" else 2

    def of(self, arm: Arm) -> Recipe:
        """How an arm is trained by it: with what the arm changes of how weights are updated."""
        new, rate, (beta1, beta2) = arm.updates, self.learning_rate, self.betas
        if new.course is not None:
            rate = replace(rate, course=new.course, decay=new.decay, clock="share")
        beta2 = beta2 if new.beta2 is None else new.beta2
        return replace(self, learning_rate=rate, betas=(beta1, beta2), optimizer=new.optimizer or self.optimizer)
