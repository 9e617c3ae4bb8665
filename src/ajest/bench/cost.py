"""What selection costs and from where on it can pay (METHOD 3, cost)."""

from __future__ import annotations

from dataclasses import dataclass

from .plan import BenchConfig, Costs

OVERHEAD = ("learner scoring", "reference scoring", "select")


@dataclass(frozen=True)
class SelectionCost:
    """The calibrated cost of one arm's selecting step against a step that trains on the whole super-batch.

    Attributes:
        arm: its name.
        keep: its keep fraction.
        step_ratio: seconds of its step over seconds of a uniform step.
        overhead_share: share of its step spent on scoring and choosing.
        example_ratio: seconds per example trained on, over the same of a uniform step: how many ordinary examples
            a chosen one must be worth for selection to pay.
        break_even: the keep fraction at which its step costs as much as a uniform one; below 0: at none.
        model_ratio: `example_ratio` as METHOD 3's cost model has it, from forward passes alone.
    """

    arm: str
    keep: float
    step_ratio: float
    overhead_share: float
    example_ratio: float
    break_even: float
    model_ratio: float


def selection_costs(config: BenchConfig, costs: Costs) -> list[SelectionCost]:
    """For every arm that scores, provided the uniform step was calibrated too."""
    uniform = costs.get("uniform")
    if uniform is None:
        return []
    learner = config.task.network("learner", 0).flops()
    guide = config.task.network("guide", 0).flops()
    found = []
    for arm in config.arms:
        step = costs.get(arm.kinds()[0])
        if not arm.scores or step is None:
            continue
        overhead = sum(step.get(p, 0.0) for p in OVERHEAD)
        ratio = sum(step.values()) / sum(uniform.values())
        forward = ("learner scoring" in step) + {"guide": guide / learner, "ema": 1.0, "none": 0.0}[arm.reference]
        found.append(
            SelectionCost(
                arm=arm.name,
                keep=arm.keep,
                step_ratio=ratio,
                overhead_share=overhead / sum(step.values()),
                example_ratio=ratio / arm.keep,
                break_even=1 - overhead / uniform["update"],
                model_ratio=(forward / arm.keep + 3) / 3,
            )
        )
    return found
