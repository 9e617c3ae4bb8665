"""The training loop. It knows no task: a source gives examples, a network denoises, an arm chooses.

    curator: source.draw(B) -> Batch -> score(learner, reference) -> policy -> indices -> Batch[kept]
    trainer: -> update -> EMA

The loop is a generator: it yields after each step, and progress, logging, snapshots and stopping are the body
of the caller's `for`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any, Literal

import torch
from torch import Tensor, nn

from . import distributed, interrupts
from .arms import Arm
from .batch import Batch, Source
from .config import check
from .curation import Curator
from .denoising import objective, per_example_loss
from .ema import PowerEMA
from .errors import Diverged
from .ledger import Ledger
from .metrics import Role
from .seeding import drawing_from
from .selection.scoring import Scores
from .selection.triggers import TriggerState

NotFinite = Literal["stop", "skip", "zero"]

#: Steps in a row that may be skipped: weights that give nothing but infinities stay as they are for ever.
SKIPS = 20


@dataclass(frozen=True)
class LearningRate:
    """`peak * min(n / rampup, 1) / sqrt(max(t / decay, 1))`, n examples trained on, t the clock (EDM2 equation 67).

    Attributes:
        peak: the highest rate.
        decay: when it begins to fall; 0 keeps it constant.
        rampup: examples over which it rises from 0; 0 starts at the peak.
        clock: what `decay` counts: steps; examples trained on, which arms of different batches share; or the share
            of the run, so that the whole course is stretched to each budget (No Train No Gain, arXiv 2307.06440).
    """

    peak: float = 0.01
    decay: float = 512
    rampup: float = 0
    clock: Literal["steps", "examples", "share"] = "steps"

    def __post_init__(self) -> None:
        check(0 < self.peak < inf, f"the learning rate must be above 0, not {self.peak}")

    def __call__(self, step: int, examples: int, share: float = 0.0) -> float:
        rate = self.peak
        if self.rampup:
            rate *= min(examples / self.rampup, 1)
        if self.decay:
            rate /= max({"steps": step, "examples": examples, "share": share}[self.clock] / self.decay, 1) ** 0.5
        return rate


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, apart from what it is trained on.

    Attributes:
        super_batch: examples drawn for a step, B.
        learning_rate: its course.
        betas: of Adam.
        ema_widths: relative widths of the averages kept; the first is the one reported.
        micro_batch: examples that are scored or trained on at a time, which bounds memory and keeps a CPU's caches
            warm; selection acts on the whole super-batch all the same. None takes all at once.
        scope: where several processes train, choose from the whole super-batch ("global"), which gives what one process
            would, or each from its own part of it ("rank"), as the published code does.
        not_finite: what to do where a loss or gradient is not finite: "stop" the run, "skip" the step, which leaves the
            weights as they were, or put "zero" in the place of such gradients (EDM2). The ledger counts them.
    """

    super_batch: int = 4096
    learning_rate: LearningRate = LearningRate()
    betas: tuple[float, float] = (0.9, 0.99)
    ema_widths: tuple[float, ...] = (0.01, 0.05, 0.1)
    micro_batch: int | None = None
    scope: Literal["global", "rank"] = "global"
    not_finite: NotFinite = "stop"

    def __post_init__(self) -> None:
        check(
            self.micro_batch is None or self.micro_batch >= 1, f"micro_batch must be at least 1, not {self.micro_batch}"
        )
        check(self.super_batch >= 1, f"super_batch must be at least 1, not {self.super_batch}")
        check(len(self.ema_widths) >= 1, "ema_widths must name at least one width")


@dataclass(frozen=True)
class Step:
    """What the loop yields.

    Attributes:
        number: steps taken so far, from 1.
        kind: what kind of step it was, one of `Arm.kinds()`.
        loss: mean loss over the examples trained on, before the update.
        advantage: the trigger's smoothed reference loss minus learner loss; 0 where nothing is compared.
        seconds: by phase.
        batch: the super-batch, or all that was drawn.
        kept: indices into `batch` of the examples trained on; None means all.
        scores: scores of `batch`, None where none were taken.
    """

    number: int
    kind: str
    loss: float
    advantage: float
    seconds: dict[str, float]
    batch: Batch
    kept: Tensor | None
    scores: Scores | None


def _within_ranks(arm: Arm, recipe: Recipe) -> Arm:
    """The arm as it chooses where each of several processes chooses from its own part of the super-batch."""
    processes = distributed.world()
    if recipe.scope == "global" or processes == 1 or not arm.scores:
        return arm
    part, rest = divmod(recipe.super_batch, processes)
    check(rest == 0, f"a super-batch of {recipe.super_batch} has no equal parts for {processes} processes")
    return replace(arm, within=part if arm.within is None else min(part, arm.within))


