"""What can be learned. All that differs between two tasks lies in their packages; training knows `Task` alone."""

from .base import Evaluation, Guided, Measurement, Metric, RunTensors, Task
from .registry import from_spec, register
from .sources import TensorSource

__all__ = [
    "Evaluation",
    "Guided",
    "Measurement",
    "Metric",
    "RunTensors",
    "Task",
    "TensorSource",
    "from_spec",
    "register",
]
