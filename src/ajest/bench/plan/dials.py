"""The dials from which a bench on images is derived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ajest.selection.arm import Arm
from ajest.selection.catalogue import arms_named
from ajest.tasks.base import Headline
from ajest.tasks.images.architecture import NetworkSettings, Precision
from ajest.tasks.images.data.latents import is_latents
from ajest.tasks.images.task import ImageTask
from ajest.training.recipe import Course, LearningRate, Recipe

from .config import BenchConfig
from .tuning import Tuning

IMAGE_ARMS = ("baseline", "early-ajest", "ajest", "random")


@dataclass(frozen=True)
class ImageDials:
    """What a bench on images is derived from.

    Attributes:
        learner, guide: the networks.
        rate, guide_rate: peak learning rates.
        super_batch: examples drawn for a step.
        micro_batch: examples in the network at a time.
        iterations, guide_iterations: steps of the baseline and of the guide.
        decay: from where on learning rates fall, by `clock`.
        clock, course: see `LearningRate`.
        rampup: examples over which they rise.
        chunks, within: of JEST arms.
        seeds: of the runs.
        n_final, n_curve: samples, see `BenchConfig`.
        sampler: steps of Heun's method, highest and lowest noise level.
        weight: of autoguidance.
        curve: points of learning curves, as shares of the run.
        ema_widths: the first is the one reported.
        precision, compile: see `ImageTask`.
        references: training images that samples are compared with; None for all.
        classes: how many to learn, spread over the data set's; None for all.
        chunk: images sampled or judged at a time.
        guides, noise_repeats, tuning: see `BenchConfig`.
        resolution: to bring images to; None is theirs.
        compared: names of the arms.
        headlines: see `BenchConfig`.
    """

    learner: NetworkSettings
    guide: NetworkSettings
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
    course: Course = "inverse-sqrt"
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
    guides: int = 1
    noise_repeats: int = 0
    tuning: Tuning | None = None
    resolution: int | None = None
    compared: tuple[str, ...] = IMAGE_ARMS
    headlines: dict[str, Headline] = field(default_factory=dict)

    def settings(self, data: Sequence[str]) -> dict[str, object]:
        """Settings of `image_task` that do not come from the data; latents keep the resolution of their images."""
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
            "resolution": None if is_latents(data) else self.resolution,
        }

    def arms(self, names: tuple[str, ...] = (), keep: float | None = None) -> tuple[Arm, ...]:
        """Those of these names, without any the preset's own, with its dials."""
        return arms_named(names or self.compared, keep, self.chunks, self.within)

    def bench(self, task: ImageTask) -> BenchConfig:
        """The bench of these dials on a data set; its runs end at equal time."""
        recipe = Recipe(
            super_batch=self.super_batch,
            learning_rate=LearningRate(self.rate, self.decay, self.rampup, self.clock, self.course),
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
            guides=self.guides,
            noise_repeats=self.noise_repeats,
            tuning=self.tuning,
            headlines=self.headlines,
        )
