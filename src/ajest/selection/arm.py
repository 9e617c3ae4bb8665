"""Arms: the ways of choosing examples, of noising and of training that a bench compares."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from ajest.diffusion.noising import Contrast, Noising
from ajest.errors import check, unknown

from .features import Features
from .keep_list import KeepList
from .kinds import UNIFORM, WATCH, StepKind
from .memory import LossMemory
from .normalisation import NORMALISATIONS, Normalisation
from .policies import Criterion, PolicyFunction, within
from .registry import POLICIES, Policy, inclusion_of, policy
from .rules import Kind, RulesFile, rules_of
from .strata import LEAST_IN_STRATUM
from .triggers import Trigger
from .updates import Updates

CHUNKS = 16  # N of JEST unless an arm says otherwise

Reference = Literal["none", "guide", "ema", "strong", "exact"]


@dataclass(frozen=True)
class Scoring:
    """How examples are scored.

    Attributes:
        draws: noise draws of each example whose scores are averaged; learner and reference see the same ones.
        scorer: which network's losses stand for the learner's: its own, or those of a "proxy": a network of the
            guide's size that is trained along on the same examples.
        half: score images at half resolution.
        features: what a coupling compares.
    """

    draws: int = 1
    scorer: Literal["learner", "proxy"] = "learner"
    half: bool = False
    features: Features = "residual"

    def __post_init__(self) -> None:
        check(self.draws >= 1, f"scoring: draws must be at least 1, not {self.draws}")


@dataclass(frozen=True)
class Arm:
    """One way of choosing what to train on, of noising it and of updating weights by it.

    Attributes:
        name: what it is called.
        policy: name of a registered policy.
        keep: share of a super-batch that is trained on while selecting.
        reference: whose losses learnability is measured against: "guide" (AJEST; the snapshot of any other run
            may take its place), "ema" (the learner's own first average), "strong" (a network of the learner's size
            that was trained for long), "exact" (the best denoiser there is, where the task knows it) or "none".
        trigger: when to select; on other steps the whole super-batch is trained on.
        chunks, temperature, normalise, strata, power, redundancy: dials of policies that have them; None leaves a
            policy's own.
        cooling: let the temperature rise without end towards the end of the run, so that selection fades out.
        unbiased: weight the chosen examples by the inverse of their probability of being chosen.
        scoring: how examples are scored.
        memory: choose by remembered scores; None scores every super-batch.
        within: choose the kept share of each so many consecutive examples; None chooses from the whole super-batch.
            The published image code chooses within micro-batches of 128.
        summary: one line for people.
        paper: where it was published.
        rules: the user's code that its policy, normalisation, trigger or what its noising names comes from; found by
            itself.
        noising: how its examples are noised; by default as the task does it.
        updates: how its weights are updated; by default as the recipe says.
        examples: those that it draws from; None: all.
        pushed: push its denoiser in sampling as training with this contrast would have; None leaves it.
    """

    name: str
    policy: str
    keep: float = 1.0
    reference: Reference = "none"
    trigger: Trigger = field(default_factory=Trigger)
    chunks: int = CHUNKS
    temperature: float | None = None
    normalise: Normalisation | None = None
    strata: int | None = None
    power: float | None = None
    redundancy: float | None = None
    cooling: bool = False
    unbiased: bool = False
    scoring: Scoring = Scoring()
    memory: LossMemory | None = None
    within: int | None = None
    summary: str = field(default="", compare=False)
    paper: str = field(default="", compare=False)
    rules: RulesFile | None = None
    noising: Noising = field(
        default_factory=Noising
    )  # after its rules, which are read before the names in it are looked up
    updates: Updates = field(default_factory=Updates)
    examples: KeepList | None = None
    pushed: Contrast | None = None

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise unknown("policy", self.policy, POLICIES)
        if self.normalise not in (None, "none", "running", *NORMALISATIONS):
            raise unknown("normalisation", str(self.normalise), ("none", "running", *NORMALISATIONS))
        object.__setattr__(self, "rules", rules_of(*self._names()))
        mine = f"arm {self.name!r}:"
        named = self.name.strip(". ") and self.name.isprintable() and not {*self.name} & {*"/\\"}
        check(
            bool(named) or not self.name,  # of what is compared and never run
            f"{mine} its runs have a folder of this name: take letters, numbers and - + . alone",
        )
        check(0 < self.keep <= 1, f"{mine} the keep fraction must lie above 0 and at most at 1, not {self.keep}")
        check(
            self.policy != "uniform" or (self.keep == 1 and self.trigger.mode == "always"),
            f'{mine} policy "uniform" trains on all that is drawn, always: to keep a part, take "random"',
        )
        check(self.temperature is None or self.temperature > 0, f"{mine} the temperature must be positive")
        compares = "reference" in self.registered.needs or self.trigger.compares
        check(
            not compares or self.reference != "none",
            f'{mine} it compares with a reference: set reference to "guide", "strong", "exact" or "ema"',
        )
        for dial in ("temperature", "normalise", "strata", "power", "redundancy"):
            has = dial in self.registered.dials
            check(getattr(self, dial) is None or has, f"{mine} policy {self.policy!r} has no dial {dial!r}")
        check(not self.cooling or "temperature" in self.registered.dials, f"{mine} cooling needs a temperature")
        check(
            not self.unbiased or (self.registered.inclusion is not None and self.within is None),
            f"{mine} the probability of being chosen is not known for policy {self.policy!r} (within parts: for none), "
            "so it cannot be unbiased",
        )
        self._check_scoring(mine)
        self._check_noising(mine)

    def _names(self) -> tuple[tuple[Kind, str | None], ...]:
        """Names of what may be the user's own."""
        noising = self.noising
        levels, weight, allocation, pairing = noising.levels, noising.weight, noising.allocation, noising.pairing
        contrasts = (noising.contrast, self.pushed)
        return (
            ("policy", self.policy),
            ("normalisation", self.normalise),
            ("trigger", self.trigger.mode),
            ("density", None if levels is None else levels.density),
            ("weight", None if weight is None else weight.name),
            ("allocation", None if allocation is None else allocation.name),
            ("pairing", None if pairing is None else pairing.name),
            ("course", self.updates.course),
            *(("contrast", contrast.name) for contrast in contrasts if contrast is not None),
        )

    def _check_noising(self, mine: str) -> None:
        noising, memory = self.noising, self.memory
        reads = "sigma" in self.registered.needs or self.normalise == "running" or (memory and memory.by != "id")
        check(
            not noising.stratified or not reads,
            f"{mine} it chooses by noise level, which undoes the strata that levels are drawn from: leave out one",
        )
        check(
            not noising.learns or not self.scores,
            f"{mine} its noise levels follow the losses of what is drawn, and it trains on a part that it chooses: "
            "leave out the allocation, or take a policy that chooses nothing",
        )
        reweighted = noising.weight is not None or noising.same_objective
        check(
            not reweighted or not self.scoring.half,
            f"{mine} images of half the size are scored with the task's own weights: leave out the weight or the half",
        )

    def _check_scoring(self, mine: str) -> None:
        needs, memory, compares = self.registered.needs, self.memory, self.scores and self.trigger.compares
        features = "features" in needs
        check(
            not compares or not self.trigger.begin().on or self.measures,
            f"{mine} its trigger compares the losses of whole super-batches, and it never scores one: "
            "set memory.every, or choose another policy or trigger",
        )
        check(
            not compares or (self.scoring.scorer == "learner" and not self.scoring.half),
            f"{mine} its trigger compares the learner's losses at full resolution, which it does not take: "
            "choose another scoring or trigger",
        )
        check(memory is None or not features, f"{mine} features are not remembered: choose another policy or no memory")
        check(
            not features or (self.scoring.draws == 1 and not self.scoring.half),
            f"{mine} features come from one noise draw at full resolution: set draws to 1 and half to False",
        )
        check(
            memory is None or memory.every > 0 or "reference" not in needs,
            f"{mine} nothing would tell its memory the reference's losses: set memory.every",
        )
        check(
            memory is None or self.effective("normalise") != "running" or "reference" not in needs,
            f"{mine} running statistics of references are not remembered: drop the running normalisation or the memory",
        )

    @property
    def registered(self) -> Policy:
        """Its policy, as it was registered."""
        return POLICIES[self.policy]

    @property
    def axis(self) -> str:
        """In what it differs from training on every drawn example, noised as the task does it, by the recipe; "" in
        nothing."""
        chooses = ("selection",) if self.policy != "uniform" else ()
        pruned = ("examples",) if self.examples is not None else ()
        sampled = ("sampling",) if self.pushed is not None else ()
        return ", ".join((*chooses, *pruned, *self.noising.axes, *sampled, *self.updates.axes))

    @property
    def scores(self) -> bool:
        """Whether its policy reads anything, so that a super-batch has to be drawn to choose from."""
        return bool(self.registered.needs)

    @property
    def criterion(self) -> Criterion | None:
        """The score that its policy chooses by, None where it reads no losses."""
        needs = self.registered.needs
        if {"learner", "reference"} <= needs:
            return "learnability"
        return "learner" if "learner" in needs else "reference" if "reference" in needs else None

    @property
    def measures(self) -> bool:
        """Whether it ever scores a super-batch by a forward pass."""
        return bool(self.registered.needs - {"sigma"}) and (self.memory is None or self.memory.every > 0)

    def kept(self, super_batch: int) -> int:
        """Examples trained on in a selecting step: the same for all arms of one keep fraction.

        Raises:
            UserError: none would be kept of the super-batch or of a part of it, or fewer than there are chunks, or the
                super-batch is no multiple of `within`, or it or a part has too few examples for the strata.
        """
        size = super_batch if self.within is None else self.within
        check(
            size >= 1 and super_batch % size == 0,
            f"arm {self.name!r}: a super-batch of {super_batch} cannot be cut into parts of {size}",
        )
        count = round(self.keep * super_batch)
        least = count * size // super_batch  # of a part
        check(least >= 1, f"arm {self.name!r}: a keep fraction of {self.keep} keeps nothing of {size} examples")
        strata = self.effective("strata") or 1
        check(
            strata == 1 or size >= LEAST_IN_STRATUM * strata,
            f"arm {self.name!r}: {size} examples are too few for {strata} strata of the noise level; take a "
            f"super-batch of at least {LEAST_IN_STRATUM * strata}, or an arm for small ones, such as hard-running",
        )
        if "chunks" in self.registered.dials:
            check(
                self.chunks <= least,
                f"arm {self.name!r}: {least} kept examples are fewer than {self.chunks} chunks; "
                "use fewer chunks, a larger super-batch or a larger keep fraction",
            )
        return count

    def effective(self, dial: str) -> Any:
        """The value of one of the policy's dials, its own where the arm leaves it; None if it has no such dial."""
        mine = getattr(self, dial) if dial in self.registered.dials else None
        return self.registered.default(dial) if mine is None else mine

    def dials(self, progress: float = 0.0) -> dict[str, Any]:
        """The policy's dials at a share of the run."""
        found = {d: value for d in self.registered.dials if (value := getattr(self, d)) is not None}
        if self.cooling:
            found["temperature"] = found.get("temperature", 1.0) / max(1 - progress, 1e-6)
        return found

    def choose(self, progress: float = 0.0) -> PolicyFunction:
        """The policy with this arm's dials."""
        chosen = policy(self.policy, **self.dials(progress))
        return chosen if self.within is None else partial(within, chosen, self.within)

    def inclusion(self, progress: float = 0.0) -> Any:
        """The probability of being chosen as a function of scores and count, or None where it is not known."""
        return None if self.within is not None else inclusion_of(self.policy, **self.dials(progress))

    def kinds(self) -> tuple[StepKind, ...]:
        """The kinds of step it can take, one of each mode at most: those that select first, then what it does
        otherwise."""
        how = ", ".join(filter(None, (str(self.noising), self.updates.work)))
        if not self.scores:
            kind = UNIFORM if self.policy == "uniform" else StepKind("random", f"random {self.keep:g}")
            in_turns = kind is not UNIFORM and self.trigger.mode != "always"
            return tuple(one.differing(how) for one in (kind, UNIFORM)[: 1 + in_turns])
        extras = [text for text, is_so in self._extras().items() if is_so]
        words = " ".join([self.policy, self.reference, f"{self.keep:g}", *extras])
        kinds = [StepKind("select", f"select {words}")] if self.memory is None or self.memory.every else []
        kinds += [StepKind("recall", f"recall {words}")] if self.memory is not None else []
        if self.trigger.mode != "always":
            watches = self.trigger.compares and not self.trigger.begin().on
            kinds.append(WATCH if watches else UNIFORM)
        return tuple(kind.differing(how) for kind in kinds)

    def _extras(self) -> dict[str, bool]:
        chunks, strata = self.effective("chunks"), self.effective("strata") or 1
        return {
            f"{self.scoring.draws} draws": self.scoring.draws > 1,
            f"N {chunks}": chunks is not None and chunks != CHUNKS,
            f"{strata} strata": strata > 1,
            f"{self.normalise}": self.normalise is not None,
            "proxy": self.scoring.scorer == "proxy",
            "half": self.scoring.half,
            "gradient": "features" in self.registered.needs and self.scoring.features == "gradient",
            "unbiased": self.unbiased,
            f"by {self.memory.by}" if self.memory else "": self.memory is not None,
            f"blend {self.memory.blend:g}" if self.memory else "": self.memory is not None and self.memory.blend > 0,
            f"every {self.memory.every}" if self.memory else "": self.memory is not None and self.memory.every > 0,
            f"within {self.within}": self.within is not None,
        }
