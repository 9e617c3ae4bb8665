"""How near a set of samples is to a set of real pictures, from features of both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from .. import checkpoint, distributed
from ..errors import Corrupt, UserError
from .extractors import Extractor, Features, extract

_Z = 1.959964  # 97.5 % quantile of the normal distribution
TOP = 5  # guesses of a classifier that count as right, beside the best one alone
_ROWS = 1024  # of a matrix of pairs at a time: memory grows with n, not with n^2


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
    """Precision, recall and coverage are shares from 0 to 1; density is a mean count over k and can exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def _checked(features: Tensor | np.ndarray, least: int = 2) -> Tensor:
    """Features in float64, finite and at least so many."""
    x = torch.as_tensor(features).double()
    if x.ndim != 2 or len(x) < least:
        raise UserError(f"features of shape {(*x.shape,)} are too few: at least {least} pictures are needed")
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x).all(1)).sum())
        raise UserError(f"the features of {bad} of {len(x)} pictures are not finite: look at the samples")
    return x


def moments(features: Tensor | np.ndarray) -> Moments:
    """Mean and unbiased covariance (divided by n - 1) of features (n, d), n at least 2.

    Raises:
        UserError: fewer than two, or numbers that are not finite.
    """
    x = _checked(features)
    mean = x.mean(0)
    centred = x - mean
    return Moments(mean, centred.T @ centred / (len(x) - 1), len(x))


