"""How noise comes in over time: what a network is shown and told at a noise level.

A network is shown z = alpha (x0 / s + r eps), s the standard deviation of the data and r = sigma / s, and is told a
time. Both follow from sigma alone, so that every process is one of noise levels with other names
(docs/method.md#objectives).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from ajest.diffusion.noising.ingredients import by_example
from ajest.diffusion.noising.levels import Levels
from ajest.errors import UserError, check


@dataclass(frozen=True)
class Process(ABC):
    """A process of noise.

    Attributes:
        sigma_data: standard deviation s of the data, by which they are divided; 1 shows them as they are.
        levels: density of ln r at uniform times, for an arm's `Noising`; None where it has no name.
    """

    sigma_data: float = 1.0

    levels: ClassVar[Levels | None] = None

    def __post_init__(self) -> None:
        check(0 < self.sigma_data < math.inf, f"sigma_data must be above 0, not {self.sigma_data}")

    @property
    def direction(self) -> int:
        """The sign of a velocity: 1 where time runs towards noise, -1 where it runs towards data."""
        return 1

    @abstractmethod
    def _alpha(self, r: Tensor) -> Tensor:
        """The factor of the data in what a network is shown."""

    @abstractmethod
    def _time_of(self, r: Tensor) -> Tensor:
        """The time at r, float64 to float64."""

    @abstractmethod
    def _level_of(self, time: Tensor) -> Tensor:
        """r at a time, float64 to float64.

        Raises:
            UserError: the process has no such time.
        """

    def time(self, sigma: Tensor) -> Tensor:
        """What a network is told at noise levels, of their shape and type."""
        return self._time_of(sigma.double() / self.sigma_data).to(sigma.dtype)

    def sigma(self, time: Tensor) -> Tensor:
        """Noise levels of times, of their shape and type, in units of the data.

        Raises:
            UserError: the process has no such time.
        """
        dtype = time.dtype if time.is_floating_point() else torch.get_default_dtype()
        return (self.sigma_data * self._level_of(time.double())).to(dtype)

    def shown(self, x: Tensor, sigma: Tensor) -> Tensor:
        """What a network is shown of x = x0 + sigma eps."""
        return x * by_example(self._alpha(sigma / self.sigma_data) / self.sigma_data, x)

    def unshown(self, z: Tensor, sigma: Tensor) -> Tensor:
        """x of what a network is shown."""
        return z * by_example(self.sigma_data / self._alpha(sigma / self.sigma_data), z)

    def _check_times(self, time: Tensor, inside: Tensor, words: str) -> None:
        if not bool(inside.all()):
            raise UserError(f"times of {type(self).__name__} lie {words}, not at {float(time[~inside][0]):g}")


@dataclass(frozen=True)
class VarianceExploding(Process):
    """x = x0 + sigma eps as it is, and r for its time (arXiv 2011.13456)."""

    def _alpha(self, r: Tensor) -> Tensor:
        return torch.ones_like(r)

    def _time_of(self, r: Tensor) -> Tensor:
        return r

    def _level_of(self, time: Tensor) -> Tensor:
        self._check_times(time, time > 0, "above 0")
        return time


class _VariancePreserving(Process):
    """alpha^2 + (alpha r)^2 = 1."""

    def _alpha(self, r: Tensor) -> Tensor:
        return torch.rsqrt(1 + r.square())


@dataclass(frozen=True)
class EDM(_VariancePreserving):
    """c_in x, and c_noise = ln(sigma) / 4 for its time (EDM, arXiv 2206.00364, table 1)."""

    def _time_of(self, r: Tensor) -> Tensor:
        return (r * self.sigma_data).log() / 4

    def _level_of(self, time: Tensor) -> Tensor:
        return (4 * time).exp() / self.sigma_data


@dataclass(frozen=True)
class LinearVP(_VariancePreserving):
    """DDPM's linear schedule in continuous time, t in (0, 1], beta from 0.1 to 20 (arXiv 2011.13456)."""

    levels: ClassVar[Levels | None] = Levels("linear-ddpm")
    _low: ClassVar[float] = 0.1
    _span: ClassVar[float] = 19.9

    def _time_of(self, r: Tensor) -> Tensor:
        y = r.square().log1p()  # span t^2 / 2 + low t
        return 2 * y / (self._low + (self._low**2 + 2 * self._span * y).sqrt())

    def _level_of(self, time: Tensor) -> Tensor:
        self._check_times(time, time > 0, "above 0")
        return (self._span * time.square() / 2 + self._low * time).expm1().sqrt()


@dataclass(frozen=True)
class CosineVP(_VariancePreserving):
    """The cosine schedule in continuous time, t in (0, 1): alpha = cos(pi t / 2) (arXiv 2202.00512)."""

    levels: ClassVar[Levels | None] = Levels("sech")

    def _time_of(self, r: Tensor) -> Tensor:
        return r.atan() * (2 / math.pi)

    def _level_of(self, time: Tensor) -> Tensor:
        self._check_times(time, (time > 0) & (time < 1), "between 0 and 1")
        return (time * (math.pi / 2)).tan()


