"""Operations of the networks in each kind of step, as the ledger books them (docs/method.md#cost)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ajest.diffusion.batch import Batch
from ajest.diffusion.network import flops_of, sketch_flops_of, sketches
from ajest.runtime.seeding import generator
from ajest.selection.arm import Arm
from ajest.selection.kinds import StepKind
from ajest.tasks.base import Task
from ajest.training.recipe import Recipe


@dataclass(frozen=True)
class NetworkCosts:
    """Operations of a task's networks.

    Attributes:
        forward: floating-point operations of denoising one example with the learner.
        guide, exact: cost of a forward pass of the guide and of the best denoiser there is, the learner's being 1.
        sketch: cost of a forward pass of the learner that sketches gradients too; 1 where it cannot.
    """

    forward: float
    guide: float
    exact: float
    sketch: float


def network_costs(task: Task) -> NetworkCosts:
    """The costs of a task's networks: as they say themselves, or counted on an example of the task.

    The networks are built once for each task, unless its settings cannot be hashed.
    """
    try:
        hash(task)
    except TypeError:
        return _count(task)
    return _counted(task)


@lru_cache(maxsize=64)
def _counted(task: Task) -> NetworkCosts:
    return _count(task)


def _count(task: Task) -> NetworkCosts:
    learner, guide = task.network("learner", 0), task.network("guide", 0)

    def example() -> Batch:
        return task.source("cpu").draw(1, generator(0, "flops"))

    forward = flops_of(learner, example)
    sketch = sketch_flops_of(learner, example) / forward if sketches(learner) else 1.0
    exact = flops_of(task.exact_denoiser(), example)
    return NetworkCosts(forward, flops_of(guide, example) / forward, exact / forward, sketch)


def step_flops(task: Task, recipe: Recipe, arm: Arm) -> dict[StepKind, float]:
    """Floating-point operations of one step of an arm, by its kinds. A backward pass counts as two forward passes."""
    costs = network_costs(task)
    found = {}
    for kind in arm.kinds():
        passes = scoring_passes(arm, costs) if kind.mode == "select" else 0.0
        if kind.mode == "watch":
            passes = _reference(arm, costs)
        trained = recipe.super_batch if kind.trains_on_all else arm.kept(recipe.super_batch)
        update = 3 * (1 + costs.guide * (arm.scoring.scorer == "proxy"))
        found[kind] = float(costs.forward * (recipe.super_batch * passes + trained * update))
    return found


def forward_passes(arm: Arm, costs: NetworkCosts) -> float:
    """Forward passes of the learner that scoring one drawn example costs, mean over selecting steps."""
    return scoring_passes(arm, costs) / ((arm.memory.every or 1) if arm.memory else 1)


def scoring_passes(arm: Arm, costs: NetworkCosts) -> float:
    """`forward_passes` of a step that scores."""
    if not arm.measures:
        return 0.0
    needs, how = arm.registered.needs, arm.scoring
    sketched = "features" in needs and how.features == "gradient"
    learner = (costs.guide if how.scorer == "proxy" else costs.sketch if sketched else 1.0) / (4 if how.half else 1)
    return how.draws * (learner * ("learner" in needs) + _reference(arm, costs) * ("reference" in needs))


def passes_text(arm: Arm) -> str:
    """Forward passes that an example trained on costs in selecting steps, for people: such as "8 + 5 g", with g for a
    pass of the guide; three are its update."""
    without, with_guide = (forward_passes(arm, NetworkCosts(1.0, guide, 1.0, 1.0)) / arm.keep for guide in (0.0, 1.0))
    proxy = float(arm.scoring.scorer == "proxy")
    guide = with_guide - without + 3 * proxy
    own = f"{without + 3:.3g}"
    return own if guide == 0 else f"{own} + {guide:.3g} g"


def _reference(arm: Arm, costs: NetworkCosts) -> float:
    """Forward passes of the learner that scoring one example with the reference costs."""
    passes = {"none": 0.0, "guide": costs.guide, "ema": 1.0, "strong": 1.0, "exact": costs.exact}
    return passes[arm.reference] / (4 if arm.scoring.half else 1)
