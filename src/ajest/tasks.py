"""What a task is made of: source, networks, metrics and figures. The one place that knows all tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from .batch import Source
from .denoising import Denoiser
from .metrics import Evaluation, Metric, Role
from .tree.task import TreeTask


class Task(Protocol):
    """A task is a frozen dataclass of its settings with these methods; training and bench know nothing else."""

    @property
    def name(self) -> str: ...

    @property
    def metrics(self) -> tuple[Metric, ...]: ...

    def source(self, device: torch.device | str) -> Source: ...

    def network(self, role: Role, seed: int) -> nn.Module: ...

    def prepare(self, n: int, seed: int, cache: Path, device: torch.device | str = "cpu") -> object:
        """Compute and keep in the folder `cache` what evaluations of a seed share."""
        ...

    def evaluate(
        self,
        main: Denoiser,
        guide: Denoiser | None,
        weight: float,
        n: int,
        seed: int,
        cache: Path,
        device: torch.device | str = "cpu",
        pictures: bool = False,
    ) -> Evaluation:
        """Judge a denoiser on n samples, guided unless the weight is 1; with `pictures` keep some for figures."""
        ...

    def floor(self, n: int, seed: int, cache: Path) -> dict[str, float]:
        """The metrics of real data against other real data at this n: as good as any model can look."""
        ...

    def figures(
        self,
        weight: float,
        stored: Mapping[float, Mapping[str, Tensor]],
        moments: Mapping[int, Mapping[str, Tensor]],
    ) -> list[tuple[str, Figure]]:
        """(caption, figure) of one run, from tensors of its evaluations by guidance weight and stored super-batches
        by step."""
        ...

    def write_samples(
        self, denoiser: Denoiser, n: int, seed: int, out: Path, device: torch.device | str = "cpu"
    ) -> list[Path]:
        """Sample, and write what a person wants of it into a folder; returns the files."""
        ...


#: A union so that a config can be read back from JSON.
AnyTask = TreeTask

#: Tasks with their default settings, by name.
TASKS: dict[str, type[TreeTask]] = {"tree": TreeTask}
