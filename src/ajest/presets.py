"""Presets: functions that return a complete bench, derived from few dials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from .arms import Arm, arms_named
from .bench.plan import BenchConfig
from .images.architecture import LEARNING_RATES, SIZES, Architecture, Precision
from .images.task import ImageTask
from .tasks import TreeTask
from .training import LearningRate, Recipe

PAPER_ARMS = ("baseline", "early-ajest", "ajest", "random", "late-ajest", "inverted-ajest")
IMAGE_ARMS = ("baseline", "early-ajest", "ajest", "random")


def tree_paper() -> BenchConfig:
    """METHOD 2's settings: 4096 iterations, 5 seeds, 163,840 samples. At most 90 minutes on 2 cores."""
    return BenchConfig(
        task=TreeTask(),
        recipe=Recipe(),
        arms=arms_named(PAPER_ARMS),
        seeds=(0, 73, 172, 231, 357),
        iterations=4096,
        guide_iterations=512,
        strong_iterations=4096,
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
        strong_iterations=384,
        n_final=8_192,
        n_curve=4_096,
        curve=(1 / 8, 1 / 4, 1 / 2, 1.0),
    )


TREE: dict[str, Callable[[], BenchConfig]] = {"quick": tree_quick, "paper": tree_paper}


@dataclass(frozen=True)
class ImageDials:
    """What a bench on pictures is derived from.

    Attributes:
        learner, guide: the networks.
        rate, guide_rate: peak learning rates.
        super_batch: examples drawn for a step.
        micro_batch: examples in the network at a time.
        iterations, guide_iterations: steps of the baseline and of the guide.
        decay: from where on learning rates fall, by `clock`.
        clock: see `LearningRate`.
        rampup: examples over which they rise.
        chunks, within: of JEST arms.
        seeds: of the runs.
        n_final, n_curve: samples, see `BenchConfig`.
        sampler: steps of Heun's method, highest and lowest noise level.
        weight: of autoguidance.
        curve: points of learning curves, as shares of the run.
        ema_widths: the first is the one reported.
        precision, compile: see `ImageTask`.
        references: training pictures that samples are compared with; None for all.
        classes: how many to learn, spread over the data set's; None for all.
        chunk: pictures sampled or judged at a time.
    """

    learner: Architecture
    guide: Architecture
    rate: float
    guide_rate: float
    super_batch: int
    micro_batch: int | None
    iterations: int
    guide_iterations: int
    decay: float
    rampup: float
    chunks: int
    seeds: tuple[int, ...]
    n_final: int
    n_curve: int
    clock: Literal["steps", "examples", "share"] = "steps"
    within: int | None = None
    sampler: tuple[int, float, float] = (32, 80.0, 0.002)
    weight: float = 2.2
    curve: tuple[float, ...] = (1 / 8, 1 / 4, 1 / 2, 1.0)
    ema_widths: tuple[float, ...] = (0.10, 0.05)
    precision: Precision = "bfloat16"
    compile: bool = False
    references: int | None = None
    classes: int | None = None
    chunk: int = 32

    def settings(self) -> dict[str, object]:
        """Fields of `ImageTask` that do not come from the data."""
        return {
            "learner": self.learner,
            "guide": self.guide,
            "precision": self.precision,
            "compile": self.compile,
            "sampler_steps": self.sampler[0],
            "sigma_max": self.sampler[1],
            "sigma_min": self.sampler[2],
            "references": self.references,
            "chunk": self.chunk,
        }

    def arms(self, names: tuple[str, ...] = IMAGE_ARMS, keep: float | None = None) -> tuple[Arm, ...]:
        return arms_named(names, keep, self.chunks, self.within)

    def bench(self, task: ImageTask) -> BenchConfig:
        """The bench of these dials on a data set; its runs end at equal time."""
        recipe = Recipe(
            super_batch=self.super_batch,
            learning_rate=LearningRate(self.rate, self.decay, self.rampup, self.clock),
            ema_widths=self.ema_widths,
            micro_batch=self.micro_batch,
            not_finite="zero",
        )
        guide = replace(recipe, learning_rate=replace(recipe.learning_rate, peak=self.guide_rate))
        return BenchConfig(
            task=task,
            recipe=recipe,
            arms=self.arms(),
            seeds=self.seeds,
            iterations=self.iterations,
            guide_iterations=self.guide_iterations,
            strong_iterations=self.iterations,
            end="time",
            guide_recipe=guide,
            weight=self.weight,
            n_final=self.n_final,
            n_curve=self.n_curve,
            curve=self.curve,
            calibration_rounds=8,
        )


#: A whole bench within an hour on 2 cores. docs/results-images.md says why this network.
CPU_MINI = ImageDials(
    learner=SIZES["mini"],
    guide=SIZES["nano"],
    rate=LEARNING_RATES["mini"],
    guide_rate=LEARNING_RATES["nano"],
    super_batch=20,
    micro_batch=None,
    iterations=1600,
    guide_iterations=400,
    decay=1 / 4,
    clock="share",
    rampup=200,
    chunks=4,
    seeds=(0, 73),
    n_final=250,
    n_curve=250,
    sampler=(7, 80.0, 0.01),
    classes=4,
)

#: Meant for one large GPU; not measured on any yet.
GPU_MINI = ImageDials(
    learner=SIZES["xxs"],
    guide=replace(SIZES["xxs"], channels=32),
    rate=LEARNING_RATES["xxs"],
    guide_rate=LEARNING_RATES["xxs"],
    super_batch=512,
    micro_batch=None,
    iterations=320,
    guide_iterations=160,
    decay=160,
    rampup=10_240,
    chunks=8,
    seeds=(0, 73),
    n_final=2000,
    n_curve=1000,
    curve=(1 / 4, 1 / 2, 1.0),
    compile=True,
    chunk=256,
)

#: METHOD 5's figures: 48 hours on two GPUs were 22,000 steps of the baseline.
PAPER = ImageDials(
    learner=SIZES["xs"],
    guide=SIZES["xxs"],
    rate=LEARNING_RATES["xs"],
    guide_rate=LEARNING_RATES["xxs"],
    super_batch=2048,
    micro_batch=128,
    iterations=22_000,
    guide_iterations=5159,
    decay=5463,
    rampup=780_000,
    chunks=8,
    within=128,
    seeds=(0,),
    n_final=2000,
    n_curve=2000,
    compile=True,
    chunk=256,
)

IMAGES: dict[str, ImageDials] = {"cpu-mini": CPU_MINI, "gpu-mini": GPU_MINI, "paper": PAPER}
PRESETS: dict[str, tuple[str, ...]] = {"tree": tuple(TREE), "images": tuple(IMAGES)}