def _root(matrix: Tensor) -> Tensor:
    """Symmetric square root of a positive semi-definite matrix; rounding below 0 counts as 0."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def frechet_distance(a: Moments, b: Moments) -> float:
    """`|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2)` (FID, arXiv 1706.08500, equation 6).

    In float64, without shrinkage, by two symmetric eigenproblems: nothing can become complex, and covariances of
    fewer pictures than features (rank-deficient) need no care.

    Raises:
        UserError: moments that are not finite, or of different widths.
    """
    if a.mean.shape != b.mean.shape:
        raise UserError(f"features of widths {len(a.mean)} and {len(b.mean)} cannot be compared: use one network")
    for m in (a, b):
        if not bool(torch.isfinite(m.mean).all() and torch.isfinite(m.cov).all()):
            raise UserError("mean or covariance of features is not finite: look at the samples")
    root = _root(a.cov.double())
    inner = root @ b.cov.double() @ root
    cross = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp_min(0).sqrt().sum()
    value = float((a.mean - b.mean).double().square().sum() + a.cov.trace() + b.cov.trace() - 2 * cross)
    if not np.isfinite(value):
        raise UserError("the Fréchet distance overflows: are the features of a sensible size?")
    return max(value, 0.0)


def kid(x: Tensor | np.ndarray, y: Tensor | np.ndarray) -> Kid:
    """Unbiased squared MMD with the kernel `(f . g / d + 1)^3` (KID, arXiv 1801.01401).

    Over all pairs at once (the exact U-statistic; Gretton et al. 2012, JMLR 13, lemma 6), not as the mean over random
    subsets: it has the least variance and needs no random numbers. The interval is the value plus and minus 1.96
    standard errors by the jackknife, which leaves out one picture of either set at a time. It is asymptotically exact
    for different distributions; for equal ones, where the U-statistic is degenerate, it errs on the wide side (the
    jackknife's variance is then about twice the true one).

    Args:
        x, y: features (n, d) and (m, d); at least three each. Exchanging them changes nothing.

    Raises:
        UserError: too few, of different widths, or not finite.
    """
    x, y = _checked(x, 3), _checked(y, 3)
    if x.shape[1] != y.shape[1]:
        raise UserError(f"features of widths {x.shape[1]} and {y.shape[1]} cannot be compared: use one network")
    n, m = len(x), len(y)
    own_x, own_y = _kernel_sums(x, x) - _kernel_own(x), _kernel_sums(y, y) - _kernel_own(y)
    of_x, of_y = _kernel_sums(x, y), _kernel_sums(y, x)
    cross = of_x.sum()
    value = own_x.sum() / (n * (n - 1)) + own_y.sum() / (m * (m - 1)) - 2 * cross / (n * m)
    # The estimate without each picture, up to what all of one set share.
    without_x = -2 * own_x / ((n - 1) * (n - 2)) + 2 * of_x / ((n - 1) * m)
    without_y = -2 * own_y / ((m - 1) * (m - 2)) + 2 * of_y / ((m - 1) * n)
    variance = sum((len(w) - 1) ** 2 / len(w) * w.var() for w in (without_x, without_y))
    reach = _Z * float(variance) ** 0.5
    return Kid(float(value), float(value) - reach, float(value) + reach)


def _kernel_sums(x: Tensor, y: Tensor) -> Tensor:
    """Sum of the kernel of each x with all y, shape (n,)."""
    d = x.shape[1]
    return torch.cat([(part @ y.T).div_(d).add_(1).pow_(3).sum(1) for part in x.split(_ROWS)])


def _kernel_own(x: Tensor) -> Tensor:
    """Kernel of each x with itself, shape (n,)."""
    return (x.square().sum(1) / x.shape[1] + 1) ** 3


def prdc(real: Tensor | np.ndarray, fake: Tensor | np.ndarray, k: int = 5, directions: bool = False) -> Prdc:
    """Precision and recall (arXiv 1904.06991), density and coverage (arXiv 2002.09797), by neighbours.

    The ball of a picture reaches to its k-th nearest other of the same set, edge included. For two equal sets
    precision, recall and coverage are 1 and density is (k + 1) / k, since each picture lies in its own ball too.

    Args:
        real, fake: features (n, d) and (m, d), more than k each.
        k: neighbours.
        directions: compare the directions of features alone (scaled to length 1). Pictures that excite a network
            little, such as noise and blur, have short features: by plain distances these lie in the middle of all
            others, within nearly every ball, and an untrained model has a precision of 1.

    Raises:
        UserError: too few, of different widths, or not finite.
    """
    if k < 1:
        raise UserError(f"neighbour metrics need k of at least 1, not {k}")
    x, y = _checked(real, k + 1), _checked(fake, k + 1)
    if x.shape[1] != y.shape[1]:
        raise UserError(f"features of widths {x.shape[1]} and {y.shape[1]} cannot be compared: use one network")
    if directions:
        x, y = (normalize(part) for part in (x, y))
    centre = x.mean(0)  # distances by products lose digits far from the origin
    x, y = x - centre, y - centre
    edge = 1e-12 * float(x.square().sum(1).max() + y.square().sum(1).max())  # rounding puts nothing outside its ball
    reach_x, reach_y = (
        # The nearest of all is the picture itself.
        torch.cat([part.kthvalue(k + 1, 1).values for part in _squared_distances(s, s)]) + edge
        for s in (x, y)
    )
    balls = torch.zeros(len(y), dtype=torch.int64)  # of real pictures, around each sample
    recalled, covered = 0, 0
    for distances, reach in zip(_squared_distances(x, y), reach_x.split(_ROWS), strict=True):
        inside = distances <= reach[:, None]
        balls += inside.sum(0)
        covered += int(inside.any(1).sum())
        recalled += int((distances <= reach_y).any(1).sum())
    return Prdc(
        precision=float((balls > 0).double().mean()),
        recall=recalled / len(x),
        density=float(balls.double().mean() / k),
        coverage=covered / len(x),
    )


def _squared_distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Squared distances of some x at a time to all y."""
    size = y.square().sum(1)
    for part in x.split(_ROWS):
        yield (part.square().sum(1)[:, None] + size).addmm_(part, y.T, alpha=-2).clamp_min_(0)


def consistency(logits: Tensor, labels: Tensor, indices: Sequence[int]) -> tuple[float, float]:
    """(top-1, top-5) share of pictures that a classifier, restricted to some classes, takes for their own.

    Args:
        logits: (n, 1000) of ImageNet.
        labels: (n,), numbers into `indices`.
        indices: ImageNet's index of each class.
    """
    among = logits[:, list(indices)]
    best = among.topk(min(TOP, len(indices)), 1).indices == labels.to(among.device)[:, None]
    return float(best[:, 0].double().mean()), float(best.any(1).double().mean())


def reference_features(images: np.ndarray, digest: str, network: Extractor, cache: Path, batch: int = 16) -> Features:
    """Features of real pictures, kept in the folder `cache` by content and network.

    Args:
        images: uint8, shape (N, 3, R, R).
        digest: of their content and order.
        network: the feature network; its `identity` tells its weights.
        cache: folder. What is damaged in there is made anew.
        batch: pictures at a time.

    Raises:
        UserError: the folder cannot be written to.
    """
    what = f"{digest}\n{network.identity}\n{'x'.join(map(str, images.shape))}"
    stem = cache / "features" / hashlib.blake2b(what.encode(), digest_size=16).hexdigest()
    kept = _kept(stem, (len(images), network.width))
    if not distributed.anywhere(kept is None) and kept is not None:
        return kept
    found = extract(images, network, batch)
    tensors = {"features": found.features} | ({} if found.logits is None else {"logits": found.logits})
    checkpoint.save(stem, tensors, {"pictures": len(found), "data": digest, "network": network.identity})
    return found


def _kept(stem: Path, shape: tuple[int, int]) -> Features | None:
    try:
        tensors = checkpoint.load(stem).tensors
        return Features(tensors["features"], tensors.get("logits")) if tensors["features"].shape == shape else None
    except (Corrupt, KeyError):
        return None
