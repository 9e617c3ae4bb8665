"""From the host to the device without waiting for either."""

from __future__ import annotations

import torch
from torch import Tensor

_ALIGNED = 16  # bytes: where a packed tensor begins, so that any type may be read there


def to_device(device: torch.device | str, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors of the host on a device; to a GPU as one copy, from pinned memory, for which nobody waits.

    A copy from pageable memory holds the host up until the GPU has caught up with it. Pinned memory is given to no one
    else before the copy is done: torch's allocator knows the stream that reads it.

    Args:
        device: where they are wanted. On the CPU they are what they were.
        tensors: contiguous or not, of any types and shapes.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return tuple(tensor.to(device) for tensor in tensors)
    ends, size = [], 0
    for tensor in tensors:
        start = -(-size // _ALIGNED) * _ALIGNED
        size = start + tensor.numel() * tensor.element_size()
        ends.append((start, size))
    packed = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    for tensor, place in zip(tensors, ends, strict=True):
        _read(packed, place, tensor).copy_(tensor)
    there = packed.to(device, non_blocking=True)
    return tuple(_read(there, place, tensor) for tensor, place in zip(tensors, ends, strict=True))


def pinned(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An empty tensor of the host, from which a copy to the device need not be waited for."""
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")


def _read(packed: Tensor, place: tuple[int, int], like: Tensor) -> Tensor:
    """A part of packed bytes as the tensor that it is."""
    return packed[slice(*place)].view(like.dtype).view(like.shape)
