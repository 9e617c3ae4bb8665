"""Sources for tasks of any kind: noised rows of a tensor, with their clean targets (docs/method.md#noise)."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from ajest.diffusion.batch import Batch
from ajest.diffusion.conditions import check_droppable, drop
from ajest.diffusion.denoising import Denoiser, LogNormal, edm_weight
from ajest.diffusion.noising.ingredients import Ingredients, Target
from ajest.diffusion.noising.weights import Weighting
from ajest.errors import check
from ajest.runtime.counter import CounterStream, Rows, below, normal, numbers_of, uniform
from ajest.runtime.seeding import substream
from ajest.runtime.transfer import to_device

_UNIT = 16  # normals that torch's CPU generator makes at a time: a draw of fewer is no prefix of a longer one


def normals(n: int, shape: tuple[int, ...], stream: torch.Generator) -> Tensor:
    """Standard normal rows, shape (n, *shape), on the stream's device; fewer rows are a prefix of more."""
    rows = -(-n // _UNIT) * _UNIT
    return torch.randn(rows, *shape, generator=stream, device=stream.device)[:n]


class Subset:
    """Which of so many examples are drawn from.

    Args:
        total: how many there are.
        rows: numbers of those that are drawn from, int64, shape (n,); None for all.
        device: where numbers are looked up, beside the host.
    """

    def __init__(self, total: int, rows: Tensor | None = None, device: torch.device | str = "cpu") -> None:
        self._total = total
        self._rows = {} if rows is None else {d.type: rows.to(d) for d in (torch.device(device), torch.device("cpu"))}

    def __len__(self) -> int:
        return len(self._rows["cpu"]) if self._rows else self._total

    def __getitem__(self, places: Tensor) -> Tensor:
        """Numbers of the examples at these places."""
        return self._rows[places.device.type][places] if self._rows else places


def _count(label: Tensor | None) -> str:
    return "no" if label is None else f"{len(label):,}"


class TensorSource:
    """Draws `x = x0 + sigma eps`, x0 uniformly with replacement; `id` is its place among the rows. The target is x0, so
    that the target of the score is `(x0 - x) / sigma^2`: as noisy as any real data set's.

    On the host, row, level and lost labels are drawn so that all devices see the same; eps is drawn where it is used.

    Args:
        x: the clean examples, shape (N, ...).
        noise: distribution of the noise levels.
        sigma_data: standard deviation of the data, for the loss weight.
        label: class of each, shape (N,), int64; or embeddings, shape (N, d) or (N, l, d), floats; or None.
        device: where batches are wanted.
        label_dropout: share of examples that lose their label, see `ajest.diffusion.conditions`.
        exact: the best denoiser there is, where the distribution is known, for arms whose target is the exact one.
        weighting: of the squared error, None for EDM's.

    Raises:
        UserError: labels of another number than examples, or of a kind that cannot be dropped and is to be.
    """

    own_target: Target = "x0"

    def __init__(
        self,
        x: Tensor,
        noise: LogNormal,
        sigma_data: float = 1.0,
        label: Tensor | None = None,
        device: torch.device | str = "cpu",
        label_dropout: float = 0.0,
        exact: Denoiser | None = None,
        weighting: Weighting | None = None,
    ) -> None:
        check(label is None or len(label) == len(x), f"{len(x):,} examples have {_count(label)} labels: give one each")
        if label is not None and label_dropout:
            check_droppable(label)
        self.exact, self._weighting = exact, weighting
        self.noise, self.sigma_data, self.label_dropout = noise, sigma_data, label_dropout
        self.device = torch.device(device)
        self._x = x.to(self.device)
        self._label = None if label is None else label.to(self.device)
        self._subset = Subset(len(x))

    def restricted(self, rows: Tensor) -> TensorSource:
        """See `RestrictableSource`."""
        found = copy.copy(self)
        found._subset = Subset(len(self._x), rows, self.device)
        return found

    def draw(self, count: int, generator: torch.Generator, eps: torch.Generator | None = None) -> Batch:
        """Noised examples, drawn on the host; see `ajest.Source.draw`."""
        index, normal_, dropped = self._on_host(count, generator)
        index, sigma, dropped = to_device(self.device, index, self.noise(normal_), dropped)
        known = self._outline(index, sigma, self._label_of(index, dropped))
        return self._noised(known, self._eps(count, generator if eps is None else eps))

    def ingredients(self, count: int, generator: torch.Generator, eps: torch.Generator | None = None) -> Ingredients:
        """What `draw` noises."""
        index, normal_, dropped = to_device(self.device, *self._on_host(count, generator))
        noise = self._eps(count, generator if eps is None else eps)
        return Ingredients(self._x[index], noise, normal_, index, self._label_of(index, dropped))

    def outline(self, rows: Rows, stream: CounterStream) -> Batch:
        """Ids, noise levels, weights and labels of some rows, without their data."""
        parts = self.ingredients_of(rows, stream, None)
        return self._outline(parts.id, self.noise(parts.normal), parts.label)

    def draw_rows(self, rows: Rows, stream: CounterStream, eps: CounterStream) -> Batch:
        """The noised examples of some rows, drawn on the device."""
        noise = eps.normals(numbers_of(rows, self.device), tuple(self._x.shape[1:]))
        return self._noised(self.outline(rows, stream), noise)

    def ingredients_of(self, rows: Rows, stream: CounterStream, eps: CounterStream | None) -> Ingredients:
        """What `draw_rows` noises."""
        numbers = numbers_of(rows, self.device)
        words = stream.words(numbers, 5)
        index, level = self._subset[below(words[:, :2], len(self._subset))], normal(words[:, 2:4])[:, 0]
        label = self._label_of(index, uniform(words[:, 4]) < self.label_dropout)
        if eps is None:
            nothing = level.new_empty(len(level), 0)
            return Ingredients(nothing, nothing, level, index, label)
        return Ingredients(self._x[index], eps.normals(numbers, tuple(self._x.shape[1:])), level, index, label)

    def weight(self, sigma: Tensor) -> Tensor:
        """EDM's, see `edm_weight`, or the one that was asked for."""
        own = self._weighting
        return edm_weight(sigma, self.sigma_data) if own is None else own(sigma, self.sigma_data)

    def _on_host(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """(rows, normal numbers of the levels, which labels are lost)."""
        which, level, lost = (substream(generator) for _ in range(3))
        index = self._subset[torch.randint(len(self._subset), (count,), generator=which)]
        normal_ = normals(count, (1,), level)[:, 0]
        return index, normal_, torch.rand(count if self._drops else 0, generator=lost) < self.label_dropout

    def _eps(self, count: int, generator: torch.Generator) -> Tensor:
        return normals(count, tuple(self._x.shape[1:]), substream(generator, self.device))

    @property
    def _drops(self) -> bool:
        return self._label is not None and self.label_dropout > 0

    def _label_of(self, index: Tensor, dropped: Tensor) -> Tensor | None:
        label = None if self._label is None else self._label[index]
        return label if label is None or not self._drops else drop(label, dropped)

    def _outline(self, index: Tensor, sigma: Tensor, label: Tensor | None) -> Batch:
        return Batch(sigma.new_empty(len(sigma), 0), sigma, self.weight(sigma), index, None, label)

    def _noised(self, known: Batch, noise: Tensor) -> Batch:
        x0 = self._x[known.id]
        x = torch.addcmul(x0, known.sigma.view(-1, *[1] * (x0.dim() - 1)), noise)
        return replace(known, x=x, target=x0)

    def held(self, free: int) -> int:
        """Bytes of a device with so many free ones that the rows and their labels take for good."""
        return sum(t.numel() * t.element_size() for t in (self._x, self._label) if t is not None)

    def complete(self, batch: Batch) -> Batch:
        """The batch as it is: the target is the clean vector itself."""
        return batch
