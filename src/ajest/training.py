"""The training loop. It knows no task: a source gives examples, a network denoises, an arm chooses.

    source.draw(B) -> Batch -> score(learner, reference) -> policy -> indices -> Batch[kept] -> update -> EMA

The loop is a generator: it yields after each step, and progress, logging, snapshots and stopping are the body
of the caller's `for`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from .arms import Arm
from .batch import Batch, Source
from .config import check
from .denoising import objective, per_example_loss
from .ema import PowerEMA
from .errors import Diverged
from .ledger import Counts, Ledger
from .seeding import generator
from .selection.policies import POLICIES
from .selection.scoring import Scores, score
from .selection.triggers import TriggerState


class Network(Protocol):
    """What the ledger asks of a network beside being an `nn.Module` and a `Denoiser`."""

    def flops(self) -> int:
        """Floating-point operations of denoising one example; backward costs twice as many again."""
        ...


@dataclass(frozen=True)
class LearningRate:
    """`peak * min(n / rampup, 1) / sqrt(max(t / decay, 1))`, n examples trained on, t the clock (EDM2 equation 67).

    Attributes:
        peak: the highest rate.
        decay: when it begins to fall; 0 keeps it constant.
        rampup: examples over which it rises from 0; 0 starts at the peak.
        clock: what `decay` counts: steps, or examples trained on, which arms of different batches share.
    """

    peak: float = 0.01
    decay: float = 512
    rampup: float = 0
    clock: Literal["steps", "examples"] = "steps"

    def __call__(self, step: int, examples: int) -> float:
        rate = self.peak
        if self.rampup:
            rate *= min(examples / self.rampup, 1)
        if self.decay:
            rate /= max((step if self.clock == "steps" else examples) / self.decay, 1) ** 0.5
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
        not_finite: what to do with a gradient that is not finite: "stop" the run, or put "zero" in its place (EDM2).
    """

    super_batch: int = 4096
    learning_rate: LearningRate = LearningRate()
    betas: tuple[float, float] = (0.9, 0.99)
    ema_widths: tuple[float, ...] = (0.01, 0.05, 0.1)
    micro_batch: int | None = None
    not_finite: Literal["stop", "zero"] = "stop"

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


class Tally:
    """How often each example was drawn and how often trained on, by id; both int64, as long as the largest id asks.

    Args:
        drawn, trained: where to go on from.
    """

    def __init__(self, drawn: Tensor | None = None, trained: Tensor | None = None) -> None:
        nothing = torch.zeros(0, dtype=torch.int64)
        self.drawn, self.trained = nothing if drawn is None else drawn, nothing if trained is None else trained

    def count(self, drawn: Tensor, trained: Tensor) -> None:
        """Book the ids of a step."""
        self.drawn = _added(self.drawn, drawn, 0)
        self.trained = _added(self.trained, trained, len(self.drawn))


def _added(counts: Tensor, ids: Tensor, length: int) -> Tensor:
    found = torch.bincount(ids.cpu(), minlength=max(len(counts), length))
    found[: len(counts)] += counts
    return found


