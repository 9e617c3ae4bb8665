"""Scores on one scale: overall, within strata of the noise level, or against running statistics of that level.

Losses vary with sigma far more than with the example, so raw scores mostly select noise levels
(docs/method.md#stratified). And the softmax temperature means something only if scores are free of the loss's scale.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ajest.diffusion.denoising import at_least_float32
from ajest.errors import UserError, unknown

#: "none"; "zscore" (mean 0, standard deviation 1); "rank" (uniform on [0, 1]); "running" (less the running mean at that
#: noise level, over its running standard deviation: for super-batches too small for strata of their own).
#: Or one that was registered, see `rules.register_normalisation`.
Normalisation = str


def strata_of(sigma: Tensor, strata: int) -> Tensor:
    """The stratum of each example, shape (B,), int64: 0 for the lowest noise levels, equally many in each (a
    difference of one where `strata` does not divide B).

    Raises:
        UserError: more strata than examples.
    """
    count = len(sigma)
    if not 1 <= strata <= count:
        raise UserError(f"{count} examples cannot be cut into {strata} strata: take at most {count}")
    place = torch.arange(count, device=sigma.device) * strata // count
    return torch.empty_like(place).scatter_(0, sigma.argsort(), place)


def sizes_of(stratum: Tensor) -> Tensor:
    """How many examples each stratum has, int64, with room for as many strata as there are examples: to ask for the
    highest number would wait for the device."""
    return torch.zeros_like(stratum).scatter_add_(0, stratum, torch.ones_like(stratum))


def ranks(values: Tensor, stratum: Tensor) -> tuple[Tensor, Tensor]:
    """(place of each value among those of its stratum, from 0 for the lowest; size of its stratum), shape (B,) each,
    in the type of `values`, float32 at least."""
    values = at_least_float32(values)
    sizes = sizes_of(stratum).to(values.dtype)
    order = values.argsort(stable=True)
    order = order[stratum[order].argsort(stable=True)]
    here = stratum[order]
    place = torch.arange(len(values), dtype=values.dtype, device=values.device) - (sizes.cumsum(0) - sizes)[here]
    return torch.empty_like(values).scatter_(0, order, place), sizes[stratum]


def normalised(
    values: Tensor, how: Normalisation, stratum: Tensor | None = None, running_stats: Tensor | None = None
) -> Tensor:
    """Values on one scale, shape (B,), float32 at least, within each stratum by itself where strata are given.

    Args:
        values: scores, shape (B,).
        how: see `Normalisation`.
        stratum: number of each example's stratum, shape (B,), int64, as `strata_of` gives it.
        running_stats: for "running", mean and standard deviation of scores at each example's noise level, shape (B, 2).

    Raises:
        ValueError: "running" without `running_stats`.
        UserError: an unknown normalisation.
    """
    values = at_least_float32(values)
    if how == "none":
        return values
    if how == "running":
        if running_stats is None:
            raise ValueError("running normalisation needs the running statistics of scores at each noise level")
        return (values - running_stats[:, 0]) / running_stats[:, 1].clamp_min(torch.finfo(values.dtype).tiny)
    if how not in NORMALISATIONS:
        raise unknown("normalisation", how, ("none", "running", *NORMALISATIONS))
    return NORMALISATIONS[how](values, torch.zeros_like(values, dtype=torch.int64) if stratum is None else stratum)


def zscore(values: Tensor, stratum: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 in each stratum, shape (B,)."""
    sizes = sizes_of(stratum).to(values.dtype)
    mean = torch.zeros_like(sizes).index_add_(0, stratum, values) / sizes
    centred = values - mean[stratum]
    variance = torch.zeros_like(sizes).index_add_(0, stratum, centred.square()) / (sizes - 1).clamp_min(1)
    return centred / variance.sqrt().clamp_min(torch.finfo(values.dtype).tiny)[stratum]


def rank(values: Tensor, stratum: Tensor) -> Tensor:
    """Uniform on [0, 1] in each stratum, shape (B,)."""
    place, size = ranks(values, stratum)
    return place / (size - 1).clamp_min(1)


#: Values of shape (B,), float32 at least, and the stratum of each, int64, to values on one scale.
Normaliser = Callable[[Tensor, Tensor], Tensor]
NORMALISATIONS: dict[str, Normaliser] = {"zscore": zscore, "rank": rank}


def eta_squared(values: Tensor, stratum: Tensor) -> float:
    """Share of the variance of `values` that lies between strata (eta squared, with its chance value taken out):
    how much of a score is the noise level. 0 on average for none, 1 for all."""
    values = values.double()
    sizes = torch.bincount(stratum).double()
    mean = torch.zeros_like(sizes).index_add_(0, stratum, values) / sizes
    count, groups = len(values), len(sizes)
    total = (values - values.mean()).square().sum()
    inside = (values - mean[stratum]).square().sum()
    if total == 0 or count <= groups:
        return 0.0
    return 1 - float(inside / (count - groups) / (total / (count - 1)))
