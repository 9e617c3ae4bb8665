"""Guidance: from several denoisers to a denoiser, so that every sampler works guided without knowing it.

Autoguidance, arXiv 2406.02507; classifier-free guidance, arXiv 2207.12598; docs/method.md#guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .conditions import without
from .denoising import Denoiser


def autoguide(main: Denoiser, guide: Denoiser, weight: float, interval: tuple[float, float] | None = None) -> Denoiser:
    """`D_w = D_guide + w (D_main - D_guide)` (autoguidance, arXiv 2406.02507, equation 3).

    The guide is a smaller, less trained version of `main`. Classifier-free guidance is the same formula with an
    unconditional guide.

    Args:
        main: the denoiser to be steered.
        guide: the weaker one to be steered away from.
        weight: 1 is no guidance (then `main` itself is returned).
        interval: guide only where `low <= sigma <= high`; None guides everywhere.
    """
    if weight == 1:
        return main

    def guided(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        if interval is None:
            return torch.lerp(guide(x, sigma, label), main(x, sigma, label), weight)
        strong = main(x, sigma, label)
        inside = (sigma >= interval[0]) & (sigma <= interval[1])
        if not bool(inside.any()):
            return strong
        inside = inside.expand(len(x)).view(-1, *[1] * (x.ndim - 1))
        return torch.where(inside, torch.lerp(guide(x, sigma, label), strong, weight), strong)

    return guided


@dataclass(frozen=True)
class Guide:
    """What a denoiser is steered away from.

    Attributes:
        denoiser: the weaker or less informed one.
        weight: 1 is no guidance.
        interval: noise levels between which it guides; None is all.
    """

    denoiser: Denoiser
    weight: float
    interval: tuple[float, float] | None = None


def guided(main: Denoiser, guides: Sequence[Guide]) -> Denoiser:
    """`D = D_main + sum_i (w_i - 1) (D_main - D_i)`: several guides at once, such as that of autoguidance and the
    unconditional one of classifier-free guidance.

    Differences of scores add up as in arXiv 2206.01714, equation 11. With one guide it is `autoguide`.

    Args:
        main: the denoiser to be steered; asked once a step.
        guides: those of weight 1 are left out.
    """
    active = [guide for guide in guides if guide.weight != 1]
    if len(active) < 2:
        return autoguide(main, active[0].denoiser, active[0].weight, active[0].interval) if active else main

    def steered(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        strong = found = main(x, sigma, label)
        for guide in active:
            if guide.interval is None:
                found = found + (guide.weight - 1) * (strong - guide.denoiser(x, sigma, label))
                continue
            inside = (sigma >= guide.interval[0]) & (sigma <= guide.interval[1])
            if bool(inside.any()):
                push = (guide.weight - 1) * (strong - guide.denoiser(x, sigma, label))
                inside = inside.expand(len(x)).view(-1, *[1] * (x.ndim - 1))
                found = found + torch.where(inside, push, 0.0)
        return found

    return steered


def relabelled(guide: Denoiser, numbers: Tensor | None) -> Denoiser:
    """A guide that learned other labels, or none, as one that is asked with the labels of what it guides.

    Args:
        guide: the denoiser that guides.
        numbers: the guide's label for each label of what it guides, int64, shape (classes,); None asks it without any,
            see `conditions.without`.
    """

    def asked(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        if numbers is None or label is None:
            return guide(x, sigma, without(label))
        return guide(x, sigma, torch.where(label < 0, label, numbers.to(label.device)[label]))

    return asked
