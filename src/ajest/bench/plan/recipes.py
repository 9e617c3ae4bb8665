"""The best recipe that the tables of trials support, by task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ajest.errors import UserError, listed

#: Of a run that is trained by itself, at equal distances.
SNAPSHOTS = 16


@dataclass(frozen=True)
class BestRecipe:
    """How a run is trained by everything that was found to help.

    Attributes:
        preset: whose networks, super-batch and course it takes.
        arm: how it trains.
        rate: its peak learning rate, found on seeds that it was not judged on.
        steps: which it takes in the time of the preset's baseline.
        guide_at: the sixteenth of the run whose snapshot guides its end; None where that is not known to help.
        guiding: options of `ajest evaluate` that go with it.
        source: the page that says so.
    """

    preset: str
    arm: str
    rate: float
    steps: int
    guide_at: int | None
    guiding: str
    source: str


BEST = {
    "tree": BestRecipe("full", "random", 0.08, 1839, 2, "--guide-rule reg --weights 4", "docs/best-recipe.md"),
    "images": BestRecipe("cpu-small", "random", 0.057, 762, None, "", "docs/results-images-small.md"),
}


def guided_by_itself(recipe: BestRecipe, run: Path, steps: int) -> str:
    """The command that judges a run of so many steps, guided by its own snapshot where that is known to help."""
    if recipe.guide_at is None:
        return f"ajest evaluate {run}"
    return f"ajest evaluate {run} --guide {run} --guide-step {steps * recipe.guide_at // SNAPSHOTS} {recipe.guiding}"


def best_recipe(task: str) -> BestRecipe:
    """That of a task.

    Raises:
        UserError: none is known.
    """
    if task not in BEST:
        raise UserError(
            f"no recipe is known to be best for {task}, only for {listed(BEST)}: `ajest bench` finds which arm is"
        )
    return BEST[task]
