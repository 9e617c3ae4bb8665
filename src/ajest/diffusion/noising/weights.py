"""Weights of the squared error of the denoiser, as functions of r = sigma / sigma_data.

A loss on the noise, on a velocity or on the score is one on the denoiser with such a weight (docs/method.md#weights);
only the product of weight and density of ln r sets the objective.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .levels import DDPM_BETA, SPEED_EDGES, ddpm_time
from .parameters import Function, check_named, words_of


def x0(r: Tensor) -> Tensor:
    """The squared error of the denoiser itself."""
    return torch.ones_like(r)


def eps(r: Tensor) -> Tensor:
    """That of the noise (DDPM, arXiv 2006.11239, equation 14), and of sigma times the score."""
    return r.square().reciprocal()


def edm(r: Tensor) -> Tensor:
    """EDM (arXiv 2206.00364, table 1); also the v of a variance-preserving process (arXiv 2202.00512)."""
    return 1 + r.square().reciprocal()


def flow(r: Tensor) -> Tensor:
    """The squared error of the velocity of a straight flow, t = r / (1 + r)."""
    return (1 + r.reciprocal()).square()


def min_snr(r: Tensor, gamma: float = 5.0) -> Tensor:
    """The signal-to-noise ratio, at most gamma (Min-SNR, arXiv 2303.09556)."""
    return eps(r).clamp_max(gamma)


def soft_min_snr(r: Tensor, gamma: float = 1.0) -> Tensor:
    """The same without a corner, SNR gamma / (SNR + gamma) (HDiT, arXiv 2401.11605); with gamma 1 it is
    P2 at its defaults."""
    return gamma / (1 + gamma * r.square())


def p2(r: Tensor, k: float = 1.0, gamma: float = 1.0) -> Tensor:
    """SNR / (k + SNR)^gamma (P2, arXiv 2204.00227)."""
    return eps(r) / (k + eps(r)).pow(gamma)


def speed_paper(r: Tensor) -> Tensor:
    """That of the noise, times the weight of SpeeD's paper (arXiv 2405.17403): from 0.4 to 0.6 with the slope of
    1 - alpha bar on DDPM's linear schedule."""
    low, span = DDPM_BETA
    _, rate = ddpm_time(r.log().double())
    slope = rate * (-(rate.square() - low**2) / (2 * span)).exp()  # beta(t) alpha bar(t)
    least, most = (at * math.exp(-(at**2 - low**2) / (2 * span)) for at in (low + span, span**0.5))
    return eps(r) * (0.4 + 0.2 * ((slope - least) / (most - least)).clamp(0, 1)).to(r.dtype)


def speed_code(r: Tensor) -> Tensor:
    """The same as SpeeD's public code has it: that of the noise itself, at full weight, from time 0.7 on."""
    t, _ = ddpm_time(r.log().double())
    return torch.where(t >= SPEED_EDGES[-1], eps(r), speed_paper(r))


WEIGHTS: dict[str, Function] = {
    "x0": x0,
    "eps": eps,
    "edm": edm,
    "flow": flow,
    "min-snr": min_snr,
    "soft-min-snr": soft_min_snr,
    "p2": p2,
    "speed-paper": speed_paper,
    "speed-code": speed_code,
}


@dataclass(frozen=True)
class Weighting:
    """A weight of the squared error.

    Attributes:
        name: of a registered weight.
        parameters: of it, in its order; those left out have its own values.
    """

    name: str
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_named("weight", self.name, WEIGHTS, self.parameters)

    def __str__(self) -> str:
        return words_of(self.name, *self.parameters)

    def __call__(self, sigma: Tensor, sigma_data: float) -> Tensor:
        """Weights at noise levels, of their shape: in units of 1 / sigma_data^2, in which the error is measured."""
        return WEIGHTS[self.name](sigma / sigma_data, *self.parameters) / sigma_data**2
