"""Samples of a denoiser: which classes they have, which noise they start from, and how that is solved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ajest.diffusion.denoising import Denoiser
from ajest.diffusion.solvers import Solver
from ajest.errors import check
from ajest.runtime.distributed import in_chunks
from ajest.runtime.seeding import generator

from .data import spread_order
from .source import to_uint8

TRAJECTORIES = 6


@dataclass(frozen=True)
class Sampler:
    """How samples are drawn. A sample depends on its seed and its number alone, or on its seed and its class: not on
    what else is asked for.

    Attributes:
        shape: (channels, height, width) of what is sampled.
        classes: how many; 0 for an unconditional set.
        solver: from start noise to samples.
        chunk: samples at a time.
        images: from what is sampled to uint8 images.
        embeddings: of real images, shape (N, ...), of which each sample is told one; without classes. None tells none.
    """

    shape: tuple[int, int, int]
    classes: int
    solver: Solver
    chunk: int
    images: Callable[[Tensor], Tensor] = to_uint8
    embeddings: Callable[[], Tensor] | None = None

    def __post_init__(self) -> None:
        check(self.chunk >= 1, f"chunk must be at least 1, not {self.chunk}")

    def sigmas(self) -> list[float]:
        return self.solver.sigmas()

    def labels(self, n: int) -> Tensor | None:
        """The classes of n samples, shape (n,): every class as often as every other, and where there are fewer samples
        than classes, of classes spread over all; a smaller n is a prefix."""
        if not self.classes:
            return None
        order = torch.from_numpy(spread_order(self.classes))
        return order[torch.arange(n) % len(order)]

    def _told(self, part: slice) -> Tensor | None:
        """What networks are told of some samples: their classes; or embeddings, of images spread over all of them, and
        again."""
        if self.embeddings is None:
            labels = self.labels(part.stop)
            return None if labels is None else labels[part]
        known = self.embeddings()
        order = torch.from_numpy(spread_order(len(known)))
        return known[order[torch.arange(part.start, part.stop) % len(order)]]

    def start(self, part: slice, seed: int) -> Tensor:
        """Start noise of some samples, the same for all arms of a seed: that of a sample depends on its number alone.

        Args:
            part: numbers of the samples, from start to stop.
            seed: of the run.
        """
        streams = (generator(seed, "evaluation", "start", i) for i in range(part.start, part.stop))
        return self._noise(list(streams))

    def evaluated(self, denoiser: Denoiser, part: slice, seed: int, device: torch.device | str) -> Tensor:
        """Some of the samples that a run is judged by: uint8, on the device.

        Args:
            denoiser: whose samples.
            part: their numbers, from start to stop.
            seed: of the run.
            device: where to compute.
        """
        churn = [generator(seed, "evaluation", "churn", i) for i in range(part.start, part.stop)]
        return self._solved(denoiser, self.start(part, seed), self._told(part), churn, device)

    def shown(self, denoiser: Denoiser, n: int, seed: int, device: torch.device | str) -> dict[str, Tensor]:
        """The first n of those samples, the paths of a few, and their labels, on the CPU."""
        labels, told = self.labels(n), self._told(slice(0, n))
        path: list[Tensor] = []

        def watch(_: int, state: Tensor) -> None:
            path.append(state[:TRAJECTORIES].cpu())

        start, label = self.start(slice(0, n), seed).to(device), None if told is None else told.to(device)
        churn = [generator(seed, "evaluation", "churn", i) for i in range(n)]
        images = self.images(self.solver(denoiser, start, label, churn, watch)).cpu()
        tensors = {"samples": images, "trajectories": torch.stack(path, 1)}
        return tensors if labels is None else tensors | {"labels": labels}

    def drawn_class(self, seed: int) -> int:
        """The class of a seed for which none is asked, or the number of its embedding; 0 without either."""
        count = self.classes if self.embeddings is None else len(self.embeddings())
        if not count:
            return 0
        return int(torch.randint(count, (1,), generator=generator(seed, "sample", "class")))

    def asked(self, denoiser: Denoiser, pairs: Sequence[tuple[int, int]], device: torch.device | str) -> Tensor:
        """Samples of (class, seed) pairs that somebody asks for: uint8, on the CPU; see `drawn_class`."""
        numbers = torch.tensor([c for c, _ in pairs])
        labels = numbers if self.classes else None if self.embeddings is None else self.embeddings()[numbers]

        def solved(part: slice) -> Tensor:
            start = self._noise([generator(s, "sample", "start") for _, s in pairs[part]])
            churn = [generator(s, "sample", "churn") for _, s in pairs[part]]
            return self._solved(denoiser, start, labels if labels is None else labels[part], churn, device).cpu()

        return in_chunks(solved, len(pairs), self.chunk)

    def _noise(self, streams: Sequence[torch.Generator]) -> Tensor:
        return self.solver.sigma_max * torch.stack([torch.randn(self.shape, generator=stream) for stream in streams])

    def _solved(
        self,
        denoiser: Denoiser,
        start: Tensor,
        labels: Tensor | None,
        churn: Sequence[torch.Generator],
        device: torch.device | str,
    ) -> Tensor:
        """uint8 samples, on the device; `churn` has the noise on the way of each."""
        label = None if labels is None else labels.to(device)
        return self.images(self.solver(denoiser, start.to(device), label, churn))
