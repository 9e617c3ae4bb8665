"""What all verbs of the command line share: where to compute, and how to speak."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Literal

from .errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

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
    return f"cuda:{os.environ['LOCAL_RANK']}" if name == "cuda" and "LOCAL_RANK" in os.environ else name


def complain(text: str) -> None:
    """A line on stderr."""
    print(f"ajest: {text}", file=sys.stderr)


def console(width: int = 150) -> Console:
    """The terminal, or a file of this width."""
    from rich.console import Console

    found = Console()
    return found if found.is_terminal else Console(width=width)
