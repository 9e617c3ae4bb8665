"""A CUDA device that is not there: `with simulated_cuda() as device:` runs code for "cuda" with real numbers.

Within, `torch.zeros(3, device="cuda")` and `network.to("cuda")` give tensors that say they are on `cuda:0`,
differentiate and train; their numbers are computed on the CPU. What a GPU refuses is refused: tensors of two devices in
one operation, a CPU generator for a tensor on the device, `numpy()` without `cpu()`. What makes the host wait for a GPU
is counted:

    with simulated_cuda() as device:
        trainer = ...                    # on "cuda"
        trainer.step()
        device.restart()
        trainer.step()
        print(device.counts.syncs)       # how often the host waited
        for wait in device.counts.waits: # what for, and which line of src/ajest did it
            print(wait.what, wait.where)
        device.counts.copies("host to device"), device.counts.bytes("host to device")
        device.counts.operations         # kernels, roughly: one for each ATen operation

What waits: `item()`, `bool()`, `tolist()`; copies to the host, unless they are `non_blocking` into pinned memory;
copies from pageable memory; shapes that depend on data (`nonzero`, boolean masks, `bincount`, ...);
`torch.cuda.synchronize`; `Event.synchronize` where work was given since the last wait. A copy that does not wait is
done late: what it writes is rubbish until the host has waited, and what it reads must not change until then. Threads
that begin within take part.

`python tests/step_counts.py` prints the counts of one step of some arms, with their lines.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

import ajest
from simulated_calls import Calls
from simulated_stand_ins import Event, Generator, Stream
from simulated_tensor import Operations

_AJEST, _TORCH = (f"{Path(package.__file__).parent}{os.sep}" for package in (ajest, torch))


@dataclass(frozen=True)
class Wait:
    """A moment at which the host waits for the device: what for, and the line of ajest that made it."""

    what: str
    where: str


@dataclass(frozen=True)
class Copy:
    """A copy between host and device: "host to device" or "device to host", its bytes, and ajest's line."""

    way: str
    bytes: int
    where: str


@dataclass
class Counts:
    """What was counted since the beginning, or since `Simulated.restart`.

    Attributes:
        waits: the host's, in order.
        copied: copies between host and device, in order.
        operations: on the device.
    """

    waits: list[Wait] = field(default_factory=list)
    copied: list[Copy] = field(default_factory=list)
    operations: int = 0

    @property
    def syncs(self) -> int:
        return len(self.waits)

    def copies(self, way: str) -> int:
        return sum(copy.way == way for copy in self.copied)

    def bytes(self, way: str) -> int:
        return sum(copy.bytes for copy in self.copied if copy.way == way)

    def table(self) -> str:
        """One line for each line of ajest that makes the host wait."""
        found = Counter((wait.where, wait.what) for wait in self.waits)
        return "\n".join(f"{n:4} {where:45} {what}" for (where, what), n in sorted(found.items()))


