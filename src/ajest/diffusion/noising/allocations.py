"""Allocations: densities of the noise level made from another one, and from the losses seen at each level
(docs/method.md#allocation)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ajest.errors import check
from ajest.runtime.seeding import generator

from .ingredients import IngredientSource, by_example
from .levels import LIMIT, Table, middles
from .parameters import check_named, words_of

#: Bins of ln r in which losses are averaged.
BINS = 128
#: Examples by which the exact denoiser's error is averaged, the same in each bin.
_EXAMPLES = 512
#: Share of the density's draws at either end where `infonoise` draws none: the ends of its grid.
_BEYOND = 0.005
#: Of the Beta density of `progress`: below the least it would have a pole, above the most only few levels are left.
_EXPONENTS = 0.5, 5.0
#: What an allocation reads of losses: nothing; the loss that is minimised, whatever its target; or the denoiser's whole
#: error against the clean example, of which the best denoiser has its part too.
Reads = Literal["nothing", "loss", "error"]


@dataclass(frozen=True)
class Seen:
    """What was seen of squared errors in each bin of ln r, shape (BINS,) each.

    Attributes:
        error: their mean.
        square: the mean of their squares.
        earlier: their mean one look before.
    """

    error: Tensor
    square: Tensor
    earlier: Tensor


@dataclass(frozen=True)
class Profile:
    """What is known of the noise levels, in the `middles` of a table, shape (bins,) each, float64.

    Attributes:
        r: sigma / sigma_data.
        density: of ln r, before it is allocated anew.
        weight: of the squared error.
        error: the mean squared error at each level.
        square: the mean of the squares of examples' errors.
        earlier: the mean squared error one look before.
    """

    r: Tensor
    density: Tensor
    weight: Tensor
    error: Tensor
    square: Tensor
    earlier: Tensor


def speed(known: Profile, k: float = 5.0, until: float = 11.9) -> Tensor:
    """k times as many below a level: SpeeD as its paper has it (arXiv 2405.17403), whose last area of the process
    begins at time 0.7 of DDPM's linear schedule, r = 11.9."""
    return torch.where(known.r < until, k, 1.0) * known.density


def second_moment(known: Profile) -> Tensor:
    """By the root of the losses' second moment: the importance sampling of least variance, where the norm of a
    gradient is as its loss (improved DDPM, arXiv 2102.09672)."""
    return known.density * known.weight * known.square.sqrt()


def first_moment(known: Profile) -> Tensor:
    """By the mean loss, so that all levels have the same one after weighting (VDM++, arXiv 2303.00848)."""
    return known.density * known.weight * known.error


def infonoise(known: Profile, n: float = 3.0, c: float = 0.3) -> Tensor:
    """By the information about the example that is left at each level, mmse / r^2 for ln r, after weighting, with a
    gate r^n / (r^n + c^n) towards small ones (InfoNoise, arXiv 2602.18647, equations 13 to 15); c is pinned.

    The paper's levels lie on a grid with two ends. Here these are where the density has all but a two-hundredth: under
    a weight of 1 / sigma^2 what is left of this never falls, and most draws would lie at pure noise."""
    gate = 1 / (1 + (c / known.r) ** n)
    share = known.density / known.density.sum()
    below = share.cumsum(0) - share / 2
    reached = (below > _BEYOND) & (below < 1 - _BEYOND)
    return reached * gate * known.error / (known.r.square() * known.weight)


def progress(known: Profile, strength: float = 1.0) -> Tensor:
    """More where the loss has fallen since the last look: the idea of adaptive non-uniform sampling (arXiv 2411.09998)
    with one Beta density for all examples, of the share of levels below. It has the mean and variance of a draw by the
    fall of the weighted loss; its logarithm is taken `strength` times, and 0 times is Beta(1, 1): no change."""
    fall = known.density * known.weight * (known.earlier - known.error).clamp_min(0)
    fall, before = fall / fall.sum(), known.density / known.density.sum()
    below = before.cumsum(0) - before / 2
    mean = (fall * below).sum()
    size = mean * (1 - mean) / (fall * (below - mean).square()).sum() - 1
    a, b = ((share * size).clamp(*_EXPONENTS) - 1 for share in (mean, 1 - mean))
    return known.density * (strength * (a * below.log() + b * (-below).log1p())).exp()


