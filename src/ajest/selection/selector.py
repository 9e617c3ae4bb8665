"""What to train on at each step: draw, score or remember, choose (METHOD 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ajest.diffusion.batch import Batch, Source
from ajest.errors import check
from ajest.runtime import distributed
from ajest.runtime.seeding import Role, generator

from .arm import LEAST_IN_STRATUM, Arm, Scoring
from .counts import Counts
from .diagnostics import effective_share, rank_correlation
from .features import score_with_features
from .kinds import StepKind
from .memory import LossMemory, LossTracker
from .normalisation import eta_squared, strata_of
from .policies import Of, value_of
from .registry import importance
from .scoring import Scores, score
from .triggers import TriggerState

RETEST_EXAMPLES = 512  # of a super-batch, on which scores are measured twice
_SIGMA_STRATA = 16  # within which correlations are taken


class Phases(Protocol):
    """`Ledger.phase`."""

    def __call__(self, name: str) -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class Choice:
    """What a step trains on.

    Attributes:
        kind: of the step, one of `Arm.kinds()`.
        batch: all that was drawn.
        kept: indices of those in `batch` that are trained on; None means all.
        chosen: those of them that this process trains on, completed.
        scores: what the choice rests on, None where it rests on nothing.
        weight: importance weights of all that are trained on, or None.
        losses: (learner, reference) losses of the super-batch, shape (B,) each, as far as they were taken.
        usable: indices of the examples in `batch` whose scores are finite; None where all are.
        counts, flops: what it cost all processes together, updating included.
    """

    kind: StepKind
    batch: Batch
    kept: Tensor | None
    chosen: Batch
    scores: Scores | None
    weight: Tensor | None
    losses: tuple[Tensor | None, Tensor | None]
    usable: Tensor | None
    counts: Counts
    flops: float

    @property
    def unusable(self) -> int:
        """How many examples have a score that is not finite."""
        return 0 if self.usable is None else len(self.batch) - len(self.usable)

    @cached_property
    def trained(self) -> Batch:
        """What all processes together train on."""
        if len(self.chosen) == self.counts.trained:
            return self.chosen
        return self.batch if self.kept is None else self.batch[self.kept]


@dataclass(frozen=True)
class _Measured:
    """What networks made of a super-batch; None where nobody looked.

    Attributes:
        learner, reference: losses, shape (B,).
        features: directions, shape (B, d).
        scored: examples, once for each noise draw.
        flops: what it cost all processes together.
    """

    learner: Tensor | None = None
    reference: Tensor | None = None
    features: Tensor | None = None
    scored: int = 0
    flops: float = 0.0


class Selector:
    """Chooses, and keeps what choosing has to remember.

    Args:
        source: where examples come from.
        network: the learner.
        arm: how to choose.
        super_batch: examples drawn for a step.
        micro_batch: examples scored at a time.
        seed, role: name the random streams. Arms of one seed draw the same examples, a guide of that seed others.
        reference: the model that learnability is measured against.
        proxy: the network whose losses stand for the learner's, for arms with a proxy.
    """

    def __init__(
        self,
        source: Source,
        network: nn.Module,
        arm: Arm,
        super_batch: int,
        micro_batch: int | None,
        seed: int,
        reference: nn.Module | None = None,
        proxy: nn.Module | None = None,
        role: Role = "learner",
    ) -> None:
        self.source, self.network, self.arm, self.seed, self.role = source, network, arm, seed, role
        self.super_batch, self.micro_batch = super_batch, micro_batch
        self.device = next(network.parameters()).device
        self.reference, self.proxy = reference, proxy
        check(arm.reference == "none" or reference is not None, f"arm {arm.name!r} needs a reference: name one")
        check(arm.scoring.scorer == "learner" or proxy is not None, f"arm {arm.name!r} needs a proxy")
        check(
            not arm.scoring.half or hasattr(source, "halved"),
            f"arm {arm.name!r}: only pictures can be scored at half resolution",
        )
        self.trigger: TriggerState = arm.trigger.begin()
        self._count = arm.kept(super_batch)
        self._reads = arm.registered.needs
        self._running = arm.effective("normalise") == "running"
        self.memory: dict[str, LossTracker] = {}
        if arm.memory is not None:
            names = [n for n in ("learner", "reference") if n in self._reads]
            self.memory = {n: LossTracker(arm.memory, self.device) for n in names}
        self._usual = LossTracker(LossMemory("sigma"), self.device) if self._running and not self.memory else None

    @property
    def of(self) -> Of | None:
        """The score that the policy reads, None where it reads none."""
        both = {"learner", "reference"} <= self._reads
        names: tuple[Of, ...] = ("learner", "reference")
        return "learnability" if both else next((n for n in names if n in self._reads), None)

    @property
    def remembers(self) -> bool:
        """Whether it keeps scores from step to step, which takes time."""
        return bool(self.memory) or self._usual is not None

    def choose(self, step: int, progress: float, phase: Phases, kind: StepKind | None = None) -> Choice:
        """Draw and choose for step `step` (from 0), at a share of the run; `kind` forces a kind of step."""
        kind = self._kind(step) if kind is None else kind
        selecting = kind.chooses
        measured = kind.mode == "select" and self.arm.measures
        watching = self._watching and (measured or not selecting)
        drawn = self.super_batch if self.arm.scores or self.arm.policy == "uniform" else self._count
        draws = self.arm.scoring.draws if measured else 1
        with phase("draw"):
            # On the CPU wherever the network is: all devices see the same examples.
            batches = [self._draw(drawn, step, again) for again in range(draws)]
        batch = batches[0]
        if measured or watching or not selecting:
            with phase("target"):
                batches = [self.source.complete(self._mine(b)) for b in batches]
            batch = batches[0] if len(batches[0]) == drawn else batch

        found = self._measure(batches, drawn, measured, watching, phase)
        scores, kept, weight, usable, chosen, count = None, None, None, None, batches[0], drawn
        if selecting:
            with phase("select"):
                scores = self._scores(batch, found, measured)
                usable = scores.usable()
                kept, weight = self._pick(scores, usable, step, progress)
                count = len(kept)
                chosen = batch[kept[distributed.rank_slice(count)]]
            if chosen.target is None:
                with phase("target"):
                    chosen = self.source.complete(chosen)
        counts = Counts(drawn, found.scored, count)
        flops = found.flops + 3 * count * (self._network_flops(self.network) + self._network_flops(self.proxy))
        losses = found.learner, found.reference
        return Choice(kind, batch, kept, chosen, scores, weight, losses, usable, counts, flops)

    def _measure(self, batches: list[Batch], drawn: int, measured: bool, watching: bool, phase: Phases) -> _Measured:
        """Score a super-batch of `drawn` examples, of which these are this process's part under each noise draw, by
        whatever networks the choice or the trigger asks for."""
        learner = reference = features = None
        flops, scored = 0.0, len(batches) * drawn
        if watching or (measured and "reference" in self._reads):
            with phase("reference scoring"):
                reference = distributed.gather(self._averaged(self.reference, batches), drawn)
            flops += scored * self._price(self.reference)
        if measured and (watching or "learner" in self._reads):
            scorer = self.proxy if self.arm.scoring.scorer == "proxy" else self.network
            with phase("learner scoring"):
                if "features" in self._reads:
                    both = score_with_features(scorer, batches[0], self.arm.scoring.features, self.micro_batch)
                    learner, features = (distributed.gather(part, drawn) for part in both)
                    if self.arm.scoring.features == "gradient":
                        flops += drawn * (scorer.sketch_flops() - self._network_flops(scorer))  # type: ignore[union-attr, operator]
                else:
                    learner = distributed.gather(self._averaged(scorer, batches), drawn)
            flops += scored * self._price(scorer)
        nobody = learner is None and reference is None
        return _Measured(learner, reference, features, 0 if nobody else scored, flops)

    def learn(self, choice: Choice, losses: Tensor, step: int, progress: float) -> None:
        """Take in how the step went.

        Args:
            choice: what was trained on.
            losses: of `choice.trained` before the update, shape (n,).
            step: its number, from 0.
            progress: share of the run before it.
        """
        learner, reference = choice.losses
        means = None
        if self._watching and reference is not None:
            # Where nothing was chosen, the super-batch itself was trained on.
            means = _means(losses if learner is None else learner, reference)
        self.trigger = self.arm.trigger.observe(self.trigger, step, means, progress)
        measured = choice.kind.mode == "select" and self.arm.measures
        if measured and choice.scores is not None:
            index = slice(None) if choice.usable is None else choice.usable
            batch, scores = choice.batch[index], choice.scores[index]
            for name, memory in self.memory.items():
                memory.learn(batch, scores.needed(name))
            if self._usual is not None and self.of is not None:
                self._usual.learn(batch, value_of(scores, self.of))
        elif "learner" in self.memory and self.arm.memory is not None and not self.arm.memory.every:
            finite = losses.isfinite()
            trained, losses = (choice.trained, losses) if finite.all() else (choice.trained[finite], losses[finite])
            self.memory["learner"].learn(trained, losses)

    def reliability(self, step: int, progress: float) -> dict[str, float]:
        """How far the arm's own scores can be trusted, measured on examples beside the training, at no cost to it.

        Returns:
            By name: "retest", correlation of scores of the same examples and noise levels under new noise, within
            strata of sigma, of what is measured (a remembered score repeats by itself); "sigma share", share of the
            scores' variance that the noise level alone explains; "sigma share of ranks", the same of their ranks;
            "effective share", effective sample size of the choice over the super-batch, where its probabilities are
            known; "agreement", rank correlation within strata with full scoring (the learner's loss where no other is
            read), where the arm does not score fully.
            Empty for arms that score nothing, and on steps that do not select.
        """
        if self.of is None or not self.trigger.on:
            return {}
        count, draws = min(RETEST_EXAMPLES, self.super_batch), self.arm.scoring.draws
        batches = [self.source.complete(self._draw(count, step, k, "retest")) for k in range(2 * draws)]
        sigma = batches[0].sigma
        stratum = strata_of(sigma, min(_SIGMA_STRATA, max(1, count // LEAST_IN_STRATUM)))
        once, again = (self._measured(batches[k * draws : (k + 1) * draws]) for k in range(2))
        own = self._recalled(batches[0], once) if self.memory else once
        found = {
            "retest": rank_correlation(value_of(once, self.of), value_of(again, self.of), stratum),
            "sigma share": eta_squared(value_of(own, self.of), stratum),
            "sigma share of ranks": eta_squared(value_of(own, self.of).argsort().argsort(), stratum),
        }
        if self.memory or self.arm.scoring != Scoring() or self.of == "reference":
            full = self._fully(batches[0])
            found["agreement"] = rank_correlation(value_of(own, self.of), full, stratum)
        kept = max(1, round(self.arm.keep * count))
        inclusion = replace(self.arm, chunks=min(self.arm.chunks, kept)).inclusion(progress)
        if inclusion is not None:
            found["effective share"] = effective_share(inclusion(self._with_usual(own), kept))
        return found

    def state(self) -> dict[str, Tensor]:
        """Tensors that have to survive a restart, beside the trigger and the proxy."""
        parts = {f"{name}/{k}": v for name, memory in self.memory.items() for k, v in memory.state().items()}
        if self._usual is not None:
            parts |= {f"usual/{k}": v for k, v in self._usual.state().items()}
        return parts

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        everything = self.memory | ({} if self._usual is None else {"usual": self._usual})
        for name, memory in everything.items():
            memory.restore({k.removeprefix(f"{name}/"): v for k, v in state.items() if k.startswith(f"{name}/")})

    def _kind(self, step: int) -> StepKind:
        first, *others = self.arm.kinds()
        if not self.arm.scores:
            return first
        if not self.trigger.on:
            return others[-1]
        every = self.arm.memory.every if self.arm.memory is not None else 0
        return others[0] if every and step % every else first

    def _draw(self, count: int, step: int, again: int, name: str = "draw") -> Batch:
        eps = generator(self.seed, self.role, name, step, "noise", again) if again else None
        return self.source.draw(count, generator(self.seed, self.role, name, step), eps)

    @staticmethod
    def _mine(batch: Batch) -> Batch:
        """This process's part. One process has the very batch: runs that share a draw know it by that."""
        return batch if distributed.world() == 1 else batch[distributed.rank_slice(len(batch))]

    def stream(self, *name: str | int) -> torch.Generator:
        """A fresh generator of this run's, on its device."""
        return generator(self.seed, self.role, *name, device=self.device)

    def _averaged(self, network: Any, batches: list[Batch]) -> Tensor:
        """Mean loss over noise draws, shape (B,), at half resolution if the arm says so."""
        if self.arm.scoring.half:
            batches = [self.source.halved(b) for b in batches]  # type: ignore[attr-defined]
        parts = [score(network, b, self.micro_batch) for b in batches]
        return parts[0] if len(parts) == 1 else torch.stack(parts).mean(0)

    @property
    def _watching(self) -> bool:
        """Whether its trigger still waits for the learner to overtake the reference."""
        return self.arm.trigger.compares and self.trigger.fired_at is None

    def _scores(self, batch: Batch, found: _Measured, measured: bool) -> Scores:
        """What the policy sees: measured, or remembered."""
        scores = Scores(found.learner, found.reference, batch.sigma, features=found.features)
        return self._with_usual(scores if measured or not self.memory else self._recalled(batch, scores))

    def _recalled(self, batch: Batch, scores: Scores) -> Scores:
        """The scores with what is remembered in the place of what was measured."""
        return replace(scores, **{name: memory.recall(batch) for name, memory in self.memory.items()})

    def _with_usual(self, scores: Scores) -> Scores:
        """The scores with what is usual at each noise level, if the policy measures against that."""
        if not self._running:
            return scores
        source = self._usual if self._usual is not None else self.memory["learner"]
        return replace(scores, usual=source.usual(scores.needed("sigma")))

    def _measured(self, batches: list[Batch]) -> Scores:
        """Losses as the arm takes them where it scores, over these noise draws."""
        scorer = self.proxy if self.arm.scoring.scorer == "proxy" else self.network
        learner = self._averaged(scorer, batches) if "learner" in self._reads else None
        reference = self._averaged(self.reference, batches) if "reference" in self._reads else None
        return Scores(learner, reference, batches[0].sigma)

    def _fully(self, batch: Batch) -> Tensor:
        """The score that a cheap one stands for: the learner's own loss, less the reference's if that is read too."""
        learner = score(self.network, batch, self.micro_batch)
        if self.of != "learnability":
            return learner
        return learner - score(self.reference, batch, self.micro_batch)  # type: ignore[arg-type]

    def _pick(self, scores: Scores, usable: Tensor | None, step: int, progress: float) -> tuple[Tensor, Tensor | None]:
        """(indices to train on, their importance weights or None): of the usable examples as long as there are enough;
        with fewer, others are taken along, and the step will not be finite."""
        if usable is not None and len(usable) < self._count:
            bad = torch.ones(len(scores), dtype=torch.bool, device=usable.device)
            bad[usable] = False
            kept = torch.cat([usable, torch.nonzero(bad).flatten()])[: self._count]
            return kept, torch.ones(len(kept), device=kept.device) if self.arm.unbiased else None
        arm = self.arm
        if usable is not None:
            scores, arm = scores[usable], replace(arm, within=None)  # what is left has no equal parts
        kept = arm.choose(progress)(scores, self._count, self.stream("select", step))
        weight = None
        if arm.unbiased:
            weight = importance(arm.inclusion(progress)(scores, self._count), self._count)[kept]
        return kept if usable is None else usable[kept], weight

    def _price(self, network: Any) -> float:
        """FLOPs of scoring one example."""
        return self._network_flops(network) / (4 if self.arm.scoring.half else 1)

    @staticmethod
    def _network_flops(network: Any) -> float:
        return float(network.flops()) if hasattr(network, "flops") else 0.0


def _means(learner: Tensor, reference: Tensor) -> tuple[float, float] | None:
    """Mean losses over the examples for which both are finite, None where none is."""
    means = learner.mean().item(), reference.mean().item()
    if all(map(math.isfinite, means)):
        return means
    both = learner.isfinite() & reference.isfinite()
    return (learner[both].mean().item(), reference[both].mean().item()) if both.any() else None
