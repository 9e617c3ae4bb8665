"""Scores of the examples of a super-batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..batch import Batch
from ..denoising import Denoiser, per_example_loss


@dataclass(frozen=True)
class Scores:
    """Per-example losses on the same noised examples, shape (B,) each.

    Attributes:
        learner: loss of the network in training, or None where the policy does not read it.
        reference: loss of the reference model, or None where the policy does not read it.
    """

    learner: Tensor | None = None
    reference: Tensor | None = None

    def __post_init__(self) -> None:
        if self.learner is None and self.reference is None:
            raise ValueError("scores need the learner's losses, the reference's, or both")

    def __len__(self) -> int:
        return len(self.taken)

    def __getitem__(self, index: slice) -> Scores:
        """The scores of some of the examples."""
        parts = (self.learner, self.reference)
        return Scores(*(None if part is None else part[index] for part in parts))

    @property
    def taken(self) -> Tensor:
        """Whichever losses there are: for the number of examples and the device."""
        return self.needed_reference if self.learner is None else self.learner

    @property
    def learnability(self) -> Tensor:
        """Learner's loss minus the reference's (JEST, arXiv 2406.17711, equation 3)."""
        return self.needed_learner - self.needed_reference

    @property
    def needed_learner(self) -> Tensor:
        if self.learner is None:
            raise ValueError("this policy reads the learner's losses, and there are none")
        return self.learner

    @property
    def needed_reference(self) -> Tensor:
        if self.reference is None:
            raise ValueError("this policy reads the reference's losses, and there are none")
        return self.reference


@torch.no_grad()
def score(denoiser: Denoiser, batch: Batch, micro_batch: int | None = None) -> Tensor:
    """Per-example losses of a denoiser, shape (B,), without a graph.

    Args:
        denoiser: learner or reference.
        batch: a completed super-batch.
        micro_batch: score this many examples at a time; None scores all at once.
    """
    parts = batch.split(micro_batch or max(len(batch), 1))
    return torch.cat([per_example_loss(denoiser(p.x, p.sigma, p.label), p) for p in parts])
