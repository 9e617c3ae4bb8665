"""Calls of torch's Python that C++ would settle by a tensor's device, before they become operations: it does not know
that of a `SimulatedTensor`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend
from torch.overrides import TorchFunctionMode

from simulated_tensor import CPU, CUDA, SimulatedTensor, aten


class Calls(TorchFunctionMode):
    """The calls, on their way.

    Args:
        device: see `Operations`.
    """

    def __init__(self, device: Any) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        special = _SPECIAL.get(func)
        return func(*args, **kwargs) if special is None else special(self, func, *args, **kwargs)

    def to(self, func: Any, tensor: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
        other = args[0] if args else kwargs.get("other")
        if isinstance(other, Tensor):
            args, kwargs = (other.device, other.dtype, *args[1:]), {k: v for k, v in kwargs.items() if k != "other"}
        device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
        if device is not None and device.type == "cuda":
            device = CUDA if device.index is None else device
        elif not isinstance(tensor, SimulatedTensor):
            return func(tensor, *args, copy=copy, **kwargs)
        elif device is not None and device.type == "meta":
            return tensor.inner.to("meta", dtype)
        stays = device in (None, tensor.device) and dtype in (None, tensor.dtype)
        if stays and not copy and memory_format in (None, torch.preserve_format):
            return tensor
        how = {} if memory_format is None else {"memory_format": memory_format}
        return aten._to_copy.default(tensor, dtype=dtype, device=device or tensor.device, non_blocking=non_blocking,
            **how)  # fmt: skip

    def cuda(self, func: Any, tensor: Tensor, device: Any = None, non_blocking: bool = False, **_: Any) -> Tensor:
        return self.to(func, tensor, CUDA if device is None else device, non_blocking=non_blocking)

    def made(self, func: Any, data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        """`torch.tensor` and its like, which make a tensor on the CPU and copy it."""
        if device is None and isinstance(data, Tensor):
            device = data.device
        if device is None or torch.device(device).type != "cuda":
            return func(data, *args, device=device, **kwargs)
        if isinstance(data, SimulatedTensor):
            return self.to(torch.Tensor.to, data, dtype=kwargs.get("dtype"), copy=func is torch.tensor)
        return self.to(torch.Tensor.to, func(data, *args, **kwargs), device)

    def made_like(self, func: Any, like: Tensor, data: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
        return self.made(torch.tensor, data, dtype=dtype or like.dtype, device=device or like.device)

    def set_item(self, func: Any, tensor: Tensor, index: Any, value: Any) -> None:
        if isinstance(tensor, SimulatedTensor) and not isinstance(value, Tensor):
            value = torch.tensor(value, dtype=tensor.dtype)
        func(tensor, index, value)

    def where(self, func: Any, condition: Tensor, *choices: Any) -> Any:
        numbers = isinstance(condition, SimulatedTensor) and choices
        return func(condition, *(torch.tensor(c) if numbers and not isinstance(c, Tensor) else c for c in choices))

    def pin_memory(self, func: Any, tensor: Tensor, *_: Any) -> Tensor:
        if isinstance(tensor, SimulatedTensor):
            raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
        return tensor if self.device.is_pinned(tensor) else self.device.pinned(tensor.clone())

    def is_pinned(self, func: Any, tensor: Tensor, *_: Any) -> bool:
        return self.device.is_pinned(tensor)

    def record_stream(self, func: Any, tensor: Tensor, *_: Any) -> None:
        """Nothing: memory is never given back early."""

    def numpy(self, func: Any, tensor: Tensor, **kwargs: Any) -> Any:
        if isinstance(tensor, SimulatedTensor):
            raise TypeError(f"can't convert {CUDA} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to "
                "host memory first.")  # fmt: skip
        return func(tensor, **kwargs)

    def to_list(self, func: Any, tensor: Tensor) -> Any:
        return func(self.to(torch.Tensor.to, tensor.detach(), CPU))

    def one_hot(self, func: Any, tensor: Tensor, num_classes: int = -1) -> Tensor:
        if not isinstance(tensor, SimulatedTensor):
            return func(tensor, num_classes)
        count = int(tensor.max()) + 1 if num_classes == -1 else num_classes
        return tensor.new_zeros(*tensor.shape, count).scatter_(-1, tensor[..., None], 1)

    def attention(self, func: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """By the kernel that the CPU takes, so that numbers are the same."""
        if not isinstance(query, SimulatedTensor) or args or kwargs:
            return func(query, key, value, *args, **kwargs)
        if torch._fused_sdp_choice(query.inner, key.inner, value.inner) == SDPBackend.FLASH_ATTENTION.value:
            return aten._scaled_dot_product_flash_attention_for_cpu.default(query, key, value)[0]
        return aten._scaled_dot_product_attention_math.default(query, key, value)[0]


_SPECIAL: dict[Any, Callable[..., Any]] = {
    torch.Tensor.to: Calls.to,
    torch.Tensor.cuda: Calls.cuda,
    torch.tensor: Calls.made,
    torch.as_tensor: Calls.made,
    torch.asarray: Calls.made,
    torch.Tensor.new_tensor: Calls.made_like,
    torch.Tensor.__setitem__: Calls.set_item,
    torch.where: Calls.where,
    torch.Tensor.pin_memory: Calls.pin_memory,
    torch.Tensor.is_pinned: Calls.is_pinned,
    torch.Tensor.record_stream: Calls.record_stream,
    torch.Tensor.numpy: Calls.numpy,
    torch.Tensor.tolist: Calls.to_list,
    torch.nn.functional.one_hot: Calls.one_hot,
    torch.nn.functional.scaled_dot_product_attention: Calls.attention,
}
