"""What selection costs and from where on it can pay (docs/method.md#cost, docs/method.md#break-even)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ajest.bench.plan.config import BenchConfig, Costs
from ajest.bench.plan.operations import NetworkCosts, forward_passes, network_costs
from ajest.selection.arm import Arm
from ajest.selection.kinds import UNIFORM

from .table import Table

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
        model_ratio: `example_ratio` by the cost model (docs/method.md#cost), from forward passes alone.
    """

    arm: str
    keep: float
    step_ratio: float
    overhead_share: float
    example_ratio: float
    break_even: float
    model_ratio: float


def cost_table(costs: Sequence[SelectionCost], costly_target: bool = False) -> Table:
    """What selection costs, for people.

    Args:
        costs: of the arms.
        costly_target: whether an exact target was made for every drawn example.
    """
    heads = (
        "arm",
        "selecting step, uniform = 1",
        "scoring and choosing",
        "cost of an example trained on, uniform = 1",
        "the same by the cost model",
        "break-even keep fraction",
    )
    rows = [
        [
            c.arm,
            f"{c.step_ratio:.2f}",
            f"{c.overhead_share:.0%}",
            f"{c.example_ratio:.2f}",
            f"{c.model_ratio:.2f}",
            f"{c.break_even:.2f}" if c.break_even > 0 else "none",
        ]
        for c in costs
    ]
    also = " and makes its exact target" if costly_target else ""
    return Table.of(
        "What selection costs",
        heads,
        rows,
        (
            "Below the break-even keep fraction a selecting step is cheaper than training on the whole super-batch. "
            "Whether it is worth it depends on how much more a chosen example teaches. That must exceed the cost of an "
            "example trained on.",
            f"The cost model counts forward passes alone; what is measured also draws every example{also}.",
        ),
    )


def selection_costs(config: BenchConfig, costs: Costs) -> list[SelectionCost]:
    """For every arm that scores, provided the uniform step was calibrated too."""
    uniform = costs.get(UNIFORM.label)
    if uniform is None:
        return []
    networks = network_costs(config.task)
    found = []
    for arm in config.arms:
        step = _mean_step(arm, costs)
        if not arm.scores or not step:
            continue
        overhead = sum(step.get(p, 0.0) for p in OVERHEAD)
        ratio = sum(step.values()) / sum(uniform.values())
        found.append(
            SelectionCost(
                arm=arm.name,
                keep=arm.keep,
                step_ratio=ratio,
                overhead_share=overhead / sum(step.values()),
                example_ratio=ratio / arm.keep,
                break_even=_break_even(arm, step, uniform, networks.guide),
                model_ratio=_model_ratio(arm, networks),
            )
        )
    return found


def _model_ratio(arm: Arm, networks: NetworkCosts) -> float:
    passes = forward_passes(arm, networks)
    return passes / arm.keep / 3 + 1 + networks.guide * _has_proxy(arm)


def _has_proxy(arm: Arm) -> bool:
    return arm.scoring.scorer == "proxy"


def _break_even(arm: Arm, step: Mapping[str, float], uniform: Mapping[str, float], guide: float) -> float:
    """The keep fraction at which a selecting step costs as much as a uniform one: what scales with it lies on a line
    between what it costs now and what it would cost for the whole super-batch."""
    scaling = ("update", "target") if arm.memory is not None or not arm.measures else ("update",)
    now = sum(step.get(p, 0.0) for p in scaling)
    whole = sum(uniform.get(p, 0.0) for p in scaling) * (1 + guide * _has_proxy(arm))
    room = sum(uniform.values()) - sum(step.values())
    return arm.keep + room * (1 - arm.keep) / (whole - now) if whole > now else 0.0


def _mean_step(arm: Arm, costs: Costs) -> dict[str, float]:
    """Calibrated seconds of a selecting step by phase: where most steps choose by remembered scores, the mean."""
    kinds = [kind.label for kind in arm.kinds()]
    every = arm.memory.every if arm.memory else 0
    shares = {kinds[0]: 1 / every, kinds[1]: 1 - 1 / every} if every else {kinds[0]: 1.0}
    if not shares.keys() <= costs.keys():
        return {}
    phases = {phase for kind in shares for phase in costs[kind]}
    return {p: sum(share * costs[kind].get(p, 0.0) for kind, share in shares.items()) for p in phases}
