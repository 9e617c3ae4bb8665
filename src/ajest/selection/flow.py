"""One step of selection as three functions with three values between them: draw -> Drawn, score -> Scored, pick ->
Picked (docs/method.md#flow).

What has to be remembered from step to step is the selector's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ajest.diffusion.batch import Batch, DeferredBatch, RowSource, Source, draws_rows
from ajest.diffusion.network import flops_of, sketch_flops_of
from ajest.errors import UserError
from ajest.runtime import distributed
from ajest.runtime.counter import CounterStream
from ajest.runtime.seeding import Streams

from .agreement import chosen_by_first
from .arm import Arm, Scoring
from .features import score_with_features
from .kinds import StepKind
from .registry import importance
from .scoring import Scores, score


class Phases(Protocol):
    """`Ledger.phase`."""

    def __call__(self, name: str) -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class Plan:
    """What a step is to do.

    Attributes:
        step: its number, from 0.
        progress: share of the run that is done before it.
        kind: its kind.
        drawn: examples to draw.
        noise_draws: noise draws of each.
        measures: whether the scores that the policy reads are taken.
        watches: whether the losses that the trigger compares are taken.
    """

    step: int
    progress: float
    kind: StepKind
    drawn: int
    noise_draws: int
    measures: bool
    watches: bool

    @property
    def needs_targets(self) -> bool:
        """Whether targets of all that is drawn are needed, and not of what is chosen alone."""
        return self.measures or self.watches or not self.kind.chooses


@dataclass(frozen=True)
class Drawn:
    """A super-batch.

    Attributes:
        batch: the whole of it, completed where this process has all of it and its targets are needed.
        parts: this process's part, once for each noise draw, completed where targets are needed.
    """

    batch: Batch
    parts: tuple[Batch, ...]

    def __len__(self) -> int:
        return len(self.batch)


@dataclass(frozen=True)
class Scored:
    """What networks made of a super-batch; None where nobody looked.

    Attributes:
        learner, reference: losses, shape (B,), means over noise draws.
        features: directions, shape (B, d).
        examples: that were scored, once for each noise draw.
        flops: what it cost all processes together.
    """

    learner: Tensor | None = None
    reference: Tensor | None = None
    features: Tensor | None = None
    examples: int = 0
    flops: float = 0.0


@dataclass(frozen=True)
class Picked:
    """What is trained on.

    Attributes:
        chosen: what this process trains on, completed.
        kept: indices into the super-batch of what all processes together train on; None means all.
        weight: importance weights of these, or None.
        scores: what the choice rests on, None where it rests on nothing.
        finite: indices into the super-batch of the examples whose scores are finite; None where all are, or where that
            was taken for granted.
    """

    chosen: Batch
    kept: Tensor | None = None
    weight: Tensor | None = None
    scores: Scores | None = None
    finite: Tensor | None = None


@dataclass(frozen=True)
class Networks:
    """The networks of a run.

    Attributes:
        learner: the one in training.
        reference: the model that learnability is measured against.
        proxy: the smaller one whose losses stand for the learner's, for arms with a proxy.
    """

    learner: nn.Module
    reference: nn.Module | None = None
    proxy: nn.Module | None = None


@dataclass(frozen=True)
class Scorer:
    """How an arm scores.

    Attributes:
        networks: that can be asked.
        scoring: how they are asked.
        reads: which scores the policy reads, see `Policy.needs`.
        micro_batch: examples scored at a time; None scores all at once.
        halved: halves the resolution of a batch, for arms that score so.
    """

    networks: Networks
    scoring: Scoring
    reads: frozenset[str]
    micro_batch: int | None = None
    halved: Callable[[Batch], Batch] | None = None

    @property
    def network(self) -> Any:
        """The network whose losses stand for the learner's."""
        return self.networks.proxy if self.scoring.scorer == "proxy" else self.networks.learner

    def losses(self, network: Any, batches: Sequence[Batch]) -> Tensor:
        """Mean losses over noise draws, shape (n,), at half resolution if the arm says so."""
        if self.scoring.half and self.halved is not None:
            batches = [self.halved(b) for b in batches]
        parts = [score(network, b, self.micro_batch) for b in batches]
        return parts[0] if len(parts) == 1 else torch.stack(parts).mean(0)

    def with_features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(losses, features) of a batch, see `score_with_features`."""
        return score_with_features(self.network, batch, self.scoring.features, self.micro_batch)

    def flops(self, network: Any, batch: Batch) -> float:
        """Operations of scoring one example."""
        return flops_of(network, lambda: batch) / (4 if self.scoring.half else 1)

    def feature_flops(self, batch: Batch) -> float:
        """What the features of one example cost beside its loss."""
        if self.scoring.features != "gradient":
            return 0.0
        return sketch_flops_of(self.network, lambda: batch) - flops_of(self.network, lambda: batch)


def draw(source: Source, streams: Streams, plan: Plan, phase: Phases) -> Drawn:
    """Draw a super-batch, with its targets if they are needed.

    On the host all processes draw the whole of it, so that all devices see the same examples; on the device each draws
    its own part. Targets each computes of its own part.
    """
    with phase("draw"):
        batches = [_drawn(source, streams, plan, again) for again in range(plan.noise_draws)]
        parts = [_own_part(batch) for batch in batches] if plan.needs_targets else batches
        _expect_next(source, streams, plan)
    if not plan.needs_targets:
        return Drawn(batches[0], tuple(batches))
    with phase("target"):
        parts = [source.complete(part) for part in parts]
    return Drawn(parts[0] if len(parts[0]) == plan.drawn else batches[0], tuple(parts))


def draw_noised(source: Source, streams: Streams, count: int, step: int, again: int, name: str = "draw") -> Batch:
    """The examples of a step, under the first noise (`again` 0) or under another."""
    if streams.drawing == "device":
        return _by_rows(source).draw_rows(range(count), *_counters(streams, step, again, name))
    eps = streams.generator(name, step, "noise", again) if again else None
    return source.draw(count, streams.generator(name, step), eps)


def _drawn(source: Source, streams: Streams, plan: Plan, again: int) -> Batch:
    """A super-batch that is whole, or of which several processes have yet to draw their parts."""
    if streams.drawing == "host" or distributed.world() == 1:
        return draw_noised(source, streams, plan.drawn, plan.step, again)
    by_rows, rows, counters = _by_rows(source), range(plan.drawn), _counters(streams, plan.step, again)
    known = by_rows.outline(rows, counters[0])
    return DeferredBatch(rows, known, lambda some: by_rows.draw_rows(some, *counters))


def _expect_next(source: Source, streams: Streams, plan: Plan) -> None:
    """Tell a source that reads ahead what it will be asked for next: the next step, if that is of the same kind."""
    expect = getattr(source, "expect", None)
    if expect is None:
        return
    if streams.drawing == "host":
        expect(range(plan.drawn), streams.generator("draw", plan.step + 1))
    elif plan.needs_targets or distributed.world() == 1:
        expect(range(plan.drawn)[distributed.rank_slice(plan.drawn)], streams.counter("draw", plan.step + 1))


def _counters(streams: Streams, step: int, again: int, name: str = "draw") -> tuple[CounterStream, CounterStream]:
    """The streams of a step's examples and of their noise."""
    return streams.counter(name, step), streams.counter(name, step, "noise", again)


