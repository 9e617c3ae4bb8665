"""What can be learned. All that differs between two tasks lies in their packages; training knows `Task` alone."""

from ajest.runtime.seeding import LARGE, drawing_from, generator

from .base import Evaluation, Guided, Measurement, Metric, RunTensors, Task
from .registry import from_spec, register
from .sources import TensorSource

__all__ = [
    "LARGE",
    "Evaluation",
    "Guided",
    "Measurement",
    "Metric",
    "RunTensors",
    "Task",
    "TensorSource",
    "drawing_from",
    "from_spec",
    "generator",
    "register",
]
