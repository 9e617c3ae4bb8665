"""From what is typed to a task and a preset."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from ajest.errors import UserError, check, unknown

from .console import warn
from .options import Launching, Networks, Training, flag, given, shown

if TYPE_CHECKING:
    from ajest.bench.plan.config import BenchConfig
    from ajest.bench.plan.dials import ImageDials
    from ajest.jobs.local import Local
    from ajest.jobs.slurm import Slurm
    from ajest.runtime.seeding import Role
    from ajest.selection.arm import Arm
    from ajest.selection.keep_list import KeepList
    from ajest.tasks.base import Task
    from ajest.tasks.images.architecture import NetworkSettings
    from ajest.tasks.images.task import ImageTask
    from ajest.tasks.vectors.task import VectorsTask
    from ajest.training.recipe import Recipe

TaskName = Annotated[str, shown("TASK")]
T = TypeVar("T", bound="Task")

#: Options that name networks.
NETWORKS = ("network", "guide_network")
#: Options whose setting has another name.
_SETTINGS = {"compiled": "compile", "network": "learner", "guide_network": "guide", "prediction": "learner"}
#: Why an option means nothing for the tree.
_NOT_THE_TREE = {
    "network": "its networks have one size each",
    "guide_network": "its networks have one size each",
    "prediction": "its networks have one size each",
    "precision": "its networks compute in float32",
    "compiled": "its networks are not compiled",
    "label_dropout": "what is learned is class A alone, without labels",
    "unconditional_guide": "what is learned is class A alone, without labels",
    "objective": "its network is an energy",
    "chunk": "its points are few enough",
    "extractors": "it is judged exactly",
    "references": "it is judged exactly",
    "imagenet": "it is judged exactly",
    "data": "it makes its own examples",
    "validation": "it makes its own examples",
}


def changed(task: T, asked: dict[str, Any]) -> T:
    """The task with other settings, named as options.

    Raises:
        UserError: the task has no such setting, or it cannot have that value.
    """
    refuse_for(task.name, asked, {f.name for f in fields(task)})
    if "imagenet" in asked:
        from ajest.tasks.images.imagenet import read_indices
        from ajest.tasks.images.task import ImageTask

        assert isinstance(task, ImageTask)
        asked = asked | {"imagenet": read_indices(asked["imagenet"], task.classes, task.names)}
    asked = asked | {name: settings for name, (settings, _) in networks_of(asked).items()}
    asked.pop("prediction", None)
    return replace(task, **{_SETTINGS.get(name, name): value for name, value in asked.items()})


def refuse_for(task: str, asked: dict[str, Any], known: set[str]) -> None:
    """Refuse options without a meaning for the task, whose settings are `known`."""
    for name in asked:
        if _SETTINGS.get(name, name) not in known:
            if task == "tree":
                why = _NOT_THE_TREE.get(name, "it makes its own examples")
                kind = "images and vectors" if name == "objective" else "images"
                raise UserError(f"{flag(name)} is for {kind}: the {task} has no use for it, because {why}")
            raise UserError(f"{flag(name)} means nothing here: the task {task} has no setting {name!r}")


@dataclass(frozen=True)
class Planned:
    """A preset with what was asked for.

    Attributes:
        config: its bench.
        preset: its name.
        arms: makes arms with its dials, from their names and a keep fraction.
    """

    config: BenchConfig
    preset: str
    arms: Callable[[tuple[str, ...], float | None], tuple[Arm, ...]]


def planned(task: str, preset: str | None, asked: dict[str, Any], device: str = "cpu", whole: bool = False) -> Planned:
    """The bench of a preset.

    Args:
        task: what is learned: the name of a task, or where its maker stands, see `tasks.from_spec`.
        preset: its name; None takes the task's first, or its last where a `whole` run is meant.
        asked: settings of the task in place of the preset's, named as options.
        device: where networks are to compute.
        whole: whether one run alone is wanted, of which there can be more.

    Raises:
        UserError: an unknown task or preset, or a setting without a meaning.
    """
    from ajest.bench.plan.config import altered
    from ajest.bench.plan.presets import IMAGES, bench_of, presets_of
    from ajest.runtime.plugins import is_spec
    from ajest.selection.catalogue import arms_named
    from ajest.tasks import registry

    made = registry.from_spec(task) if is_spec(task) else None
    name = task if made is None else made.name
    if made is None and task not in registry.known():
        raise UserError(f"{unknown('task', task, registry.known())}, or path/to/file.py:NAME")
    presets = presets_of(name)
    preset = (presets[-1] if whole and name == "tree" else presets[0]) if preset is None else preset
    if preset not in presets:
        raise unknown(f"preset of {name}", preset, presets)
    if name == "vectors" and made is None:
        return Planned(bench_of(vectors_of(asked, preset), preset), preset, arms_named)
    if name == "images" and made is None:
        dials = dials_of(IMAGES[preset], asked)
        return Planned(dials.bench(images_of(dials, asked, device)), preset, dials.arms)
    config = bench_of(name if made is None else made, preset)
    return Planned(altered(config, task=changed(config.task, asked)), preset, arms_named)


#: Settings of vectors that options name, beside where these are.
_OF_VECTORS = {
    *("p_mean", "p_std", "sigma_data", "label_dropout", "objective"),
    *("sampler_steps", "sigma_max", "sigma_min", "solver", "churn", "shift"),
}


def vectors_of(asked: dict[str, Any], preset: str) -> VectorsTask:
    """The task of a data set of vectors with networks of a preset and these settings, named as options."""
    from ajest.bench.plan.presets import VECTOR_WIDTHS
    from ajest.tasks.vectors.setup import USUAL, vectors_task

    own = {name: value for name, value in asked.items() if name not in ("data", "validation")}
    refuse_for("vectors", own, _OF_VECTORS)
    hidden, guide_hidden = VECTOR_WIDTHS[preset]
    data, validation = asked.get("data", USUAL), asked.get("validation", ())
    return vectors_task(data, validation, warn, hidden=hidden, guide_hidden=guide_hidden, **own)


def dials_of(dials: ImageDials, asked: dict[str, Any]) -> ImageDials:
    """The dials of images with the networks asked for, and the learning rates of these."""
    found = networks_of(asked)
    if "network" in found:
        learner, rate = found["network"]
        dials = replace(dials, learner=learner, rate=rate)
    if "guide_network" in found:
        guide, rate = found["guide_network"]
        dials = replace(dials, guide=guide, guide_rate=rate)
    return dials


def networks_of(asked: dict[str, Any]) -> dict[str, tuple[NetworkSettings, float]]:
    """(what it is made from, its learning rate) of each network among what was asked for."""
    from ajest.tasks.images.architecture import network_named

    named = {name: str(asked[name]) for name in NETWORKS if name in asked}
    foreign = any(text.startswith("diffusers:") for text in named.values())
    check(
        foreign or "prediction" not in asked,
        "--prediction is for models of diffusers: name one with --network diffusers:PATH",
    )
    return {name: network_named(text, asked.get("prediction")) for name, text in named.items()}


def images_of(dials: ImageDials, asked: dict[str, Any], device: str = "cpu") -> ImageTask:
    """The task of a data set with networks and settings of these dials.

    Args:
        dials: with the networks that were asked for.
        asked: settings in place of theirs, named as options.
        device: where networks are to compute.
    """
    from ajest.tasks.images.setup import image_task

    refuse_for("images", {name: asked[name] for name in asked.keys() & {"gain_sign", "target"}}, set())
    data, validation = asked.get("data", ("shapes",)), asked.get("validation", ())
    settings: dict[str, Any] = dials.settings(data)
    if settings["precision"] == "bfloat16" and "precision" not in asked and (slow := _without_bfloat16(device)):
        settings["precision"] = "float32"
        if slow != "cpu":
            warn(
                f"{slow} does not compute in bfloat16: networks compute in float32; --precision float16 is another way"
            )
    own = {k: v for k, v in asked.items() if k not in ("data", "validation", "classes", "prediction", *NETWORKS)}
    settings |= {_SETTINGS.get(name, name): value for name, value in own.items()}
    classes = asked.get("classes")
    if "data" not in asked and "validation" not in asked:
        validation = ("shapes",)  # the procedural data set brings its own
    settings["classes"] = None if classes is None else _classes(classes)
    settings["at_most"] = dials.classes if classes is None else None
    task = image_task(data, validation, warn=warn, **settings)
    if "data" not in asked:
        warn("without --data, drawn shapes are learned: name a folder or archive of images to learn those")
    return task


def _without_bfloat16(device: str) -> str:
    """What is slower in bfloat16 than in float32, as are devices without instructions for it: "cpu" or the name of a
    card; "" where nothing is."""
    import torch

    from ajest.runtime import cards

    if device == "cpu":
        asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
        return "" if any(ask is not None and ask() for ask in asked) else device
    return next((card.name for card in cards.visible() if not card.bfloat16), "")


def _classes(text: str) -> int | tuple[str, ...] | None:
    """Which classes to learn: a number of them, some, or None for all."""
    if text == "all" or text.isdecimal():
        return int(text) if text.isdecimal() else None
    return class_names(text)


def class_names(text: str) -> tuple[str, ...]:
    """Names with commas between them; a name that holds commas stands in double quotes."""
    found = next(csv.reader([text], skipinitialspace=True), [])
    names = tuple(name.strip() for name in found if name.strip())
    check(bool(names), f"--classes {text!r} names no class: give names with commas between them")
    return names


def recipe_of(recipe: Recipe, training: Training, rate: float | None) -> Recipe:
    """A recipe with what was asked for in the place of its own.

    Args:
        recipe: of the preset.
        training: what was asked for; its learning rate is not looked at.
        rate: peak of the learning rate, None for the recipe's own.
    """
    own = {name: value for name, value in given(training).items() if name in ("super_batch", "not_finite", "drawing")}
    course = recipe.learning_rate
    if training.course == "linear":
        course = replace(course, decay=1.0, clock="share", course="linear")
    elif training.course is not None:
        check(course.course == training.course, "the preset's learning rate falls linearly: choose another preset")
    return replace(recipe, learning_rate=course if rate is None else replace(course, peak=rate), **own)


def recipes_of(
    recipe: Recipe, guide_recipe: Recipe | None, training: Training, networks: Networks
) -> tuple[Recipe, Recipe | None]:
    """The recipes of a bench or study with what was asked for: (of the learners, of the guide if it differs)."""
    own = recipe if guide_recipe is None else guide_recipe
    learner = recipe_of(recipe, training, training.learning_rate)
    guide = recipe_of(own, training, networks.guide_learning_rate)
    return learner, None if guide_recipe is None and guide == learner else guide


def sizes_of(networks: Networks) -> dict[str, Any]:
    """The networks among what was asked for."""
    return {name: value for name, value in given(networks).items() if name in ("prediction", *NETWORKS)}


def network_of(wanted: str) -> tuple[Role, dict[str, Any]]:
    """(the role of a network that is trained alone, its name as an option if it is not the preset's)."""
    roles: dict[str, Role] = {"learner": "learner", "guide": "guide", "strong": "strong"}
    return (roles[wanted], {}) if wanted in roles else ("learner", {"network": wanted})


def check_keep(arms: Sequence[Arm], keep: float | None) -> None:
    """Refuse a keep fraction where no arm keeps a part."""
    check(
        keep is None or any(arm.policy != "uniform" for arm in arms),
        f"{', '.join(arm.name for arm in arms)} trains on every example: leave out --keep",
    )


def keep_lists(files: Sequence[Path], task: Task) -> tuple[KeepList, ...]:
    """The keep-lists of these files, whose names a task's examples have.

    Raises:
        UserError: see `read_keep_list` and `restricted`.
    """
    from ajest.selection.keep_list import read_keep_list, restricted

    found = tuple(read_keep_list(file) for file in files)
    for keep_list in found:
        restricted(task.source("cpu"), keep_list, task.example_names())
    return found


def launch_of(options: Launching) -> Local | Slurm:
    """Where the runs of a bench are made.

    Raises:
        UserError: something was asked for that belongs to the other kind.
    """
    from ajest.jobs.local import Local
    from ajest.jobs.slurm import Slurm

    asked = given(options)
    kind = asked.pop("launch", "local")
    if kind == "local":
        other = [flag(name) for name in asked if name != "workers"]
        check(not other, f"{', '.join(other)} is for a cluster: name it with --launch slurm, or leave this out")
        return Local(options.workers)
    check("workers" not in asked, "--workers is for this machine: a cluster takes --max-parallel")
    return Slurm(**asked)
