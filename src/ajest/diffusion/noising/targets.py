"""Targets between the clean example and the exact posterior mean."""

from __future__ import annotations

import torch
from torch import Tensor

from ajest.diffusion.conditions import is_none


def stable_target(x: Tensor, sigma: Tensor, x0: Tensor, label: Tensor | None, references: int) -> Tensor:
    """The posterior mean over a few clean examples, of which one was noised (stable target field, arXiv 2302.00670).

    Each group of consecutive examples serves as references for its members. Given x and the group, the clean example of
    x is each of them with the probability by which they are averaged here; so the target has the same mean given x as
    the clean example has, at any number of references, and less variance (Rao-Blackwell; docs/method.md#target).

    Args:
        x: noised examples, shape (n, ...); n is a multiple of `references`.
        sigma: their noise levels, shape (n,).
        x0: the clean examples, of the shape of `x`.
        label: conditions, shape (n, ...), or None. Examples are averaged over those of their own condition; over all,
            where they have lost it.
        references: in a group; 1 gives `x0` itself.
    """
    if references == 1:
        return x0
    groups = len(x) // references
    clean, noised = (part.reshape(groups, references, -1) for part in (x0, x))
    distance = torch.cdist(noised, clean, compute_mode="donot_use_mm_for_euclid_dist")
    logits = -distance.square() / (2 * sigma.square().view(groups, references, 1))
    if label is not None:
        condition = label.reshape(groups, references, -1)
        alike = (condition[:, :, None] == condition[:, None]).all(-1)
        alike |= is_none(label).view(groups, references, 1)
        logits = logits.masked_fill(~alike, -torch.inf)
    return (logits.softmax(-1) @ clean).view_as(x0)
