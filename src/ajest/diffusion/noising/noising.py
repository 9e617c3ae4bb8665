"""What an arm may change of how examples are noised."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ajest.diffusion.denoising import LogNormal
from ajest.errors import check

from .allocations import Allocation, Profile, Seen, exact_error, spread
from .contrasts import Contrast
from .ingredients import IngredientSource, Target
from .levels import Levels, Table, middles
from .pairings import Pairing
from .weights import Weighting

Axis = Literal["noise levels", "weight", "target", "pairing"]


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
        allocation: a density made from that of the levels, by losses or without; None leaves it.
        copies: noised copies of each example, so that a super-batch has so many times fewer examples; each copy has
            a level and a noise of its own. Where levels are stratified, an example's lie in as many ranges.
        pairing: which noise an example gets, None for the first that comes.
        contrast: what the denoiser is pushed away from, None for nothing.
    """

    levels: Levels | None = None
    stratified: bool = False
    same_objective: bool = False
    weight: Weighting | None = None
    target: Target | None = None
    references: int = 1
    allocation: Allocation | None = None
    copies: int = 1
    pairing: Pairing | None = None
    contrast: Contrast | None = None

    def __post_init__(self) -> None:
        check(
            not self.same_objective or self.levels is not None or self.allocation is not None,
            "noising: with the task's own levels the objective is the same already: leave out same_objective",
        )
        check(self.references >= 1, f"noising: a target needs at least 1 reference, not {self.references}")
        check(
            self.references == 1 or self.target == "x0",
            'noising: references average clean examples: set target to "x0", or leave them out',
        )
        check(self.copies >= 1, f"noising: there must be at least 1 copy of an example, not {self.copies}")
        check(
            self.pairing is None or self.references == 1,
            "noising: references are weighted as if noise knew nothing of the example: leave out the pairing or them",
        )

    @property
    def axes(self) -> tuple[Axis, ...]:
        """In what it differs from the task's own."""
        new_levels = self.levels is not None or self.allocation is not None
        found: dict[Axis, bool] = {
            "noise levels": new_levels or self.stratified or self.copies > 1,
            "weight": self.weight is not None,
            "target": self.target is not None or self.contrast is not None,
            "pairing": self.pairing is not None,
        }
        return tuple(axis for axis, differs in found.items() if differs)

    def __str__(self) -> str:
        """What differs from the task's own, for people and for labels of steps; "" where nothing does."""
        words = [
            f"levels {self.levels}" if self.levels else "",
            f"allocation {self.allocation}" if self.allocation else "",
            f"{self.copies} copies" if self.copies > 1 else "",
            "stratified" if self.stratified else "",
            "same objective" if self.same_objective else "",
            f"weight {self.weight}" if self.weight else "",
            f"target {self.target}" if self.target else "",
            f"of {self.references}" if self.references > 1 else "",
            f"pairing {self.pairing}" if self.pairing else "",
            f"contrast {self.contrast}" if self.contrast else "",
        ]
        return " ".join(word for word in words if word)

    @property
    def keeps_best(self) -> bool:
        """Whether the best denoiser is the same as the task's own, whatever the levels and weights."""
        return self.pairing is None and self.contrast is None

    @property
    def learns(self) -> bool:
        """Whether its levels follow the learner's losses."""
        return self.allocation is not None and self.allocation.learns

    def clean(self, own: IngredientSource) -> bool:
        """Whether the target is the clean example itself."""
        return (own.own_target if self.target is None else self.target) == "x0" and self.references == 1

    def group(self, drawn: int) -> int:
        """Consecutive rows of a super-batch of so many that have to be drawn together."""
        among = 1 if self.pairing is None else min(self.pairing.among, drawn)
        return math.lcm(self.references, self.copies if self.contrast is None else 2 * self.copies, among)

    def table(self, own: IngredientSource, seen: Seen | None = None) -> Table | None:
        """The density of its levels, None for the task's own.

        Args:
            own: what the task does.
            seen: of errors, by which an allocation goes that learns; None before there is anything.
        """
        base = None if self.levels is None else self.levels.table(own.device)
        allocation = self.allocation
        if allocation is None or (allocation.learns and seen is None):
            return base
        if allocation.exact and seen is None:
            seen = exact_error(own)
        x = middles(own.device)
        density = (own_log_density(x, own) if base is None else base.logs).exp()
        r = x.exp()
        weight = self._weight(own.sigma_data * r, own)
        none = torch.zeros_like(x)
        errors = (none,) * 3 if seen is None else map(spread, (seen.error, seen.square, seen.earlier))
        return allocation.table(Profile(r, density, weight, *errors))

    def weights(self, x: Tensor | None, sigma: Tensor, own: IngredientSource, density: Table | None) -> Tensor:
        """Weights of the squared error, of the shape of `sigma`.

        Args:
            x: ln r, float64; None where `density` is.
            sigma: the levels.
            own: what the task does.
            density: that they were drawn from, None for the task's own.
        """
        weight = self._weight(sigma, own)
        if self.contrast is not None:
            weight = weight * (1 - self.contrast.share)
        if not self.same_objective or density is None:
            return weight
        assert x is not None
        ratio = own_log_density(x, own) - density.log_density(x)
        return (weight * ratio.exp()).to(weight.dtype)

    def _weight(self, sigma: Tensor, own: IngredientSource) -> Tensor:
        return own.weight(sigma) if self.weight is None else self.weight(sigma, own.sigma_data)

    def objective(self, x: Tensor, own: IngredientSource, density: Table | None) -> Tensor:
        """Weight times density at ln r = x, float64, up to a constant: all that the expected gradient depends on."""
        sigma = own.sigma_data * x.double().exp()
        logs = own_log_density(x, own) if density is None else density.log_density(x)
        inside = logs > -torch.inf
        weight = self.weights(torch.where(inside, x, 0.0), torch.where(inside, sigma, own.sigma_data), own, density)
        return torch.where(inside, weight * logs.exp(), 0.0)

    def moved(self, own: IngredientSource, seen: Seen | None = None) -> float:
        """Share of the task's objective that lies at other noise levels than before, 0 to 1: half the integral of the
        absolute difference of weight times density of ln r, each normalised. 0 is the same objective.

        Args:
            own: what the task does.
            seen: as of `table`.
        """
        x = middles(own.device)
        before, after = Noising().objective(x, own, None), self.objective(x, own, self.table(own, seen))
        return float((before / before.sum() - after / after.sum()).abs().sum() / 2)

    def effective_share(self, own: IngredientSource) -> float:
        """Share of the drawn examples that would do as well without the weights of `same_objective` (Kish's effective
        sample size); 1 without them."""
        density = self.table(own) if self.same_objective else None
        if density is None:
            return 1.0
        x = middles(own.device)
        before, after = own_log_density(x, own).exp(), density.log_density(x).exp()
        ratio = torch.where(before > 0, before / after, 0.0)
        return float(before.sum() ** 2 / ((before * ratio).sum() * after.sum()))


def own_log_density(x: Tensor, own: IngredientSource) -> Tensor:
    """ln p(ln r) of the task's own levels at ln r = x, float64."""
    noise: LogNormal = own.noise
    z = (x.double() + torch.tensor(own.sigma_data, dtype=torch.float64).log() - noise.mean) / noise.std
    return -z.square() / 2 - torch.tensor(noise.std * (2 * torch.pi) ** 0.5, dtype=torch.float64).log()
