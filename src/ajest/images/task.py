"""Pictures as a task: its settings, and how a denoiser is judged on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..config import check
from ..denoising import Denoiser, LogNormal, check_noise, per_example_loss
from ..distributed import in_chunks
from ..errors import UserError
from ..guidance import autoguide
from ..metrics import LARGE, Evaluation, Metric, Role
from ..sampling import check_sampler, sample, sigma_schedule
from ..seeding import generator
from . import figures, quality
from .architecture import SIZES, Architecture, Precision
from .data import ImageSet, balanced, cache_folder, class_number, open_images
from .extractors import Extractor, Features, class_indices, extract, extractor
from .metrics import FREE_OF_N, compared, metrics_of
from .network import EDM2Denoiser
from .source import ImageSource, to_uint8

SHOWN = 32  # samples kept for figures
TRAJECTORIES = 6
LOSS_EXAMPLES = 512


@dataclass(frozen=True)
class ImageTask:
    """Settings of a task on pictures (METHOD 1, 5); see `ajest.tasks.Task` for its methods. `image_task` makes one
    from a data set.

    Attributes:
        data, validation: where the pictures are, as `open_images` reads it; may change from machine to machine.
        digest, validation_digest: of their content, which may not.
        size: training pictures.
        classes, names: key and name of each class; empty for an unconditional set.
        resolution: height and width.
        flip: mirror every second training picture.
        learner, guide: the networks.
        p_mean, p_std: of ln sigma in training.
        sigma_data: standard deviation of the data.
        label_dropout: share of training examples that lose their label, for classifier-free guidance.
        precision: in which networks compute; weights and preconditioning stay in float32.
        compile: compile the networks with torch.compile.
        sampler_steps, sigma_max, sigma_min: of the sampler.
        chunk: pictures sampled or judged at a time.
        extractors: feature networks, NAME or NAME=PATH; the first is the one that a verdict rests on.
        references: real training pictures that samples are compared with.
    """

    name: Literal["images"] = "images"
    data: tuple[str, ...] = field(default=("shapes",), compare=False)
    validation: tuple[str, ...] = field(default=(), compare=False)
    digest: str = ""
    validation_digest: str = ""
    size: int = 0
    classes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    resolution: int = 64
    flip: bool = False
    learner: Architecture = SIZES["mini"]
    guide: Architecture = SIZES["nano"]
    p_mean: float = -0.4
    p_std: float = 1.0
    sigma_data: float = 0.5
    label_dropout: float = 0.0
    precision: Precision = "float32"
    compile: bool = False
    sampler_steps: int = 32
    sigma_max: float = 80.0
    sigma_min: float = 0.002
    chunk: int = 32
    extractors: tuple[str, ...] = ("lite0",)
    references: int = 5000

    def __post_init__(self) -> None:
        check_noise(self.p_mean, self.p_std, self.sigma_data)
        check(0 <= self.label_dropout < 1, f"label_dropout must lie in [0, 1), not {self.label_dropout}")
        check(
            self.label_dropout == 0 or bool(self.classes),
            "the pictures have no classes, so there is no label to drop: leave out --label-dropout",
        )
        check_sampler(self.sampler_steps, self.sigma_max, self.sigma_min)
        check(self.chunk >= 1, f"chunk must be at least 1, not {self.chunk}")
        check(len(self.extractors) >= 1, "at least one feature extractor must be named")
        check(self.references >= 2, f"references must be at least 2, not {self.references}")

    @property
    def domain(self) -> tuple[object, ...]:
        return self.name, self.resolution

    @property
    def metrics(self) -> tuple[Metric, ...]:
        known = len(self.classes) if class_indices(self.classes) is not None else 0
        return metrics_of(self.extractors, known)

    @property
    def samples(self) -> int:
        return 2000

    @property
    def guidance(self) -> float:
        return 2.2

    @property
    def costly_target(self) -> bool:
        return False

    @property
    def subject(self) -> str:
        classes = f", {len(self.classes)} classes" if self.classes else ""
        return f"{self.size:,} pictures of {self.resolution} x {self.resolution}{classes}"

    def source(self, device: torch.device | str) -> ImageSource:
        pictures = self._pictures("train")
        noise = LogNormal(self.p_mean, self.p_std)
        return ImageSource(
            pictures.images, pictures.labels, noise, self.sigma_data, self.flip, device, self.label_dropout
        )

    def network(self, role: Role, seed: int) -> EDM2Denoiser:
        architecture = self.learner if role in LARGE else self.guide
        weights = generator(seed, role, "weights")
        network = architecture.denoiser(self.resolution, len(self.classes), self.sigma_data, self.precision, weights)
        if self.compile:
            network.unet.compile()
        return network

    def example_names(self) -> Sequence[str]:
        """The stable id of each training picture."""
        return [str(name) for name in self._pictures("train").ids]

    def sigmas(self) -> list[float]:
        return sigma_schedule(self.sampler_steps, self.sigma_max, self.sigma_min)

    def labels(self, n: int) -> Tensor | None:
        """Classes in turn, shape (n,): every class as often as every other."""
        return torch.arange(n) % len(self.classes) if self.classes else None

    def start(self, n: int, seed: int) -> Tensor:
        """Start noise of the sampler, the same for all arms of a seed; a smaller n is a prefix."""
        shape = (n, 3, self.resolution, self.resolution)
        return self.sigma_max * torch.randn(shape, generator=generator(seed, "evaluation", "start"))

    def prepare(self, n: int, seed: int, cache: Path, device: torch.device | str = "cpu") -> None:
        """Features of the real pictures, kept by content in the user's cache."""
        for spec in self.extractors:
            self._real(extractor(spec, device), self.references)

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
        """Judge a denoiser, guided with `weight` if it is not 1 (within `interval`, if given), on n samples.

        With `pictures` the result holds `samples` (at most 32, uint8), their `labels` and `trajectories` (6 paths).
        """
        denoiser = main if guide is None else autoguide(main, guide, weight, interval)
        start, labels = self.start(n, seed), self.labels(n)
        images = self._sample(denoiser, start, labels, device)
        values: dict[str, float] = {}
        for i, spec in enumerate(self.extractors):
            network = extractor(spec, device)
            real = self._real(network, self.references)
            found = extract(images, network, self.chunk)
            values = compared(network.key, real, found, labels, self.classes, whole=i == 0) | values
        if weight == 1:
            values["loss"] = self._loss(denoiser, seed, device)
        if not pictures:
            return Evaluation(values)
        path: list[Tensor] = []
        shown = labels[:TRAJECTORIES].to(device) if labels is not None else None

        def watch(_: int, state: Tensor) -> None:
            path.append(state.cpu())

        sample(denoiser, start[:TRAJECTORIES].to(device), self.sigmas(), shown, watch=watch)
        tensors = {"samples": images[:SHOWN], "trajectories": torch.stack(path, 1)}
        if labels is not None:
            tensors["labels"] = labels[:SHOWN]
        return Evaluation(values, tensors)

    def floor(self, n: int, seed: int, cache: Path, device: torch.device | str = "cpu") -> dict[str, float]:
        """Metrics of n other real pictures: validation pictures, or training pictures that are no references. Where
        there are fewer of either, only the metrics that do not depend on n."""
        values: dict[str, float] = {}
        for i, spec in enumerate(self.extractors):
            network = extractor(spec, device)
            other = self._other(n)
            found = quality.reference_features(*other[:2], network, cache_folder())
            real = self._real(network, self.references)
            values = compared(network.key, real, found, other[2], self.classes, whole=i == 0) | values
        if len(other[0]) < n:  # the others depend on the number of pictures, and of these there are not as many
            return {name: value for name, value in values.items() if name in FREE_OF_N}
        return values

    def figures(
        self,
        weight: float,
        stored: Mapping[float, Mapping[str, Tensor]],
        moments: Mapping[int, Mapping[str, Tensor]],
        history: Mapping[int, Mapping[str, Tensor]],
    ) -> list[tuple[str, Figure]]:
        return figures.of_run(self.names, self.sigmas(), self.sigma_data, weight, stored, moments, history)

    def side_by_side(
        self, weight: float, stored: Mapping[str, Mapping[float, Mapping[str, Tensor]]]
    ) -> list[tuple[str, Figure]]:
        return figures.side_by_side(self.names, weight, stored)

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

        The picture of a seed and class is the same whatever else is asked for.
        """
        n = SHOWN if n is None else n
        check(n >= 1, f"at least 1 sample must be asked for, not {n}")
        seeds = seeds or tuple(range(n))
        wanted = [self.class_number(c) for c in classes]
        pairs = [(c, s) for c in wanted for s in seeds] if wanted else [(self._drawn_class(s), s) for s in seeds]
        noise = torch.stack([self._seeded(s) for _, s in pairs])
        labels = torch.tensor([c for c, _ in pairs]) if self.classes else None
        images = self._sample(denoiser, self.sigma_max * noise, labels, device)
        names = figures.file_names([self._label(c) for c in range(len(self.classes))])
        captions = [(names[c] if names else "", s) for c, s in pairs]
        return figures.write_pictures(images, captions, len(seeds) if wanted else 8, out)

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

    def _drawn_class(self, seed: int) -> int:
        if not self.classes:
            return 0
        return int(torch.randint(len(self.classes), (1,), generator=generator(seed, "sample", "class")))

    def _seeded(self, seed: int) -> Tensor:
        return torch.randn(3, self.resolution, self.resolution, generator=generator(seed, "sample", "start"))

    def _sample(self, denoiser: Denoiser, start: Tensor, labels: Tensor | None, device: torch.device | str) -> Tensor:
        """uint8 samples on the CPU."""

        def solve(part: slice) -> Tensor:
            label = labels[part].to(device) if labels is not None else None
            return to_uint8(sample(denoiser, start[part].to(device), self.sigmas(), label)).cpu()

        return in_chunks(solve, len(start), self.chunk)

    def _loss(self, denoiser: Denoiser, seed: int, device: torch.device | str) -> float:
        """Mean loss on held-out pictures (training pictures where there are none)."""
        pictures = self._pictures("val" if self.validation else "train")
        noise = LogNormal(self.p_mean, self.p_std)
        source = ImageSource(pictures.images, pictures.labels, noise, self.sigma_data)
        batch = source.draw(LOSS_EXAMPLES, generator(seed, "evaluation", "loss"))

        @torch.no_grad()
        def losses(chunk: slice) -> Tensor:
            part = batch[chunk].to(device)
            return per_example_loss(denoiser(part.x, part.sigma, part.label), part)

        return in_chunks(losses, len(batch), self.chunk).double().mean().item()

    def _real(self, network: Extractor, count: int) -> Features:
        pictures = self._pictures("train")
        chosen = balanced(pictures.labels, len(pictures), count)
        digest = f"{pictures.digest}-first{count}"
        return quality.reference_features(pictures.images[chosen], digest, network, cache_folder())

    def _other(self, n: int) -> tuple[np.ndarray, str, Tensor | None]:
        """(pictures, digest, labels) of n real pictures that are no references, as balanced as can be: held-out ones
        if there are enough, else the rest of the training pictures, else the most that there are."""
        train = self._pictures("train")
        rest = np.setdiff1d(np.arange(len(train)), balanced(train.labels, len(train), self.references))
        pools = [(train, rest, self.references)]
        if self.validation:
            held_out = self._pictures("val")
            pools.insert(0, (held_out, np.arange(len(held_out)), 0))
        pictures, free, but = next((p for p in pools if len(p[1]) >= n), max(pools, key=lambda p: len(p[1])))
        if len(free) < 2:
            raise UserError("the data set is too small to compare real pictures with others: lower `references`")
        labels = None if pictures.labels is None else pictures.labels[free]
        chosen = free[balanced(labels, len(free), n)]
        found = None if pictures.labels is None else torch.from_numpy(pictures.labels[chosen])
        return pictures.images[chosen], f"{pictures.digest}-other{n}-{but}", found

    def _pictures(self, split: Literal["train", "val"]) -> ImageSet:
        spec, digest = (self.data, self.digest) if split == "train" else (self.validation, self.validation_digest)
        found = _opened(spec, self.resolution, split, self.classes)
        if found.digest != digest:
            raise UserError(f"{' '.join(spec)} holds other pictures than this run was made with: name the old data set")
        return found


@lru_cache(maxsize=4)
def _opened(
    spec: tuple[str, ...], resolution: int, split: Literal["train", "val"], classes: tuple[str, ...]
) -> ImageSet:
    # A data set with bad files was opened with the user's consent before: the digest tells whether it is the same.
    return open_images(spec, resolution, split, skip_bad=True, complain=lambda _: None).only(classes)
