"""A trained network as a folder that diffusers reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from ajest.errors import UserError
from ajest.storage.folders import new_folder

from .loading import class_named, library, made
from .network import DiffusersNetwork


def export(network: nn.Module, out: Path) -> list[Path]:
    """Write model and scheduler for `from_pretrained`; returns their folders.

    The model lies in `unet` or `transformer`, the scheduler's config in `scheduler`. A UNet2DModel without classes is
    a whole pipeline (DDPMPipeline).

    Args:
        network: the network, a `DiffusersNetwork`.
        out: folder, which must not exist yet or be empty. It is written as a whole or not at all.

    Raises:
        UserError: the network is none of diffusers; there is something in `out`, or it cannot be written.
    """
    if not isinstance(network, DiffusersNetwork):
        raise UserError(
            f"the run trained {type(network).__name__}, which is no class of diffusers: what was trained with "
            "--network diffusers:PATH can be exported to it, any other with --to ajest"
        )
    model: Any = network.raw
    name = type(model).__name__
    part = "unet" if name.startswith("UNet") else "transformer"
    config = json.loads(network.scheduler)
    scheduler = made(class_named(config["_class_name"], "SchedulerMixin"), config)
    pipeline = name == "UNet2DModel" and not network.conditions.takes_labels
    with new_folder(out) as whole:
        if pipeline and config["_class_name"] == "DDPMScheduler":
            library().DDPMPipeline(model, scheduler).save_pretrained(whole)
        else:
            model.save_pretrained(whole / part)
            scheduler.save_pretrained(whole / "scheduler")
    return [out / part, out / "scheduler"]
