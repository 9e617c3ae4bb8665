"""Contrasts: a loss that also pushes away from the target of another example (docs/method.md#contrast)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ajest.diffusion.denoising import Denoiser
from ajest.diffusion.guidance import autoguide
from ajest.errors import check

from .ingredients import by_example
from .parameters import Function, check_named, words_of


def of_denoiser(x: Tensor, sigma: Tensor, r: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
    """The other example itself."""
    return x0.expand_as(x)


def of_velocity(x: Tensor, sigma: Tensor, r: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
    """What a flow says of the example at x whose velocity is the other's, eps - x0 (contrastive flow matching, arXiv
    2506.05350, equation 6)."""
    return (x - sigma * eps + r * x0) / (1 + r)


#: Of noised examples x, their levels sigma and r = sigma / sigma_data, other clean examples and other noise, to the
#: target that a denoiser is pushed away from at x. A function is affine in the last two: the mean of what it gives is
#: what it makes of their means.
CONTRASTS: dict[str, Function] = {"denoiser": of_denoiser, "velocity": of_velocity}


@dataclass(frozen=True)
class Contrast:
    """A squared error from which a share of the squared distance to another example's target is taken:
    |D - x0|^2 - share |D - other|^2.

    Attributes:
        name: of a registered contrast.
        share: of the distance, at least 0 and below 1: from 1 on nothing keeps the denoiser from infinity.
        parameters: of the contrast, in its order.
    """

    name: str = "velocity"
    share: float = 0.05
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_named("contrast", self.name, CONTRASTS, self.parameters, leading=5)
        check(0 < self.share < 1, f"contrast {self.name!r}: its share must lie above 0 and below 1, not {self.share}")

    def __str__(self) -> str:
        return f"{words_of(self.name, *self.parameters)} {self.share:g}"

    def other(self, x: Tensor, sigma: Tensor, sigma_data: float, x0: Tensor, eps: Tensor) -> Tensor:
        """The target that the denoiser is pushed away from, of the shape of `x`."""
        level = by_example(sigma, x)
        return CONTRASTS[self.name](x, level, level / sigma_data, x0, eps, *self.parameters)

    def target(self, x: Tensor, sigma: Tensor, sigma_data: float, x0: Tensor, eps: Tensor, apart: int) -> Tensor:
        """The target whose squared error, times 1 - share, differs from the contrast by nothing that hangs on D.

        Args:
            x: noised examples, shape (n, ...).
            sigma: their levels, shape (n,).
            sigma_data: standard deviation of the data.
            x0, eps: what they are made of; n is a multiple of twice `apart`.
            apart: the other example of each stands so many rows from it.
        """
        away, noise = (part.view(-1, 2, apart, *part.shape[1:]).flip(1).view_as(part) for part in (x0, eps))
        other = self.other(x, sigma, sigma_data, away, noise)
        return (x0 - self.share * other) / (1 - self.share)

    def pushed(self, denoiser: Denoiser, mean: Tensor, sigma_data: float) -> Denoiser:
        """The denoiser that is best under the contrast, from the one that is best without: an affine map of it, which
        is guidance by what is pushed away from on average.

        Args:
            denoiser: the one to be pushed.
            mean: of the data, shape (...).
            sigma_data: their standard deviation.
        """

        def average(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
            here = mean.to(x).expand_as(x)
            return self.other(x, sigma, sigma_data, here, torch.zeros_like(here))

        return autoguide(denoiser, average, 1 / (1 - self.share))
