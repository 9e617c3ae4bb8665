"""How near a set of samples is to a set of real images, from features of both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ajest.errors import UserError
from ajest.tasks.statistics import checked

_Z = 1.959964  # 97.5 % quantile of the normal distribution
TOP = 5  # guesses of a classifier that count as right, beside the best one alone
_ROWS = 1024  # of a matrix of pairs at a time: memory grows with n, not with n^2


@dataclass(frozen=True)
class Moments:
    """Mean (d,) and covariance (d, d) of features in float64, with their number n.

    Attributes:
        factor: where n is at most d, the features less their mean over the root of n - 1, shape (n, d): its own product
            is the covariance, and it is smaller.
    """

    mean: Tensor
    cov: Tensor
    n: int
    factor: Tensor | None = None


@dataclass(frozen=True)
class Kid:
    """Kernel distance with its 95 % interval."""

    value: float
    low: float
    high: float


def moments(features: Tensor | np.ndarray) -> Moments:
    """Mean and unbiased covariance (divided by n - 1) of features (n, d), n at least 2.

    Raises:
        UserError: fewer than two, or numbers that are not finite.
    """
    x = torch.as_tensor(features)
    found = streamed(x.split(_ROWS))
    if found.n > len(found.mean):
        return found
    return replace(found, factor=(x.to(found.mean) - found.mean) / (found.n - 1) ** 0.5)


def streamed(blocks: Iterable[Tensor]) -> Moments:
    """The moments of features that come a block (n_i, d) at a time: no two blocks need be in memory at once.

    Each block's mean and scatter matrix in float64 are joined with those of all before it (Chan, Golub and LeVeque
    1983, The American Statistician 37): nothing large is subtracted from anything large.

    Raises:
        UserError: fewer than two in all, or numbers that are not finite.
    """
    n, mean, scatter = 0, torch.zeros(0), torch.zeros(0)
    for block in blocks:
        x = checked(block, 1)
        if n == 0:
            mean, scatter = x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1], x.shape[1])
        own = x.mean(0)
        x = x - own
        shift = own - mean
        scatter.addmm_(x.T, x).addr_(shift, shift, alpha=n * len(x) / (n + len(x)))
        mean = mean + shift * (len(x) / (n + len(x)))
        n += len(x)
    if n < 2:
        raise UserError(f"features of {n} images are too few: at least 2 are needed")
    return Moments(mean, scatter / (n - 1), n)


def without(whole: Moments, part: Moments) -> Moments:
    """The moments of what is left of a set when a part of at most half of it is taken away (`streamed`, solved for the
    other block)."""
    n = whole.n - part.n
    if n < part.n:
        raise ValueError(f"a part of {part.n} is more than half of {whole.n}: the rest would be inexact")
    mean = whole.mean + (whole.mean - part.mean) * (part.n / n)
    shift = mean - part.mean
    scatter = whole.cov * (whole.n - 1) - part.cov * (part.n - 1)
    scatter.addr_(shift, shift, alpha=-n * part.n / whole.n)
    return Moments(mean, scatter / (n - 1), n)


def _factor(cov: Tensor) -> Tensor:
    """A matrix F with `F^T F` the covariance: Cholesky's, or the symmetric root of one that is not of full rank, whose
    rounding below 0 counts as 0."""
    cov = (cov + cov.T) / 2
    lower, failed = torch.linalg.cholesky_ex(cov)
    if not failed:
        return lower.T
    values, vectors = torch.linalg.eigh(cov)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def frechet_distance(a: Moments, b: Moments) -> float:
    """`|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2)` (FID, arXiv 1706.08500, equation 6).

    In float64, without shrinkage. With any factor `C_b = F^T F` the root's trace is that of `(F C_a F^T)^1/2`, a
    symmetric eigenproblem: nothing can become complex, and covariances of fewer images than features (rank-deficient)
    need no care. Of n images fewer than features it has n rows.

    Raises:
        UserError: moments that are not finite, or of different widths.
    """
    if a.mean.shape != b.mean.shape:
        raise UserError(f"features of widths {len(a.mean)} and {len(b.mean)} cannot be compared: use one network")
    for m in (a, b):
        if not bool(torch.isfinite(m.mean).all() and torch.isfinite(m.cov).all()):
            raise UserError("mean or covariance of features is not finite: look at the samples")
    first, other = sorted((a, b), key=lambda m: math.inf if m.factor is None else m.n)  # the smallest factor at hand
    factor = _factor(first.cov.double()) if first.factor is None else first.factor
    inner = factor @ other.cov.double() @ factor.T
    cross = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp_min(0).sqrt().sum()
    value = float((a.mean - b.mean).double().square().sum() + a.cov.trace() + b.cov.trace() - 2 * cross)
    if not np.isfinite(value):
        raise UserError("the Fréchet distance overflows: are the features of a sensible size?")
    return max(value, 0.0)


def kid(x: Tensor | np.ndarray, y: Tensor | np.ndarray) -> Kid:
    """Unbiased squared MMD with the kernel `(f . g / d + 1)^3` (KID, arXiv 1801.01401).

    Over all pairs at once (the exact U-statistic; Gretton et al. 2012, JMLR 13, lemma 6), not as the mean over random
    subsets: it has the least variance and needs no random numbers. The interval is the value plus and minus 1.96
    standard errors by the jackknife, which leaves out one image of either set at a time. It is asymptotically exact
    for different distributions; for equal ones, where the U-statistic is degenerate, it errs on the wide side (the
    jackknife's variance is then about twice the true one).

    Args:
        x, y: features (n, d) and (m, d); at least three each. Exchanging them changes nothing.

    Raises:
        UserError: too few, of different widths, or not finite.
    """
    x, y = checked(x, 3), checked(y, 3)
    if x.shape[1] != y.shape[1]:
        raise UserError(f"features of widths {x.shape[1]} and {y.shape[1]} cannot be compared: use one network")
    n, m = len(x), len(y)
    own_x, own_y = _kernel_sums(x, x) - _kernel_own(x), _kernel_sums(y, y) - _kernel_own(y)
    of_x, of_y = _kernel_sums(x, y), _kernel_sums(y, x)
    cross = of_x.sum()
    value = own_x.sum() / (n * (n - 1)) + own_y.sum() / (m * (m - 1)) - 2 * cross / (n * m)
    # The estimate without each image, up to what all of one set share.
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


def consistency(logits: Tensor, labels: Tensor, indices: Sequence[int]) -> tuple[float, float]:
    """(top-1, top-5) share of images that a classifier, restricted to some classes, takes for their own.

    Args:
        logits: (n, 1000) of ImageNet.
        labels: (n,), numbers into `indices`.
        indices: ImageNet's index of each class.
    """
    among = logits[:, list(indices)]
    best = among.topk(min(TOP, len(indices)), 1).indices == labels.to(among.device)[:, None]
    return float(best[:, 0].double().mean()), float(best.any(1).double().mean())
