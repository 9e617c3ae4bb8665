"""How many examples were drawn, scored and trained on, and how often each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class ExampleCounts:
    """How often each example was drawn and how often trained on, by id; both int64, as long as the largest id asks.

    Args:
        drawn, trained: where to go on from.
    """

    def __init__(self, drawn: Tensor | None = None, trained: Tensor | None = None) -> None:
        nothing = torch.zeros(0, dtype=torch.int64)
        self.drawn = nothing.clone() if drawn is None else drawn.clone()
        self.trained = nothing.clone() if trained is None else trained.clone()

    def count(self, drawn: Tensor, trained: Tensor) -> None:
        """Book the ids of a step, on the CPU, in time that does not depend on how many examples there are."""
        missing = int(max(drawn.max(), trained.max())) + 1 - len(self.drawn)
        if missing > 0:
            more = self.drawn.new_zeros(missing)
            self.drawn, self.trained = torch.cat([self.drawn, more]), torch.cat([self.trained, more])
        self.drawn.index_add_(0, drawn, torch.ones_like(drawn))
        self.trained.index_add_(0, trained, torch.ones_like(trained))


@dataclass(frozen=True)
class Counts:
    """Examples *drawn* from the source, *scored* and *trained* on.

    Attributes:
        drawn: taken from the source.
        scored: that any network denoised without training on them, to be chosen from or compared: once, however many
            networks did, for each noise draw.
        trained: trained on.
    """

    drawn: int = 0
    scored: int = 0
    trained: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.drawn + other.drawn, self.scored + other.scored, self.trained + other.trained)
