"""The training loop. It knows no task: a source gives examples, a network denoises, an arm chooses.

    selector: draw -> Drawn -> score -> Scored -> pick -> Picked
    trainer:  -> update -> EMA

The loop is a generator: it yields after each step, and progress, logging, snapshots and stopping are the body
of the caller's `for`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ajest.diffusion.batch import Batch, Source
from ajest.diffusion.ema import PowerEMA
from ajest.diffusion.terms import with_term
from ajest.errors import Diverged, check
from ajest.runtime import distributed, interrupts
from ajest.runtime.host import to_host
from ajest.runtime.seeding import Streams, drawing_from
from ajest.selection.arm import Arm
from ajest.selection.counts import ExampleCounts
from ajest.selection.flow import Networks
from ajest.selection.kinds import StepKind
from ajest.selection.scoring import Scores
from ajest.selection.selector import Choice, Selector
from ajest.selection.triggers import TriggerState

from .ledger import Ledger
from .optimizer import OptimizedNetwork, strip_prefix
from .recipe import Recipe

#: Steps in a row that may be skipped: weights that give nothing but infinities stay as they are for ever.
SKIPS = 20


@dataclass(frozen=True)
class Step:
    """What the loop yields.

    Attributes:
        number: steps taken so far, from 1.
        kind: what kind of step it was, one of `Arm.kinds()`.
        loss: mean loss over the examples trained on, before the update.
        advantage: the trigger's smoothed reference loss minus learner loss; 0 where nothing is compared.
        seconds: by phase; on CUDA the first look at them waits for the device.
        batch: the super-batch, or all that was drawn.
        kept: indices into `batch` of the examples trained on; None means all.
        scores: scores of `batch`, None where none were taken.
    """

    number: int
    kind: StepKind
    loss: float
    advantage: float
    seconds: Mapping[str, float]
    batch: Batch
    kept: Tensor | None
    scores: Scores | None


@dataclass(frozen=True)
class _Outcome:
    """What came of the gradients of a step: the one thing in it that the host waits for.

    Attributes:
        losses: of what was trained on, on the device.
        loss: their weighted mean.
        losses_finite: whether they all are.
        scores_finite: whether all scores are that the choice took to be.
        finite: of each network in training, whether its losses and gradients are.
        means: of the losses that the trigger compares, where it does.
        drawn, trained: ids, on the CPU.
    """

    losses: Tensor
    loss: float
    losses_finite: bool
    scores_finite: bool
    finite: tuple[bool, ...]
    means: tuple[float, float] | None
    drawn: Tensor
    trained: Tensor


def _within_ranks(arm: Arm, recipe: Recipe) -> Arm:
    """The arm as it chooses where each of several processes chooses from its own part of the super-batch."""
    processes = distributed.world()
    if recipe.scope == "global" or processes == 1 or not arm.scores:
        return arm
    part, rest = divmod(recipe.super_batch, processes)
    check(rest == 0, f"a super-batch of {recipe.super_batch} has no equal parts for {processes} processes")
    return replace(arm, within=part if arm.within is None else min(part, arm.within))


class Trainer:
    """Networks in training, with everything that has to survive a restart.

    Args:
        source: where examples come from.
        networks: the learner, on its device; the reference and the proxy of arms that need them. An arm whose
            reference is the learner's own average brings it itself.
        recipe: how it is trained, but for what the arm changes of that.
        arm: what it is trained on.
        streams: names of the random streams.
        beside: a trainer of the same learner, with which optimiser and averages are shared: what either learns, both
            have learned.

    Attributes:
        progress: share of the run that is done, 0 to 1, for what depends on it; set by whoever knows when the run ends.
        whole: whether `state` is that of a finished step; not while one is being booked.

    Raises:
        UserError: see `Selector`.
    """

    def __init__(
        self,
        source: Source,
        networks: Networks,
        recipe: Recipe,
        arm: Arm,
        streams: Streams,
        beside: Trainer | None = None,
    ) -> None:
        arm, recipe = _within_ranks(arm, recipe), recipe.of(arm)
        if arm.updates.term is not None:
            arm.updates.term.check_parts(arm.kept(recipe.super_batch), distributed.world(), recipe.micro_batch)
        network = with_term(networks.learner, arm.updates.term)
        networks = replace(networks, learner=network)
        self.network, self.recipe, self.arm = network, recipe, arm
        self.device = next(network.parameters()).device
        self.ledger = Ledger(self.device)
        self.learner: OptimizedNetwork = OptimizedNetwork(network, recipe) if beside is None else beside.learner
        self.ema: PowerEMA = self.learner.averages() if beside is None else beside.ema
        self.proxy = None if networks.proxy is None else OptimizedNetwork(networks.proxy, recipe)
        if arm.reference == "ema":
            networks = replace(networks, reference=self.ema[recipe.ema_widths[0]])
        streams = replace(streams, drawing=recipe.drawing)
        self.selector = Selector(source, networks, arm, streams, recipe.super_batch, recipe.micro_batch)
        self.example_counts = ExampleCounts()
        self.steps_taken = 0
        self.progress = 0.0
        self.whole = True
        self._skipped = 0  # steps in a row

    @property
    def trigger(self) -> TriggerState:
        """Whether steps choose at present, and what that is decided from."""
        return self.selector.trigger

    def steps(self) -> Iterator[Step]:
        """Train on, without end.

        Raises:
            Diverged: a loss or gradient is not finite, and the recipe says to stop, or too many steps in a row were
                skipped. Weights and averages are those before that step.
        """
        while True:
            yield self.step()

    def step(self, kind: StepKind | None = None) -> Step:
        """One step; `kind` forces one of `Arm.kinds()`.

        Raises:
            Diverged: see `steps`.
            KeyboardInterrupt: the step was given up (see `interrupts`); the trainer is as before it.
        """
        phase = self.ledger.phase
        try:
            with interrupts.undoable():
                choice, outcome = self._tried(kind)
            self._judge(outcome)
        except BaseException:
            self._undo()
            self.ledger.abandon_step()
            raise
        self.whole = False
        with phase("update"):
            for part, finite in zip(self._optimized, outcome.finite, strict=True):
                part.step(finite)
        with phase("ema"):
            self.ema.update(self.steps_taken + 1)
        with phase("select") if self.selector.remembers else nullcontext():
            self.selector.learn(choice, outcome.losses, outcome.means, outcome.losses_finite)
        return self._booked(choice, outcome)

    @property
    def _optimized(self) -> list[OptimizedNetwork]:
        return [self.learner] if self.proxy is None else [self.learner, self.proxy]

    def _undo(self) -> None:
        for part in self._optimized:
            part.undo()

    def _tried(self, kind: StepKind | None) -> tuple[Choice, _Outcome]:
        """A choice and the gradients by it. Whether all scores are finite is heard with whether the gradients are, when
        the device was given everything to do; where some are not, the choice is made anew."""
        choice = self.selector.choose(self.steps_taken, self.progress, self.ledger.phase, kind)
        outcome = self._gradients(choice)
        if not outcome.scores_finite:
            self._undo()
            choice = self.selector.choose_again(choice, self.ledger.phase)
            outcome = self._gradients(choice)
        return choice, outcome

    def _gradients(self, choice: Choice) -> _Outcome:
        """The gradients of what was chosen, of all processes."""
        total, weight, at = choice.counts.trained, choice.picked.weight, self.steps_taken
        rate = self.recipe.learning_rate(at, self.ledger.counts.trained + total, self.progress)
        mine = None if weight is None else weight[distributed.rank_slice(total)]
        stream = self.selector.stream("update", at, distributed.rank())
        with self.ledger.phase("update"), drawing_from(stream):
            found = [part.gradients(choice.picked.chosen, rate, mine, total) for part in self._optimized]
            return self._read(choice, found[0][0], [finite for _, finite in found])

    def _read(self, choice: Choice, losses: Tensor, finite: Sequence[Tensor]) -> _Outcome:
        """What the host has to know of a step, in one copy from the device."""
        weight, in_doubt = choice.picked.weight, choice.in_doubt
        compared = self.selector.compared(choice, losses) or ()
        loss = (losses if weight is None else losses * weight).mean()
        all_finite = losses.isfinite().all()
        scores_finite = torch.ones_like(all_finite) if in_doubt is None else in_doubt
        asked = [loss, all_finite, scores_finite, *finite, *(part.mean() for part in compared)]
        numbers, (drawn, trained) = to_host(asked, choice.drawn.batch.id, choice.trained_id)
        rest = 3 + len(finite)
        return _Outcome(
            losses=losses,
            loss=numbers[0],
            losses_finite=bool(numbers[1]),
            scores_finite=bool(numbers[2]),
            finite=tuple(map(bool, numbers[3:rest])),
            means=(numbers[rest], numbers[rest + 1]) if compared else None,
            drawn=drawn,
            trained=trained,
        )

    def _judge(self, outcome: _Outcome) -> None:
        """Raise `Diverged` where a step is not to be taken, nor to be gone on from."""
        finite, rule, why = all(outcome.finite), self.recipe.not_finite, ""
        self._skipped = self._skipped + 1 if rule == "skip" and not outcome.finite[0] else 0
        if rule == "stop" and not finite:
            why = f"the loss or its gradient is not finite (learning rate {self.learner.rate:g})"
        elif self._skipped > SKIPS:
            why = f"{SKIPS} steps in a row were skipped: no loss or gradient was finite"
        if why:
            raise Diverged(f"at step {self.steps_taken + 1}: {why}; lower the learning rate")

    def _booked(self, choice: Choice, outcome: _Outcome) -> Step:
        """The step, written into the books."""
        kind, drawn, picked = choice.plan.kind, choice.drawn, choice.picked
        self.example_counts.count(outcome.drawn, outcome.trained)
        self.steps_taken += 1
        bad, finite = choice.scores_not_finite, all(outcome.finite)
        seconds = self.ledger.close_step(kind.label, choice.counts, choice.flops, bad, not finite)
        self.whole = True
        advantage = self.trigger.advantage
        return Step(self.steps_taken, kind, outcome.loss, advantage, seconds, drawn.batch, picked.kept, picked.scores)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, facts) from which `restore` goes on bit for bit."""
        tensors = self.learner.state()
        tensors |= {f"ema/{k}": v for k, v in self.ema.state_dict().items()}
        tensors |= {
            "example_counts/drawn": self.example_counts.drawn,
            "example_counts/trained": self.example_counts.trained,
        }
        tensors |= {f"selector/{k}": v for k, v in self.selector.state().items()}
        if self.proxy is not None:
            tensors |= {f"proxy/{k}": v for k, v in self.proxy.state().items()}
        return tensors, {
            "step": self.steps_taken,
            "progress": self.progress,
            "skipped": self._skipped,
            "ledger": self.ledger.facts(),
            "trigger": asdict(self.trigger),
        }

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.learner.restore(tensors)
        self.ema.load_state_dict(strip_prefix("ema/", tensors))
        self.example_counts = ExampleCounts(tensors["example_counts/drawn"], tensors["example_counts/trained"])
        self.selector.restore(strip_prefix("selector/", tensors))
        if self.proxy is not None:
            self.proxy.restore(strip_prefix("proxy/", tensors))
        self.selector.trigger = TriggerState(**facts["trigger"])
        self.ledger.restore(facts["ledger"])
        self.steps_taken, self.progress = int(facts["step"]), float(facts["progress"])
        self._skipped = int(facts["skipped"])