def _by_rows(source: Source) -> RowSource:
    if draws_rows(source):
        return source
    raise UserError(
        f"the task's source, {type(getattr(source, 'source', source)).__name__}, draws on the host alone: leave out "
        "--drawing device, or give it the methods of ajest.diffusion.batch.RowSource"
    )


def score_drawn(drawn: Drawn, plan: Plan, scorer: Scorer, phase: Phases) -> Scored:
    """Score a super-batch by whatever networks the policy or the trigger asks for."""
    count, networks = len(drawn), scorer.networks
    learner = reference = features = None
    flops, examples = 0.0, len(drawn.parts) * count
    if plan.watches or (plan.measures and "reference" in scorer.reads):
        price = scorer.flops(networks.reference, drawn.batch)
        with phase("reference scoring"):
            reference = distributed.gather(scorer.losses(networks.reference, drawn.parts), count)
        flops += examples * price
    if plan.measures and (plan.watches or "learner" in scorer.reads):
        price = scorer.flops(scorer.network, drawn.batch)
        with_features = "features" in scorer.reads
        extra = scorer.feature_flops(drawn.batch) if with_features else 0.0
        with phase("learner scoring"):
            if with_features:
                learner, features = (distributed.gather(p, count) for p in scorer.with_features(drawn.parts[0]))
            else:
                learner = distributed.gather(scorer.losses(scorer.network, drawn.parts), count)
        flops += count * extra
        flops += examples * price
    nobody = learner is None and reference is None
    return Scored(learner, reference, features, 0 if nobody else examples, flops)


def pick(
    batch: Batch,
    scores: Scores,
    arm: Arm,
    count: int,
    progress: float,
    generator: torch.Generator | None = None,
    finite: Tensor | None = None,
) -> Picked:
    """Choose what to train on: of the examples with finite scores as long as there are enough; with fewer, others are
    taken along, and the step will not be finite. Of several processes the first chooses for all.

    Args:
        batch: the super-batch.
        scores: of its examples.
        arm: whose policy chooses.
        count: how many.
        progress: share of the run that is done, by which some policies cool.
        generator: random numbers, on the scores' device.
        finite: what `scores.finite()` says, for which a device has to be waited for; None takes for granted that all
            are, and whoever finds that they are not throws the choice away.
    """
    kept, weight = chosen_by_first(*_kept(scores, finite, arm, count, progress, generator))
    return Picked(batch[kept[distributed.rank_slice(len(kept))]].whole(), kept, weight, scores, finite)


def _kept(
    scores: Scores, finite: Tensor | None, arm: Arm, count: int, progress: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor | None]:
    """(indices to train on, their importance weights or None)."""
    if finite is not None and len(finite) < count:
        bad = torch.ones(len(scores), dtype=torch.bool, device=finite.device)
        bad[finite] = False
        kept = torch.cat([finite, torch.nonzero(bad).flatten()])[:count]
        return kept, torch.ones(len(kept), device=kept.device) if arm.unbiased else None
    if finite is not None:
        scores, arm = scores[finite], replace(arm, within=None)  # what is left has no equal parts
    else:
        scores = scores.filled()  # a choice that is thrown away must not fail before
    kept = arm.choose(progress)(scores, count, generator)
    weight = importance(arm.inclusion(progress)(scores, count), count)[kept] if arm.unbiased else None
    return kept if finite is None else finite[kept], weight


def _own_part(batch: Batch) -> Batch:
    """This process's part. One process has the very batch: runs that share a draw know it by that."""
    return batch if distributed.world() == 1 else batch[distributed.rank_slice(len(batch))].whole()
