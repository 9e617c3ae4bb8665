"""Scores remembered: what an example of that id, or of that noise level, scored before.

A remembered score costs a look-up. It makes scoring on every s-th step possible (stale scores), and selection that
never scores at all, fed by the losses of the examples trained on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ajest.diffusion.batch import Batch
from ajest.errors import UserError, check

from .cells import PRIOR, Cells

_LOWEST, _WIDTH, BINS = math.log(1e-3), 0.5, 28  # bins of ln sigma, from 0.001 to 1200; beyond, the first and last
_LEVEL_HALF_LIFE = 64.0  # steps in which a noise level is seen


@dataclass(frozen=True)
class LossMemory:
    """What is remembered, and how it is fed.

    Attributes:
        by: a score for each noise level ("sigma"); for each example, against the running statistics of its noise level
            ("id"); or for each example at each noise level ("both"), for sources that repeat examples very often.
        every: score the whole super-batch on every so many steps and choose by what is remembered on the others;
            0: never score, learn from the losses of the examples trained on.
        half_life: sightings of an example (with "both": at its noise level) after which an earlier one counts half.
            Each time that an example stands in a batch is a sighting.
        blend: share of the remembered loss in a score on steps that score the super-batch (Evolved Sampling, arXiv
            2509.23461).
    """

    by: Literal["sigma", "id", "both"] = "both"
    every: int = 0
    half_life: float = 4.0
    blend: float = 0.0

    def __post_init__(self) -> None:
        if self.every < 0:
            raise UserError(f"memory: every must be 0 (never score) or a number of steps, not {self.every}")
        if not self.half_life > 0:
            raise UserError(f"memory: half_life must be positive, not {self.half_life}")
        if not 0 <= self.blend < 1 or (self.blend and not self.every):
            raise UserError(f"memory: blend must lie in [0, 1), and needs every, not {self.blend} with {self.every}")


def bin_of(sigma: Tensor) -> Tensor:
    """Number of the bin of the noise level, shape (B,), int64. Infinite noise is in the last."""
    return ((sigma.float().log() - _LOWEST) / _WIDTH).clamp_(0, BINS - 1).long()


def _cell(example: Tensor, level: Tensor) -> Tensor:
    """Number of the cell of each example at its noise level."""
    return torch.add(level, example, alpha=BINS)


class Levels:
    """Running mean and standard deviation in each bin of the noise level, older steps fading.

    Args:
        device: where it lives.
        count: how many bins there are.
        half_life: steps that see a bin, after which what was seen in it counts half; infinite fades nothing.
    """

    def __init__(
        self, device: torch.device | str = "cpu", count: int = BINS, half_life: float = _LEVEL_HALF_LIFE
    ) -> None:
        self._fade = 0.5 ** (1 / half_life)
        self.sums = torch.zeros(3, count, device=device)  # faded count, sum and sum of squares
        bins = torch.arange(count, device=device)
        away = bins - bins[:, None]
        self._distance = 2 * away.abs() + (away < 0)  # of two that are equally near the upper one is taken

    def update(self, level: Tensor, values: Tensor) -> None:
        """Take one step's observations in: `values` seen in the bins `level`, shape (n,) each."""
        values = values.to(self.sums.dtype)
        fade = torch.ones_like(self.sums[0]).index_fill_(0, level, self._fade)
        self.sums.mul_(fade).index_add_(1, level, torch.stack([torch.ones_like(values), values, values.square()]))

    def mean(self, level: Tensor) -> Tensor:
        """Mean in each named bin, shape (n,); in the nearest one where nothing was seen, 0 where nothing was seen
        anywhere."""
        count, total, _ = self._nearest()
        return (total / count.clamp_min(1)).index_select(0, level)

    def mean_and_std(self, level: Tensor) -> Tensor:
        """Mean and standard deviation in each named bin, shape (n, 2); in the nearest one where nothing was seen,
        (0, 1) where nothing was seen anywhere.

        The spread of few observations says little, so it is drawn towards the root mean square.
        """
        count, total, squares = self._nearest()
        mean, power = total / count.clamp_min(1), squares / count.clamp_min(1)
        std = ((count * (power - mean.square()).clamp_min_(0) + PRIOR * power) / (count + PRIOR)).sqrt_()
        return torch.stack([mean, std.masked_fill_(std == 0, 1)], 1).index_select(0, level)

    def means(self) -> tuple[Tensor, Tensor]:
        """Mean, and mean of squares, of each bin, as `mean` has them, shape (count,) each."""
        count, total, squares = self._nearest()
        return total / count.clamp_min(1e-30), squares / count.clamp_min(1e-30)

    def _nearest(self) -> Tensor:
        """Faded count, sum and sum of squares in the nearest bin in which something was seen, of each bin, shape
        (3, count); zeros where nothing was seen anywhere."""
        nothing = self.sums[0] == 0
        return self.sums.index_select(1, self._distance.masked_fill(nothing, 4 * len(nothing)).argmin(1))


class LossTracker:
    """One remembered score, the learner's or the reference's loss.

    Args:
        memory: what is remembered.
        device: where batches are.
    """

    def __init__(self, memory: LossMemory, device: torch.device | str = "cpu") -> None:
        self.by = memory.by
        self.levels, self.examples = Levels(device), Cells(memory.half_life, device)

    def learn(self, batch: Batch, losses: Tensor) -> None:
        """Take the losses of one step's examples in, shape (n,)."""
        level = bin_of(batch.sigma)
        self.levels.update(level, losses)
        if self.by == "both":
            self.examples.update(_cell(batch.id, level), losses)
        elif self.by == "id":
            stats = self.levels.mean_and_std(level)
            self.examples.update(batch.id, (losses - stats[:, 0]) / stats[:, 1])

    def recall(self, batch: Batch) -> Tensor:
        """The loss that each example is expected to have, shape (B,); needs no target."""
        level = bin_of(batch.sigma)
        if self.by == "id":
            mean, std = self.levels.mean_and_std(level).unbind(1)
            return mean + std * self.examples.shrunk(batch.id, torch.zeros_like(mean))
        mean = self.levels.mean(level)
        return mean if self.by == "sigma" else self.examples.shrunk(_cell(batch.id, level), mean)

    def running_stats(self, sigma: Tensor) -> Tensor:
        """Mean and standard deviation of the loss at each noise level, shape (B, 2)."""
        return self.levels.mean_and_std(bin_of(sigma))

    def state(self) -> dict[str, Tensor]:
        return {"levels": self.levels.sums, **{f"examples/{k}": v for k, v in self.examples.state().items()}}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned.

        Raises:
            UserError: it was stored by a version that remembered in another way.
        """
        check(
            state.keys() == self.state().keys(),
            "the checkpoint's remembered scores are of an older version: begin the run anew in another folder",
        )
        self.levels.sums.copy_(state["levels"])
        self.examples.restore({k.removeprefix("examples/"): v for k, v in state.items()})
