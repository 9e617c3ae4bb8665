"""What an arm may change of how examples are noised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ajest.diffusion.denoising import LogNormal
from ajest.errors import check

from .ingredients import IngredientSource, Target
from .levels import Levels, middles
from .weights import Weighting

Axis = Literal["noise levels", "weight", "target"]


@dataclass(frozen=True)
class Noising:
    """How an arm's examples are noised; by default as the task does it.

    Attributes:
        levels: density of the noise levels, None for the task's own.
        stratified: draw one level from each of as many equally likely ranges as a super-batch has examples, in random
            order (docs/method.md#strata). Each level alone has the same density as before.
        same_objective: weight by the ratio of the task's density to the arm's, so that only the variance of the
            gradient changes, not its mean.
        weight: of the squared error, None for the task's own.
        target: the clean example, or the exact posterior mean where the task knows it; None for the task's own.
        references: clean examples over which the target is averaged by how likely they are the one that was noised:
            the stable target field (arXiv 2302.00670); 1 is the clean example alone.
    """

    levels: Levels | None = None
    stratified: bool = False
    same_objective: bool = False
    weight: Weighting | None = None
    target: Target | None = None
    references: int = 1

    def __post_init__(self) -> None:
        check(
            not self.same_objective or self.levels is not None,
            "noising: with the task's own levels the objective is the same already: leave out same_objective",
        )
        check(self.references >= 1, f"noising: a target needs at least 1 reference, not {self.references}")
        check(
            self.references == 1 or self.target == "x0",
            'noising: references average clean examples: set target to "x0", or leave them out',
        )

    @property
    def axes(self) -> tuple[Axis, ...]:
        """In what it differs from the task's own."""
        found: dict[Axis, bool] = {
            "noise levels": self.levels is not None or self.stratified,
            "weight": self.weight is not None,
            "target": self.target is not None,
        }
        return tuple(axis for axis, differs in found.items() if differs)

    def __str__(self) -> str:
        """What differs from the task's own, for people and for labels of steps; "" where nothing does."""
        words = [
            f"levels {self.levels}" if self.levels else "",
            "stratified" if self.stratified else "",
            "same objective" if self.same_objective else "",
            f"weight {self.weight}" if self.weight else "",
            f"target {self.target}" if self.target else "",
            f"of {self.references}" if self.references > 1 else "",
        ]
        return " ".join(word for word in words if word)

    def weights(self, x: Tensor, sigma: Tensor, own: IngredientSource) -> Tensor:
        """Weights of the squared error, of the shape of `sigma`.

        Args:
            x: ln r, float64.
            sigma: the levels.
            own: what the task does.
        """
        weight = own.weight(sigma) if self.weight is None else self.weight(sigma, own.sigma_data)
        if not self.same_objective or self.levels is None:
            return weight
        ratio = own_log_density(x, own) - self.levels.log_density(x)
        return (weight * ratio.exp()).to(weight.dtype)

    def objective(self, x: Tensor, own: IngredientSource) -> Tensor:
        """Weight times density at ln r = x, float64, up to a constant: all that the expected gradient depends on."""
        sigma = own.sigma_data * x.double().exp()
        density = own_log_density(x, own) if self.levels is None else self.levels.log_density(x)
        inside = density > -torch.inf
        weight = self.weights(torch.where(inside, x, 0.0), torch.where(inside, sigma, own.sigma_data), own)
        return torch.where(inside, weight * density.exp(), 0.0)

    def moved(self, own: IngredientSource) -> float:
        """Share of the task's objective that lies at other noise levels than before, 0 to 1: half the integral of the
        absolute difference of weight times density of ln r, each normalised. 0 is the same objective."""
        x = middles()
        before, after = (part.objective(x, own) for part in (Noising(), self))
        return float((before / before.sum() - after / after.sum()).abs().sum() / 2)

    def effective_share(self, own: IngredientSource) -> float:
        """Share of the drawn examples that would do as well without the weights of `same_objective` (Kish's effective
        sample size); 1 without them."""
        if not self.same_objective or self.levels is None:
            return 1.0
        x = middles()
        before, after = (density.exp() for density in (own_log_density(x, own), self.levels.log_density(x)))
        ratio = torch.where(before > 0, before / after, 0.0)
        return float(before.sum() ** 2 / ((before * ratio).sum() * after.sum()))


def own_log_density(x: Tensor, own: IngredientSource) -> Tensor:
    """ln p(ln r) of the task's own levels at ln r = x, float64."""
    noise: LogNormal = own.noise
    z = (x.double() + torch.tensor(own.sigma_data, dtype=torch.float64).log() - noise.mean) / noise.std
    return -z.square() / 2 - torch.tensor(noise.std * (2 * torch.pi) ** 0.5, dtype=torch.float64).log()
