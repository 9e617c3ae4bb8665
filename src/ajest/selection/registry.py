"""The policies by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from ajest.errors import UserError, check, listed, unknown

from . import policies as p
from . import pruning
from .coupling import joint
from .scoring import Scores
from .strata import LEAST_IN_STRATUM


@dataclass(frozen=True)
class Policy:
    """A registered policy.

    Attributes:
        function: the pure function.
        needs: which scores it reads: "learner", "reference", "sigma", "features". A policy that reads neither losses
            nor noise levels is never given a super-batch: only what it trains on is drawn.
        dials: names of its extra keyword arguments.
        summary: one line for people.
        inclusion: the probability of being chosen (the expected number of times), from scores, count and the same
            dials; None where it is not known.
    """

    function: Callable[..., Tensor]
    needs: frozenset[str]
    dials: frozenset[str]
    summary: str
    inclusion: Callable[..., Tensor] | None = None

    def default(self, dial: str) -> Any:
        """What one of its dials is where nobody sets it; None if it has no such dial."""
        return signature(self.function).parameters[dial].default if dial in self.dials else None


_NONE: frozenset[str] = frozenset()
_BOTH = frozenset({"learner", "reference"})
_LEARNER, _REFERENCE, _SIGMA = frozenset({"learner"}), frozenset({"reference"}), frozenset({"sigma"})
_DRAW = frozenset({"temperature", "normalise", "strata"})
_JEST = _DRAW | {"chunks"}


def _softmax(criterion: p.Criterion, needs: frozenset[str], summary: str, sign: float = 1.0) -> Policy:
    made, chance = (
        partial(p.softmax, criterion=criterion, sign=sign),
        partial(p.softmax_inclusion, criterion=criterion, sign=sign),
    )
    return Policy(made, needs | _SIGMA, _DRAW, summary, chance)


POLICIES: dict[str, Policy] = {
    "uniform": Policy(p.uniform, _NONE, _NONE, "train on everything drawn", p.evenly),
    "random": Policy(p.random, _NONE, _NONE, "a random part; only that part is drawn, none is scored", p.evenly),
    "jest": Policy(
        p.jest, _BOTH, _JEST, "JEST in closed form: chunked softmax draws by learnability", p.jest_inclusion
    ),
    "inverted-jest": Policy(
        partial(p.jest, sign=-1.0),
        _BOTH,
        _JEST,
        "JEST with the sign turned: the least learnable",
        partial(p.jest_inclusion, sign=-1.0),
    ),
    "learnable": _softmax("learnability", _BOTH, "softmax draws by learnability within strata of the noise level"),
    "hard": _softmax("learner", _LEARNER, "softmax draws by the learner's loss within strata of the noise level"),
    "easy": _softmax("learner", _LEARNER, "the same for low losses: a control", sign=-1.0),
    "guide-hard": _softmax("reference", _REFERENCE, "softmax draws by the reference's loss alone, within strata"),
    "joint": Policy(
        joint, _BOTH | {"features"}, _JEST | {"redundancy"}, "JEST with a coupling: directions drawn before count less"
    ),
    "joint-hard": Policy(
        partial(joint, criterion="learner"),
        _LEARNER | {"features"},
        _JEST | {"redundancy"},
        "draws by the learner's loss with a coupling",
    ),
    "proportional": Policy(
        p.proportional,
        _LEARNER,
        frozenset({"power"}),
        "with replacement, proportional to a power of the loss",
        p.proportional_inclusion,
    ),
    "infobatch": Policy(
        pruning.infobatch,
        _LEARNER | _SIGMA,
        frozenset({"normalise"}),
        "examples below the mean are pruned at random (InfoBatch)",
        pruning.infobatch_inclusion,
    ),
    "speed": Policy(
        pruning.speed, _SIGMA, _NONE, "the noisiest levels are kept a fifth as often (SpeeD)", pruning.speed_inclusion
    ),
    "learnability": Policy(p.top, _BOTH, _NONE, "the most learnable, no sampling (RHO-loss)"),
    "high-loss": Policy(partial(p.top, criterion="learner"), _LEARNER, _NONE, "the highest learner loss"),
    "easy-reference": Policy(
        partial(p.top, criterion="reference", sign=-1.0), _REFERENCE, _NONE, "the lowest reference loss"
    ),
}
"""All policies by name, those that were registered too."""


def policy(name: str, **dials: object) -> p.PolicyFunction:
    """The policy of that name with its dials set, e.g. `policy("jest", chunks=8, temperature=0.5)`.

    Raises:
        UserError: no such policy, or a dial it does not have.
    """
    return partial(_found(name, dials).function, **dials)


def inclusion_of(name: str, **dials: object) -> Callable[[Scores, int], Tensor] | None:
    """The probability that the policy of that name chooses each example, as a function of scores and count; None where
    it is not known.

    Raises:
        UserError: no such policy, or a dial it does not have.
    """
    chance = _found(name, dials).inclusion
    return None if chance is None else partial(chance, **dials)


def select(
    scores: Scores,
    count: int,
    name: str = "jest",
    generator: torch.Generator | None = None,
    **dials: object,
) -> Tensor:
    """Choose `count` of the examples whose scores are finite, by the policy of that name; see `POLICIES` and `policy`.

    Waits for the device of the scores, to know which are finite.

    Raises:
        UserError: no such policy, a dial it does not have, or too few examples.
    """
    choose = policy(name, **dials)
    strata: Any = dials.get("strata", POLICIES[name].default("strata")) or 1
    check(
        strata == 1 or len(scores) >= LEAST_IN_STRATUM * strata,
        f"{len(scores)} examples are too few for {strata} strata of the noise level: {name!r} needs {LEAST_IN_STRATUM} "
        f"in each; set strata={max(1, len(scores) // LEAST_IN_STRATUM)}",
    )
    finite = scores.finite()
    if finite is None:
        return choose(scores, count, generator)
    check(
        len(finite) >= count,
        f"cannot choose {count} examples: of the {len(scores)} scores {len(finite)} are finite; lower the learning "
        "rate, or leave out this step",
    )
    return finite[choose(scores[finite], count, generator)]


def importance(probability: Tensor, count: int) -> Tensor:
    """Weights that make the mean over `count` chosen examples an unbiased estimate of the mean over the super-batch,
    `count / (B p)`, shape (B,), float32 (Horvitz and Thompson 1952; Hansen and Hurwitz 1943 with replacement).

    Args:
        probability: of being chosen, or expected number of times, shape (B,), from `inclusion_of`.
        count: how many are chosen.
    """
    return (count / (len(probability) * probability)).float()


def _found(name: str, dials: dict[str, object]) -> Policy:
    if name not in POLICIES:
        raise unknown("policy", name, POLICIES)
    entry = POLICIES[name]
    for dial in dials:
        if dial not in entry.dials:
            has = listed(sorted(entry.dials)) or "none"
            raise UserError(f"policy {name!r} has no dial {dial!r}; it has: {has}")
    return entry
