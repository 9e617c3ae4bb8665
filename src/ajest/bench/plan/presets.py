"""Presets: functions that return a complete bench."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ajest.errors import unknown
from ajest.integrations.diffusers import DiffusersModel
from ajest.selection.catalogue import arms_named, random_at
from ajest.tasks import registry
from ajest.tasks.base import Headline, Task
from ajest.tasks.images.architecture import DIFFUSERS_RATE, LEARNING_RATES, SIZES, Architecture
from ajest.tasks.images.task import ImageTask
from ajest.tasks.tree.task import TreeTask
from ajest.tasks.vectors.task import VectorsTask
from ajest.training.recipe import LearningRate, Recipe

from .config import BenchConfig
from .dials import ImageDials
from .tuning import Tuning

ANY_ARMS = ("baseline", "early-ajest", "ajest", "random")
TREE_ARMS = (
    *ANY_ARMS, "hard", "hard-cooling", "recall", "recall-cooling", "stale", "infobatch",
)  # fmt: skip
PAPER_ARMS = ("baseline", "early-ajest", "ajest", "random", "late-ajest", "inverted-ajest")


def tree_paper() -> BenchConfig:
    """The published settings (arXiv 2509.15267; docs/method.md#tree-recipe): 4096 iterations, 5 seeds, 163,840 samples.

    At most 90 minutes on 2 cores. It has one guide, as published, whose own chance no interval of it knows.
    """
    return BenchConfig(
        task=TreeTask(gain_sign="free"),
        recipe=Recipe(),
        arms=arms_named(PAPER_ARMS),
        seeds=(0, 73, 172, 231, 357),
        iterations=4096,
        guide_iterations=512,
        strong_iterations=4096,
        n_final=163_840,
    )


#: By `ajest bench tree --preset full --tune`, seeds 2000 to 2002: docs/results-tree-full.md has what each rate gave.
TREE_RATES = {
    "baseline": 0.08, "early-ajest": 0.08, "ajest": 0.04, "random": 0.08, "hard": 0.04, "hard-cooling": 0.08,
    "recall": 0.08, "recall-cooling": 0.08, "stale": 0.04, "infobatch": 0.04, "random-keep-0.05": 0.04,
    "random-keep-0.1": 0.04, "random-keep-0.4": 0.08,
}  # fmt: skip


#: By `ajest bench tree --tune`, the same seeds: mean losses at 0.04 and 0.08 differ by less than a tenth.
QUICK_RATES = {"baseline": 0.04, "early-ajest": 0.08, "ajest": 0.08, "random": 0.04}
#: By the pilot of docs/results-tree-full.md: what tells arms apart well, of what needs no samples and of guided ones.
#: The energy distance, the headline elsewhere, is near that of exact samples at these rates.
TREE_HEADLINES: dict[str, Headline] = {"loss": "unguided", "mandala": "guided"}


def tree_full() -> BenchConfig:
    """The published super-batch and networks, an eighth of the steps, at equal time: gains of one sign, rates that fall
    to zero. 20 seeds; about an hour on 2 cores."""
    recipe = Recipe(learning_rate=LearningRate(0.04, decay=1, clock="share", course="linear"))
    return BenchConfig(
        task=TreeTask(),
        recipe=recipe,
        arms=(*arms_named(TREE_ARMS), *(random_at(keep) for keep in (0.05, 0.1, 0.4))),
        seeds=tuple(range(100, 120)),
        iterations=512,
        guide_iterations=512,
        guide_recipe=replace(recipe, super_batch=1024),
        strong_iterations=512,
        end="time",
        n_final=8_192,
        n_curve=4_096,
        curve=(1 / 4, 1 / 2, 1.0),
        calibration_rounds=64,
        guides=3,
        noise_repeats=1,
        weight=2.0,
        headlines=TREE_HEADLINES,
        rates=TREE_RATES,
        tuned="a grid of 4 rates on 3 other seeds, by the loss",
    )


def tree_quick() -> BenchConfig:
    """Four arms in a quarter of those steps, on as many seeds as decide them or fit into 5 minutes on 2 cores."""
    quick = replace(
        tree_full(),
        arms=arms_named(ANY_ARMS),
        seeds=(0, 1, 2, 3, 4),
        rates=QUICK_RATES,
        iterations=128,
        guide_iterations=128,
        strong_iterations=128,
        n_final=4_096,
        calibration_rounds=24,
        guides=1,
    )
    return quick.until_certain(20, minutes=4.25)


def _annealed(super_batch: int, peak: float) -> Recipe:
    """A rate that rises over ten super-batches and falls to zero at the end of the run."""
    rate = LearningRate(peak, decay=1, rampup=10 * super_batch, clock="share", course="linear")
    return Recipe(super_batch, rate, ema_widths=(0.05, 0.1))


def any_quick(task: Task) -> BenchConfig:
    """A first look at a task of which nothing is known: 3 seeds, equal time.

    A small network learns a plain set of the plane in these steps, in at most 4 minutes on 2 cores.
    """
    return BenchConfig(
        task=task,
        recipe=_annealed(512, 5e-3),
        arms=arms_named(ANY_ARMS),
        seeds=(0, 1, 2),
        iterations=3072,
        guide_iterations=768,
        strong_iterations=3072,
        end="time",
        weight=task.guidance,
        n_final=task.samples,
        n_curve=task.samples,
        curve=(1 / 8, 1 / 4, 1 / 2, 1.0),
    )


def any_full(task: Task) -> BenchConfig:
    """The least that supports a claim: 5 seeds, 3 guides, 4 times the steps."""
    return replace(
        any_quick(task),
        seeds=(0, 1, 2, 3, 4),
        iterations=12_288,
        guide_iterations=3072,
        strong_iterations=12_288,
        guides=3,
        noise_repeats=2,
    )


def vectors_quick(task: Task) -> BenchConfig:
    """Four arms on 3 seeds. At most 4 minutes on 2 cores for vectors of few coordinates."""
    return BenchConfig(
        task=task,
        recipe=_annealed(1024, 5e-3),
        arms=arms_named(ANY_ARMS),
        seeds=(0, 1, 2),
        iterations=1000,
        guide_iterations=250,
        strong_iterations=1000,
        end="time",
        weight=task.guidance,
        n_final=4000,
        n_curve=2000,
        curve=(1 / 4, 1 / 2, 1.0),
        noise_repeats=1,
    )


def vectors_full(task: Task) -> BenchConfig:
    """Six arms on 5 seeds with 3 guides, with larger batches and more steps. About an hour on 2 cores."""
    return replace(
        vectors_quick(task),
        recipe=_annealed(2048, 1e-3),
        arms=arms_named(PAPER_ARMS),
        seeds=(0, 1, 2, 3, 4),
        iterations=4000,
        guide_iterations=1000,
        strong_iterations=4000,
        n_final=10_000,
        n_curve=4000,
        guides=3,
        noise_repeats=2,
    )


TREE: dict[str, Callable[[], BenchConfig]] = {"quick": tree_quick, "full": tree_full, "paper": tree_paper}


#: A whole bench within an hour on 2 cores, which leaves no time for more guides than one. docs/results-images.md says
#: why this network.
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


#: Thumbnails of ten classes, with what supports a claim: ten seeds, three guides, rates of their own. One to two hours
#: on 2 cores.
CPU_SMALL = ImageDials(
    learner=Architecture(channels=16, multipliers=(1, 2), blocks=1, attention=(8,)),
    guide=Architecture(channels=8, multipliers=(1, 2), blocks=1, attention=(8,)),
    rate=LEARNING_RATES["mini"],
    guide_rate=LEARNING_RATES["nano"],
    super_batch=64,
    micro_batch=None,
    iterations=240,
    guide_iterations=120,
    decay=1,
    clock="share",
    course="linear",
    rampup=640,
    chunks=4,
    seeds=tuple(range(10)),
    n_final=500,
    n_curve=500,
    curve=(1.0,),
    sampler=(12, 80.0, 0.01),
    resolution=16,
    classes=10,
    chunk=64,
    guides=3,
    noise_repeats=1,
    tuning=Tuning(shared=True),
    compared=("baseline", "ajest", "random", "hard-running"),
    headlines={"loss": "unguided", "fd_lite0": "guided"},
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
    guides=3,
    noise_repeats=2,
)


#: The published settings (docs/method.md#images-recipe): 48 hours on two GPUs were 22,000 steps of the baseline.
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


IMAGES: dict[str, ImageDials] = {"cpu-mini": CPU_MINI, "cpu-small": CPU_SMALL, "gpu-mini": GPU_MINI, "paper": PAPER}


#: Of every other task.
ANY: dict[str, Callable[[Task], BenchConfig]] = {"quick": any_quick, "full": any_full}
VECTORS: dict[str, Callable[[Task], BenchConfig]] = {"quick": vectors_quick, "full": vectors_full}
#: Widths of learner and guide of these presets.
VECTOR_WIDTHS = {"quick": (64, 32), "full": (128, 64)}
_PRESETS = {"tree": tuple(TREE), "images": tuple(IMAGES), "vectors": tuple(VECTORS)}


def presets_of(task: str) -> tuple[str, ...]:
    """Names of a task's presets; the first is taken where none is named."""
    return _PRESETS.get(task, tuple(ANY))


def bench_of(task: Task | str, preset: str | None = None) -> BenchConfig:
    """The bench of a preset.

    Args:
        task: what is learned, with its networks; or the name of a task, whose settings are then the preset's own.
        preset: its name; None takes the task's first.

    Raises:
        UserError: an unknown preset.
    """
    name = task if isinstance(task, str) else task.name
    presets = presets_of(name)
    preset = presets[0] if preset is None else preset
    if preset not in presets:
        raise unknown(f"preset of {name}", preset, presets)
    if task == "tree":
        return TREE[preset]()
    task = registry.make(task) if isinstance(task, str) else task
    if isinstance(task, ImageTask):
        dials = IMAGES[preset]
        if isinstance(task.learner, DiffusersModel):  # whose rates are of another order
            dials = replace(dials, rate=DIFFUSERS_RATE)
        if isinstance(task.guide, DiffusersModel):
            dials = replace(dials, guide_rate=DIFFUSERS_RATE)
        return dials.bench(task)
    if isinstance(task, TreeTask):
        return replace(TREE[preset](), task=task)
    return (VECTORS if isinstance(task, VectorsTask) else ANY)[preset](task)
