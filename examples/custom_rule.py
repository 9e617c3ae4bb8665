"""A rule of one's own: ajest bench tree --rules examples/custom_rule.py --arms baseline random middle late-hard

`middle` trains on the examples whose loss is nearest to the median of their noise level. `late-hard` begins to prefer
hard examples at half of the run.
"""

from dataclasses import replace

import torch

from ajest.selection import (
    Arm,
    Scores,
    Trigger,
    TriggerState,
    ranks,
    register_arm,
    register_policy,
    register_trigger,
    strata_of,
)


def middle(scores: Scores, count: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """The `count` examples in the middle of the losses of their noise level; int64 indices, shape (count,)."""
    losses = scores.needed("learner")
    place, size = ranks(losses, strata_of(scores.needed("sigma"), max(1, min(16, len(losses) // 8))))
    return (place / size - 0.5).abs().topk(count, largest=False).indices


def second_half(state: TriggerState, step: int, losses: tuple[float, float] | None, progress: float) -> TriggerState:
    """Select from half of the run on."""
    begins = not state.on and progress >= 0.5
    return replace(state, on=True, fired_at=step) if begins else state


register_policy("middle", middle, needs=("learner", "sigma"), summary="losses nearest to the median of the noise level")
register_trigger("second-half", second_half, begins=False)
register_arm(Arm("middle", "middle", keep=0.2, summary="the fifth of middling loss within each noise level"))
register_arm(
    Arm("late-hard", "hard", keep=0.2, trigger=Trigger("second-half"), summary="hard, from half of the run on")
)
