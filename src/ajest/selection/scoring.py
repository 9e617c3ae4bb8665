"""Scores of the examples of a super-batch."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from ajest.diffusion.batch import Batch
from ajest.diffusion.denoising import Denoiser, at_least_float32, per_example_loss
from ajest.diffusion.network import evaluation_mode
from ajest.errors import UserError


@dataclass(frozen=True)
class Scores:
    """What is known of the examples of a super-batch, shape (B,) each; None where a policy does not read it.

    Attributes:
        learner: loss of the network in training; a graph that it may have is not followed.
        reference: loss of the reference model, on the same noised examples.
        sigma: noise level.
        running_stats: mean and standard deviation of the score at that noise level so far, shape (B, 2): what makes
            scores of a small super-batch comparable across noise levels.
        features: a direction for each example, shape (B, d): two examples of similar directions teach the same.

    Raises:
        UserError: another shape.
        ValueError: nothing is known.
    """

    learner: Tensor | None = None
    reference: Tensor | None = None
    sigma: Tensor | None = None
    running_stats: Tensor | None = None
    features: Tensor | None = None

    def __post_init__(self) -> None:
        if self.learner is None and self.reference is None and self.sigma is None:
            raise ValueError("scores need the learner's losses, the reference's, or the noise levels")
        count = len(self.taken) if self.taken.dim() else 0
        for name, dims in _DIMS.items():
            part: Tensor | None = getattr(self, name)
            if part is not None and (part.dim() != dims or len(part) != count):
                what = f"{WHAT[name]} have the shape {tuple(part.shape)}"
                raise UserError(f"{what}: scores hold one for each of the {count} examples")

    def __len__(self) -> int:
        return len(self.taken)

    def __getitem__(self, index: slice | Tensor) -> Scores:
        """The scores of some of the examples."""
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: None if part is None else part[index] for name, part in parts.items()})

    @property
    def taken(self) -> Tensor:
        """Whatever is known: for the number of examples and the device."""
        return next(part for part in (self.learner, self.reference, self.sigma) if part is not None)

    @property
    def all_finite(self) -> Tensor | None:
        """Whether all losses and features are finite, a bool on their device, for which whoever reads it waits; None
        where there are none."""
        parts = self._computed().values()
        return torch.stack([part.isfinite().all() for part in parts]).all() if parts else None

    def finite(self) -> Tensor | None:
        """Indices of the examples whose losses and features are finite; None where all are."""
        all_finite = self.all_finite
        if all_finite is None or bool(all_finite):
            return None
        parts = [part.reshape(len(part), -1).isfinite().all(1) for part in self._computed().values()]
        return torch.nonzero(torch.stack(parts).all(0)).flatten()

    def filled(self) -> Scores:
        """These with zeros in the place of losses and features that are not finite."""
        return replace(self, **{name: part.nan_to_num(0, 0, 0) for name, part in self._computed().items()})

    def _computed(self) -> dict[str, Tensor]:
        parts = {"learner": self.learner, "reference": self.reference, "features": self.features}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def learnability(self) -> Tensor:
        """Learner's loss minus the reference's (JEST, arXiv 2406.17711, equation 3)."""
        return self.needed("learner") - self.needed("reference")

    def needed(self, name: str) -> Tensor:
        """One of the attributes, in float32 at least.

        Raises:
            ValueError: it is not there.
        """
        part: Tensor | None = getattr(self, name)
        if part is None:
            raise ValueError(f"this policy reads the {WHAT[name]}, and there are none")
        return at_least_float32(part.detach())  # whoever weights losses by what rests on them wants no gradient of it


#: Dimensions of each attribute.
_DIMS = {"learner": 1, "reference": 1, "sigma": 1, "running_stats": 2, "features": 2}
WHAT = {
    "learner": "learner's losses",
    "reference": "reference's losses",
    "sigma": "noise levels",
    "running_stats": "running statistics of scores at each noise level",
    "features": "features of the examples",
}


@torch.no_grad()
def score(denoiser: Denoiser, batch: Batch, micro_batch: int | None = None) -> Tensor:
    """Per-example losses of a denoiser in evaluation mode, shape (B,), float32 at least, without a graph.

    Args:
        denoiser: learner or reference.
        batch: a completed super-batch.
        micro_batch: score this many examples at a time; None scores all at once.
    """
    parts = batch.split(micro_batch or max(len(batch), 1))
    with evaluation_mode(denoiser):
        return torch.cat([per_example_loss(denoiser(p.x, p.sigma, p.label), p) for p in parts])
