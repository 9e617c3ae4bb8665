"""What noised examples are made of, as sources hand it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeGuard

import torch
from torch import Tensor

from ajest.diffusion.batch import RowSource, Source, draws_rows
from ajest.diffusion.denoising import Denoiser, LogNormal
from ajest.runtime.counter import CounterStream, Rows

#: What a denoiser is to return: the example that was noised, or the mean of all that it can have been.
Target = Literal["x0", "exact"]


@dataclass(frozen=True)
class Ingredients:
    """Examples before they are noised.

    Attributes:
        x0: clean examples, shape (n, ...); (n, 0) in an outline.
        eps: standard normal noise, of the shape of `x0`.
        normal: the standard normal number that each noise level is made of, shape (n,).
        id: as in `Batch`.
        label: as in `Batch`.
    """

    x0: Tensor
    eps: Tensor
    normal: Tensor
    id: Tensor
    label: Tensor | None = None

    def of(self, index: Tensor, normal: Tensor, eps: Tensor | None = None) -> Ingredients:
        """The examples at `index`, int64, with their own noise or with another, at levels made of `normal`."""
        label = None if self.label is None else self.label[index]
        return Ingredients(self.x0[index], self.eps[index] if eps is None else eps, normal, self.id[index], label)


class IngredientSource(Source, Protocol):
    """A source whose examples arms may noise in their own way.

    Attributes:
        noise: distribution of its own noise levels.
        sigma_data: standard deviation of the data.
        own_target: what its own batches have as target.
        exact: the best denoiser there is, where the distribution is known.
        device: where batches are.
    """

    noise: LogNormal
    sigma_data: float
    own_target: Target
    exact: Denoiser | None
    device: torch.device

    def weight(self, sigma: Tensor) -> Tensor:
        """Its own weights at noise levels."""
        ...

    def ingredients(self, count: int, generator: torch.Generator, eps: torch.Generator | None = None) -> Ingredients:
        """What `draw` of the same arguments would have noised."""
        ...


class IngredientRows(IngredientSource, RowSource, Protocol):
    """An `IngredientSource` that also draws by numbers of rows."""

    def ingredients_of(self, rows: Rows, stream: CounterStream, eps: CounterStream | None) -> Ingredients:
        """What `draw_rows` would have noised; without `eps` what `outline` needs of it."""
        ...


def has_ingredients(source: Source) -> TypeGuard[IngredientSource]:
    """Whether a source is an `IngredientSource`."""
    names = ("noise", "sigma_data", "own_target", "exact", "device", "weight", "ingredients")
    return all(hasattr(source, name) for name in names)


def has_ingredient_rows(source: Source) -> TypeGuard[IngredientRows]:
    """Whether a source is an `IngredientRows`."""
    return has_ingredients(source) and draws_rows(source) and hasattr(source, "ingredients_of")


def by_example(values: Tensor, like: Tensor) -> Tensor:
    """Numbers of examples, shape (n,), in a shape that is broadcast over those of `like`, shape (n, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))
