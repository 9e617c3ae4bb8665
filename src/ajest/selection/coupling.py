"""Joint selection with a coupling: what resembles the examples drawn before is drawn less (docs/method.md#coupling)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .gumbel import race
from .normalisation import Normalisation
from .policies import Criterion, check_count, chunk_factors, logits_of
from .scoring import Scores


def joint(
    scores: Scores,
    count: int,
    generator: torch.Generator | None = None,
    *,
    criterion: Criterion = "learnability",
    chunks: int = 16,
    temperature: float = 1.0,
    normalise: Normalisation = "zscore",
    strata: int = 1,
    redundancy: float = 1.0,
) -> Tensor:
    """Chunks drawn from a softmax over `s_i / temperature - redundancy * f_i . mean of the f drawn so far`.

    A denoising loss has no cross terms, so JEST's own rule couples nothing. Here the coupling is the alignment of
    feature directions: examples whose gradients point the way that is drawn already add less. O(B d) a chunk.

    Args:
        scores: what `criterion` names, and `features`, shape (B, d), taken as directions (scaled to length 1).
        count: how many to choose.
        generator: random numbers, on the scores' device.
        criterion: which score.
        chunks: N; the first is drawn by the scores alone.
        temperature, normalise, strata: of the scores, see `policies.softmax`; draws are from all strata.
        redundancy: lambda, the weight of the coupling, in units of logits.
    """
    check_count(scores, count)
    logits = logits_of(scores, criterion, normalise, strata, temperature, 1.0)
    features = normalize(scores.needed("features"))
    total = features.new_zeros(features.shape[1])
    taken = torch.zeros(len(scores), dtype=torch.bool, device=logits.device)
    chosen: list[Tensor] = []
    drawn = 0
    for _, size in chunk_factors(count, chunks):
        coupled = torch.addmv(logits, features, total, alpha=-redundancy / max(drawn, 1))
        indices = torch.topk(race(coupled, generator).masked_fill_(taken, torch.inf), size, largest=False).indices
        taken.index_fill_(0, indices, True)
        total += features[indices].sum(0)
        drawn += size
        chosen.append(indices)
    return torch.cat(chosen)
