"""Tensors that are on `cuda:0` for whoever asks and hold their numbers on the CPU; what each operation on them does.

A tensor of a device that is not there cannot be differentiated in a build without it. So for torch's C++ they are of
the device "meta", which is differentiated as the CPU is; Python is told `cuda:0`. See `simulated_device`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")
aten = torch.ops.aten
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
_INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
_TAKES_SCALARS = {aten.fill_, aten.fill, aten.masked_fill, aten.masked_fill_, aten.index_fill_, aten.index_fill}
#: Kernels that wait for the device although the shape of what they return is known, and how often.
_WAITS = {aten._linalg_check_errors: 1, aten.bincount: 2}


class SimulatedTensor(torch.Tensor):
    """A tensor on `cuda:0` whose numbers are those of `inner`, a tensor on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> SimulatedTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="meta",
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} met a tensor of a simulated device outside `simulated_cuda()`")

    device = property(lambda _: CUDA)
    is_cuda = property(lambda _: True)
    is_meta = property(lambda _: False)

    def get_device(self) -> int:
        return 0

    def __repr__(self, **_: Any) -> str:
        return f"SimulatedTensor({self.inner!r}, device='{CUDA}')"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            made = self.detach().clone().requires_grad_(self.requires_grad)
            made.__dict__ |= {k: copy.deepcopy(v, memo) for k, v in self.__dict__.items() if k != "inner"}
            memo[id(self)] = made
        return memo[id(self)]

    # `nn.Module.to` exchanges a parameter with such a tensor in its place, as it does within CUDA.
    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, Tensor], *_: Any) -> SimulatedTensor:
        return SimulatedTensor(parts["inner"])


def _mapped(kind: type, function: Callable[[Any], Any], value: Any) -> Any:
    """The arguments or results of an operation, each tensor of this kind replaced."""
    if isinstance(value, kind):
        return function(value)
    return type(value)(_mapped(kind, function, v) for v in value) if isinstance(value, (list, tuple)) else value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def _inner(value: Any) -> Any:
    return _mapped(SimulatedTensor, lambda tensor: tensor.inner, value)