class Tally:
    """How often each example was drawn and how often trained on, by id; both int64, as long as the largest id asks.

    Args:
        drawn, trained: where to go on from.
    """

    def __init__(self, drawn: Tensor | None = None, trained: Tensor | None = None) -> None:
        nothing = torch.zeros(0, dtype=torch.int64)
        self.drawn = nothing.clone() if drawn is None else drawn.clone()
        self.trained = nothing.clone() if trained is None else trained.clone()

    def count(self, drawn: Tensor, trained: Tensor) -> None:
        """Book the ids of a step, in time that does not depend on how many examples there are."""
        drawn, trained = drawn.cpu(), trained.cpu()
        missing = int(max(drawn.max(), trained.max())) + 1 - len(self.drawn)
        if missing > 0:
            more = self.drawn.new_zeros(missing)
            self.drawn, self.trained = torch.cat([self.drawn, more]), torch.cat([self.trained, more])
        self.drawn.index_add_(0, drawn, torch.ones_like(drawn))
        self.trained.index_add_(0, trained, torch.ones_like(trained))


class Optimised:
    """A network with its Adam optimiser.

    Args:
        network: to be trained, on its device.
        recipe: how.
    """

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        self.network, self.recipe = network.train(), recipe
        self._module = distributed.averaging(network)
        peak = recipe.learning_rate.peak
        self.optimizer = torch.optim.Adam(network.parameters(), lr=peak, betas=recipe.betas, fused=True)

    def gradients(
        self, batch: Batch, rate: float, weight: Tensor | None = None, total: int | None = None
    ) -> tuple[Tensor, bool]:
        """Forward and backward on these examples alone. Returns their losses, shape (n,): those of all processes, each
        of which has its `distributed.share` of them; and whether they and their gradient are finite.

        If it does not come to its end, the network is as before, bit for bit: one that normalises its own weights in
        each forward pass too.

        Args:
            batch: what this process is to train on, completed.
            rate: the learning rate of the `step` to come.
            weight: importance weights of these, shape (n,), or None.
            total: examples of all processes; None: there is one.

        Raises:
            Diverged: a loss or gradient is not finite, and the recipe says to stop.
            UserError: there are fewer examples than processes.
            KeyboardInterrupt: it was given up (see `interrupts`).
        """
        total = len(batch) if total is None else total
        check(total >= distributed.world(), f"{total} examples a step are too few for {distributed.world()} processes")
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        tensors = (*self.network.parameters(), *self.network.buffers())
        kept = [(tensor, tensor.detach().clone()) for tensor in tensors]
        try:
            with interrupts.undoable():
                return self._gradients(batch, weight, total)
        except BaseException:
            self.optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                for tensor, before in kept:
                    tensor.copy_(before)
            raise

    def _gradients(self, batch: Batch, weight: Tensor | None, total: int) -> tuple[Tensor, bool]:
        found = []
        size = self.recipe.micro_batch or len(batch)
        for i, part in enumerate(batch.split(size)):
            last = (i + 1) * size >= len(batch)
            with nullcontext() if last or self._module is self.network else self._module.no_sync():  # type: ignore[operator]
                losses = per_example_loss(self._module(part.x, part.sigma, part.label), part)
                minimised = objective(losses, part, self.network)
                if weight is not None:
                    minimised = minimised * weight[i * size : i * size + len(part)]
                # Gradients are averaged over processes, which may differ by an example.
                (minimised.sum() / (total / distributed.world())).backward()
            found.append(losses.detach())
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        losses = distributed.gather(torch.cat(found), total)
        finite = bool(torch.isfinite(torch.stack(torch._foreach_norm(gradients)).sum() + losses.sum()))
        if not finite and self.recipe.not_finite == "stop":
            rate = self.optimizer.param_groups[0]["lr"]
            raise Diverged(f"the loss or its gradient is not finite (learning rate {rate:g}): lower the learning rate")
        return losses, finite

    def step(self, finite: bool) -> None:
        """An Adam step by what `gradients` left, unless that is not finite and to be skipped."""
        if not finite and self.recipe.not_finite == "zero":
            for parameter in self.network.parameters():
                if parameter.grad is not None:
                    torch.nan_to_num_(parameter.grad, nan=0.0, posinf=0.0, neginf=0.0)
        if finite or self.recipe.not_finite == "zero":
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        tensors = {f"network/{k}": v for k, v in self.network.state_dict().items()}
        for i, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam/{i}/{k}": v for k, v in slots.items()}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self.network.load_state_dict(under("network/", tensors))
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in under("adam/", tensors).items():
            index, name = key.split("/")
            slots.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