class Simulated:
    """The device.

    Attributes:
        counts: see `Counts`.
    """

    def __init__(self) -> None:
        self.counts = Counts()
        self._pinned: dict[int, Any] = {}  # storages, by address
        self._random = torch.Generator().get_state()
        self._given = self._done = 0  # operations given to the device, and those the host knows to be done
        self._finishing = threading.RLock()
        self._late: deque[tuple[int, Callable[[], object]]] = deque()

    def restart(self) -> None:
        """Count anew."""
        self.counts = Counts()

    # what operations tell of themselves

    @property
    def operations(self) -> int:
        return self.counts.operations

    @operations.setter
    def operations(self, value: int) -> None:
        self._given += 1
        self.counts.operations = value

    def synchronised(self, what: str, until: int | None = None) -> None:
        """The host waits for all work, or for what was given up to a moment."""
        self.counts.waits.append(Wait(what, _line()))
        self.finish(self._given if until is None else until)

    def finish(self, until: int) -> None:
        with self._finishing:  # whoever waits goes on when all is done, by another thread as well
            while self._late and self._late[0][0] <= until:
                self._late.popleft()[1]()
            self._done = max(self._done, until)

    def copied(self, way: str, tensor: Tensor, waits: bool) -> None:
        self.counts.copied.append(Copy(way, tensor.numel() * tensor.element_size(), _line()))
        self._given += 1
        if waits:
            self.synchronised(f"copy {way}")

    def to_device(self, source: Tensor, non_blocking: bool) -> None:
        pinned = self.is_pinned(source)
        self.copied("host to device", source, waits=not (pinned and non_blocking))
        if pinned and non_blocking:
            before, where = source.clone(), _line()

            def check() -> None:
                same = [tensor.contiguous().view(-1).view(torch.uint8) for tensor in (before, source)]
                assert torch.equal(*same), f"pinned memory was changed before its copy to the device was done: {where}"

            self._late.append((self._given, check))

    def from_device(self, numbers: Tensor, to: Tensor, non_blocking: bool) -> None:
        late = non_blocking and self.is_pinned(to)
        self.copied("device to host", numbers, waits=not late)
        if not late:
            to.copy_(numbers)
            return
        numbers = numbers.clone()
        to.fill_(torch.nan if to.is_floating_point() else True if to.dtype == torch.bool else torch.iinfo(to.dtype).max)
        self._late.append((self._given, lambda: to.copy_(numbers)))

    # memory and random numbers

    def pinned(self, tensor: Tensor) -> Tensor:
        """The tensor, its memory marked as pinned."""
        storage = tensor.untyped_storage()
        self._pinned[storage.data_ptr()] = storage
        return tensor

    def is_pinned(self, tensor: Tensor) -> bool:
        return tensor.device.type == "cpu" and tensor.untyped_storage().data_ptr() in self._pinned

    def owns(self, generator: torch.Generator) -> bool:
        return generator._cdata in Generator.on_device

    @contextmanager
    def random_state(self, func: Any, kwargs: dict[str, Any]) -> Iterator[None]:
        """Within, what draws without a generator draws from the device's own."""
        if torch.Tag.nondeterministic_seeded not in func.tags or kwargs.get("generator") is not None:
            yield
            return
        before = torch.get_rng_state()
        torch.set_rng_state(self._random)
        try:
            yield
        finally:
            self._random = torch.get_rng_state()
            torch.set_rng_state(before)

    # what stands for functions and classes of torch.cuda

    def synchronize(self, device: Any = None) -> None:
        self.synchronised("torch.cuda.synchronize")

    def get_rng_state(self, device: Any = None) -> Tensor:
        return self._random.clone()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        self._random = state.clone()


def _line() -> str:
    """The innermost line of ajest, or else of the caller, on the stack."""
    frame, outside = sys._getframe(1), ""
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(_AJEST):
            return f"{path.removeprefix(_AJEST)}:{frame.f_lineno}"
        if not (outside or path.startswith(_TORCH) or Path(path).stem.startswith("simulated_")):
            outside = f"{Path(path).name}:{frame.f_lineno}"
        frame = frame.f_back
    return outside


@contextmanager
def simulated_cuda() -> Iterator[Simulated]:
    """Within, there is a CUDA device. See the module. Tests are skipped where there is a real one."""
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    device = Simulated()
    run = threading.Thread.run

    def run_on_it(thread: threading.Thread) -> None:
        with _on(device):
            run(thread)

    stream = type("Stream", (Stream,), {"_device": device})
    stand_ins: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda _: None,
        "get_device_name": lambda *_: "a simulated device",
        "get_device_capability": lambda *_: (9, 0),
        "is_bf16_supported": lambda *_, **__: True,
        "mem_get_info": lambda *_: (16 << 30, 16 << 30),
        "_lazy_init": lambda: None,
        "synchronize": device.synchronize,
        "get_rng_state": device.get_rng_state,
        "set_rng_state": device.set_rng_state,
        "Event": type("Event", (Event,), {"_device": device}),
        "Stream": stream,
        "current_stream": stream,
        "default_stream": stream,
        "stream": lambda _: nullcontext(),
        "device": lambda _: nullcontext(),
    }
    with ExitStack() as stack:
        for name, stand_in in stand_ins.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, stand_in))
        stack.enter_context(mock.patch.object(torch, "Generator", Generator))
        stack.enter_context(mock.patch.object(threading.Thread, "run", run_on_it))
        stack.enter_context(_on(device))
        yield device
        device.finish(device._given)


@contextmanager
def _on(device: Simulated) -> Iterator[None]:
    with Operations(device), Calls(device):
        yield
