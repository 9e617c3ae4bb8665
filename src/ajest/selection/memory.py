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

from ..batch import Batch
from ..errors import UserError

_LOWEST, _WIDTH, BINS = math.log(1e-3), 0.5, 28  # bins of ln sigma, from 0.001 to 1200; beyond, the first and last
_PRIOR = 1.0  # observations that the usual score of a noise level counts for in a cell
_LEVEL_HALF_LIFE = 64.0  # steps in which a noise level is seen


@dataclass(frozen=True)
class Memory:
    """What is remembered, and how it is fed.

    Attributes:
        by: a score for each noise level ("sigma"); for each example, against what is usual at its noise level ("id");
            or for each example at each noise level ("both"), for sources that repeat examples very often.
        every: score the whole super-batch on every so many steps and choose by what is remembered on the others;
            0: never score, learn from the losses of the examples trained on.
        half_life: sightings of an example after which an earlier one counts half.
    """

    by: Literal["sigma", "id", "both"] = "both"
    every: int = 0
    half_life: float = 4.0

    def __post_init__(self) -> None:
        if self.every < 0:
            raise UserError(f"memory: every must be 0 (never score) or a number of steps, not {self.every}")
        if not self.half_life > 0:
            raise UserError(f"memory: half_life must be positive, not {self.half_life}")


def bin_of(sigma: Tensor) -> Tensor:
    """Number of the bin of the noise level, shape (B,), int64."""
    return ((sigma.log() - _LOWEST) / _WIDTH).long().clamp_(0, BINS - 1)


class Table:
    """Running mean and standard deviation in numbered cells, older observations fading; grows as cells are named.

    Args:
        half_life: updates of a cell after which an earlier observation in it counts half.
        device: where it lives.
        sums: decayed count, sum and sum of squares of each cell, shape (3, cells), to go on from.
    """

    def __init__(self, half_life: float, device: torch.device | str = "cpu", sums: Tensor | None = None) -> None:
        self.sums = torch.zeros(3, 0, device=device) if sums is None else sums
        self._fade = 0.5 ** (1 / half_life)

    def update(self, cell: Tensor, values: Tensor) -> None:
        """Take one step's observations in: `values` seen in `cell`, shape (n,) each."""
        self._grow(cell)
        seen = torch.stack([torch.ones_like(values), values, values.square()])
        fade = torch.ones_like(self.sums[0])
        fade[cell] = self._fade
        self.sums.mul_(fade).index_add_(1, cell, seen)

    def mean_and_std(self, cell: Tensor) -> Tensor:
        """Mean and standard deviation of each named cell, shape (n, 2); of the nearest cell by number where nothing
        was seen, (0, 1) where nothing was seen anywhere.

        The spread of few observations says little, so it is drawn towards the root mean square.
        """
        self._grow(cell)
        known = torch.nonzero(self.sums[0]).flatten()
        if not len(known):
            return torch.stack([torch.zeros_like(cell), torch.ones_like(cell)], 1).to(self.sums.dtype)
        above = torch.searchsorted(known, cell).clamp_(max=len(known) - 1)
        below = (above - 1).clamp_(min=0)
        nearer = (cell - known[below]).abs() < (cell - known[above]).abs()
        count, total, squares = self.sums[:, known[torch.where(nearer, below, above)]]
        mean, power = total / count, squares / count
        std = ((count * (power - mean.square()).clamp_min_(0) + _PRIOR * power) / (count + _PRIOR)).sqrt_()
        return torch.stack([mean, std.masked_fill_(std == 0, 1)], 1)

    def shrunk(self, cell: Tensor, prior: Tensor) -> Tensor:
        """Mean of each named cell, drawn towards `prior` as if that had been seen once."""
        self._grow(cell)
        count, total, _ = self.sums[:, cell]
        return (total + _PRIOR * prior) / (count + _PRIOR)

    def _grow(self, cell: Tensor) -> None:
        missing = int(cell.max()) + 1 - self.sums.shape[1] if len(cell) else 0
        if missing > 0:
            self.sums = torch.cat([self.sums, self.sums.new_zeros(3, missing)], 1)


class Remembered:
    """One remembered score, the learner's or the reference's loss.

    Args:
        memory: what is remembered.
        device: where batches are.
    """

    def __init__(self, memory: Memory, device: torch.device | str = "cpu") -> None:
        self.by = memory.by
        self.tables = {"levels": Table(_LEVEL_HALF_LIFE, device), "examples": Table(memory.half_life, device)}

    def learn(self, batch: Batch, losses: Tensor) -> None:
        """Take the losses of one step's examples in, shape (n,)."""
        level = bin_of(batch.sigma)
        levels, examples = self.tables["levels"], self.tables["examples"]
        levels.update(level, losses)
        if self.by == "both":
            examples.update(batch.id * BINS + level, losses)
        elif self.by == "id":
            usual = levels.mean_and_std(level)
            examples.update(batch.id, (losses - usual[:, 0]) / usual[:, 1])

    def recall(self, batch: Batch) -> Tensor:
        """The loss that each example is expected to have, shape (B,); needs no target."""
        level = bin_of(batch.sigma)
        usual = self.usual(batch.sigma)
        if self.by == "sigma":
            return usual[:, 0]
        if self.by == "both":
            return self.tables["examples"].shrunk(batch.id * BINS + level, usual[:, 0])
        zero = torch.zeros_like(batch.sigma)
        return usual[:, 0] + usual[:, 1] * self.tables["examples"].shrunk(batch.id, zero)

    def usual(self, sigma: Tensor) -> Tensor:
        """Mean and standard deviation of the loss at each noise level, shape (B, 2)."""
        return self.tables["levels"].mean_and_std(bin_of(sigma))

    def state(self) -> dict[str, Tensor]:
        return {name: table.sums for name, table in self.tables.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        for name, table in self.tables.items():
            table.sums = state[name].to(table.sums.device)
