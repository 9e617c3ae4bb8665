"""What stands for classes of `torch` and `torch.cuda` on a simulated device."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakValueDictionary

import torch

from simulated_tensor import CUDA

if TYPE_CHECKING:
    from simulated_device import Simulated


class Generator(torch.Generator):
    """A generator of the CPU that may say that it is one of the device."""

    #: Those of the device, by what torch's kernels are handed.
    on_device: ClassVar[WeakValueDictionary[int, Generator]] = WeakValueDictionary()

    def __new__(cls, device: torch.device | str = "cpu") -> Generator:
        made = super().__new__(cls, "cpu")
        made.place = torch.device("cpu") if torch.device(device).type == "cpu" else CUDA
        if made.place == CUDA:
            cls.on_device[made._cdata] = made
        return made

    device = property(lambda self: self.place)


class Event:
    """A moment in the device's work; it has passed when the host has waited for it, or asked for it twice."""

    _device: Simulated

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        self._at, self._time, self._asked = None, 0.0, False

    def record(self, stream: Any = None) -> None:
        self._at, self._time, self._asked = self._device._given, time.perf_counter(), False

    def wait(self, stream: Any = None) -> None:
        """Nothing: the simulated device does one thing after the other."""

    def _passed(self) -> bool:
        return self._at is None or self._at <= self._device._done

    def query(self) -> bool:
        if not self._passed() and self._asked:
            self._device.finish(self._at)
        self._asked = True
        return self._passed()

    def synchronize(self) -> None:
        if not self._passed():
            self._device.synchronised("event.synchronize", self._at)

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds, of the host's clock."""
        if self._at is None or end._at is None:
            raise ValueError("Both events must be recorded before calculating elapsed time.")
        if not (self._passed() and end._passed()):
            raise ValueError("Both events must be completed before calculating elapsed time.")
        return 1000 * (end._time - self._time)


class Stream:
    """The one stream that there is, under whatever name."""

    _device: Simulated

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        """There is nothing to set up."""

    def synchronize(self) -> None:
        self._device.synchronised("stream.synchronize")

    def record_event(self, event: Event | None = None) -> Event:
        event = torch.cuda.Event() if event is None else event
        event.record()
        return event

    def wait_event(self, event: Event) -> None:
        """Nothing: see `Event.wait`."""

    def wait_stream(self, stream: Stream) -> None:
        """Nothing: see `Event.wait`."""
