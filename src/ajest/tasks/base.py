"""What a task is made of: source, networks, metrics, evaluation, figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from ajest.diffusion.batch import Source
from ajest.diffusion.denoising import Denoiser
from ajest.diffusion.guidance import Guide, guided, relabelled
from ajest.diffusion.guides import RULES, Rule, within
from ajest.diffusion.network import ExactDenoiser
from ajest.diffusion.optimal import OptimalLoss
from ajest.errors import UserError, check
from ajest.runtime.seeding import Role

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tensors = Mapping[str, Tensor]


#: Whether a verdict rests on a metric, and with which guidance.
Headline = Literal["no", "unguided", "guided", "both"]


@dataclass(frozen=True)
class Metric:
    """A number by which models are compared.

    Attributes:
        name: key in metrics files.
        label: for people.
        better: which direction is better.
        meaning: one sentence for someone who has read nothing.
        guided: whether it is also measured with autoguidance.
        headline: whether the verdict rests on it, and with which guidance: the tests at one budget are
            corrected for all of these together.
        curve: whether its learning curve is shown though it is no headline.
        scale: what people see is the value times this.
        perfect: the value beyond which there is none; None where no such is known.
    """

    name: str
    label: str
    better: Literal["lower", "higher"]
    meaning: str
    guided: bool = True
    headline: Headline = "no"
    curve: bool = False
    scale: float = 1.0
    perfect: float | None = None

    def headline_weights(self, weight: float) -> tuple[float, ...]:
        """The guidance weights at which it is a headline, where `weight` is that of autoguidance."""
        return {"no": (), "unguided": (1.0,), "guided": (weight,), "both": (1.0, weight)}[self.headline]

    @property
    def sign(self) -> int:
        """Times a difference: positive is an improvement."""
        return 1 if self.better == "higher" else -1


@dataclass(frozen=True)
class Evaluation:
    """What was found of a denoiser.

    Attributes:
        metrics: by name.
        tensors: worth a figure (samples, for instance).
        by_level: means by noise level, as `diffusion.optimal.by_level` gives them: "sigma", and of the loss the
            "excess" over the least one where that is known exactly, else the whole "loss".
    """

    metrics: dict[str, float]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    by_level: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Guided:
    """A denoiser to be sampled from, and what guides it.

    Attributes:
        main: the denoiser.
        guide: the network that it is steered away from; None leaves it alone.
        weight: of the guidance; 1 is none.
        interval: noise levels between which it is guided; None is all.
        cfg: weight of classifier-free guidance beside it, for which the denoiser is asked without labels; 1 is none.
        rule: by which the guide steers.
    """

    main: Denoiser
    guide: Denoiser | None = None
    weight: float = 1.0
    interval: tuple[float, float] | None = None
    cfg: float = 1.0
    rule: Rule = "autoguide"

    def __post_init__(self) -> None:
        check(
            self.cfg == 1 or self.rule == "autoguide", f"the rule {self.rule} takes no --cfg beside it: leave out one"
        )

    @property
    def denoiser(self) -> Denoiser:
        """All as one, for any sampler (docs/method.md#guidance)."""
        if self.guide is not None and self.rule != "autoguide":
            return within(RULES[self.rule](self.main, self.guide, self.weight), self.main, self.interval)
        weaker = [] if self.guide is None else [Guide(self.guide, self.weight, self.interval)]
        return guided(self.main, [*weaker, Guide(relabelled(self.main, None), self.cfg, self.interval)])

    @property
    def unguided(self) -> bool:
        """Whether it is not guided at all, so that its loss means something."""
        return self.weight == 1 and self.cfg == 1


@dataclass(frozen=True)
class Measurement:
    """How a denoiser is measured.

    Attributes:
        n: samples.
        seed: names the noise that samples start from, the same for all arms of a seed.
        cache: folder for what evaluations of a seed share.
        device: where to compute.
        keep_tensors: whether the evaluation is to keep some samples for figures.
    """

    n: int
    seed: int
    cache: Path
    device: torch.device | str = "cpu"
    keep_tensors: bool = False


@dataclass(frozen=True)
class RunTensors:
    """What a run has kept for its figures.

    Attributes:
        weight: of autoguidance.
        last: tensors of the evaluations of its end, by guidance weight.
        selection_snapshots: super-batches with what was kept of them, by step.
        along: tensors of unguided evaluations along training, by step.
    """

    weight: float
    last: Mapping[float, Tensors]
    selection_snapshots: Mapping[int, Tensors]
    along: Mapping[int, Tensors]


@dataclass(frozen=True)
class Task(ABC):
    """What is learned, and how it is judged. Training and bench know nothing else.

    A task is a frozen dataclass of its settings that derives from this class. Six members make it: its `name`, its
    `domain`, `source`, `network`, `metrics` and `evaluate`. The others have defaults, which a task overrides where it
    has more to offer.
    """

    name: str

    @property
    def domain(self) -> tuple[object, ...]:
        """What two networks must have in common, beside classes, for one to guide or to judge the other."""
        return (self.name,)

    @abstractmethod
    def source(self, device: torch.device | str) -> Source:
        """Where training examples come from."""

    @abstractmethod
    def network(self, role: Role, seed: int) -> nn.Module:
        """An untrained `ajest.Network`, called with x, sigma of shape (n,) and labels.

        Its weights follow from the seed.
        """

    @property
    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """The numbers that `evaluate` gives; at least one is a headline."""

    @abstractmethod
    def evaluate(self, model: Guided, how: Measurement) -> Evaluation:
        """Judge a denoiser by its samples.

        Raises:
            NotFinite: samples are NaN.
        """

    @property
    def subject(self) -> str:
        """What is learned, for people."""
        return self.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Key of each class whose number is a label; empty where nothing has a label."""
        return ()

    @property
    def conditional(self) -> bool:
        """Whether examples have labels; a task of embeddings, which has no classes, says so itself."""
        return bool(self.classes)

    @property
    def label_dropout(self) -> float:
        """Share of training examples that lose their label."""
        return 0.0

    @property
    def samples(self) -> int:
        """How many samples an evaluation takes unless told."""
        return 2000

    @property
    def guidance(self) -> float:
        """The usual weight of autoguidance."""
        return 2.0

    @property
    def sampled_from(self) -> float | None:
        """The noise level, in standard deviations of the data, from which its sampler follows the probability-flow ODE
        without noise on the way; None where it samples otherwise. Arms that pair noise with examples hang on it."""
        return None

    @property
    def tuned_by(self) -> str:
        """Name of the metric by which learning rates are tuned: the loss, which depends on no sampler, where there is
        one; else the first headline that is measured without guidance, or the first of all."""
        names = [m.name for m in self.metrics]
        plain = [m.name for m in self.metrics if m.headline in ("unguided", "both")]
        return "loss" if "loss" in names else [*plain, *names][0]

    @property
    def costly_target(self) -> bool:
        """Whether the exact target costs time that no real data set asks for."""
        return False

    def exact_denoiser(self, device: torch.device | str = "cpu") -> ExactDenoiser | None:
        """The best denoiser there is, where the distribution is known: for arms that score against it."""
        return None

    def other_guides(self) -> Mapping[str, Task]:
        """Tasks whose guides a study compares with this one's own, by what is said of them; each is this task but for
        how its guide's network is made."""
        return {}

    def judges(self, device: torch.device | str = "cpu") -> tuple[str, ...]:
        """Identities of the networks that judge samples; their weights may change under the same names."""
        return ()

    def notes(self, n: int) -> tuple[str, ...]:
        """What a reader should know of the metrics of n samples, in a sentence each."""
        return ()

    def example_names(self) -> Sequence[str]:
        """A stable name for each id of an example; empty where the id is all there is."""
        return ()

    def prepare(self, how: Measurement) -> object:
        """Compute and keep in `how.cache` what evaluations of a seed share."""
        return None

    def real_data_reference(self, how: Measurement) -> dict[str, float]:
        """The metrics of real data against other real data at this n: as good as any model can look."""
        return {}

    def optimal_loss(self, how: Measurement) -> OptimalLoss | None:
        """The least loss of any denoiser by noise level, where it can be computed or estimated."""
        return None

    def figures(self, run: RunTensors) -> list[tuple[str, Figure]]:
        """(caption, figure) of one run."""
        return []

    def side_by_side(self, weight: float, arms: Mapping[str, Mapping[float, Tensors]]) -> list[tuple[str, Figure]]:
        """(caption, figure) of all arms from the same noise, from tensors by arm and guidance weight."""
        return []

    def write_samples(
        self,
        denoiser: Denoiser,
        out: Path,
        n: int | None = None,
        seeds: tuple[int, ...] = (),
        classes: tuple[str, ...] = (),
        device: torch.device | str = "cpu",
    ) -> list[Path]:
        """Sample, and write what a person wants of it into a folder; returns the files.

        Raises:
            UserError: the task does not write samples.
        """
        raise UserError(f"the task {self.name} has no way to write samples: give it a write_samples")