class Trainer:
    """A network in training, with everything that has to survive a restart.

    Args:
        source: where examples come from.
        network: the learner, on its device.
        recipe: how it is trained.
        arm: what it is trained on.
        seed, role: name the random streams. Arms of one seed draw the same examples, a guide of that seed others.
        reference: the model that learnability is measured against, for arms with one of their own.
        proxy: the smaller network that scores in the learner's place, for arms with a proxy.

    Attributes:
        share: of the run that is done, 0 to 1, for what depends on it; set by whoever knows when the run ends.
        whole: whether `state` is that of a finished step; not while one is being booked.
    """

    def __init__(
        self,
        source: Source,
        network: nn.Module,
        recipe: Recipe,
        arm: Arm,
        seed: int,
        reference: nn.Module | None = None,
        proxy: nn.Module | None = None,
        role: Role = "learner",
    ) -> None:
        arm = _within_ranks(arm, recipe)
        self.network, self.recipe, self.arm = network, recipe, arm
        self.device = next(network.parameters()).device
        self.ledger = Ledger(self.device)
        self.ema = PowerEMA(network, recipe.ema_widths)
        self.learner = Optimised(network, recipe)
        self.proxy = None if proxy is None else Optimised(proxy, recipe)
        if arm.reference == "ema":
            reference = self.ema[recipe.ema_widths[0]]
        size, micro = recipe.super_batch, recipe.micro_batch
        self.curator = Curator(source, network, arm, size, micro, seed, reference, proxy, role)
        self.tally = Tally()
        self.steps_taken = 0
        self.share = 0.0
        self.whole = True
        self._skipped = 0  # steps in a row

    @property
    def trigger(self) -> TriggerState:
        return self.curator.trigger

    def steps(self) -> Iterator[Step]:
        """Train on, without end.

        Raises:
            Diverged: a loss or gradient is not finite, and the recipe says to stop, or too many steps in a row were
                skipped. Weights and averages are those before that step.
        """
        while True:
            yield self.step()

    def step(self, kind: str | None = None) -> Step:
        """One step; `kind` forces one of `Arm.kinds()`.

        Raises:
            Diverged: see `steps`.
            KeyboardInterrupt: the step was given up (see `interrupts`); the trainer is as before it.
        """
        phase, at = self.ledger.phase, self.steps_taken
        with interrupts.undoable():
            choice = self.curator.choose(at, self.share, phase, kind)
        optimised = [self.learner] if self.proxy is None else [self.learner, self.proxy]
        with phase("update"), drawing_from(self.curator.stream("update", at, distributed.rank())):
            total, weight = choice.counts.trained, choice.weight
            rate = self.recipe.learning_rate(at, self.ledger.counts.trained + total, self.share)
            mine = None if weight is None else weight[distributed.share(total)]
            try:
                found = [part.gradients(choice.chosen, rate, mine, total) for part in optimised]
                self._count_skipped(found[0][1])
            except Diverged as error:
                raise Diverged(f"at step {at + 1}: {error}") from error
            self.whole = False
            for part, (_, finite) in zip(optimised, found, strict=True):
                part.step(finite)
            losses = found[0][0]
            loss = (losses if weight is None else losses * weight).mean().item()
        with phase("ema"):
            self.ema.update(at + 1)
        with phase("select") if self.curator.remembers else nullcontext():
            self.curator.learn(choice, losses, at, self.share)
        self.tally.count(choice.batch.id, choice.trained.id)
        self.steps_taken += 1
        not_finite = not all(finite for _, finite in found)
        seconds = self.ledger.close_step(choice.kind, choice.counts, choice.flops, choice.unusable, not_finite)
        self.whole = True
        advantage = self.trigger.advantage
        return Step(self.steps_taken, choice.kind, loss, advantage, seconds, choice.batch, choice.kept, choice.scores)

    def _count_skipped(self, finite: bool) -> None:
        self._skipped = 0 if finite or self.recipe.not_finite != "skip" else self._skipped + 1
        if self._skipped > SKIPS:
            raise Diverged(
                f"{SKIPS} steps in a row were skipped: no loss or gradient was finite; lower the learning rate"
            )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, facts) from which `restore` goes on bit for bit."""
        tensors = self.learner.state()
        tensors |= {f"ema/{k}": v for k, v in self.ema.state_dict().items()}
        tensors |= {"tally/drawn": self.tally.drawn, "tally/trained": self.tally.trained}
        tensors |= {f"curator/{k}": v for k, v in self.curator.state().items()}
        if self.proxy is not None:
            tensors |= {f"proxy/{k}": v for k, v in self.proxy.state().items()}
        return tensors, {
            "step": self.steps_taken,
            "share": self.share,
            "skipped": self._skipped,
            "ledger": self.ledger.facts(),
            "trigger": asdict(self.trigger),
        }

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.learner.restore(tensors)
        self.ema.load_state_dict(under("ema/", tensors))
        self.tally = Tally(tensors["tally/drawn"], tensors["tally/trained"])
        self.curator.restore(under("curator/", tensors))
        if self.proxy is not None:
            self.proxy.restore(under("proxy/", tensors))
        self.curator.trigger = TriggerState(**facts["trigger"])
        self.ledger.restore(facts["ledger"])
        self.steps_taken, self.share = int(facts["step"]), float(facts["share"])
        self._skipped = int(facts["skipped"])
