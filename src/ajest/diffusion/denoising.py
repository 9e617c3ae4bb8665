"""Noise levels and the per-example denoising loss (EDM, arXiv 2206.00364).

See docs/method.md#noise and docs/method.md#loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ajest.errors import check

from .batch import Batch


def check_noise(p_mean: float, p_std: float, sigma_data: float) -> None:
    """Raise a UserError unless these settings of training noise can be: mean and standard deviation of ln sigma,
    standard deviation of the data."""
    check(math.isfinite(p_mean), f"p_mean must be a number, not {p_mean}")
    check(0 < p_std < math.inf, f"p_std must be above 0, not {p_std}")
    check(0 < sigma_data < math.inf, f"sigma_data must be above 0, not {sigma_data}")


class Denoiser(Protocol):
    """Anything that estimates E[x0 | x]: `denoiser(x, sigma, label) -> estimate`, shapes of `x`, (n,), any."""

    def __call__(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True)
class LogNormal:
    """Training noise levels, `ln sigma ~ N(mean, std^2)` (EDM, arXiv 2206.00364, table 1)."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise ValueError(f"the std of ln sigma must be positive, not {self.std}")

    def __call__(self, normal: Tensor) -> Tensor:
        """Turn standard normal numbers into noise levels."""
        return torch.exp(normal * self.std + self.mean)


def score_weight(sigma: Tensor) -> Tensor:
    """Weight 1 / sigma^2, with which the loss is sigma^2 times the mean squared score error."""
    return sigma.square().reciprocal()


def edm_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """Weight `(sigma^2 + s^2) / (sigma s)^2`, which makes the loss of an untrained network 1 at every noise level
    (EDM, arXiv 2206.00364, table 1)."""
    return (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()


def at_least_float32(values: Tensor) -> Tensor:
    """The values, in float32 if they are of a shorter type: sums, ranks and races need its digits."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def per_example_loss(denoised: Tensor, batch: Batch) -> Tensor:
    """`weight(sigma) * mean_d (D - target)^2`, shape (n,), without any uncertainty term; float32 at least
    (docs/method.md#loss).

    Raises:
        ValueError: the batch has no target yet.
    """
    if batch.target is None:
        raise ValueError("the batch has no target: complete it with its source before asking for a loss")
    error = (at_least_float32(denoised) - batch.target).square()
    return at_least_float32(batch.weight) * error.flatten(1).mean(1)


def objective(losses: Tensor, batch: Batch, network: object) -> Tensor:
    """What training minimises, shape (n,): the losses, or for a network with an uncertainty head `u(sigma)`
    `d (loss / exp(u) + u)`, d elements an example: the sum over pixels of EDM2 (arXiv 2312.02696, equation 21); plus
    the term of a network that has one (`terms.WithTerm`).
    """
    extra = getattr(network, "extra", None)
    if extra is not None:
        losses = losses + extra(batch)
    head = getattr(network, "uncertainty", None)
    if head is None:
        return losses
    u = head(batch.sigma)
    return batch.x[0].numel() * (losses / u.exp() + u)
