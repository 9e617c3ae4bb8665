"""Statistics of two sets of examples, each a row of numbers: coordinates, or features of images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ajest.errors import UserError

_ROWS = 1024  # of a matrix of pairs at a time: memory grows with n, not with n^2


@dataclass(frozen=True)
class Prdc:
    """Precision, recall and coverage are shares from 0 to 1; density is a mean count over k and can exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def checked(features: Tensor | np.ndarray, least: int = 2) -> Tensor:
    """Features (n, d) in float64, finite and at least so many.

    Raises:
        UserError: fewer, of another shape, or not finite.
    """
    x = torch.as_tensor(features).double()
    if x.ndim != 2 or len(x) < least:
        raise UserError(f"features of shape {(*x.shape,)} are too few: at least {least} examples are needed")
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x).all(1)).sum())
        raise UserError(f"the features of {bad} of {len(x)} examples are not finite: look at the samples")
    return x


def prdc(real: Tensor | np.ndarray, fake: Tensor | np.ndarray, k: int = 3, k_dense: int = 5) -> Prdc:
    """Precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991, equations 1 and 2), density and coverage
    (Naeem et al. 2020, arXiv 2002.09797, section 3), by Euclidean distances of features.

    The ball of an example reaches to its k-th nearest other of the same set, edge included.

    Args:
        real, fake: features (n, d) and (m, d), more than k and k_dense each.
        k: neighbours for precision and recall; 3 is the published number.
        k_dense: neighbours for density and coverage; 5 is the published number.

    Raises:
        UserError: too few, of different widths, or not finite.
    """
    if min(k, k_dense) < 1:
        raise UserError(f"neighbour metrics need k of at least 1, not {min(k, k_dense)}")
    x, y = checked(real, max(k, k_dense) + 1), checked(fake, k + 1)
    if x.shape[1] != y.shape[1]:
        raise UserError(f"features of widths {x.shape[1]} and {y.shape[1]} cannot be compared: use one network")
    centre = x.mean(0)  # distances by products lose digits far from the origin
    x, y = x - centre, y - centre
    edge = 1e-12 * float(x.square().sum(1).max() + y.square().sum(1).max())  # rounding puts nothing outside its ball
    reach_x, dense_x = (reach + edge for reach in _reaches(x, (k, k_dense)))
    (reach_y,) = (reach + edge for reach in _reaches(y, (k,)))
    precise = torch.zeros(len(y), dtype=torch.bool)
    balls, recalled, covered = 0, 0, 0
    for part, distances in zip(torch.arange(len(x)).split(_ROWS), squared_distances(x, y), strict=True):
        precise |= (distances <= reach_x[part, None]).any(0)
        recalled += int((distances <= reach_y).any(1).sum())
        inside = distances <= dense_x[part, None]
        balls += int(inside.sum())
        covered += int(inside.any(1).sum())
    return Prdc(
        precision=float(precise.double().mean()),
        recall=recalled / len(x),
        density=balls / (k_dense * len(y)),
        coverage=covered / len(x),
    )


def _reaches(x: Tensor, ks: tuple[int, ...]) -> list[Tensor]:
    """Squared distances (n,) of each x to its k-th nearest other, for each k."""
    # The nearest of all is the example itself.
    nearest = torch.cat([part.topk(max(ks) + 1, 1, largest=False).values for part in squared_distances(x, x)])
    return [nearest[:, k] for k in ks]


def squared_distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Squared distances of x (n, d) to all y (m, d), a block (n_i, m) at a time, in the order of x."""
    size = y.square().sum(1)
    for part in x.split(_ROWS):
        yield (part.square().sum(1)[:, None] + size).addmm_(part, y.T, alpha=-2).clamp_min_(0)
