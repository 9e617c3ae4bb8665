"""How a denoiser of images is judged: by samples, by held-out losses, and beside other real images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from ajest.diffusion.batch import Batch
from ajest.diffusion.denoising import Denoiser, LogNormal, per_example_loss
from ajest.diffusion.optimal import OptimalLoss, by_level, dataset_optimum
from ajest.runtime.distributed import in_chunks
from ajest.runtime.seeding import generator
from ajest.tasks.base import Evaluation, Guided, Measurement

from .data import ImageSet, cache_folder
from .extractors import BATCH, Extractor, extract, extractor, looked_at
from .metrics import FREE_OF_N, compared
from .references import References, Stock, references_of
from .sampler import Sampler
from .source import ImageSource

SHOWN = 32  # samples kept for figures
LOSS_EXAMPLES = 512
OPTIMAL_REFERENCES = 2048


class Judge(Protocol):
    """What judging asks of a task on images; see `ImageTask`."""

    @property
    def extractors(self) -> tuple[str, ...]: ...
    @property
    def chunk(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def validation(self) -> tuple[str, ...]: ...
    @property
    def sampler(self) -> Sampler: ...
    @property
    def noise(self) -> LogNormal: ...
    @property
    def stock(self) -> Stock: ...
    @property
    def indices(self) -> tuple[int, ...] | None: ...
    def image_set(self, split: Literal["train", "val"]) -> ImageSet: ...
    def of_split(self, split: Literal["train", "val"]) -> ImageSource: ...


def evaluate(task: Judge, model: Guided, how: Measurement) -> Evaluation:
    """See `ImageTask.evaluate`."""
    n, seed, device, denoiser, sampler = how.n, how.seed, how.device, model.denoiser, task.sampler
    labels = sampler.labels(n)
    networks = [extractor(spec, device) for spec in task.extractors]
    values: dict[str, float] = {}
    judged = looked_at(lambda part: sampler.evaluated(denoiser, part, seed, device), n, networks, task.chunk)
    for i, (network, found) in enumerate(zip(networks, judged, strict=True)):
        real = references(task, network, device)
        values = compared(network.key, real, found, labels, task.indices, whole=i == 0) | values
    curve: Mapping[str, Sequence[float]] = {}
    if model.unguided:
        batch = held_out_batch(task, seed)
        found_losses = losses(task, denoiser, batch, device)
        values["loss"] = found_losses.double().mean().item()
        curve = by_level(task.noise, batch.sigma, {"loss": found_losses})
    tensors = sampler.shown(denoiser, min(n, SHOWN), seed, device) if how.keep_tensors else {}
    return Evaluation(values, tensors, curve)


def held_out_batch(task: Judge, seed: int) -> Batch:
    """Noised held-out images (training images where there are none), on the CPU, with EDM's weight whatever the
    objective, so that losses can be compared."""
    source = task.of_split("val" if task.validation else "train")
    return source.draw(LOSS_EXAMPLES, generator(seed, "evaluation", "loss"))


def losses(task: Judge, denoiser: Denoiser, batch: Batch, device: torch.device | str) -> Tensor:
    """Losses of noised images, shape (n,)."""

    @torch.no_grad()
    def of_chunk(chunk: slice) -> Tensor:
        part = batch[chunk].to(device)
        return per_example_loss(denoiser(part.x, part.sigma, part.label), part)

    return in_chunks(of_chunk, len(batch), task.chunk)


def optimal_loss(task: Judge, source: ImageSource, how: Measurement) -> OptimalLoss:
    """Between what the least loss lies, from some of the images of a source of EDM's weight; see `dataset_optimum`."""
    streams = (generator(how.seed, "evaluation", "optimal loss", part) for part in ("learned", "references"))
    counts = (LOSS_EXAMPLES, OPTIMAL_REFERENCES)
    held_out = held_out_batch(task, how.seed).to(how.device)
    learned, others = (source.draw(count, stream) for count, stream in zip(counts, streams, strict=True))
    total = task.size * (2 if source.flip else 1)
    return dataset_optimum(task.noise, learned, held_out, others, total, LOSS_EXAMPLES)


def real_data_reference(task: Judge, n: int, device: torch.device | str) -> dict[str, float]:
    """See `ImageTask.real_data_reference`."""
    pool, there = task.stock.pool(n)
    image_set = task.image_set("val" if pool == "validation" else "train")
    rows = task.stock.others(pool, image_set.labels, min(n, there))
    labels = None if image_set.labels is None else torch.from_numpy(image_set.labels[rows])
    values: dict[str, float] = {}
    for i, spec in enumerate(task.extractors):
        network = extractor(spec, device)
        found = extract(image_set.images[rows], network, _together(task, device))
        real = references(task, network, device)
        if pool == "references":
            real = real.without(rows, found.features)
        values = compared(network.key, real, found, labels, task.indices, whole=i == 0) | values
    if there < n:  # the others depend on the number of images, and of these there are not as many
        return {name: value for name, value in values.items() if name in FREE_OF_N}
    return values


def references(task: Judge, network: Extractor, device: torch.device | str) -> References:
    """What samples are compared with in the features of a network."""
    image_set = task.image_set("train")
    rows, near = task.stock.rows(image_set.labels)
    together = _together(task, device)
    return references_of(image_set.images, rows, near, image_set.digest, network, cache_folder(), together)


def _together(task: Judge, device: torch.device | str) -> int:
    """Real images that a feature network looks at together."""
    return BATCH if torch.device(device).type == "cpu" else task.chunk
