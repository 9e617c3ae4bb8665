"""Guidance: from two denoisers to a denoiser, so that every sampler works guided without knowing it.

Autoguidance, arXiv 2406.02507; docs/method.md#guidance.
"""

from __future__ import annotations

import torch
from torch import Tensor

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


def relabelled(guide: Denoiser, numbers: Tensor | None) -> Denoiser:
    """A guide that learned other labels, or none, as one that is asked with the labels of what it guides.

    Args:
        guide: the denoiser that guides.
        numbers: the guide's label for each label of what it guides, int64, shape (classes,); None asks it without any.
    """

    def asked(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        own = (
            None if numbers is None or label is None else torch.where(label < 0, label, numbers.to(label.device)[label])
        )
        return guide(x, sigma, own)

    return asked
