"""Tensors copied into one piece of host memory that is laid out as their file is, so that training can go on while the
file is written.

The file is safetensors: the length of a header, the header (JSON with type, shape and place of each tensor), the
tensors' bytes (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import safetensors.torch
import torch
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """A copy of tensors, as the two parts of their file.

    Attributes:
        header: all that stands before the tensors' bytes.
        body: these, shape (n,), uint8, on the host.
        settle: waits until they are all there. Returns the seconds for which the copies held up whatever runs where
            the tensors are.
    """

    header: bytes
    body: Tensor
    settle: Callable[[], float]

    def parts(self) -> tuple[bytes, memoryview]:
        """The file, complete once it has settled."""
        return self.header, self.body.numpy().data


def pack(tensors: Mapping[str, Tensor]) -> Packed:
    """Copy tensors; they may be altered as soon as this returns.

    From CUDA they are copied by the device, in the order of its stream, into pinned memory, and nobody waits. Memory:
    as much on the host as they hold, until what is returned is let go of; pinned memory comes in powers of two, and
    torch keeps it for the next time.
    """
    # The largest types first: then each tensor begins at a multiple of its type's size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    about, end = {}, 0
    for name in names:
        begin, end = end, end + tensors[name].numel() * tensors[name].element_size()
        kind, shape = _type_name(tensors[name].dtype), list(tensors[name].shape)
        about[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(about).encode()
    text += b" " * (-len(text) % 8)
    device = next((tensor.device for tensor in tensors.values() if tensor.is_cuda), None)
    body = torch.empty(end, dtype=torch.uint8, pin_memory=device is not None)

    def copy() -> None:
        for name in names:
            tensor, (begin, end) = tensors[name].detach(), about[name]["data_offsets"]
            body[begin:end].view(tensor.dtype).view(tensor.shape).copy_(tensor, non_blocking=True)

    return Packed(len(text).to_bytes(8, "little") + text, body, _timed(copy, device))


def _timed(do: Callable[[], None], device: torch.device | None) -> Callable[[], float]:
    """Begin something on a CUDA device, or do it where there is none. Returns what waits for it and tells the seconds
    that it took."""
    if device is None:
        start = time.perf_counter()
        do()
        seconds = time.perf_counter() - start
        return lambda: seconds
    stream = torch.cuda.current_stream(device)
    begun, done = (torch.cuda.Event(enable_timing=True, blocking=True) for _ in range(2))
    begun.record(stream)
    do()
    done.record(stream)

    def wait() -> float:
        done.synchronize()
        return float(begun.elapsed_time(done)) / 1000

    return wait


@cache
def _type_name(dtype: torch.dtype) -> str:
    """What safetensors calls a type."""
    data = safetensors.torch.save({"x": torch.empty(0, dtype=dtype)})
    return str(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["x"]["dtype"])
