"""What to train on at each step: draw, score or remember, pick (docs/method.md#flow)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ajest.diffusion.batch import Batch, Source
from ajest.diffusion.network import flops_of, sketches
from ajest.diffusion.noising import noised
from ajest.errors import check
from ajest.runtime.seeding import Streams

from .agreement import agreement_due, check_agreement, compared_by_first
from .arm import Arm
from .counts import Counts
from .flow import Drawn, Networks, Phases, Picked, Plan, Scored, Scorer, draw, pick, score_drawn
from .kinds import StepKind
from .score_memory import ScoreMemory
from .scoring import Scores
from .seen_levels import SeenLevels
from .triggers import TriggerState

_LEVELS = "noise levels/"  # begins the names of what is remembered of these


@dataclass(frozen=True)
class Choice:
    """What a step trains on.

    Attributes:
        plan: what the step is to do, its kind included.
        drawn, scored, picked: what came of it.
        counts, flops: what it costs all processes together, updating included.
    """

    plan: Plan
    drawn: Drawn
    scored: Scored
    picked: Picked
    counts: Counts
    flops: float

    @property
    def scores_not_finite(self) -> int:
        """How many examples have a score that is not finite."""
        return 0 if self.picked.finite is None else len(self.drawn) - len(self.picked.finite)

    @property
    def in_doubt(self) -> Tensor | None:
        """Whether all scores are finite, a bool on the device, where that was taken for granted; else None."""
        picked = self.picked
        return None if picked.scores is None or picked.finite is not None else picked.scores.all_finite

    @property
    def trained_id(self) -> Tensor:
        """Ids of what all processes together train on."""
        return self.drawn.batch.id if self.picked.kept is None else self.drawn.batch.id[self.picked.kept]

    @cached_property
    def trained(self) -> Batch:
        """What all processes together train on."""
        if len(self.picked.chosen) == self.counts.trained:
            return self.picked.chosen
        return self.drawn.batch if self.picked.kept is None else self.drawn.batch[self.picked.kept]


class Selector:
    """Composes draw, score and pick, and keeps what has to be remembered between steps.

    Args:
        source: where examples come from; they are noised as the arm says.
        networks: that are trained and asked.
        arm: how to choose.
        streams: names of the random streams.
        super_batch: examples drawn for a step.
        micro_batch: examples scored at a time; None scores all at once.

    Attributes:
        scorer: how the arm scores.
        memory: what it remembers of scores.
        levels: what it remembers of noise levels, None where they follow no losses.
        trigger: where its trigger stands.

    Raises:
        UserError: the arm needs a network, a sketch of gradients, a resolution or ingredients that are not there.
    """

    def __init__(
        self,
        source: Source,
        networks: Networks,
        arm: Arm,
        streams: Streams,
        super_batch: int,
        micro_batch: int | None = None,
    ) -> None:
        self._count = arm.kept(super_batch)
        self._drawn = super_batch if arm.scores or arm.policy == "uniform" else self._count
        self.source = noised(source, arm.noising, self._drawn)
        self.networks, self.arm, self.streams = networks, arm, streams
        self.super_batch = super_batch
        self.device = next(networks.learner.parameters()).device
        halved = getattr(self.source, "halved", None) if arm.scoring.half else None
        self.scorer = Scorer(networks, arm.scoring, arm.registered.needs, micro_batch, halved)
        _check_needs(arm, self.scorer)
        self.memory = ScoreMemory(arm, self.device)
        self.levels = SeenLevels(self.source) if arm.noising.learns else None
        self.trigger: TriggerState = arm.trigger.begin()
        self._kinds = arm.kinds()

    def choose(self, step: int, progress: float, phase: Phases, kind: StepKind | None = None) -> Choice:
        """What to train on at step `step` (from 0), at a share of the run; `kind` forces one of `Arm.kinds()`.

        That all scores are finite is taken for granted, since to ask waits for the device. Where `Choice.in_doubt` says
        that they are not, the choice is to be thrown away for that of `choose_again`.
        """
        plan = self._plan(step, progress, self._kind(step) if kind is None else kind)
        drawn = draw(self.source, self.streams, plan, phase)
        scored = score_drawn(drawn, plan, self.scorer, phase)
        picked = self._pick(plan, drawn, scored, phase) if plan.kind.chooses else Picked(drawn.parts[0])
        return self._choice(plan, drawn, scored, picked)

    def choose_again(self, choice: Choice, phase: Phases) -> Choice:
        """Another choice from the same scores, some of which are not finite: from the others. The pass that trained on
        the first one is paid for, too."""
        plan, drawn, scored = choice.plan, choice.drawn, choice.scored
        again = self._choice(plan, drawn, scored, self._pick(plan, drawn, scored, phase, again=True))
        return replace(again, flops=again.flops + choice.flops - scored.flops)

    def _pick(self, plan: Plan, drawn: Drawn, scored: Scored, phase: Phases, again: bool = False) -> Picked:
        with phase("select"):
            scores = self._scores(drawn.batch, scored, plan)
            finite = scores.finite() if again else None
            stream = self.stream("select", plan.step)
            picked = pick(drawn.batch, scores, self.arm, self._count, plan.progress, stream, finite)
        if picked.chosen.target is None:
            with phase("target"):
                picked = replace(picked, chosen=self.source.complete(picked.chosen))
        return picked

    def _choice(self, plan: Plan, drawn: Drawn, scored: Scored, picked: Picked) -> Choice:
        count = len(drawn) if picked.kept is None else len(picked.kept)
        trained = (flops_of(network, lambda: drawn.batch) for network in (self.networks.learner, self.networks.proxy))
        flops = scored.flops + 3 * count * sum(trained)
        return Choice(plan, drawn, scored, picked, Counts(len(drawn), scored.examples, count), flops)

    def compared(self, choice: Choice, losses: Tensor) -> tuple[Tensor, Tensor] | None:
        """The learner's and the reference's losses that the trigger compares, shape (n,) each; None where it does not.

        Args:
            choice: what was trained on.
            losses: of `choice.trained` before the update, shape (n,).
        """
        scored = choice.scored
        if not self._watching or scored.reference is None:
            return None
        # Where nothing was chosen, the super-batch itself was trained on.
        learner = losses if scored.learner is None else scored.learner
        return learner, scored.reference

    def learn(self, choice: Choice, losses: Tensor, means: tuple[float, float] | None, finite: bool) -> None:
        """Take in how the step went.

        Args:
            choice: what was trained on.
            losses: of `choice.trained` before the update, shape (n,).
            means: of the two that are `compared`, where they are.
            finite: whether all the losses are.

        Raises:
            UserError: several processes do not agree, see `check_agreement`.
        """
        plan, picked = choice.plan, choice.picked
        here = slice(None) if finite else losses.isfinite()
        if means is not None:
            both = None if all(map(math.isfinite, means)) else self.compared(choice, losses)
            means = compared_by_first(means if both is None else _means_of_finite(*both))
        self.trigger = self.arm.trigger.observe(self.trigger, plan.step, means, plan.progress)
        if plan.measures and picked.scores is not None:
            index = slice(None) if picked.finite is None else picked.finite
            measured = replace(picked.scores, learner=choice.scored.learner, reference=choice.scored.reference)
            self.memory.learn_scores(choice.drawn.batch[index], measured[index])
        elif self.memory:
            self.memory.learn_losses(choice.trained[here], losses[here])
        if self.levels is not None:
            self.levels.learn(plan.progress, choice.trained[here], losses[here])
        if agreement_due(plan.step):
            check_agreement(plan.step, choice.drawn.batch.id, choice.trained_id, self.trigger, self.state())

    @property
    def remembers(self) -> bool:
        """Whether anything is kept from step to step, which takes time."""
        return bool(self.memory) or self.levels is not None

    def state(self) -> dict[str, Tensor]:
        """All that is remembered, as tensors by name."""
        levels = {} if self.levels is None else self.levels.state()
        return self.memory.state() | {f"{_LEVELS}{k}": v for k, v in levels.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self.memory.restore(state)
        if self.levels is not None:
            self.levels.restore({k.removeprefix(_LEVELS): v for k, v in state.items() if k.startswith(_LEVELS)})

    def stream(self, *name: str | int) -> torch.Generator:
        """A fresh generator of this run's, on its device."""
        return self.streams.generator(*name, device=self.device)

    def _kind(self, step: int) -> StepKind:
        first, *others = self._kinds
        if not others:
            return first
        if not self.trigger.on:
            return others[-1]
        every = self.arm.memory.every if self.arm.memory is not None else 0
        return others[0] if every and step % every else first

    def _plan(self, step: int, progress: float, kind: StepKind) -> Plan:
        measures = kind.mode == "select" and self.arm.measures
        return Plan(
            step=step,
            progress=progress,
            kind=kind,
            drawn=self.super_batch if kind.trains_on_all else self._drawn,
            noise_draws=self.arm.scoring.draws if measures else 1,
            measures=measures,
            watches=self._watching and (measures or not kind.chooses),
        )

    @property
    def _watching(self) -> bool:
        """Whether its trigger still waits for the learner to overtake the reference."""
        return self.arm.trigger.compares and self.trigger.fired_at is None

    def _scores(self, batch: Batch, scored: Scored, plan: Plan) -> Scores:
        """What the policy sees: measured, remembered, or a blend of the two."""
        scores = Scores(scored.learner, scored.reference, batch.sigma, features=scored.features)
        seen = self.memory.blended if plan.measures else self.memory.recalled
        return self.memory.with_running_stats(seen(batch, scores))


def _check_needs(arm: Arm, scorer: Scorer) -> None:
    mine, networks = f"arm {arm.name!r}", scorer.networks
    check(arm.reference == "none" or networks.reference is not None, f"{mine} needs a reference: name one")
    check(arm.scoring.scorer == "learner" or networks.proxy is not None, f"{mine} needs a proxy")
    check(not arm.scoring.half or scorer.halved is not None, f"{mine}: only images can be scored at half resolution")
    gradients = "features" in scorer.reads and arm.scoring.features == "gradient"
    check(
        not gradients or sketches(scorer.network),
        f"{mine} compares gradients of examples, of which {type(scorer.network).__name__} gives no sketch: write its "
        "method `sketched` (see ajest.diffusion.network.SketchingNetwork), or take an arm that compares residuals, as "
        "joint-residual does",
    )


def _means_of_finite(learner: Tensor, reference: Tensor) -> tuple[float, float] | None:
    """Mean losses over the examples for which both are finite, None where none is."""
    both = learner.isfinite() & reference.isfinite()
    return (learner[both].mean().item(), reference[both].mean().item()) if both.any() else None
