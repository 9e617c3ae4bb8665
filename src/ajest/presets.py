"""Presets: functions that return a complete bench."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .arms import arms_named
from .bench.plan import BenchConfig
from .tasks import TreeTask
from .training import LearningRate, Recipe

PAPER_ARMS = ("baseline", "early-ajest", "ajest", "random", "late-ajest", "inverted-ajest")


def tree_paper() -> BenchConfig:
    """METHOD 2's settings: 4096 iterations, 5 seeds, 163,840 samples. At most 90 minutes on 2 cores."""
    return BenchConfig(
        task=TreeTask(),
        recipe=Recipe(),
        arms=arms_named(PAPER_ARMS),
        seeds=(0, 73, 172, 231, 357),
        iterations=4096,
        guide_iterations=512,
        n_final=163_840,
    )


def tree_quick() -> BenchConfig:
    """The same in small: a tenth of the iterations, 3 seeds, a twentieth of the samples. At most 5 minutes."""
    full = tree_paper()
    return replace(
        full,
        recipe=replace(full.recipe, learning_rate=LearningRate(decay=48)),
        seeds=full.seeds[:3],
        iterations=384,
        guide_iterations=96,
        n_final=8_192,
        n_curve=4_096,
        curve=(1 / 8, 1 / 4, 1 / 2, 1.0),
    )


PRESETS: dict[str, dict[str, Callable[[], BenchConfig]]] = {"tree": {"quick": tree_quick, "paper": tree_paper}}
