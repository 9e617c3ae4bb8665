"""Presets of studies: functions that return a complete study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ajest.bench.plan.dials import ImageDials
from ajest.bench.plan.presets import CPU_MINI
from ajest.bench.plan.presets import tree_full as bench_full
from ajest.bench.plan.tuning import Tuning
from ajest.selection.arm import Arm
from ajest.selection.catalogue import ARMS, arms_named, on_running_scale, random_at
from ajest.tasks.images.task import ImageTask

from .plan import ALWAYS, Grid, Study

_KEEPS = (0.05, 0.1, 0.2, 0.4)
_HIGH_KEEPS = (0.6, 0.8)  # where a selecting step costs about as much as a uniform one
_TEMPERATURES = (0.5, 1.0, 2.0)
_REDUNDANCIES = (0.0, 1.0, 8.0, 64.0)
TREE_RULES = (
    *ALWAYS, "ajest", "ajest-zscore", "inverted-ajest", "jest-ema", "rho", "high-loss", "easy-reference",
    "hard", "hard-rank", "hard-running", "hard-cooling", "hard-early", "easy",
    "learnable", "learnable-ema", "learnable-strong", "hard-draws", "learnable-draws",
    "joint-residual", "joint-gradient", "hard-unbiased", "proportional",
    "infobatch", "speed", "sigma-loss", "sigma-loss-unbiased",
    "recall", "recall-cooling", "recall-id", "stale", "stale-cooling", "stale-id", "guide-hard", "proxy",
)  # fmt: skip


def _randoms(keeps: Sequence[float]) -> tuple[Arm, ...]:
    """Random choice at other keep fractions than its own."""
    return tuple(random_at(keep) for keep in keeps if keep != ARMS["random"].keep)


def tree_full() -> Study:
    """The recipe and headlines of the bench of this name, half its steps, and half its samples, by which its pilot told
    arms apart as well; learning rates are found first, shared by arms of as many examples. Hours on 2 cores."""
    bench = bench_full()
    return Study(
        task=bench.task,
        recipe=bench.recipe,
        guide_recipe=bench.guide_recipe,
        weight=bench.weight,
        headlines=bench.headlines,
        tuning=Tuning(shared=True),
        rules=arms_named(TREE_RULES),
        grids=(
            Grid("hard", ("keep", _KEEPS), ("temperature", _TEMPERATURES)),
            Grid("hard", ("strata", (1, 4, 16, 64)), ("temperature", _TEMPERATURES)),
            Grid("ajest-zscore", ("chunks", (2, 4, 16, 64)), ("temperature", _TEMPERATURES)),
            Grid("hard", ("keep", _HIGH_KEEPS), ("temperature", (1.0,))),
            Grid("joint-residual", ("redundancy", _REDUNDANCIES), ("temperature", (1.0,))),
            Grid("joint-gradient", ("redundancy", _REDUNDANCIES), ("temperature", (1.0,))),
        ),
        controls=_randoms((*_KEEPS, *_HIGH_KEEPS)),
        iterations=bench.iterations // 2,
        guide_iterations=bench.guide_iterations // 2,
        strong_iterations=2 * bench.iterations,
        n=bench.n_final // 2,
        screening_seeds=(1000, 1001, 1002, 1003, 1004),
        # None that was looked at before: those below 25 by the first study, 100 to 119 by the bench of this name.
        final_seeds=tuple(range(200, 220)),
        screening_ends=("time", "samples"),
        final_ends=("time", "samples", "flops"),
        guides=3,
    )


def tree_quick() -> Study:
    """A few rules in minutes: to see what a study is."""
    full = tree_full()
    return replace(
        full,
        tuning=None,
        rules=arms_named((*ALWAYS, "ajest", "hard", "recall", "stale", "sigma-loss")),
        grids=(Grid("hard", ("keep", (0.1, 0.2)), ("temperature", (1.0, 2.0))),),
        controls=_randoms((0.1,)),
        iterations=96,
        guide_iterations=64,
        strong_iterations=128,
        screening_seeds=(1000, 1001),
        final_seeds=(0, 1, 2),
        screening_ends=("time", "samples"),
        final_ends=("time", "samples"),
        finalists=2,
        n=4096,
        guides=1,
    )


IMAGE_RULES = (
    "hard", "hard-cooling", "easy", "learnable", "learnable-strong", "hard-draws", "learnable-draws", "hard-unbiased",
    "stale-id", "guide-hard", "proxy", "half-resolution", "infobatch", "speed", "sigma-loss",
)  # fmt: skip


def images_full(task: ImageTask, dials: ImageDials = CPU_MINI) -> Study:
    """The super-batch of `cpu-mini` and a quarter of its steps; with its networks under an hour a stage on 2 cores."""
    bench = dials.bench(task)
    named = {
        arm.name: arm for arm in (*dials.arms((*ALWAYS, "ajest")), *map(on_running_scale, arms_named(IMAGE_RULES)))
    }
    grid = Grid("hard-running", ("keep", (0.2, 0.4)), ("temperature", (0.5, 1.0, 2.0)))
    return Study(
        task=task,
        recipe=bench.recipe,
        guide_recipe=None if bench.guide_recipe == bench.recipe else bench.guide_recipe,
        rules=tuple(named.values()),
        grids=(grid,),
        controls=_randoms((0.4,)),
        iterations=bench.iterations // 4,
        guide_iterations=bench.guide_iterations // 4,
        strong_iterations=bench.iterations,
        screening_seeds=(1000, 1001, 1002),
        final_seeds=(0, 1, 2, 3, 4),
        screening_ends=("time",),
        grid_ends=("time",),
        final_ends=("time", "samples"),
        finalists=2,
        n=bench.n_final,
        weight=bench.weight,
    )


def images_quick(task: ImageTask, dials: ImageDials = CPU_MINI) -> Study:
    """Two rules and few steps: to see what a study of images is."""
    full = images_full(task, dials)
    return replace(
        full,
        rules=tuple(a for a in full.rules if a.name in (*ALWAYS, "hard", "sigma-loss")),
        grids=(),
        controls=(),
        iterations=64,
        guide_iterations=16,
        strong_iterations=64,
        screening_seeds=(1000, 1001),
        final_seeds=(0, 1),
        finalists=1,
    )


TREE: dict[str, Callable[[], Study]] = {"quick": tree_quick, "full": tree_full}
IMAGES: dict[str, Callable[[ImageTask, ImageDials], Study]] = {"quick": images_quick, "full": images_full}
PRESETS: dict[str, tuple[str, ...]] = {"tree": tuple(TREE), "images": tuple(IMAGES)}
