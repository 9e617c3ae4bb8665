"""Where to compute."""

from __future__ import annotations

from typing import Literal

from ajest.errors import UserError

from .launcher import place

Device = Literal["auto", "cpu", "cuda"]


def device_of(name: Device) -> str:
    """ "auto" is CUDA where there is a device; of several processes each has its own.

    Raises:
        UserError: CUDA was asked for, and there is none.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here: use --device cpu")
    here = place()
    return f"cuda:{here.local_rank}" if name == "cuda" and here.world > 1 else name
