"""From what is typed to a task and a preset."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from .console import complain
from .errors import UserError, unknown

if TYPE_CHECKING:
    from .arms import Arm
    from .bench.launch import Local, Slurm
    from .bench.plan import BenchConfig
    from .images.task import ImageTask

TaskName = Literal["tree", "images"]
Precision = Literal["float32", "bfloat16", "float16"]


def preset_of(
    task: TaskName,
    preset: str,
    data: tuple[str, ...],
    validation: tuple[str, ...],
    extractors: tuple[str, ...],
    classes: str,
    flip: bool,
    skip_bad: bool,
    precision: Precision | None = None,
    compiled: bool | None = None,
    device: str = "cpu",
) -> tuple[BenchConfig, Callable[[tuple[str, ...], float | None], tuple[Arm, ...]]]:
    """(the bench of a preset, what makes arms with the preset's dials)."""
    from .arms import arms_named
    from .presets import IMAGES, PRESETS, TREE

    if preset not in PRESETS[task]:
        raise unknown(f"preset of {task}", preset, PRESETS[task])
    if task == "tree":
        if data or validation or extractors or classes or flip or precision or compiled:
            raise UserError("the tree makes its own examples: --data and what belongs to it are for images")
        return TREE[preset](), arms_named
    made = images_of(preset, data, validation, extractors, classes, flip, skip_bad, precision, compiled, device)
    return IMAGES[preset].bench(made), IMAGES[preset].arms


def images_of(
    preset: str,
    data: tuple[str, ...],
    validation: tuple[str, ...],
    extractors: tuple[str, ...] = (),
    classes: str = "",
    flip: bool = False,
    skip_bad: bool = False,
    precision: Precision | None = None,
    compiled: bool | None = None,
    device: str = "cpu",
) -> ImageTask:
    """The task of a data set with the networks and settings of a preset of images."""
    from .images.setup import image_task
    from .presets import IMAGES

    settings: dict[str, Any] = IMAGES[preset].settings() | {"flip": flip}
    settings["classes"] = _classes(classes, IMAGES[preset].classes)
    if extractors:
        settings["extractors"] = extractors
    if precision is not None:
        settings["precision"] = precision
    elif settings["precision"] == "bfloat16" and not _fast_bfloat16(device):
        settings["precision"] = "float32"
    if compiled is not None:
        settings["compile"] = compiled
    return image_task(
        data or ("shapes",), _held_out(data, validation), skip_bad=skip_bad, complain=complain, **settings
    )


def _fast_bfloat16(device: str) -> bool:
    """Whether bfloat16 is worth it: on processors without instructions for it, it is several times slower."""
    import torch

    asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return device != "cpu" or any(ask is not None and ask() for ask in asked)


def _classes(text: str, usual: int | None) -> int | tuple[str, ...] | None:
    """Which classes to learn: a number of them, some, or None for all."""
    if not text:
        return usual
    if text == "all" or text.isdigit():
        return int(text) if text.isdigit() else None
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _held_out(data: tuple[str, ...], validation: tuple[str, ...]) -> tuple[str, ...]:
    """The procedural data set brings its own validation pictures."""
    return ("shapes",) if not data and not validation else validation


def launch_of(
    kind: Literal["local", "slurm"], workers: int | None, partition: str, cluster: dict[str, Any]
) -> Local | Slurm:
    """Where the runs of a bench are made.

    Args:
        kind: on this machine or by a Slurm cluster.
        workers: of this machine.
        partition: of the cluster.
        cluster: other fields of `Slurm`; None leaves them.

    Raises:
        UserError: something was asked for that belongs to the other kind.
    """
    from .bench.launch import Local, Slurm

    asked = {name: value for name, value in cluster.items() if value is not None}
    if kind == "local":
        if partition or asked:
            raise UserError("--partition and what belongs to it are for --launch slurm")
        return Local(workers)
    if workers is not None:
        raise UserError("--workers is for this machine: a cluster takes --max-parallel")
    return Slurm(partition=partition, **asked)
