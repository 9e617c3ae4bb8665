"""The best recipe that the tables of trials support, by task."""

from __future__ import annotations

from dataclasses import dataclass

from ajest.errors import UserError, listed


@dataclass(frozen=True)
class BestRecipe:
    """How a run is trained by everything that was found to help.

    Attributes:
        preset: whose networks, super-batch and course it takes.
        arm: how it trains.
        rate: its peak learning rate, found on seeds that it was not judged on.
        steps: which it took when it was judged.
        source: the page that says so.
    """

    preset: str
    arm: str
    rate: float
    steps: int
    source: str


BEST = {
    "tree": BestRecipe("full", "random+muon+second-moment", 0.136, 753, "docs/best-recipe.md"),
    "images": BestRecipe("cpu-small", "random+muon", 0.0834, 652, "docs/results-images-muon.md"),
}


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