class Trainer:
    """A network in training, with everything that has to survive a restart.

    Args:
        source: where examples come from.
        network: the learner, on its device.
        recipe: how it is trained.
        arm: what it is trained on.
        seed: names the random streams. Arms of one seed draw the same examples.
        reference: the guide, for arms that use it.
    """

    def __init__(
        self,
        source: Source,
        network: nn.Module,
        recipe: Recipe,
        arm: Arm,
        seed: int,
        reference: nn.Module | None = None,
    ) -> None:
        self.source, self.network, self.recipe, self.arm, self.seed = (
            source,
            network.train(),
            recipe,
            arm,
            seed,
        )
        self.device = next(network.parameters()).device
        self.ledger = Ledger(self.device)
        self.ema = PowerEMA(network, recipe.ema_widths)
        self.optimizer = torch.optim.Adam(
            network.parameters(), lr=recipe.learning_rate.peak, betas=recipe.betas, fused=True
        )
        self.trigger: TriggerState = arm.trigger.begin()
        self.tally = Tally()
        self.steps_taken = 0
        self._kept = arm.kept(recipe.super_batch)
        self._choose = arm.choose()
        if arm.reference == "guide":
            check(reference is not None, f"arm {arm.name!r} needs a guide as reference: train one and name it")
        references = {"none": None, "guide": reference, "ema": self.ema[recipe.ema_widths[0]]}
        self._reference = references[arm.reference]
        self._reads = POLICIES[arm.policy].needs

    def steps(self) -> Iterator[Step]:
        """Train on, without end.

        Raises:
            Diverged: a loss or gradient is not finite. Weights and averages are those before that step.
        """
        while True:
            yield self.step()

    def step(self) -> Step:
        """One step."""
        phase = self.ledger.phase
        kind, selecting = self._plan()
        drawn = self.recipe.super_batch if self.arm.scores or self.arm.policy == "uniform" else self._kept
        with phase("draw"):
            # On the CPU wherever the network is: all devices see the same examples.
            batch = self.source.draw(drawn, generator(self.seed, "draw", self.steps_taken))
        with phase("target"):
            batch = self.source.complete(batch)

        scores, kept, scored, flops, chosen = None, None, 0, 0.0, batch
        watching = self.arm.trigger.compares and self.trigger.fired_at is None
        learner_loss = reference_loss = None
        if watching or (selecting and "reference" in self._reads):
            with phase("reference scoring"):
                assert self._reference is not None  # checked where the trainer was made
                reference_loss = score(self._reference, batch, self.recipe.micro_batch)
            flops += drawn * self._flops(self._reference)
        if selecting:
            if watching or "learner" in self._reads:
                with phase("learner scoring"):
                    learner_loss = score(self.network, batch, self.recipe.micro_batch)
                scored, flops = drawn, flops + drawn * self._flops(self.network)
            scores = Scores(learner_loss, reference_loss)
            with phase("select"):
                stream = generator(self.seed, "select", self.steps_taken, device=self.device)
                kept = self._choose(scores, self._kept, stream)
                chosen = batch[kept]

        with phase("update"):
            loss = self._update(chosen)
        flops += 3 * len(chosen) * self._flops(self.network)
        with phase("ema"):
            self.ema.update(self.steps_taken + 1)

        losses = None
        if watching and reference_loss is not None:
            learner_mean = loss if learner_loss is None else learner_loss.mean().item()
            losses = (learner_mean, reference_loss.mean().item())
        self.trigger = self.arm.trigger.observe(self.trigger, self.steps_taken, losses)
        self.tally.count(batch.id, chosen.id)
        self.steps_taken += 1
        seconds = self.ledger.close_step(kind, Counts(drawn, scored, len(chosen)), flops)
        return Step(self.steps_taken, kind, loss, self.trigger.advantage, seconds, batch, kept, scores)

    def _plan(self) -> tuple[str, bool]:
        """(kind of the next step, whether it selects by scores)."""
        kinds = self.arm.kinds()
        if not self.arm.scores:
            return kinds[0], False
        if self.trigger.on:
            return kinds[0], True
        return kinds[-1], False

    def _update(self, batch: Batch) -> float:
        """Forward and backward on the chosen examples alone, then an Adam step."""
        rate = self.recipe.learning_rate(self.steps_taken, self.ledger.counts.trained + len(batch))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total = torch.zeros((), device=self.device)
        for part in batch.split(self.recipe.micro_batch or len(batch)):
            losses = per_example_loss(self.network(part.x, part.sigma, part.label), part)
            (objective(losses, part, self.network).sum() / len(batch)).backward()
            total += losses.detach().sum()
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        value = total.item() / len(batch)
        if self.recipe.not_finite == "zero":
            for gradient in gradients:
                torch.nan_to_num_(gradient, nan=0.0, posinf=0.0, neginf=0.0)
        elif not bool(torch.isfinite(torch.stack(torch._foreach_norm(gradients)).sum() + total)):
            raise Diverged(
                f"the loss or its gradient is not finite at step {self.steps_taken + 1} (loss {value:g}, "
                f"learning rate {rate:g}): lower the learning rate"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return value

    @staticmethod
    def _flops(network: Any) -> float:
        return float(network.flops()) if hasattr(network, "flops") else 0.0

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, facts) from which `restore` goes on bit for bit."""
        tensors = {f"network/{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"ema/{k}": v for k, v in self.ema.state_dict().items()}
        tensors |= {"tally/drawn": self.tally.drawn, "tally/trained": self.tally.trained}
        for i, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam/{i}/{k}": v for k, v in slots.items()}
        trigger = {k: getattr(self.trigger, k) for k in ("on", "fired_at", "advantage", "observations")}
        return tensors, {"step": self.steps_taken, "ledger": self.ledger.facts(), "trigger": trigger}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.network.load_state_dict(part("network/"))
        self.ema.load_state_dict(part("ema/"))
        self.tally = Tally(tensors["tally/drawn"], tensors["tally/trained"])
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in part("adam/").items():
            index, name = key.split("/")
            slots.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})
        self.trigger = TriggerState(**facts["trigger"])
        self.ledger.restore(facts["ledger"])
        self.steps_taken = int(facts["step"])
