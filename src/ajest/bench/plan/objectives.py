"""Whether an arm's expected objective is the task's own (docs/method.md#noising)."""

from __future__ import annotations

from dataclasses import replace

import torch

from ajest.diffusion.batch import Source
from ajest.diffusion.noising import Noising
from ajest.diffusion.noising.allocations import BINS, exact_error
from ajest.diffusion.noising.ingredients import IngredientSource, has_ingredients
from ajest.selection.arm import Arm

#: Share of the objective below which it has not moved: tables of levels have bins.
_LEAST = 0.005
SAME, FOLLOWS = "same", "follows losses"


def objective_of(arm: Arm, source: Source) -> str:
    """Whether an arm's expected objective is the task's own, in words: "same", or what is different.

    Of noise levels it is the share of weight times density that lies at other levels, by numbers. Levels that follow
    losses are taken where those of the best denoiser would lead, if that is known.

    Args:
        arm: any.
        source: of the task, without the arm's noising.
    """
    noising = arm.noising
    said = ["by choice"] if arm.policy not in ("uniform", "random") and not arm.unbiased else []
    if noising.axes and has_ingredients(source):
        said += _moved(noising, source)
    said += [] if noising.keeps_best else ["another best denoiser"]
    said += ["a term more"] if arm.updates.term is not None else []
    return ", ".join(said) or SAME


def _moved(noising: Noising, own: IngredientSource) -> list[str]:
    seen = None
    if noising.allocation is not None and noising.allocation.reads != "nothing":
        if noising.same_objective:
            return []
        if own.exact is None:
            return [FOLLOWS]
        seen = exact_error(own)
        # A rule that reads how errors fall has nothing to go by where they stay.
        falling = replace(seen, earlier=seen.error * torch.linspace(2, 3, BINS, dtype=seen.error.dtype))
        if noising.moved(own, falling) >= _LEAST > noising.moved(own, seen):
            return [FOLLOWS]
    share = noising.moved(own, seen)
    return [f"{share:.0%} at other levels"] if share >= _LEAST else []
