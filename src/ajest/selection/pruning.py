"""Rules from the literature on pruning data, which score no super-batch: InfoBatch (docs/method.md#infobatch) and SpeeD
(docs/method.md#speed)."""

from __future__ import annotations

import torch
from torch import Tensor

from .gumbel import inclusion, race
from .normalisation import Normalisation, normalised, ranks
from .policies import check_count
from .scoring import Scores


def infobatch(
    scores: Scores, count: int, generator: torch.Generator | None = None, *, normalise: Normalisation = "none"
) -> Tensor:
    """Examples of at least mean score first, and a random part of the others.

    InfoBatch (arXiv 2303.04947) prunes a random part of the examples below the mean and rescales the gradients of
    the others of them. Here a fixed number is kept, so the pruned part follows from it; a part of them is always
    kept, so that weights by `infobatch_inclusion` make the choice unbiased. With "running" the mean is that of each
    noise level.
    """
    check_count(scores, count)
    above, first = _infobatch_parts(scores, count, normalise)
    times = race(torch.zeros_like(scores.needed("learner")), generator)
    place, _ = ranks(times, above.long())  # at random within each part
    dropped = torch.where(above, place >= first, place >= count - first)
    return dropped.byte().argsort(stable=True)[:count]  # those that are kept, in their order


def infobatch_inclusion(scores: Scores, count: int, *, normalise: Normalisation = "none") -> Tensor:
    """Inclusion probabilities of `infobatch`, shape (B,), float64, exact."""
    above, first = _infobatch_parts(scores, count, normalise)
    high = above.sum()
    chance = first.double() / high.clamp_min(1), (count - first).double() / (len(scores) - high).clamp_min(1)
    return torch.where(above, *chance).float().double()


_INFOBATCH_LEAST = 0.1  # of what is kept comes from below the mean


def _infobatch_parts(scores: Scores, count: int, normalise: Normalisation) -> tuple[Tensor, Tensor]:
    """(which are at least the mean, how many of these are kept)."""
    values = normalised(scores.needed("learner"), normalise, None, scores.running_stats)[0]
    above = values >= values.mean()
    high = above.sum()
    least = (len(scores) - high).clamp_max(max(1, round(_INFOBATCH_LEAST * count)))
    return above, torch.minimum(high, count - least).clamp_min(0)


def speed(
    scores: Scores,
    count: int,
    generator: torch.Generator | None = None,
    *,
    threshold: float = 1.0,
    suppression: float = 5.0,
) -> Tensor:
    """Noise levels above a threshold are kept `suppression` times as rarely; nothing is scored.

    After SpeeD (arXiv 2405.17403, section 3.2), which calls the noisiest steps, where the process has converged
    to noise, the convergence area and samples it 1 / k as often (k = 5). There the area begins at a step of a DDPM
    schedule; here at a noise level, by default twice sigma_data = 0.5. Its change-aware weighting of the loss is left
    out: EDM's loss weight has that part.
    """
    check_count(scores, count)
    logits = _speed_logits(scores, threshold, suppression)
    return torch.topk(race(logits, generator), count, largest=False, sorted=False).indices


def speed_inclusion(scores: Scores, count: int, *, threshold: float = 1.0, suppression: float = 5.0) -> Tensor:
    """Inclusion probabilities of `speed`, shape (B,), float64, by the approximation of `gumbel.inclusion`."""
    return inclusion([(_speed_logits(scores, threshold, suppression), count)])


def _speed_logits(scores: Scores, threshold: float, suppression: float) -> Tensor:
    sigma = scores.needed("sigma")
    return -torch.log(torch.where(sigma > threshold, suppression, 1.0).to(sigma))
