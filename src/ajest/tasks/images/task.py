"""Images as a task: its settings, and how a denoiser is judged on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ajest.diffusion.denoising import Denoiser, LogNormal, check_noise
from ajest.diffusion.noising.weights import Weighting
from ajest.diffusion.objectives.parametrisations import weighting_of
from ajest.diffusion.optimal import OptimalLoss
from ajest.diffusion.solvers import Solver, SolverKind
from ajest.errors import UserError, check
from ajest.runtime.compiling import compile_network
from ajest.runtime.seeding import LARGE, Role, generator
from ajest.tasks.base import Evaluation, Guided, Measurement, Metric, RunTensors, Task, Tensors

from . import figures, judging
from .architecture import SIZES, NetworkSettings, Precision
from .data import ImageSet, cache_folder, class_number
from .data.embeddings import read_embeddings
from .data.latents import LatentSpace, decoder, open_set
from .extractors import extractor
from .imagenet import class_indices
from .metrics import metrics_of, without_classes
from .pixels import USUAL, Loading
from .references import Stock, remembered
from .sampler import Sampler
from .source import ImageSource, LatentSource, to_uint8

LEAST_REFERENCES = 64


@dataclass(frozen=True)
class ImageTask(Task):
    """Settings of a task on images (docs/method.md#images); see `ajest.tasks.Task` for its methods. `image_task`
    makes one from a data set.

    Attributes:
        data, validation: where the images are, as `open_images` reads it; may change from machine to machine.
        digest, validation_digest: of their content, which may not.
        size: training images.
        classes, names: key and name of each class; empty for an unconditional set.
        embeddings: where those are that networks are told in the place of classes, see `read_embeddings`; may change
            from machine to machine.
        embedding: the shape of one, (d,) or (l, d); () without any.
        resolution: height and width.
        grey: learn one channel, the luminance.
        latents: which latents are learned in the place of images; None learns images.
        autoencoder: where what decodes them is; may change from machine to machine.
        flip: mirror every second training image.
        learner, guide: the networks.
        p_mean, p_std: of ln sigma in training.
        sigma_data: standard deviation of the data.
        label_dropout: share of training examples that lose their label, for classifier-free guidance.
        objective: what networks predict, and in whose squared error they learn: edm, eps, v, x0 or flow. Models of
            diffusers predict what their scheduler says; of them it is the loss alone.
        precision: in which networks compute; weights and preconditioning stay in float32.
        compile: compile the networks with torch.compile, and the noise that is drawn on a GPU.
        resident_bytes: decoded images up to so many bytes live on the GPU; None takes a quarter of what is free on
            it; may change from machine to machine.
        sampler_steps, sigma_max, sigma_min: of the sampler.
        solver, churn, shift: which way it goes, see `ajest.diffusion.solvers.Solver`.
        chunk: images sampled or judged at a time.
        extractors: feature networks, NAME or NAME=PATH; the first is the one that a verdict rests on.
        references: training images that samples are compared with; None for all.
        held_out: validation images.
        imagenet: ImageNet's index of each class; () goes by the classes' keys and names.
    """

    name: str = "images"
    data: tuple[str, ...] = field(default=("shapes",), compare=False)
    validation: tuple[str, ...] = field(default=(), compare=False)
    digest: str = ""
    validation_digest: str = ""
    size: int = 0
    classes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = field(default=(), compare=False)
    embedding: tuple[int, ...] = ()
    resolution: int = 64
    grey: bool = False
    latents: LatentSpace | None = None
    autoencoder: str = field(default="", compare=False)
    flip: bool = False
    learner: NetworkSettings = SIZES["mini"]
    guide: NetworkSettings = SIZES["nano"]
    p_mean: float = -0.4
    p_std: float = 1.0
    sigma_data: float = 0.5
    label_dropout: float = 0.0
    objective: str = "edm"
    precision: Precision = "float32"
    compile: bool = False
    resident_bytes: int | None = field(default=None, compare=False)
    sampler_steps: int = 32
    sigma_max: float = 80.0
    sigma_min: float = 0.002
    solver: SolverKind = "heun"
    churn: float = 0.0
    shift: float = 1.0
    chunk: int = 32
    extractors: tuple[str, ...] = ("lite0",)
    references: int | None = None
    held_out: int = 0
    imagenet: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_noise(self.p_mean, self.p_std, self.sigma_data)
        weighting_of(self.objective)  # which checks its name
        check(0 <= self.label_dropout < 1, f"label_dropout must lie in [0, 1), not {self.label_dropout}")
        check(
            self.label_dropout == 0 or self.conditional,
            "the images have no classes, so there is no label to drop: leave out --label-dropout",
        )
        check(
            not self.embeddings or bool(self.embedding),
            "the images are learned without embeddings: leave out --embeddings",
        )
        check(
            self.latents is not None or not self.autoencoder,
            "the images are learned as they are: --autoencoder is for a folder of ajest data encode",
        )
        _ = self.sampler  # which checks its settings
        check(len(self.extractors) >= 1, "at least one feature extractor must be named")
        count = self.references
        check(
            count is None or count >= LEAST_REFERENCES, f"references must be at least {LEAST_REFERENCES}, not {count}"
        )

    @property
    def domain(self) -> tuple[object, ...]:
        return self.name, self.resolution, self.grey, self.latents, self.embedding

    @property
    def conditional(self) -> bool:
        return bool(self.classes or self.embedding)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what networks see."""
        seen = self.latents
        if seen is not None:
            return seen.channels, seen.side, seen.side
        return 1 if self.grey else 3, self.resolution, self.resolution

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return metrics_of(self.extractors, 0 if self.indices is None else len(self.classes))

    def judges(self, device: torch.device | str = "cpu") -> tuple[str, ...]:
        """The identities of the feature networks, whose weights may change under the same names."""
        return tuple(extractor(spec, device).identity for spec in self.extractors)

    def notes(self, n: int) -> tuple[str, ...]:
        """What a reader should know of the metrics of n samples: what they were compared with, and what is absent."""
        return *self.stock.notes(n), *without_classes(self.extractors, self.classes, self.names, self.indices)

    @property
    def indices(self) -> tuple[int, ...] | None:
        """ImageNet's index of each class; None where some class is not known to be one of it."""
        return self.imagenet or class_indices(self.classes, self.names)

    @property
    def stock(self) -> Stock:
        """How many real images there are to compare samples with."""
        return Stock(self.size, self.size if self.references is None else self.references, self.held_out)

    @property
    def sampled_from(self) -> float | None:
        return self.sampler.solver.ode_from

    @property
    def guidance(self) -> float:
        return 2.2

    @property
    def subject(self) -> str:
        classes = f", {len(self.classes)} classes" if self.classes else ""
        classes = f", told {' x '.join(map(str, self.embedding))} features" if self.embedding else classes
        latents = "" if self.latents is None else f" as latents of {' x '.join(map(str, self.shape))}"
        return f"{self.size:,} {'grey ' * self.grey}images of {self.resolution} x {self.resolution}{latents}{classes}"

    def source(self, device: torch.device | str) -> ImageSource:
        loading = Loading(self.resident_bytes, fused=self.compile)
        return self.of_split("train", self.flip, device, self.label_dropout, loading, weighting_of(self.objective))

    def of_split(
        self,
        split: Literal["train", "val"],
        flip: bool = False,
        device: torch.device | str = "cpu",
        label_dropout: float = 0.0,
        loading: Loading = USUAL,
        weighting: Weighting | None = None,
    ) -> ImageSource:
        """What draws images, or latents of them; without a weighting with EDM's weight, whatever the objective."""
        found = self.image_set(split)
        told = found.labels if found.embeddings is None else found.embeddings
        rest = told, self.noise, self.sigma_data, flip, device, label_dropout, loading, weighting
        return ImageSource(found.images, *rest) if found.latents is None else LatentSource(found.latents, *rest)

    def network(self, role: Role, seed: int) -> nn.Module:
        architecture = self.learner if role in LARGE else self.guide
        weights = generator(seed, role, "weights")
        channels, side, _ = self.shape
        classes = len(self.classes)
        network = architecture.denoiser(
            side, classes, self.sigma_data, self.precision, weights, channels, self.embedding, self.objective
        )
        if self.compile:
            compile_network(network.raw)
        return network

    def example_names(self) -> Sequence[str]:
        """The stable id of each training image."""
        return [str(name) for name in self.image_set("train").ids]

    @property
    def sampler(self) -> Sampler:
        """How samples are drawn."""
        levels = self.sampler_steps, self.sigma_max, self.sigma_min
        solver = Solver(*levels, self.sigma_data, self.solver, self.churn, self.shift)
        told = self._told if self.embedding else None
        return Sampler(self.shape, len(self.classes), solver, self.chunk, self._images, told)

    def _told(self) -> Tensor:
        """The embeddings that samples are told: of held-out images, or of training images where there are none."""
        found = self.image_set("val" if self.validation else "train").embeddings
        assert found is not None
        return torch.from_numpy(found)

    def _images(self, x: Tensor) -> Tensor:
        """uint8 images of what networks make."""
        return to_uint8(x if self.latents is None else decoder(self.autoencoder, self.latents, x.device).decode(x))

    def prepare(self, how: Measurement) -> None:
        """Statistics of the real images, kept by content in the user's cache."""
        for spec in self.extractors:
            judging.references(self, extractor(spec, how.device), how.device)

    def evaluate(self, model: Guided, how: Measurement) -> Evaluation:
        """Judge a denoiser on n samples; kept are `samples` (at most 32, uint8), their `labels` and `trajectories` (6
        paths)."""
        return judging.evaluate(self, model, how)

    def optimal_loss(self, how: Measurement) -> OptimalLoss | None:
        """Between what it lies, from some of the images; None where none are held out, or where each is told an
        embedding of its own."""
        if not self.validation or self.embedding:
            return None
        labelled = replace(self, objective="edm", label_dropout=0.0)  # as held-out images are
        return judging.optimal_loss(self, labelled.source(how.device), how)

    def real_data_reference(self, how: Measurement) -> dict[str, float]:
        """Metrics of n other real images: validation images, or else training images, which are no references
        then. Where there are fewer of either, only the metrics that do not depend on n."""
        judges = self.judges(how.device)
        what = (self.digest, self.validation_digest, self.stock.references, self.indices, judges, how.n)
        measure = partial(judging.real_data_reference, self, how.n, how.device)
        return remembered("real-data-reference", what, cache_folder(), measure)

    def figures(self, run: RunTensors) -> list[tuple[str, Figure]]:
        return figures.of_run(self.names, self.sampler.sigmas(), self.sigma_data, run)

    def side_by_side(self, weight: float, arms: Mapping[str, Mapping[float, Tensors]]) -> list[tuple[str, Figure]]:
        return figures.side_by_side(self.names, weight, arms)

    def write_samples(
        self,
        denoiser: Denoiser,
        out: Path,
        n: int | None = None,
        seeds: tuple[int, ...] = (),
        classes: tuple[str, ...] = (),
        device: torch.device | str = "cpu",
    ) -> list[Path]:
        """One PNG for each class and seed, and a sheet of all; without classes each seed draws its own.

        The image of a seed and class is the same whatever else is asked for.
        """
        n = judging.SHOWN if n is None else n
        check(n >= 1, f"at least 1 sample must be asked for, not {n}")
        seeds = seeds or tuple(range(n))
        wanted = [self.class_number(c) for c in classes]
        sampler = self.sampler
        pairs = [(c, s) for c in wanted for s in seeds] if wanted else [(sampler.drawn_class(s), s) for s in seeds]
        images = sampler.asked(denoiser, pairs, device)
        names = figures.file_names([self._label(c) for c in range(len(self.classes))])
        captions = [(names[c] if names else "", s) for c, s in pairs]
        return figures.write_images(images, captions, len(seeds) if wanted else 8, out)

    def class_number(self, name: str) -> int:
        """The number of a class by its key or its name.

        Raises:
            UserError: an unknown class, or a set without classes.
        """
        check(bool(self.classes), f"this data set has no classes, so there is no {name!r}")
        return class_number(name, self.classes, self.names)

    def _label(self, number: int) -> str:
        """The name of a class, with its key where two classes share the name."""
        if not self.classes:
            return ""
        name = self.names[number]
        return name if self.names.count(name) == 1 else f"{name} {self.classes[number]}"

    @property
    def noise(self) -> LogNormal:
        """The density of noise levels in training."""
        return LogNormal(self.p_mean, self.p_std)

    def image_set(self, split: Literal["train", "val"]) -> ImageSet:
        """Its images, and the classes or embeddings that networks are told.

        Raises:
            UserError: they are others than those that the task was made of.
        """
        spec, digest = (self.data, self.digest) if split == "train" else (self.validation, self.validation_digest)
        found = _opened(spec, self.resolution, split, self.classes, self.grey)
        found = _embedded(found, self.embeddings) if self.embedding else found
        if found.digest != digest:
            raise UserError(f"{' '.join(spec)} holds other images than this run was made with: name the old data set")
        return found


@lru_cache(maxsize=4)
def _embedded(images: ImageSet, embeddings: tuple[str, ...]) -> ImageSet:
    return read_embeddings(embeddings).of(images)


@lru_cache(maxsize=4)
def _opened(
    spec: tuple[str, ...], resolution: int, split: Literal["train", "val"], classes: tuple[str, ...], in_grey: bool
) -> ImageSet:
    # A data set with bad files was opened with the user's consent before: the digest tells whether it is the same.
    return open_set(spec, resolution, split, True, lambda _: None, in_grey).only(classes)