class Operations(TorchDispatchMode):
    """Every operation that reaches a kernel: computed on the CPU, refused where CUDA would, counted.

    Args:
        device: is told of synchronisations, copies and operations; see `simulated_device.Simulated`.
    """

    def __init__(self, device: Any) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if torch.is_inference_mode_enabled() and func.has_kernel_for_dispatch_key(_COMPOSITE):
            with self:  # else operations are made of others before they come here
                return func._op_dk(_COMPOSITE, *args, **kwargs)
        tensors = [*_tensors(args), *_tensors([*kwargs.values()])]
        here = self._is_here(kwargs.get("device"), tensors)
        self._check_generator(kwargs.get("generator"), here)
        if kwargs.get("pin_memory"):
            return self.device.pinned(func(*args, **kwargs | {"pin_memory": False}))
        if not here and not any(isinstance(t, SimulatedTensor) for t in tensors):
            return func(*args, **kwargs)
        if func is aten._to_copy.default:
            return self._moved(args[0], here, kwargs)
        if func is aten.copy_.default:
            return self._copied(*args, **kwargs)
        if func is aten._foreach_copy_.default and not all(isinstance(t, SimulatedTensor) for t in tensors):
            for to, source in zip(args[0], args[1], strict=True):
                self._copied(to, source, *args[2:], **kwargs)
            return None
        self._check_devices(func, args, tensors)
        self._count(func, args)
        if kwargs.get("device") is not None:
            kwargs["device"] = CPU
        known = {id(t.inner): t for t in tensors if isinstance(t, SimulatedTensor)}
        with self.device.random_state(func, kwargs):
            found = func(*_inner(args), **{k: _inner(v) for k, v in kwargs.items()})
        return _mapped(Tensor, lambda out: _wrapped(out, known), found)

    def _is_here(self, wanted: torch.device | None, tensors: Sequence[Tensor]) -> bool:
        """Whether a result is to be on the simulated device."""
        mine = any(isinstance(t, SimulatedTensor) for t in tensors)
        if wanted is None:
            return mine
        if wanted.type == "meta":  # C++ means where the tensor at hand is, or, going backward, where its gradient is
            return mine or not (tensors or torch._C._current_graph_task_id() == -1)
        if wanted.type == "cuda" and wanted.index not in (None, 0):
            raise RuntimeError(f"CUDA error: invalid device ordinal ({wanted})")
        return wanted.type == "cuda"

    def _check_generator(self, generator: torch.Generator | None, here: bool) -> None:
        if generator is not None and self.device.owns(generator) != here:
            wanted, found = ("cuda", "cpu") if here else ("cpu", "cuda")
            raise RuntimeError(f"Expected a '{wanted}' device type for generator but found '{found}'")

    def _check_devices(self, func: Any, args: Any, tensors: Sequence[Tensor]) -> None:
        """Refuse what CUDA refuses: tensors of two devices, but for a single number in an elementwise operation and
        for indices."""
        packet = func.overloadpacket
        if packet in _INDEXING:
            if not isinstance(args[0], SimulatedTensor):
                raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
            for index in args[1]:
                if index is not None and not isinstance(index, SimulatedTensor):
                    self.device.copied("host to device", index, waits=True)
            tensors = [args[0], *args[2:3]]
        written = {id(a) for a, kind in zip(args, func._schema.arguments, strict=False) if _writes(kind)}
        scalars = torch.Tag.pointwise in func.tags or packet in _TAKES_SCALARS | _INDEXING or "_foreach" in str(packet)
        for tensor in tensors:
            a_number = scalars and tensor.ndim == 0 and id(tensor) not in written
            if not isinstance(tensor, SimulatedTensor) and not a_number:
                raise RuntimeError(
                    f"Expected all tensors to be on the same device, but found at least two devices, {CUDA} and "
                    f"{tensor.device}! ({func})"
                )

    def _count(self, func: Any, args: Any) -> None:
        packet = func.overloadpacket
        self.device.operations += 1
        if packet in _INDEXING:
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            filled = len(args) > 2 and args[2].numel() == 1 and not isinstance(args[2], SimulatedTensor)
            waits = 0 if filled and len(masks) == 1 else len(masks)
        else:
            depends = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output} & set(func.tags)
            waits = _WAITS.get(packet, int(bool(depends)))
            if packet is aten.multinomial:
                waits = int(True not in args[2:3])  # with replacement nothing is checked
        for _ in range(waits):
            self.device.synchronised(str(packet).removeprefix("aten."))

    def _moved(self, source: Tensor, here: bool, how: dict[str, Any]) -> Tensor:
        """`source.to(...)`, which makes a new tensor."""
        non_blocking = how.pop("non_blocking", False)
        inner = _inner(source)
        made = aten._to_copy.default(inner, **how | {"device": None})
        if isinstance(source, SimulatedTensor) and not here:
            self.device.from_device(made, self.device.pinned(made) if non_blocking else made, non_blocking)
            return made
        if not isinstance(source, SimulatedTensor):
            self.device.to_device(source, non_blocking)
        self.device.operations += 1
        return SimulatedTensor(made)

    def _copied(self, to: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        """`to.copy_(source)`."""
        if isinstance(to, SimulatedTensor):
            if not isinstance(source, SimulatedTensor):
                self.device.to_device(source, non_blocking)
            self.device.operations += 1
            to.inner.copy_(_inner(source))
        else:
            self.device.from_device(_inner(source), to, non_blocking)
        return to


def _writes(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _wrapped(out: Tensor, known: dict[int, SimulatedTensor]) -> SimulatedTensor:
    """The tensor on the device whose numbers these are: one that was changed in place is the one that came in."""
    same = known.get(id(out))
    if same is None:
        return SimulatedTensor(out)
    if same.shape != out.shape or same.stride() != out.stride():
        raise NotImplementedError("the simulated device has no operation that changes a shape in place")
    return same
