"""Where to compute."""

from __future__ import annotations

from typing import Literal

from ajest.errors import UserError

from .launcher import place

Device = Literal["auto", "cpu", "cuda"]


def device_of(name: Device) -> str:
    """ "auto" is CUDA where there is a device. Of several processes each has its own, which is its current one from now
    on.

    Raises:
        UserError: CUDA was asked for, and there is none, or none for this process.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here: use --device cpu")
    here = place()
    if name == "cpu" or here.world == 1:
        return name
    there = torch.cuda.device_count()
    if here.local_rank >= there:
        raise UserError(
            f"{here.local_world} processes here have {there} CUDA devices: start one a device, or use --device cpu"
        )
    torch.cuda.set_device(here.local_rank)
    return f"cuda:{here.local_rank}"