@dataclass(frozen=True)
class Rule:
    """A registered allocation.

    Attributes:
        function: of a `Profile`, to the density of ln r up to a constant, shape (bins,).
        reads: what it reads of losses.
    """

    function: Callable[..., Tensor]
    reads: Reads = "nothing"


ALLOCATIONS: dict[str, Rule] = {
    "speed": Rule(speed),
    "second-moment": Rule(second_moment, "loss"),
    "first-moment": Rule(first_moment, "loss"),
    "infonoise": Rule(infonoise, "error"),
    "progress": Rule(progress, "loss"),
}


@dataclass(frozen=True)
class Allocation:
    """Noise levels drawn anew.

    Attributes:
        name: of a registered allocation.
        parameters: of it, in its order.
        exact: read the error of the best denoiser there is, where the task knows it, in place of the learner's.
        warmup: share of the run with the density as it was, where losses are read.
        every: share of the run from one look at the losses to the next.
        rest: share of the levels that is drawn from the density as it was all along, so that none is lost from sight.
    """

    name: str
    parameters: tuple[float, ...] = ()
    exact: bool = False
    warmup: float = 0.1
    every: float = 0.05
    rest: float = 0.01

    def __post_init__(self) -> None:
        check_named("allocation", self.name, {n: r.function for n, r in ALLOCATIONS.items()}, self.parameters)
        mine = f"allocation {self.name!r}:"
        check(not self.exact or self.reads != "nothing", f"{mine} it reads no error: leave out exact")
        shares = 0 <= self.warmup < 1 and 0 < self.every <= 1
        check(shares, f"{mine} warmup and every are shares of the run: at least 0 and above 0, not above 1")
        check(0 <= self.rest < 1, f"{mine} the rest must be at least 0 and below 1, not {self.rest}")

    def __str__(self) -> str:
        return words_of(self.name, *self.parameters) + (" exact" if self.exact else "")

    @property
    def reads(self) -> Reads:
        """What it reads of losses."""
        return ALLOCATIONS[self.name].reads

    @property
    def learns(self) -> bool:
        """Whether it follows the learner's losses."""
        return self.reads != "nothing" and not self.exact

    def table(self, known: Profile) -> Table:
        """The density of ln r; that of before where nothing can be made of what is known: all zeros, or not finite."""
        made = ALLOCATIONS[self.name].function(known, *self.parameters)
        total, before = made.sum(), known.density / known.density.sum()
        usable = total.isfinite() & (total > 0) & (made >= 0).all()
        rest = self.rest if self.reads != "nothing" else 0.0
        mixed = (1 - rest) * made / total + rest * before
        return Table.of(torch.where(usable, mixed, before).log())


def bin_of(x: Tensor) -> Tensor:
    """The bin of ln r = x, shape (n,), int64."""
    return ((x + LIMIT) * (BINS / (2 * LIMIT))).long().clamp_(0, BINS - 1)


def spread(values: Tensor) -> Tensor:
    """Numbers of the bins, at least 0, at the `middles` of a table, float64, with straight lines between their
    logarithms."""
    logs = values.double().clamp_min(1e-30).log()[None, None]
    between = interpolate(logs, size=len(middles()), mode="linear", align_corners=False)[0, 0]
    return between.exp() * (values > 0).any()


@torch.no_grad()
def exact_error(own: IngredientSource) -> Seen:
    """What would be seen of the best denoiser, for good."""
    assert own.exact is not None
    parts, found = own.ingredients(_EXAMPLES, generator(0, "exact error")), []
    for x in ((torch.arange(BINS) + 0.5) * (2 * LIMIT / BINS) - LIMIT).tolist():
        sigma = own.sigma_data * torch.full_like(parts.normal, x).exp()
        noised = parts.x0 + by_example(sigma, parts.x0) * parts.eps
        error = (own.exact(noised, sigma, parts.label) - parts.x0).square().flatten(1).mean(1).double()
        found.append(torch.stack([error.mean(), error.square().mean()]))
    mean, square = torch.stack(found, 1)
    return Seen(mean, square, mean)
