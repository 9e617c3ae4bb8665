"""What a network predicts, as coefficients of the denoiser on data of standard deviation 1.

With x = x0 + r eps each of them is D = skip x + out F, F the prediction. So the squared error of F is that of D times
1 / out^2: a weight of `ajest.diffusion.noising.WEIGHTS` (docs/method.md#objectives).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ajest.diffusion.noising.weights import Weighting
from ajest.errors import unknown


@dataclass(frozen=True)
class Parametrisation:
    """What a network predicts.

    Attributes:
        name: of it.
        coefficients: (skip, out) at r = sigma / sigma_data, of its shape.
        weighting: of the denoiser's squared error, with which it is the prediction's own.
        meaning: what is predicted, for people.
    """

    name: str
    coefficients: Callable[[Tensor], tuple[Tensor, Tensor]]
    weighting: Weighting
    meaning: str


def _x0(r: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(r), torch.ones_like(r)


def _eps(r: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ones_like(r), -r


def _edm(r: Tensor) -> tuple[Tensor, Tensor]:
    cosine = torch.rsqrt(1 + r.square())
    return cosine.square(), r * cosine


def _v(r: Tensor) -> tuple[Tensor, Tensor]:
    skip, out = _edm(r)
    return skip, -out


def _flow(r: Tensor) -> tuple[Tensor, Tensor]:
    clean = 1 / (1 + r)
    return clean, -r * clean


PARAMETRISATIONS: dict[str, Parametrisation] = {
    p.name: p
    for p in (
        Parametrisation("x0", _x0, Weighting("x0"), "the clean example (arXiv 2202.00512)"),
        Parametrisation("eps", _eps, Weighting("eps"), "the noise (DDPM, arXiv 2006.11239)"),
        Parametrisation("v", _v, Weighting("edm"), "alpha eps - sigma x0, alpha^2 + sigma^2 = 1 (arXiv 2202.00512)"),
        Parametrisation("flow", _flow, Weighting("flow"), "eps - x0, a straight flow's velocity (arXiv 2209.03003)"),
        Parametrisation("edm", _edm, Weighting("edm"), "what EDM's preconditioning leaves (arXiv 2206.00364): -v"),
    )
}
"""All parametrisations by name."""


def parametrisation_named(name: str) -> Parametrisation:
    """The parametrisation of a name.

    Raises:
        UserError: there is none.
    """
    if name not in PARAMETRISATIONS:
        raise unknown("parametrisation", name, PARAMETRISATIONS)
    return PARAMETRISATIONS[name]


def weighting_of(objective: str) -> Weighting | None:
    """Of the denoiser's squared error, so that it is that of what a network predicts; None for EDM's, which sources of
    examples have without it (`ajest.diffusion.denoising.edm_weight`).

    Raises:
        UserError: there is no such parametrisation.
    """
    return None if objective == "edm" else parametrisation_named(objective).weighting
