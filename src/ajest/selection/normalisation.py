"""Scores on one scale: overall, within strata of the noise level, or against running statistics of that level.

Losses vary with sigma far more than with the example, so raw scores mostly select noise levels
(docs/method.md#stratified). And the softmax temperature means something only if scores are free of the loss's scale.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ajest.diffusion.denoising import at_least_float32
from ajest.errors import unknown

from .strata import Strata

#: "none"; "zscore" (mean 0, standard deviation 1); "rank" (uniform on [0, 1]); "running" (less the running mean at that
#: noise level, over its running standard deviation: for super-batches too small for strata of their own).
#: Or one that was registered, see `rules.register_normalisation`.
Normalisation = str


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
    values: Tensor, how: Normalisation, strata: Strata | None = None, running_stats: Tensor | None = None
) -> Tensor:
    """Values on one scale within each stratum by itself, in rows as `Strata` has them, float32 at least.

    Args:
        values: scores, shape (n,).
        how: see `Normalisation`.
        strata: of the examples; None: one for all.
        running_stats: for "running", mean and standard deviation of scores at each example's noise level, shape (n, 2).

    Raises:
        ValueError: "running" without `running_stats`.
        UserError: an unknown normalisation.
    """
    strata = Strata(1, len(values)) if strata is None else strata
    values = at_least_float32(values)
    if how == "none":
        return strata.rows(values)
    if how == "running":
        if running_stats is None:
            raise ValueError("running normalisation needs the running statistics of scores at each noise level")
        mean, std = running_stats.unbind(1)
        return strata.rows((values - mean) / std.clamp_min(torch.finfo(values.dtype).tiny))
    if how not in NORMALISATIONS:
        raise unknown("normalisation", how, ("none", "running", *NORMALISATIONS))
    return NORMALISATIONS[how](strata.rows(values), strata)


def zscore(rows: Tensor, strata: Strata) -> Tensor:
    """Mean 0 and standard deviation 1 in each stratum."""
    std, mean = strata.std_and_mean(rows)
    return (rows - mean).div_(std.clamp_min_(torch.finfo(rows.dtype).tiny))


def rank(rows: Tensor, strata: Strata) -> Tensor:
    """Uniform on [0, 1] in each stratum; equal values have the mean of their ranks."""
    filled = strata.filled(rows, torch.inf).contiguous()
    ordered = filled.sort(1).values
    first, after = (torch.searchsorted(ordered, filled, right=right) for right in (False, True))
    return (first + after - 1).to(rows.dtype) / (2 * strata.others)


#: Values in rows, float32 at least, and their strata, to values on one scale, in rows.
Normaliser = Callable[[Tensor, Strata], Tensor]
NORMALISATIONS: dict[str, Normaliser] = {"zscore": zscore, "rank": rank}


def by_stratum(function: Callable[[Tensor, Tensor], Tensor]) -> Normaliser:
    """A normaliser that was written for values of shape (n,) and the stratum of each, int64."""
    return lambda rows, strata: strata.rows(function(strata.examples(rows), strata.of_each(rows.device)))


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
