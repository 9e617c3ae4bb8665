"""Arms: the ways of choosing training examples that a bench compares, each differing in one thing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from .config import check
from .errors import UserError, unknown
from .selection.policies import POLICIES, Normalisation, PolicyFunction, policy, within
from .selection.triggers import Trigger

Reference = Literal["none", "guide", "ema"]


@dataclass(frozen=True)
class Arm:
    """One way of choosing what to train on.

    Attributes:
        name: what it is called.
        policy: name of a registered policy.
        keep: share of a super-batch that is trained on while selecting.
        reference: whose losses learnability is measured against: "guide" (AJEST; the snapshot of any other run
            may take its place), "ema" (the learner's own first average) or "none".
        trigger: when to select; on other steps the whole super-batch is trained on.
        chunks, temperature, normalise: dials of JEST policies.
        within: choose the kept share of each so many consecutive examples; None chooses from the whole super-batch.
            The published image code chooses within micro-batches of 128.
        summary: one line for people.
    """

    name: str
    policy: str
    keep: float = 1.0
    reference: Reference = "none"
    trigger: Trigger = field(default_factory=Trigger)
    chunks: int = 16
    temperature: float = 1.0
    normalise: Normalisation = "none"
    within: int | None = None
    summary: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise unknown("policy", self.policy, POLICIES)
        check(
            0 < self.keep <= 1,
            f"arm {self.name!r}: the keep fraction must lie above 0 and at most at 1, not {self.keep}",
        )
        check(self.temperature > 0, f"arm {self.name!r}: the temperature must be positive")
        needs_reference = "reference" in POLICIES[self.policy].needs or self.trigger.compares
        check(
            not needs_reference or self.reference != "none",
            f'arm {self.name!r} compares with a reference: set reference to "guide" or "ema"',
        )

    @property
    def scores(self) -> bool:
        """Whether its policy reads scores, so that a super-batch has to be drawn to choose from."""
        return bool(POLICIES[self.policy].needs)

    def kept(self, super_batch: int) -> int:
        """Examples trained on in a selecting step.

        Raises:
            UserError: none would be kept, or fewer than there are chunks, or the super-batch is no multiple of
                `within`.
        """
        if self.within is not None and self.within != super_batch:
            check(
                self.within >= 1 and super_batch % self.within == 0,
                f"arm {self.name!r}: a super-batch of {super_batch} cannot be cut into parts of {self.within}",
            )
            return super_batch // self.within * replace(self, within=None).kept(self.within)
        count = round(self.keep * super_batch)
        check(
            count >= 1,
            f"arm {self.name!r}: a keep fraction of {self.keep} keeps nothing of {super_batch} examples",
        )
        if "chunks" in POLICIES[self.policy].dials:
            check(
                self.chunks <= count,
                f"arm {self.name!r}: {count} kept examples are fewer than {self.chunks} chunks; "
                "use fewer chunks, a larger super-batch or a larger keep fraction",
            )
        return count

    def choose(self) -> PolicyFunction:
        """The policy with this arm's dials."""
        dials: dict[str, Any] = {d: getattr(self, d) for d in POLICIES[self.policy].dials}
        chosen = policy(self.policy, **dials)
        return chosen if self.within is None else partial(within, chosen, self.within)

    def kinds(self) -> tuple[str, ...]:
        """The kinds of step it can take, named so that steps of equal work have equal names."""
        if not self.scores:
            return ("uniform",) if self.policy == "uniform" else (f"random {self.keep:g}",)
        selecting = f"select {self.policy} {self.reference} {self.keep:g}"
        if self.trigger.mode == "always":
            return (selecting,)
        return (selecting, "watch") if self.trigger.mode == "late" else (selecting, "uniform")


KEEP = 0.2  # the paper's filter ratio of 0.8
_guided = partial(Arm, keep=KEEP, reference="guide")

_ALL = (
    Arm("baseline", "uniform", summary="train on every drawn example"),
    _guided("early-ajest", "jest", trigger=Trigger("early"),
        summary="AJEST until the learner overtakes the guide, then every example"),
    _guided("ajest", "jest", summary="JEST with the guide of autoguidance as reference, on every step"),
    Arm("random", "random", keep=KEEP, summary="a random fifth of the examples, nothing scored"),
    _guided("late-ajest", "jest", trigger=Trigger("late"),
        summary="every example until the learner overtakes the guide, then AJEST"),
    _guided("inverted-ajest", "inverted-jest", summary="the least learnable examples: a control"),
    _guided("early-ajest-paper", "jest", trigger=Trigger("early", half_life=0),
        summary="early AJEST that decides on a single batch, as published"),
    _guided("ajest-zscore", "jest", normalise="zscore",
        summary="AJEST whose scores are normalised, so that the temperature means something"),
    Arm("jest-ema", "jest", keep=KEEP, reference="ema", summary="JEST with the learner's own average as reference"),
    _guided("rho", "learnability", summary="the most learnable fifth, no sampling (RHO-loss)"),
    Arm("high-loss", "high-loss", keep=KEEP, summary="the fifth of highest learner loss, no reference"),
    _guided("easy-reference", "easy-reference", summary="the fifth that the guide finds easiest"),
)  # fmt: skip

ARMS: dict[str, Arm] = {arm.name: arm for arm in _ALL}


def arms_named(
    names: tuple[str, ...], keep: float | None = None, chunks: int | None = None, within: int | None = None
) -> tuple[Arm, ...]:
    """The arms of these names; `keep`, `chunks` and `within` replace those of arms that have a use for them.

    Raises:
        UserError: an unknown name (with the nearest known one), a repeated one, or a bad keep fraction.
    """
    found = []
    for name in names:
        if name not in ARMS:
            raise unknown("arm", name, ARMS)
        arm = ARMS[name]
        if arm.policy != "uniform":
            arm = replace(arm, keep=arm.keep if keep is None else keep)
        if arm.scores:
            arm = replace(arm, chunks=arm.chunks if chunks is None else chunks, within=within)
        found.append(arm)
    if len(set(names)) != len(names):
        repeated = sorted({n for n in names if names.count(n) > 1})
        raise UserError(f"arms are named twice: {', '.join(repeated)}")
    return tuple(found)
