"""How samples are solved for: from noise at the highest level to data, by whichever way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from ajest.errors import check, unknown

from .denoising import Denoiser
from .flow import flow_times, sample_flow
from .objectives import RectifiedFlow, as_network
from .sampling import Normals, check_sampler, sample, sigma_schedule

#: Heun's method in sigma (EDM), or Heun's or Euler's in a flow's time.
SolverKind = Literal["heun", "flow-heun", "flow-euler"]


@dataclass(frozen=True)
class Solver:
    """A way from noise to data, from the same start as every other.

    Attributes:
        steps: of the solver.
        sigma_max, sigma_min: highest and lowest noise level above 0; a flow's lowest follows from its steps.
        sigma_data: standard deviation of the data, which makes times of levels.
        kind: which way.
        churn: S_churn of EDM's algorithm 2, for "heun".
        shift: of a flow's times, see `flow_times`.
    """

    steps: int = 32
    sigma_max: float = 80.0
    sigma_min: float = 0.002
    sigma_data: float = 0.5
    kind: SolverKind = "heun"
    churn: float = 0.0
    shift: float = 1.0

    def __post_init__(self) -> None:
        check_sampler(self.steps, self.sigma_max, self.sigma_min)
        if self.kind not in get_args(SolverKind):
            raise unknown("solver", self.kind, get_args(SolverKind))
        check(0 <= self.churn < math.inf, f"churn must be at least 0, not {self.churn}")
        check(0 < self.shift < math.inf, f"shift must be above 0, not {self.shift}")
        check(self.kind == "heun" or self.churn == 0, f'churn is for the solver "heun", not for {self.kind!r}')
        check(self.kind != "heun" or self.shift == 1, "shift is for the solvers of a flow: name one, such as flow-heun")

    @property
    def ode_from(self) -> float | None:
        """The noise level from which it follows the probability-flow ODE, in standard deviations of the data; None
        where it adds noise on the way."""
        return None if self.churn else self.sigma_max / self.sigma_data

    def sigmas(self) -> list[float]:
        """Noise levels before each step, and 0."""
        if self.kind == "heun":
            return sigma_schedule(self.steps, self.sigma_max, self.sigma_min)
        return [self.sigma_max, *(self.sigma_data * t / (1 - t) for t in self._times()[1:])]

    def __call__(
        self,
        denoiser: Denoiser,
        start: Tensor,
        label: Tensor | None = None,
        generator: Normals = None,
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """The end points, shape and type of `start`.

        Args:
            denoiser: any, guided or not.
            start: noisy examples at level `sigma_max`, shape (n, ...).
            label: passed on to the denoiser.
            generator: for the churn noise.
            watch: called with the step number and x before each step and at the end.
        """
        if self.kind == "heun":
            return sample(denoiser, start, self.sigmas(), label, churn=self.churn, generator=generator, watch=watch)
        s, times = self.sigma_data, self._times()

        def seen(step: int, z: Tensor) -> None:
            if watch is not None:
                watch(step, s * z / (1 - times[step]))

        velocity = as_network(denoiser, "flow", RectifiedFlow(s))
        z = start * ((1 - times[0]) / s)
        return s * sample_flow(velocity, z, times, label, heun=self.kind == "flow-heun", watch=seen)

    def _times(self) -> list[float]:
        return flow_times(self.steps, self.shift, self.sigma_max / (self.sigma_data + self.sigma_max))
