"""What the host has to know of a device, in one copy: each waits until the device has done all that came before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_host(numbers: Sequence[Tensor], *integers: Tensor) -> tuple[list[float], list[Tensor]]:
    """Numbers and vectors of one device, copied to the host at once.

    Args:
        numbers: at least one, of shape (), bool or floating point.
        integers: int64, shape (n,) each.

    Returns:
        The numbers, and the vectors on the CPU.
    """
    head = torch.stack([number.double() for number in numbers]).view(torch.int64)
    first, *rest = torch.cat([head, *integers]).cpu().split([len(head), *map(len, integers)])
    return first.view(torch.float64).tolist(), rest
