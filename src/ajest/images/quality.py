"""How near a set of samples is to a set of real pictures, from features of both."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import checkpoint
from ..errors import Corrupt, UserError
from .extractors import Extractor, Features, extract

_Z = 1.959964  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Moments:
    """Mean (d,) and covariance (d, d) of features in float64, with their number n."""

    mean: Tensor
    cov: Tensor
    n: int


@dataclass(frozen=True)
class Kid:
    """Kernel distance with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Prdc:
    """Shares and counts of neighbours."""

    precision: float
    recall: float
    density: float
    coverage: float


def moments(features: Tensor) -> Moments:
    """Mean and covariance (divided by n - 1) of features (n, d).

    Raises:
        UserError: fewer than two, or numbers that are not finite.
    """
    x = features.double()
    if len(x) < 2 or not bool(torch.isfinite(x).all()):
        raise UserError(f"{len(x)} features, some of them not finite, have no covariance: are the samples finite?")
    centred = x - x.mean(0)
    return Moments(x.mean(0), centred.T @ centred / (len(x) - 1), len(x))


def _root(matrix: Tensor) -> Tensor:
    """Symmetric square root of a positive semi-definite matrix; rounding below 0 counts as 0."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def frechet_distance(a: Moments, b: Moments) -> float:
    """`|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2)` (FID, arXiv 1706.08500, equation 6).

    In float64, without shrinkage, by two symmetric eigenproblems: it cannot become complex, and what is not finite is
    an error.

    Raises:
        UserError: the distance is not finite.
    """
    root = _root(a.cov)
    inner = root @ b.cov @ root
    cross = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp_min(0).sqrt().sum()
    value = float((a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * cross)
    if not np.isfinite(value):
        raise UserError("the Fréchet distance is not finite: are the features?")
    return max(value, 0.0)


def kid(real: Tensor, fake: Tensor) -> Kid:
    """Unbiased squared MMD with the kernel `(f . g / d + 1)^3` over all pairs (KID, arXiv 1801.01401).

    The interval is that of the U-statistic's jackknife over samples: its influence of each real and each fake
    picture gives the variance.

    Args:
        real, fake: features (n, d) and (m, d); at least two each.
    """
    x, y = real.double(), fake.double()
    d, n, m = x.shape[1], len(x), len(y)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / d + 1) ** 3

    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    of_x = (xx.sum(1) - xx.diagonal()) / (n - 1)
    of_y = (yy.sum(1) - yy.diagonal()) / (m - 1)
    value = float(of_x.mean() + of_y.mean() - 2 * xy.mean())
    # First-order influence of each picture on the estimate.
    spread = (2 * (of_x - xy.mean(1))).var() / n + (2 * (of_y - xy.mean(0))).var() / m
    reach = _Z * float(spread.clamp_min(0).sqrt())
    return Kid(value, value - reach, value + reach)


def prdc(real: Tensor, fake: Tensor, k: int = 5) -> Prdc:
    """Precision and recall (arXiv 1904.06991, equation 1), density and coverage (arXiv 2002.09797, equations 4, 6).

    Args:
        real, fake: features (n, d) and (m, d), more than k each.
        k: the radius of a picture is the distance to its k-th nearest other of the same set.
    """
    if min(len(real), len(fake)) <= k:
        raise UserError(f"neighbour metrics with k = {k} need more than {k} pictures of both kinds")
    x, y = real.double(), fake.double()
    radius_x = torch.cdist(x, x).kthvalue(k + 1, 1).values  # the nearest is the picture itself
    radius_y = torch.cdist(y, y).kthvalue(k + 1, 1).values
    distance = torch.cdist(x, y)
    inside = distance <= radius_x[:, None]
    return Prdc(
        precision=float(inside.any(0).double().mean()),
        recall=float((distance <= radius_y[None, :]).any(1).double().mean()),
        density=float(inside.double().sum(0).mean() / k),
        coverage=float((distance.amin(1) <= radius_x).double().mean()),
    )


def consistency(logits: Tensor, labels: Tensor, indices: tuple[int, ...]) -> tuple[float, float]:
    """(top-1, top-5) share of pictures that a classifier, restricted to some classes, takes for their own.

    Args:
        logits: (n, 1000) of ImageNet.
        labels: (n,), numbers into `indices`.
        indices: ImageNet's index of each class.
    """
    among = logits[:, list(indices)]
    best = among.topk(min(5, len(indices)), 1).indices == labels[:, None]
    return float(best[:, 0].double().mean()), float(best.any(1).double().mean())


def reference_features(images: np.ndarray, digest: str, network: Extractor, cache: Path) -> Features:
    """Features of real pictures, kept in the folder `cache` by content and network.

    Args:
        images: uint8, shape (N, 3, h, w).
        digest: of what they are.
        network: the feature network.
        cache: folder.
    """
    name = hashlib.blake2b(f"{digest}\n{network.identity}\n{len(images)}".encode(), digest_size=16).hexdigest()
    stem = cache / "features" / name
    try:
        tensors = checkpoint.load(stem).tensors
        return Features(tensors["features"], tensors.get("logits"))
    except (Corrupt, KeyError):
        pass
    found = extract(images, network)
    tensors = {"features": found.features} | ({} if found.logits is None else {"logits": found.logits})
    checkpoint.save(stem, tensors, {"pictures": len(found), "network": network.identity})
    return found
