"""What a task is made of: source, networks, metrics, evaluation, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ajest.diffusion.batch import Source
from ajest.diffusion.denoising import Denoiser
from ajest.runtime.seeding import Role


@dataclass(frozen=True)
class Metric:
    """A number by which models are compared.

    Attributes:
        name: key in metrics files.
        label: for people.
        better: which direction is better.
        meaning: one sentence for someone who has read nothing.
        guided: whether it is also measured with autoguidance.
        headline: whether the verdict rests on it, and with which guidance: the tests of one reading are
            corrected for all of these together.
        curve: whether its learning curve is shown though it is no headline.
        scale: what people see is the value times this.
    """

    name: str
    label: str
    better: Literal["lower", "higher"]
    meaning: str
    guided: bool = True
    headline: Literal["no", "unguided", "guided", "both"] = "no"
    curve: bool = False
    scale: float = 1.0

    def headline_weights(self, weight: float) -> tuple[float, ...]:
        """The guidance weights at which it is a headline, where `weight` is that of autoguidance."""
        return {"no": (), "unguided": (1.0,), "guided": (weight,), "both": (1.0, weight)}[self.headline]

    @property
    def sign(self) -> int:
        """Times a difference: positive is an improvement."""
        return 1 if self.better == "higher" else -1


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name, and tensors worth a picture (samples, for instance)."""

    metrics: dict[str, float]
    tensors: dict[str, Tensor] = field(default_factory=dict)


class Task(Protocol):
    """A task is a frozen dataclass of its settings with these methods; training and bench know nothing else."""

    @property
    def name(self) -> str: ...

    @property
    def subject(self) -> str:
        """What is learned, for people."""
        ...

    @property
    def domain(self) -> tuple[object, ...]:
        """What two networks must have in common, beside classes, for one to guide or to judge the other."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Key of each class whose number is a label; empty where nothing has a label."""
        ...

    @property
    def label_dropout(self) -> float:
        """Share of training examples that lose their label."""
        ...

    @property
    def metrics(self) -> tuple[Metric, ...]: ...

    @property
    def samples(self) -> int:
        """How many samples an evaluation takes unless told."""
        ...

    @property
    def guidance(self) -> float:
        """The usual weight of autoguidance."""
        ...

    @property
    def costly_target(self) -> bool:
        """Whether the exact target costs time that no real data set asks for."""
        ...

    def judges(self, device: torch.device | str = "cpu") -> tuple[str, ...]:
        """Identities of the networks that judge samples; their weights may change under the same names."""
        ...

    def notes(self, n: int) -> tuple[str, ...]:
        """What a reader should know of the metrics of n samples, in a sentence each."""
        ...

    def example_names(self) -> Sequence[str]:
        """A stable name for each id of an example."""
        ...

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
        interval: tuple[float, float] | None = None,
    ) -> Evaluation:
        """Judge a denoiser on n samples, guided unless the weight is 1 (between the noise levels of `interval`, if
        given); with `pictures` keep some for figures."""
        ...

    def floor(self, n: int, seed: int, cache: Path, device: torch.device | str = "cpu") -> dict[str, float]:
        """The metrics of real data against other real data at this n: as good as any model can look."""
        ...

    def figures(
        self,
        weight: float,
        stored: Mapping[float, Mapping[str, Tensor]],
        moments: Mapping[int, Mapping[str, Tensor]],
        history: Mapping[int, Mapping[str, Tensor]],
    ) -> list[tuple[str, Figure]]:
        """(caption, figure) of one run, from tensors of its last evaluations by guidance weight, stored super-batches
        by step, and unguided evaluations along training by step."""
        ...

    def side_by_side(
        self, weight: float, stored: Mapping[str, Mapping[float, Mapping[str, Tensor]]]
    ) -> list[tuple[str, Figure]]:
        """(caption, figure) of all arms from the same noise, from tensors by arm and guidance weight."""
        ...

    def write_samples(
        self,
        denoiser: Denoiser,
        out: Path,
        n: int | None = None,
        seeds: tuple[int, ...] = (),
        classes: tuple[str, ...] = (),
        device: torch.device | str = "cpu",
    ) -> list[Path]:
        """Sample, and write what a person wants of it into a folder; returns the files."""
        ...
