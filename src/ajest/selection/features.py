"""Directions of examples, for a coupling between them: what the gradient of each example's loss looks like, roughly."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ajest.diffusion.batch import Batch
from ajest.diffusion.denoising import at_least_float32, per_example_loss
from ajest.diffusion.network import evaluation_mode, sketches
from ajest.errors import check

#: The denoiser's error, pooled; or a sketch of the gradient with respect to the last layer, from the network itself.
Features = Literal["residual", "gradient"]
_POOLED = 4  # x 4 cells of an image


@torch.no_grad()
def score_with_features(
    network: Any, batch: Batch, kind: Features, micro_batch: int | None = None
) -> tuple[Tensor, Tensor]:
    """(losses of shape (B,), features of shape (B, d)) of a network in evaluation mode, without a graph.

    Args:
        network: a denoiser; for "gradient" a `SketchingNetwork`.
        batch: a completed super-batch.
        kind: see `Features`.
        micro_batch: score this many examples at a time; None scores all at once.

    Raises:
        UserError: gradients are asked for of a network that does not sketch them.
    """
    check(
        kind != "gradient" or sketches(network),
        f"{type(network).__name__} gives no sketch of gradients: write its method `sketched` "
        '(see ajest.diffusion.network.SketchingNetwork), or take features of the kind "residual"',
    )
    losses, features = [], []
    with evaluation_mode(network):
        for part in batch.split(micro_batch or max(len(batch), 1)):
            if kind == "gradient":
                denoised, direction = network.sketched(part.x, part.sigma, part.label, part.target, part.weight)
            else:
                denoised = network(part.x, part.sigma, part.label)
                direction = _residual(denoised, part)
            losses.append(per_example_loss(denoised, part))
            features.append(direction)
    return torch.cat(losses), torch.cat(features)


def _residual(denoised: Tensor, part: Batch) -> Tensor:
    assert part.target is not None
    error = at_least_float32(denoised) - part.target
    error = error * at_least_float32(part.weight).sqrt().view(-1, *[1] * (part.x.ndim - 1))
    return (adaptive_avg_pool2d(error, _POOLED) if error.ndim == 4 else error).flatten(1)
