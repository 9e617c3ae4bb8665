"""What an arm remembers of scores from step to step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ajest.diffusion.batch import Batch

from .arm import Arm
from .memory import LossMemory, LossTracker
from .policies import value_of
from .scoring import Scores

_RUNNING_STATS = "running_stats"


class ScoreMemory:
    """Losses remembered by example or noise level, and running statistics of scores at each noise level, as far as an
    arm asks for either.

    Args:
        arm: whose.
        device: where batches are.

    Attributes:
        losses: what is remembered of the learner's and the reference's losses, by "learner" and "reference"; empty for
            arms that remember none.
        running_stats: of the score that the policy reads, where it is normalised by them and no losses are remembered,
            which have their own; else None.
    """

    def __init__(self, arm: Arm, device: torch.device | str = "cpu") -> None:
        self._criterion = arm.criterion
        self._normalises = arm.effective("normalise") == "running"
        self._feeds_on_training = arm.memory is not None and not arm.memory.every
        self._blend = 0.0 if arm.memory is None else arm.memory.blend
        self.losses: dict[str, LossTracker] = {}
        if arm.memory is not None:
            names = [n for n in ("learner", "reference") if n in arm.registered.needs]
            self.losses = {n: LossTracker(arm.memory, device) for n in names}
        alone = self._normalises and not self.losses
        self.running_stats = LossTracker(LossMemory("sigma"), device) if alone else None

    def __bool__(self) -> bool:
        """Whether anything is kept from step to step, which takes time."""
        return bool(self._trackers())

    def recalled(self, batch: Batch, scores: Scores) -> Scores:
        """The scores with what is remembered in the place of what was measured."""
        return replace(scores, **{name: tracker.recall(batch) for name, tracker in self.losses.items()})

    def blended(self, batch: Batch, scores: Scores) -> Scores:
        """What was measured, with the remembered share of an arm that blends the two."""
        if not self._blend:
            return scores
        mixed = {n: scores.needed(n).lerp(tracker.recall(batch), self._blend) for n, tracker in self.losses.items()}
        return replace(scores, **mixed)

    def with_running_stats(self, scores: Scores) -> Scores:
        """The scores with the running statistics at their noise levels, if the policy measures against those."""
        if not self._normalises:
            return scores
        source = self.running_stats if self.running_stats is not None else self.losses["learner"]
        return replace(scores, running_stats=source.running_stats(scores.needed("sigma")))

    def learn_scores(self, batch: Batch, scores: Scores) -> None:
        """Take in the scores of a super-batch that was measured."""
        for name, tracker in self.losses.items():
            tracker.learn(batch, scores.needed(name))
        if self.running_stats is not None and self._criterion is not None:
            self.running_stats.learn(batch, value_of(scores, self._criterion))

    def learn_losses(self, trained: Batch, losses: Tensor) -> None:
        """Take in finite losses of examples that were trained on, shape (n,), where nothing else feeds the memory."""
        if "learner" not in self.losses or not self._feeds_on_training:
            return
        self.losses["learner"].learn(trained, losses)

    def state(self) -> dict[str, Tensor]:
        """All of it, as tensors by name."""
        return {f"{name}/{k}": v for name, tracker in self._trackers().items() for k, v in tracker.state().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        for name, tracker in self._trackers().items():
            tracker.restore({k.removeprefix(f"{name}/"): v for k, v in state.items() if k.startswith(f"{name}/")})

    def _trackers(self) -> dict[str, LossTracker]:
        return self.losses | ({} if self.running_stats is None else {_RUNNING_STATS: self.running_stats})
