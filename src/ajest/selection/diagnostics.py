"""Can scores be trusted: do they repeat, do they measure more than the noise level, what do they leave of a batch?"""

from __future__ import annotations

import torch
from torch import Tensor

from .normalisation import ranks


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of two vectors; 0 where one of them does not vary."""
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    scale = float(a.norm() * b.norm())
    return float(a @ b) / scale if scale > 0 else 0.0


def rank_correlation(a: Tensor, b: Tensor, stratum: Tensor | None = None) -> float:
    """Spearman's correlation; within strata by ranks there, if they are given."""
    stratum = torch.zeros(len(a), dtype=torch.int64, device=a.device) if stratum is None else stratum
    ranked = []
    for values in (a.double(), b.double()):
        place, size = ranks(values, stratum)
        ranked.append((place + 0.5) / size)
    return correlation(*ranked)


def effective_share(probability: Tensor) -> float:
    """Effective sample size of a choice, as a share of the super-batch: `(sum p)^2 / (B sum p^2)`, 1 for even odds
    (Kish 1965)."""
    p = probability.double()
    return float(p.sum().square() / (len(p) * p.square().sum()))
