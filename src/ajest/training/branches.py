"""Up to which batch a run could go on as well: branches from its last checkpoint (arXiv 2505.23971).

A gradient's noise over its signal (`Moments.critical_batch`) counts a first step. Branches count what is learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch

from ajest.errors import Diverged, UserError, check
from ajest.runtime.seeding import derived_seed, generator
from ajest.selection.scoring import score
from ajest.storage import checkpoint

from .recipe import LearningRate
from .run import make_trainer
from .run_folder import RunConfig, read_config

#: Batches of the branches, in batches of the run.
FACTORS = (1 / 4, 1 / 2, 1.0, 2.0, 4.0)
_JUDGED_ON = 8192  # examples that all branches are measured on
_FALLEN = 0.05  # a rate below this share of its peak learns next to nothing more


@dataclass(frozen=True)
class Branch:
    """Branches of one batch.

    Attributes:
        batch: examples drawn for a step.
        rate: learning rate, which follows the root of the batch.
        steps: taken.
        losses: after these, one for each repeat, all on the same examples under fresh noise.
    """

    batch: int
    rate: float
    steps: int
    losses: tuple[float, ...]

    @property
    def loss(self) -> float:
        return fmean(self.losses)


@dataclass(frozen=True)
class Branches:
    """What branches of a run found.

    Attributes:
        folder, step: the run and its checkpoint.
        examples: that each branch drew.
        own: the run's batch.
        before: the loss at the checkpoint.
        branches: by rising batch.
    """

    folder: str
    step: int
    examples: int
    own: int
    before: float
    branches: tuple[Branch, ...]


def branch(
    folder: Path,
    examples: int,
    factors: Sequence[float] = FACTORS,
    repeats: int = 5,
    device: torch.device | str = "cpu",
    say: Callable[[int, int], None] = lambda done, total: None,
) -> Branches:
    """Train on from a run's last checkpoint with smaller and larger batches, each on as many examples.

    Args:
        folder: of the run.
        examples: that each branch draws; steps are rounded to whole ones.
        factors: batches, in batches of the run.
        repeats: of every branch, with other examples.
        device: where to compute.
        say: told how many of the branches are done.

    Raises:
        UserError: no checkpoint is left, the run's rate has fallen to nothing, or a branch would take no step.
    """
    config = read_config(folder)
    stored = checkpoint.latest(folder, "checkpoint", lambda _: None)
    check(stored is not None, f"{folder} has no checkpoint to branch from: train it on, or anew")
    assert stored is not None
    check(1 in factors, "branches are held against the run's own batch: let 1 be among the factors")
    recipe, own = config.recipe.of(config.arm), config.recipe.super_batch
    step, progress = int(stored.facts["step"]), float(stored.facts["progress"])
    rate = recipe.learning_rate(step, int(stored.facts["ledger"]["trained"]), progress)
    check(
        rate > _FALLEN * recipe.learning_rate.peak,
        f"the learning rate of {folder} has fallen to {rate:.2g}, with which no batch learns more: branch from a run "
        "whose rate stays up, such as one of --arm constant",
    )
    check(
        round(examples / (own * max(factors))) >= 1,
        f"{examples:,} examples are less than a step of the largest batch: branch over {round(own * max(factors)):,} "
        "or more",
    )
    source = config.task.source(device)
    batch = source.complete(source.draw(_JUDGED_ON, generator(config.seed, "branches")))

    def run(factor: float, repeat: int, steps: int) -> float:
        """The loss after so many steps."""
        course = LearningRate(rate * factor**0.5, decay=0)
        changed = replace(config.recipe, super_batch=round(own * factor), learning_rate=course)
        arm = replace(config.arm, updates=replace(config.arm.updates, course=None, decay=1.0))
        seed = derived_seed(config.seed, "branch", repeat) if repeat else config.seed
        branched: RunConfig = replace(config, recipe=changed, arm=arm, seed=seed)
        trainer = make_trainer(folder, branched, device, warn=lambda _: None)
        trainer.restore({name: tensor.clone() for name, tensor in stored.tensors.items()}, stored.facts)
        try:
            for _ in range(steps):
                trainer.step()
        except Diverged as error:
            raise UserError(
                f"a branch of {round(own * factor):,} examples a step diverged at a learning rate of "
                f"{rate * factor**0.5:.3g} ({error}): leave that batch out, or branch from a run of a lower rate"
            ) from error
        return float(score(trainer.network, batch, config.recipe.micro_batch).mean())

    found, total = [], len(factors) * repeats
    for i, factor in enumerate(sorted(factors)):
        steps, losses = round(examples / (own * factor)), []
        for repeat in range(repeats):
            losses.append(run(factor, repeat + 1, steps))
            say(i * repeats + repeat + 1, total)
        found.append(Branch(round(own * factor), rate * factor**0.5, steps, tuple(losses)))
    return Branches(str(folder), step, examples, own, run(1.0, 0, 0), tuple(found))
