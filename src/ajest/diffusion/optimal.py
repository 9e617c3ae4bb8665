"""The least loss that any denoiser can have, by noise level (arXiv 2506.13763; docs/method.md#optimal-loss).

At a noise level it is E tr Cov[x0 | x], here a coordinate's mean times the loss's weight. Where the distribution is
known it is the loss of the exact denoiser. Of a data set it is estimated from a part of its examples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ajest.runtime.distributed import in_chunks

from .batch import Batch
from .denoising import Denoiser, LogNormal, per_example_loss

#: Noise levels are looked at in so many ranges, each as likely as any other in training.
LEVELS = 12
_FEW = 64  # dimensions in which distances are computed one difference at a time


@dataclass(frozen=True)
class OptimalLoss:
    """The least loss by noise level, lowest first; weighted as the task's.

    Attributes:
        sigma: geometric mean of the noise levels of each range.
        value: the least loss, or an estimate of it.
        low, high: between what it lies; both are `value` where the distribution is known.
        error: standard error of `value`, from the random numbers that it was estimated with.
    """

    sigma: tuple[float, ...]
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    error: tuple[float, ...]

    @property
    def exact(self) -> bool:
        """Whether the distribution is known."""
        return self.low == self.high


def by_level(noise: LogNormal, sigma: Tensor, values: Mapping[str, Tensor]) -> dict[str, tuple[float, ...]]:
    """Means over each of `LEVELS` equally likely ranges of the training noise, lowest first; NaN of an empty range.

    Args:
        noise: distribution of the training noise.
        sigma: noise level of each example, shape (n,).
        values: of the examples, shape (n,) each, by name.

    Returns:
        Means of the values, and as "sigma" the geometric mean of the noise levels.
    """
    place = range_of(noise, sigma)
    count = torch.bincount(place, minlength=LEVELS)

    def means(of: Tensor) -> tuple[float, ...]:
        sums = torch.zeros(LEVELS, dtype=torch.float64).index_add_(0, place, of.detach().double().cpu())
        return tuple((sums / count).tolist())

    centres = tuple(math.exp(mean) for mean in means(sigma.double().log()))
    return {"sigma": centres} | {name: means(of) for name, of in values.items()}


def range_of(noise: LogNormal, sigma: Tensor) -> Tensor:
    """The range that each noise level lies in, int64, shape (n,), on the CPU."""
    share = torch.special.ndtr((sigma.detach().double().log().cpu() - noise.mean) / noise.std)
    return (share * LEVELS).long().clamp(0, LEVELS - 1)


def exact_optimum(noise: LogNormal, batch: Batch, exact: Denoiser, chunk: int) -> OptimalLoss:
    """The least loss of a distribution whose best denoiser is known: that denoiser's own loss.

    Args:
        noise: distribution of the training noise.
        batch: noised examples whose target is the clean one.
        exact: the posterior mean E[x0 | x].
        chunk: examples that are denoised at a time.
    """

    @torch.no_grad()
    def losses(some: slice) -> Tensor:
        part = batch[some]
        return per_example_loss(exact(part.x, part.sigma, part.label), part)

    sigma, value, error = _with_error(noise, batch.sigma, in_chunks(losses, len(batch), chunk))
    return OptimalLoss(sigma, value, value, value, error)


def dataset_optimum(
    noise: LogNormal, learned: Batch, held_out: Batch, references: Batch, total: int, chunk: int
) -> OptimalLoss:
    """The least loss of a distribution of which a data set is all that is known, and between what it lies.

    The optimum of the data set itself is estimated by cDOL. That of fewer examples is less on average, because they are
    easier to know by heart, and that of the distribution is more: DOL is `low`. The loss of the references' optimum on
    held-out examples is that of some denoiser, so the least one is no more: `high`. Below about s sqrt(d / ln N) the
    data set's optimum knows it by heart, and `value` and `low` fall to 0.

    Args:
        noise: distribution of the training noise.
        learned: noised examples of the data set, whose target is the clean one and whose ids are their numbers in it.
        held_out: noised examples that are not of it, with the clean ones as targets.
        references: other draws from the data set, of which targets, ids and labels are looked at.
        total: examples of the data set, mirrored ones counted too where draws mirror.
        chunk: examples that are looked at at a time.
    """

    def losses(batch: Batch, correction: float | None) -> Tensor:
        def of(some: slice) -> Tensor:
            part = batch[some]
            return per_example_loss(posterior_means(part, references, correction), part)

        return in_chunks(of, len(batch), chunk)

    correction = total / len(references)  # below 1 where examples are among the references several times each
    sigma, value, error = _with_error(noise, learned.sigma, losses(learned, correction))
    low = by_level(noise, learned.sigma, {"loss": losses(learned, 1.0)})["loss"] if correction > 1 else value
    high = by_level(noise, held_out.sigma, {"loss": losses(held_out, None)})["loss"]
    return OptimalLoss(sigma, value, low, high, error)


def posterior_means(batch: Batch, references: Batch, correction: float | None = None) -> Tensor:
    """The mean of clean examples, by how likely each is the one that was noised: kernel
    `exp(-|x - x_l|^2 / (2 sigma^2))`.

    With all examples of a data set as references it is the data set's best denoiser. With some of them it is SNIS;
    with the noised example's own put in it is DOL at a correction of 1, and cDOL at N / L, for L references that were
    drawn from N examples, with which it becomes exact as L grows (arXiv 2506.13763, section 4).

    Args:
        batch: noised examples, with the clean ones as targets where `correction` is given.
        references: examples whose targets are the clean ones, with ids, and labels where the batch has them. Those of
            another label count for nothing, but for examples that have lost theirs.
        correction: each example's own clean one is put in, its kernel divided by this, and is none of the others. None
            puts none in.

    Returns:
        Shape of `batch.x`.
    """
    assert references.target is not None, "references are clean examples"
    clean, x = references.target.flatten(1), batch.x.flatten(1)
    products = x.shape[1] > _FEW  # in many dimensions they lose no digit that counts
    mode = "use_mm_for_euclid_dist" if products else "donot_use_mm_for_euclid_dist"
    logits = torch.cdist(x, clean, compute_mode=mode).square() / (-2 * batch.sigma.square())[:, None]
    if batch.label is not None and references.label is not None:
        other = (references.label != batch.label[:, None]) & (batch.label[:, None] >= 0)
        if correction is None:
            other &= ~other.all(1, keepdim=True)  # without any of its own, all are better than none
        logits = logits.masked_fill(other, -math.inf)
    if correction is None:
        return (logits.softmax(1) @ clean).view_as(batch.x)
    assert batch.target is not None, "its own is put in"
    own = batch.target.flatten(1)
    logits = logits.masked_fill(references.id == batch.id[:, None], -math.inf)
    mine = (x - own).square().sum(1) / (-2 * batch.sigma.square()) - math.log(correction)
    share = torch.cat([logits, mine[:, None]], 1).softmax(1)
    return (share[:, :-1] @ clean + share[:, -1:] * own).view_as(batch.x)


def _with_error(noise: LogNormal, sigma: Tensor, values: Tensor) -> tuple[tuple[float, ...], ...]:
    """(noise levels, means by level, their standard errors)."""
    values = values.double().cpu()
    found = by_level(noise, sigma, {"mean": values, "square": values.square()})
    count = torch.bincount(range_of(noise, sigma), minlength=LEVELS).tolist()
    pairs = zip(found["mean"], found["square"], count, strict=True)
    error = tuple(math.sqrt(max(square - mean**2, 0) / max(n - 1, 1)) for mean, square, n in pairs)
    return found["sigma"], found["mean"], error
