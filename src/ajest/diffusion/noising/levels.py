"""Densities of the training noise level as one family: functions of ln r, r = sigma / sigma_data.

What papers state of sigma, of the time t of a flow, r = t / (1 - t), or of the logarithm of the signal-to-noise ratio,
-2 ln r, are densities of ln r (docs/method.md#levels). Each is here its logarithm up to a constant; truncation,
normalisation and the inverse of the distribution function are numbers from a table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from ajest.errors import check
from ajest.runtime.transfer import to_device

from .parameters import Function, check_named, words_of

#: No level lies beyond: r from 5e-5 to 2e4, wider than any sampler goes. A Cauchy density has no end of its own.
LIMIT = 10.0
_BINS = 8192
_WIDTH = 2 * LIMIT / _BINS
#: Narrower densities are not resolved by the table.
LEAST_SCALE = 0.05
#: beta(0) and beta(1) - beta(0) of DDPM's linear schedule (arXiv 2011.13456).
DDPM_BETA = 0.1, 19.9
#: Of SpeeD's code: where the density of times changes, and what it is between, up to a constant.
SPEED_EDGES = 0.058, 0.358, 0.642, 0.7
SPEED_SHARES = 7.5, 5.5, 5.0, 2.5, 0.5


def normal(z: Tensor) -> Tensor:
    """EDM's log-normal sigma (arXiv 2206.00364, table 1), which is a flow's logit-normal t (arXiv 2403.03206)."""
    return -z.square() / 2


def laplace(z: Tensor) -> Tensor:
    """Laplace(mu, b) on the logarithm of the signal-to-noise ratio is location -mu / 2, scale b / 2 (arXiv
    2407.03297)."""
    return -z.abs()


def cauchy(z: Tensor) -> Tensor:
    """Cauchy(mu, c) on the logarithm of the signal-to-noise ratio is location -mu / 2, scale c / 2 (arXiv
    2407.03297)."""
    return -z.square().log1p()


def sech(z: Tensor) -> Tensor:
    """The cosine schedule at uniform times, r = tan(pi u / 2); at scale 1 / a the cosine-scaled one (arXiv
    2407.03297), at scale 1 also SD3's cosmap (arXiv 2403.03206)."""
    return -(z.abs() + torch.log1p((-2 * z.abs()).exp()))


def beta(z: Tensor, a: float = 1.0, b: float = 1.0) -> Tensor:
    """Beta(a, b) on a flow's time; Beta(1, 1) is uniform time."""
    return a * logsigmoid(z) + b * logsigmoid(-z)


def linear_ddpm(z: Tensor, first: float = 1e-3) -> Tensor:
    """Uniform times on DDPM's linear schedule, in continuous time: beta(t) from 0.1 to 20 (arXiv
    2011.13456), from the first of its thousand steps on."""
    t, root = ddpm_time(z)
    return torch.where((t >= first) & (t <= 1), logsigmoid(2 * z) - root.log(), -math.inf)


def ddpm_time(z: Tensor) -> tuple[Tensor, Tensor]:
    """(time at which DDPM's linear schedule, from 0 to 1 in continuous time, has ln r = z; beta(t) there)."""
    low, span = DDPM_BETA
    root = (low**2 + 2 * span * softplus(2 * z)).sqrt()  # ln(1 + r^2) = span t^2 / 2 + low t
    return (root - low) / span, root


def speed_code(z: Tensor) -> Tensor:
    """Levels of SpeeD's public code (arXiv 2405.17403): times of DDPM's linear schedule, those below 0.7 five times as
    often as the others; and every second one is another's mirror image, 0.642 - t or t - 0.642.

    So the density of times is a constant in each of five parts. Mirrored times are drawn by themselves here.
    """
    t, _ = ddpm_time(z)
    edges = torch.tensor(SPEED_EDGES, dtype=t.dtype, device=t.device)
    share = torch.tensor(SPEED_SHARES, dtype=t.dtype, device=t.device)
    return linear_ddpm(z) + share[torch.bucketize(t, edges, right=True)].log()


#: Logarithms of densities of (ln r - location) / scale, up to a constant, by name.
DENSITIES: dict[str, Function] = {
    "normal": normal,
    "laplace": laplace,
    "cauchy": cauchy,
    "sech": sech,
    "beta": beta,
    "linear-ddpm": linear_ddpm,
    "speed-code": speed_code,
}


@dataclass(frozen=True)
class Levels:
    """A density of ln r.

    Attributes:
        density: name of a registered one.
        location, scale: ln r is location + scale times a number of that density; shifting a flow's time by alpha adds
            ln alpha to the location.
        parameters: of the density, in its order.
    """

    density: str = "normal"
    location: float = 0.0
    scale: float = 1.0
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_named("density", self.density, DENSITIES, self.parameters)
        check(
            abs(self.location) < LIMIT, f"levels: the location of ln r must lie within {LIMIT:g}, not {self.location}"
        )
        check(
            LEAST_SCALE <= self.scale < math.inf,
            f"levels: the scale of ln r must be at least {LEAST_SCALE:g}, not {self.scale}",
        )

    def __str__(self) -> str:
        return words_of(self.density, self.location, self.scale, *self.parameters)

    def table(self, device: torch.device | str) -> Table:
        """The density as numbers, on a device."""
        return _table(self, str(device))


@dataclass(frozen=True, eq=False)
class Table:
    """A density of ln r as numbers, constant within each bin.

    Attributes:
        cumulative: the distribution function of ln r at the edges of the bins, float64.
        logs: ln of the density within them, float64.
    """

    cumulative: Tensor
    logs: Tensor

    @classmethod
    def of(cls, logs: Tensor) -> Table:
        """That whose logarithm in the `middles` is this, float64, up to a constant."""
        logs = logs - logs.logsumexp(0)
        cumulative = torch.cat([logs.new_zeros(1), logs.exp().cumsum(0)])
        return cls(cumulative / cumulative[-1].clone(), logs - math.log(_WIDTH))

    def quantile(self, u: Tensor) -> Tensor:
        """ln r below which the share u of the levels lies, float64, for u in (0, 1), float64."""
        last = torch.searchsorted(self.cumulative, u, right=True).clamp_(1, _BINS)
        below, above = self.cumulative[last - 1], self.cumulative[last]
        return (last - 1 + (u - below) / (above - below)) * _WIDTH - LIMIT

    def log_density(self, x: Tensor) -> Tensor:
        """ln p(ln r) at ln r = x, float64; minus infinity where there is no level. Constant within a bin, so that it
        is the very density of `quantile`."""
        index = ((x.double() + LIMIT) / _WIDTH).floor().long()
        inside = (index >= 0) & (index < _BINS)
        return torch.where(inside, self.logs[index.clamp(0, _BINS - 1)], -torch.inf)


def middles(device: torch.device | str = "cpu") -> Tensor:
    """ln r in the middle of each bin of a table, float64."""
    return (torch.arange(_BINS, dtype=torch.float64, device=device) + 0.5) * _WIDTH - LIMIT


@lru_cache(maxsize=64)
def _table(levels: Levels, device: str) -> Table:
    logs = DENSITIES[levels.density]((middles() - levels.location) / levels.scale, *levels.parameters)
    check(
        bool((logs < torch.inf).all()) and bool((logs > -torch.inf).any()),  # nor NaN
        f"the density {levels} has no finite values between ln r = {-LIMIT:g} and {LIMIT:g}",
    )
    made = Table.of(logs)
    return Table(*to_device(device, made.cumulative, made.logs))
