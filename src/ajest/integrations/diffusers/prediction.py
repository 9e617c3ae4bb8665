"""What the config of a scheduler of diffusers says of its model: what it predicts, in which process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ajest.diffusion.objectives import EDM, DiscreteVP, Process, RectifiedFlow
from ajest.errors import UserError, check, unknown

from .loading import class_named, made

Predicted = Literal["epsilon", "v_prediction", "sample", "flow"]
PREDICTED: tuple[Predicted, ...] = ("epsilon", "v_prediction", "sample", "flow")
#: What diffusers calls what `ajest.diffusion.objectives` has under another name.
_NAMES = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


@dataclass(frozen=True)
class Prediction:
    """How to read a model.

    Attributes:
        parametrisation: what it predicts, a name of `ajest.diffusion.objectives`.
        process: what it is shown and told.
        sigma_max: the highest noise level that the process has a time for.
    """

    parametrisation: str
    process: Process
    sigma_max: float = float("inf")


def prediction_of(scheduler: dict[str, Any]) -> Prediction:
    """What the config of a scheduler says of its model.

    Raises:
        UserError: a class that is unknown, or whose models cannot be read as denoisers.
    """
    name = str(scheduler.get("_class_name", ""))
    kind = class_named(name, "SchedulerMixin")
    predicted = str(scheduler.get("prediction_type", "epsilon"))
    if name.startswith("FlowMatch") or predicted == "flow_prediction":
        return Prediction("flow", RectifiedFlow(multiplier=float(scheduler.get("num_train_timesteps", 1000))))
    if predicted not in _NAMES:
        raise unknown("prediction_type", predicted, PREDICTED)
    made_of = made(kind, scheduler)
    if name.startswith("EDM"):
        parametrisation = "edm" if predicted == "epsilon" else _NAMES[predicted]
        return Prediction(parametrisation, EDM(made_of.config.sigma_data))
    kept = getattr(made_of, "alphas_cumprod", None)
    if kept is None:
        raise UserError(
            f"{name}: of its models it is not known how they denoise: take a scheduler with alphas_cumprod (such as "
            "DDPMScheduler), FlowMatchEulerDiscreteScheduler or EDMEulerScheduler"
        )
    kept = kept.double()[kept > 0]  # with a last time of pure noise that has no sigma
    check(len(kept) >= 2, f"{name} has {len(kept)} times with a signal: at least 2 are needed")
    highest = float(((1 - kept[-1]) / kept[-1]).sqrt())
    return Prediction(_NAMES[predicted], DiscreteVP(alphas_cumprod=tuple(kept.tolist())), highest)
