"""What a model of diffusers is asked and what it answers, in terms of a denoiser D(x, sigma).

Every one of them sees `c x` at a time t and answers F, from which `D = a x + b F`: c, t, a and b are functions of
sigma. Variance-preserving models see `x / sqrt(1 + sigma^2)`; of straight flows `x / (1 + sigma)` is
`(1 - t) x0 + t eps`, and F is `eps - x0` (rectified flow, arXiv 2209.03003); EDM's are of arXiv 2206.00364, table 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ajest.errors import UserError, check, unknown

from .library import class_named, made

Predicted = Literal["epsilon", "v_prediction", "sample", "flow"]
PREDICTED: tuple[Predicted, ...] = ("epsilon", "v_prediction", "sample", "flow")


@dataclass(frozen=True, eq=False)
class Prediction:
    """How to read a model.

    Attributes:
        predicted: what F estimates.
        path: which x it sees: variance preserving, on straight lines, or scaled as EDM does it.
        levels: ln sigma at each training time of a variance-preserving model, rising, shape (times,).
        times: of the schedule; a flow's t is given to the model times so many.
        sigma_data: of EDM's scaling.
    """

    predicted: Predicted
    path: Literal["preserving", "straight", "edm"]
    levels: Tensor
    times: int = 1000
    sigma_data: float = 0.5

    @property
    def sigma_max(self) -> float:
        """The highest noise level that the model has a time for."""
        return math.exp(self.levels[-1].item()) if self.path == "preserving" else math.inf

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(c, t, a, b) at noise levels of shape (n,), each of that shape."""
        if self.path == "straight":
            c = 1 / (1 + sigma)
            return c, self.times * sigma * c, c, -sigma * c
        if self.path == "edm":
            c = torch.rsqrt(sigma.square() + self.sigma_data**2)
            out = sigma * self.sigma_data * c
            return c, sigma.log() / 4, (self.sigma_data * c).square(), out if self.predicted == "epsilon" else -out
        c = torch.rsqrt(1 + sigma.square())
        if self.predicted == "v_prediction":
            return c, self._time(sigma), c.square(), -sigma * c
        if self.predicted == "sample":
            return c, self._time(sigma), torch.zeros_like(c), torch.ones_like(c)
        return c, self._time(sigma), torch.ones_like(c), -sigma

    def _time(self, sigma: Tensor) -> Tensor:
        """The time at which training has this noise, between two of them linear in ln sigma; the nearest one beyond."""
        levels = self.levels.to(sigma.device, sigma.dtype)
        level = sigma.log().clamp(levels[0], levels[-1])
        above = torch.searchsorted(levels, level).clamp(1, len(levels) - 1)
        low, high = levels[above - 1], levels[above]
        return above - 1 + (level - low) / (high - low)


def prediction_of(scheduler: dict[str, Any]) -> Prediction:
    """What the config of a scheduler says of its model.

    Raises:
        UserError: a class that is unknown, or whose models cannot be read as denoisers.
    """
    name = str(scheduler.get("_class_name", ""))
    kind = class_named(name, "SchedulerMixin")
    predicted = scheduler.get("prediction_type", "epsilon")
    if name.startswith("FlowMatch") or predicted == "flow_prediction":
        return Prediction("flow", "straight", torch.empty(0), int(scheduler.get("num_train_timesteps", 1000)))
    if predicted not in PREDICTED:
        raise unknown("prediction_type", str(predicted), PREDICTED)
    made_of = made(kind, scheduler)
    if name.startswith("EDM"):
        return Prediction(predicted, "edm", torch.empty(0), sigma_data=made_of.config.sigma_data)
    kept = getattr(made_of, "alphas_cumprod", None)
    if kept is None:
        raise UserError(
            f"{name}: of its models it is not known how they denoise: take a scheduler with alphas_cumprod (such as "
            "DDPMScheduler), FlowMatchEulerDiscreteScheduler or EDMEulerScheduler"
        )
    kept = kept.double()[kept > 0]  # with a last time of pure noise that has no sigma
    check(len(kept) >= 2, f"{name} has {len(kept)} times with a signal: at least 2 are needed")
    return Prediction(predicted, "preserving", ((1 - kept) / kept).sqrt().log(), len(kept))