@dataclass(frozen=True)
class DiscreteVP(_VariancePreserving):
    """Steps of a variance-preserving chain, told by their numbers 0 to T - 1 (DDPM, arXiv 2006.11239).

    Attributes:
        alphas_cumprod: the squared factor of the data after each step, falling within (0, 1).
        nearest: tell the nearest step; else levels between two have a number between theirs, linear in ln r, which
            networks with sinusoidal embeddings take.
    """

    alphas_cumprod: tuple[float, ...] = ()
    nearest: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        falls = all(a > b for a, b in zip(self.alphas_cumprod, self.alphas_cumprod[1:], strict=False))
        inside = all(0 < a < 1 for a in self.alphas_cumprod)
        check(
            len(self.alphas_cumprod) >= 2 and falls and inside,
            "alphas_cumprod must be two numbers or more that fall within (0, 1); a last one of 0 has no noise level",
        )

    @classmethod
    def linear(
        cls,
        steps: int = 1000,
        first: float = 1e-4,
        last: float = 0.02,
        sigma_data: float = 1.0,
        nearest: bool = False,
    ) -> DiscreteVP:
        """DDPM's schedule, beta linear in the step (arXiv 2006.11239, section 4)."""
        betas = torch.linspace(first, last, steps, dtype=torch.float64)
        return cls(sigma_data, _products(betas), nearest)

    @classmethod
    def scaled_linear(
        cls,
        steps: int = 1000,
        first: float = 0.00085,
        last: float = 0.012,
        sigma_data: float = 1.0,
        nearest: bool = False,
    ) -> DiscreteVP:
        """Latent diffusion's schedule, the root of beta linear in the step (arXiv 2112.10752)."""
        roots = torch.linspace(first**0.5, last**0.5, steps, dtype=torch.float64)
        return cls(sigma_data, _products(roots.square()), nearest)

    @classmethod
    def cosine(
        cls, steps: int = 1000, offset: float = 0.008, sigma_data: float = 1.0, nearest: bool = False
    ) -> DiscreteVP:
        """The cosine schedule with its offset, beta at most 0.999 (arXiv 2102.09672, equation 17)."""
        at = torch.arange(steps + 1, dtype=torch.float64) / steps
        whole = ((at + offset) / (1 + offset) * math.pi / 2).cos().square()
        return cls(sigma_data, _products((1 - whole[1:] / whole[:-1]).clamp(max=0.999)), nearest)

    def _time_of(self, r: Tensor) -> Tensor:
        table = _table(self.alphas_cumprod, str(r.device))
        x = r.log()
        upper = torch.searchsorted(table, x).clamp(1, len(table) - 1)
        below, above = table[upper - 1], table[upper]
        found = (upper - 1 + (x - below) / (above - below)).clamp(0, len(table) - 1)
        return found.round() if self.nearest else found

    def _level_of(self, time: Tensor) -> Tensor:
        table = _table(self.alphas_cumprod, str(time.device))
        last = len(table) - 1
        self._check_times(time, (time >= 0) & (time <= last), f"from 0 to {last}")
        lower = time.floor().long().clamp(max=last - 1)
        return table[lower].lerp(table[lower + 1], time - lower).exp()


def _products(betas: Tensor) -> tuple[float, ...]:
    return tuple((1 - betas).cumprod(0).tolist())


@lru_cache(maxsize=16)
def _table(alphas_cumprod: tuple[float, ...], device: str) -> Tensor:
    """ln r of each step, float64, rising."""
    squares = torch.tensor(alphas_cumprod, dtype=torch.float64)
    return (((1 - squares) / squares).log() / 2).to(device)


@dataclass(frozen=True)
class RectifiedFlow(Process):
    """z = (1 - t) x0 + t eps, t in (0, 1) (arXiv 2209.03003).

    Attributes:
        towards_data: time runs from noise at 0 to data at 1, as in arXiv 2210.02747; a velocity then points to data.
        multiplier: of the time that a network is told, such as 1000.
    """

    towards_data: bool = False
    multiplier: float = 1.0

    levels: ClassVar[Levels | None] = Levels("beta")

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 < self.multiplier < math.inf, f"the multiplier of a time must be above 0, not {self.multiplier}")

    @property
    def direction(self) -> int:
        """The sign of its velocities."""
        return -1 if self.towards_data else 1

    def _alpha(self, r: Tensor) -> Tensor:
        return 1 / (1 + r)

    def _time_of(self, r: Tensor) -> Tensor:
        return self.multiplier * (1 / (1 + r) if self.towards_data else r / (1 + r))

    def _level_of(self, time: Tensor) -> Tensor:
        t = time / self.multiplier
        inside = (t > 0) & (t < 1)
        self._check_times(t, inside, "between 0 and 1")
        return (1 - t) / t if self.towards_data else t / (1 - t)
