"""Policies: which examples of a super-batch to train on.

A policy is a pure function `policy(scores, count, generator) -> indices` of device tensors: `count` int64 indices
into the super-batch, distinct unless it draws with replacement. `POLICIES` registers them by name;
`policy(name, **dials)` makes one. Where the probability of being chosen is known, `inclusion` gives it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ajest.errors import UserError

from .gumbel import arrivals, inclusion, race, winners
from .normalisation import Normalisation, normalised
from .scoring import Scores
from .strata import Strata, strata_by

PolicyFunction = Callable[[Scores, int, torch.Generator | None], Tensor]

#: The score to choose by: learner's loss minus the reference's, or one of the two.
Criterion = Literal["learnability", "learner", "reference"]


def uniform(scores: Scores, count: int, generator: torch.Generator | None = None) -> Tensor:
    """The first `count`: examples of a super-batch are exchangeable, so this is training on what is drawn."""
    check_count(scores, count)
    return torch.arange(count, device=scores.taken.device)


def random(scores: Scores, count: int, generator: torch.Generator | None = None) -> Tensor:
    """`count` at random, without replacement."""
    check_count(scores, count)
    device = scores.taken.device
    return torch.randperm(len(scores), generator=generator, device=device)[:count]


def evenly(scores: Scores, count: int) -> Tensor:
    """Inclusion probabilities of `uniform` and `random`, shape (B,), float64."""
    return torch.full((len(scores),), count / len(scores), dtype=torch.float64, device=scores.taken.device)


def jest(
    scores: Scores,
    count: int,
    generator: torch.Generator | None = None,
    *,
    chunks: int = 16,
    temperature: float = 1.0,
    normalise: Normalisation = "none",
    strata: int = 1,
    sign: float = 1.0,
) -> Tensor:
    """Joint example selection for a loss without cross terms, in closed form (docs/method.md#jest).

    The published rule draws `chunks` chunks: the first uniformly, each further one without replacement from a
    softmax over `(s_ii + sum_m (s_im + s_mi)) / (2 n + 1)`, n drawn so far. For a denoising loss, `s_ij = l_i - r_j`,
    every logit is `(n + 1) / (2 n + 1) * (l_i - r_i)` plus a constant that all share. So each chunk is a Gumbel
    top-k, O(B), and no B x B matrix is needed. The defaults are exactly the published rule (`paper` mode).

    Args:
        scores: learner's and reference's losses.
        count: how many to choose.
        generator: random numbers, on the scores' device.
        chunks: N; where it does not divide `count`, the first chunks take one more.
        temperature: divides the logits.
        normalise: see `Normalisation`.
        strata: normalise within so many strata of the noise level.
        sign: -1 prefers the least learnable instead.

    Raises:
        UserError: fewer examples to choose than chunks, or a temperature that is not positive.
    """
    check_count(scores, count)
    logits = logits_of(scores, "learnability", normalise, strata, temperature, sign)
    factors, taken = chunk_factors(count, chunks), torch.zeros_like(logits, dtype=torch.bool)
    chosen: list[Tensor] = []
    for (factor, size), times in zip(factors, arrivals((chunks, len(scores)), logits, generator), strict=True):
        times.sub_(logits, alpha=factor).masked_fill_(taken, torch.inf)
        indices = torch.topk(times, size, largest=False, sorted=False).indices
        taken.index_fill_(0, indices, True)
        chosen.append(indices)
    return torch.cat(chosen)


def jest_inclusion(
    scores: Scores,
    count: int,
    *,
    chunks: int = 16,
    temperature: float = 1.0,
    normalise: Normalisation = "none",
    strata: int = 1,
    sign: float = 1.0,
) -> Tensor:
    """Inclusion probabilities of `jest`, shape (B,), float64, by the approximation of `gumbel.inclusion`."""
    logits = logits_of(scores, "learnability", normalise, strata, temperature, sign)
    return inclusion([(logits * factor, size) for factor, size in chunk_factors(count, chunks)])


def chunk_factors(count: int, chunks: int) -> list[tuple[float, int]]:
    """(what JEST's logits are multiplied by, how many are drawn) of each chunk: the first is uniform."""
    if not 1 <= chunks <= count:
        raise UserError(
            f"{count} examples cannot be chosen in {chunks} chunks: take at most {count} chunks, "
            "a larger super-batch or a larger keep fraction"
        )
    factors, drawn = [], 0
    for chunk in range(chunks):
        size = count // chunks + (chunk < count % chunks)
        factors.append(((drawn + 1) / (2 * drawn + 1) if chunk else 0.0, size))
        drawn += size
    return factors


def softmax(
    scores: Scores,
    count: int,
    generator: torch.Generator | None = None,
    *,
    criterion: Criterion = "learner",
    sign: float = 1.0,
    temperature: float = 1.0,
    normalise: Normalisation = "zscore",
    strata: int = 16,
) -> Tensor:
    """Gumbel top-k within strata of the noise level: each stratum keeps its share, by a softmax of its own scores.

    So sigma is kept as drawn, and what is chosen is chosen among examples of one noise level.

    Args:
        scores: what `criterion` names, and `sigma`.
        count: how many to choose.
        generator: random numbers, on the scores' device.
        criterion: which score; with sign -1 low ones are preferred.
        sign: 1 or -1.
        temperature: divides the logits.
        normalise: see `Normalisation`; within each stratum.
        strata: number of strata; 1 draws from all alike.
    """
    check_count(scores, count)
    logits, layout = _logits_in(scores, criterion, normalise, strata, temperature, sign)
    return winners(race(logits, generator), layout, count, generator)


def softmax_inclusion(
    scores: Scores,
    count: int,
    *,
    criterion: Criterion = "learner",
    sign: float = 1.0,
    temperature: float = 1.0,
    normalise: Normalisation = "zscore",
    strata: int = 16,
) -> Tensor:
    """Inclusion probabilities of `softmax`, shape (B,), float64, by the approximation of `gumbel.inclusion`."""
    logits, layout = _logits_in(scores, criterion, normalise, strata, temperature, sign)
    return layout.examples(inclusion([(logits, count)], layout))


def proportional(scores: Scores, count: int, generator: torch.Generator | None = None, *, power: float = 0.5) -> Tensor:
    """`count` draws *with* replacement, with probability proportional to loss^power.

    Power 0.5 of the expected squared loss is the variance-optimal choice of Katharopoulos and Fleuret
    (arXiv 1803.00942) with the loss in place of the gradient norm.
    """
    check_count(scores, count)
    probability = proportional_inclusion(scores, 1, power=power)
    return torch.multinomial(probability, count, replacement=True, generator=generator)


def proportional_inclusion(scores: Scores, count: int, *, power: float = 0.5) -> Tensor:
    """Expected times that `proportional` draws each example, shape (B,), float64, exact."""
    rate = scores.needed("learner").double().clamp_min(0).pow(power)
    rate = rate + rate.mean() * 1e-6 + torch.finfo(torch.float64).tiny  # nothing is impossible, so weights are finite
    return rate * (count / rate.sum())


def top(
    scores: Scores,
    count: int,
    generator: torch.Generator | None = None,
    *,
    criterion: Criterion = "learnability",
    sign: float = 1.0,
) -> Tensor:
    """The `count` of highest score (sign -1: lowest), nothing left to chance."""
    check_count(scores, count)
    return torch.topk(value_of(scores, criterion), count, largest=sign > 0, sorted=False).indices


def within(
    choose: PolicyFunction, size: int, scores: Scores, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """Apply a policy to each `size` consecutive examples by themselves, as published for images
    (docs/method.md#images-recipe). All parts choose equally many; where the count cannot be parted so, the first ones
    choose one more.

    Raises:
        UserError: the examples cannot be cut into equal parts, or there are fewer to choose than parts.
    """
    check_count(scores, count)
    parts, rest = divmod(len(scores), size)
    if rest or count < parts:
        raise UserError(f"{count} of {len(scores)} examples cannot be chosen within equal parts of {size}")
    counts = [count // parts + (i < count % parts) for i in range(parts)]
    return torch.cat(
        [choose(scores[i * size : (i + 1) * size], few, generator) + i * size for i, few in enumerate(counts)]
    )


def value_of(scores: Scores, criterion: Criterion) -> Tensor:
    """One of the scores, shape (B,)."""
    return scores.learnability if criterion == "learnability" else scores.needed(criterion)


def logits_of(
    scores: Scores, criterion: Criterion, normalise: Normalisation, strata: int, temperature: float, sign: float
) -> Tensor:
    """Logits, shape (B,).

    Raises:
        UserError: a temperature that is not positive, or more strata than examples.
    """
    logits, layout = _logits_in(scores, criterion, normalise, strata, temperature, sign)
    return layout.examples(logits)


def _logits_in(
    scores: Scores, criterion: Criterion, normalise: Normalisation, strata: int, temperature: float, sign: float
) -> tuple[Tensor, Strata]:
    """(logits in rows, their strata), see `logits_of`."""
    if not temperature > 0:
        raise UserError(f"the temperature must be positive, not {temperature}")
    layout = strata_by(scores.needed("sigma"), strata) if strata > 1 else Strata(1, len(scores))
    values = normalised(value_of(scores, criterion), normalise, layout, scores.running_stats)
    return values * (sign / temperature), layout


def check_count(scores: Scores, count: int) -> None:
    if not 1 <= count <= len(scores):
        raise UserError(
            f"cannot choose {count} of {len(scores)} examples: the keep fraction must keep at least one and at most all"
        )
