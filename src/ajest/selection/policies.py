"""Policies: which examples of a super-batch to train on.

A policy is a pure function `policy(scores, count, generator) -> indices` of device tensors, `count` distinct
int64 indices into the super-batch. `POLICIES` registers them by name; `policy(name, **dials)` makes one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..errors import UserError, unknown
from .scoring import Scores

PolicyFunction = Callable[[Scores, int, torch.Generator | None], Tensor]
Normalisation = Literal["none", "zscore", "rank"]


def uniform(scores: Scores, count: int, generator: torch.Generator | None = None) -> Tensor:
    """The first `count`: examples of a super-batch are exchangeable, so this is training on what is drawn."""
    _check(scores, count)
    return torch.arange(count, device=scores.taken.device)


def random(scores: Scores, count: int, generator: torch.Generator | None = None) -> Tensor:
    """`count` at random, without replacement."""
    _check(scores, count)
    device = scores.taken.device
    return torch.randperm(len(scores), generator=generator, device=device)[:count]


def jest(
    scores: Scores,
    count: int,
    generator: torch.Generator | None = None,
    *,
    chunks: int = 16,
    temperature: float = 1.0,
    normalise: Normalisation = "none",
    sign: float = 1.0,
) -> Tensor:
    """Joint example selection for a loss without cross terms, in closed form (METHOD 3).

    The published rule draws `chunks` chunks: the first uniformly, each further one without replacement from a
    softmax over `sum_m (s_im + s_mi) / (2 n + 1)`, n drawn so far. For a denoising loss, `s_ij = l_i - r_j`,
    every logit is `(n + 1) / (2 n + 1) * (l_i - r_i)` plus a constant that all share. So each chunk is a Gumbel
    top-k, O(B), and no B x B matrix is needed. The defaults are exactly the published rule (`paper` mode).

    Args:
        scores: learner's and reference's losses.
        count: how many to choose.
        generator: random numbers, on the scores' device.
        chunks: N; where it does not divide `count`, the first chunks take one more.
        temperature: divides the logits.
        normalise: "none"; "zscore" (mean 0, standard deviation 1); or "rank" (uniform on [0, 1]).
        sign: -1 prefers the least learnable instead.

    Raises:
        UserError: fewer examples to choose than chunks, or a temperature that is not positive.
    """
    _check(scores, count)
    if not 1 <= chunks <= count:
        raise UserError(
            f"{count} examples cannot be chosen in {chunks} chunks: take at most {count} chunks, "
            "a larger super-batch or a larger keep fraction"
        )
    if not temperature > 0:
        raise UserError(f"the temperature must be positive, not {temperature}")
    logits = _normalised(scores.learnability, normalise) * (sign / temperature)
    # A Gumbel top-k in the form of an exponential race: the k smallest of E_i / exp(logit_i), in logarithms.
    race = torch.empty_like(logits)
    taken = torch.zeros(len(scores), dtype=torch.bool, device=logits.device)
    chosen: list[Tensor] = []
    drawn = 0
    for chunk in range(chunks):
        size = count // chunks + (chunk < count % chunks)
        factor = (drawn + 1) / (2 * drawn + 1) if chunk else 0.0
        # -log(1 - U) is exponential; its 24 random bits are ample, and several times as fast as exponential_ on a CPU.
        race.uniform_(generator=generator).neg_().add_(1).log_().neg_().log_().sub_(logits, alpha=factor)
        race.masked_fill_(taken, torch.inf)
        indices = torch.topk(race, size, largest=False, sorted=False).indices
        taken[indices] = True
        chosen.append(indices)
        drawn += size
    return torch.cat(chosen)


def within(
    choose: PolicyFunction, size: int, scores: Scores, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """Apply a policy to each `size` consecutive examples by themselves (the published image code, METHOD 5).

    Raises:
        UserError: the examples cannot be cut into equal parts, or the count cannot be shared among them.
    """
    _check(scores, count)
    parts = -(-len(scores) // size)
    if len(scores) % size or count % parts:
        raise UserError(f"{count} of {len(scores)} examples cannot be chosen within equal parts of {size}")
    return torch.cat(
        [choose(scores[i * size : (i + 1) * size], count // parts, generator) + i * size for i in range(parts)]
    )


def learnability(scores: Scores, count: int, generator: torch.Generator | None = None) -> Tensor:
    """The `count` most learnable (RHO-loss, arXiv 2206.07137, equation 3)."""
    _check(scores, count)
    return torch.topk(scores.learnability, count, sorted=False).indices


def high_loss(scores: Scores, count: int, generator: torch.Generator | None = None) -> Tensor:
    """The `count` of highest learner loss (online hard example mining)."""
    _check(scores, count)
    return torch.topk(scores.needed_learner, count, sorted=False).indices


def easy_reference(scores: Scores, count: int, generator: torch.Generator | None = None) -> Tensor:
    """The `count` of lowest reference loss (JEST's "easy reference" rule, arXiv 2406.17711, section 3.1)."""
    _check(scores, count)
    return torch.topk(scores.needed_reference, count, largest=False, sorted=False).indices


@dataclass(frozen=True)
class Policy:
    """A registered policy.

    Attributes:
        function: the pure function.
        needs: which scores it reads: none, the learner's, the reference's. A policy that reads none is never
            given a super-batch: only what it trains on is drawn.
        dials: names of its extra keyword arguments.
        summary: one line for people.
    """

    function: Callable[..., Tensor]
    needs: frozenset[str]
    dials: frozenset[str]
    summary: str


_BOTH = frozenset({"learner", "reference"})
_JEST_DIALS = frozenset({"chunks", "temperature", "normalise"})

POLICIES: dict[str, Policy] = {
    "uniform": Policy(uniform, frozenset(), frozenset(), "train on everything drawn"),
    "random": Policy(random, frozenset(), frozenset(), "a random part; only that part is drawn, none is scored"),
    "jest": Policy(jest, _BOTH, _JEST_DIALS, "JEST in closed form: chunked softmax draws by learnability"),
    "inverted-jest": Policy(
        partial(jest, sign=-1.0), _BOTH, _JEST_DIALS, "JEST with the sign turned: the least learnable"
    ),
    "learnability": Policy(learnability, _BOTH, frozenset(), "the most learnable, no sampling (RHO-loss)"),
    "high-loss": Policy(high_loss, frozenset({"learner"}), frozenset(), "the highest learner loss"),
    "easy-reference": Policy(easy_reference, frozenset({"reference"}), frozenset(), "the lowest reference loss"),
}


def policy(name: str, **dials: object) -> PolicyFunction:
    """The policy of that name with its dials set, e.g. `policy("jest", chunks=8, temperature=0.5)`.

    Raises:
        UserError: no such policy, or a dial it does not have.
    """
    if name not in POLICIES:
        raise unknown("policy", name, POLICIES)
    entry = POLICIES[name]
    for dial in dials:
        if dial not in entry.dials:
            has = ", ".join(sorted(entry.dials)) or "none"
            raise UserError(f"policy {name!r} has no dial {dial!r}; it has: {has}")
    return partial(entry.function, **dials)


def select(
    scores: Scores,
    count: int,
    name: str = "jest",
    generator: torch.Generator | None = None,
    **dials: object,
) -> Tensor:
    """Choose `count` examples by the policy of that name; see `POLICIES` and `policy`."""
    return policy(name, **dials)(scores, count, generator)


def _normalised(values: Tensor, how: Normalisation) -> Tensor:
    if how == "none":
        return values
    if how == "zscore":
        return (values - values.mean()) / values.std().clamp_min(torch.finfo(values.dtype).tiny)
    if how == "rank":
        ranks = torch.empty_like(values)
        order = values.argsort()
        ranks[order] = torch.arange(len(values), dtype=values.dtype, device=values.device)
        return ranks / max(len(values) - 1, 1)
    raise unknown("normalisation", how, ["none", "zscore", "rank"])


def _check(scores: Scores, count: int) -> None:
    if not 1 <= count <= len(scores):
        raise UserError(
            f"cannot choose {count} of {len(scores)} examples: the keep fraction must keep at least one and at most all"
        )
