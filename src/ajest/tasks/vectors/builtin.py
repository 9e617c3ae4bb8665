"""Sets that need no file: the field's toy distributions, made from a seed, and scikit-learn's digits."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ajest.errors import UserError, check, unknown

from .readers import MAX_VALUES, Table

USUAL = 20_000  # rows of a made-up set unless told
_SPEC = re.compile(r"(?P<name>[a-z-]+?)(-(?P<d>\d+)d)?(:(?P<n>\d+))?")
_COMPONENTS = 8
DIGITS = (8, 8)  # height and width of scikit-learn's


@dataclass(frozen=True)
class Mixture:
    """A mixture of k Gaussians of diagonal covariance in d dimensions, whose score is known at every noise level.

    With noise of level sigma each variance v becomes v + sigma^2, so density, score and posterior mean stay closed
    forms.

    Attributes:
        weights: of the Gaussians, shape (k,), sum 1.
        means: shape (k, d).
        variances: of each coordinate, shape (k, d).
    """

    weights: Tensor
    means: Tensor
    variances: Tensor

    @staticmethod
    def built_in(d: int) -> Mixture:
        """The mixture that the set `mixture-Dd` is drawn from, in float64."""
        rng = np.random.default_rng([1, d])
        weights = rng.uniform(0.5, 1.5, _COMPONENTS)
        means, deviations = rng.normal(0, 2, (_COMPONENTS, d)), rng.uniform(0.1, 0.5, (_COMPONENTS, d))
        return Mixture(*map(torch.from_numpy, (weights / weights.sum(), means, deviations**2)))

    def standardised(self, mean: Tensor, scale: Tensor) -> Mixture:
        """The distribution of (x - mean) / scale, both of shape (d,)."""
        return Mixture(self.weights, (self.means - mean) / scale, self.variances / scale.square())

    @property
    def flops(self) -> float:
        """Operations of denoising one vector: of each Gaussian's each coordinate about a dozen."""
        return 12.0 * self.means.numel()

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Exact samples, float64 of shape (n, d)."""
        which = rng.choice(len(self.weights), n, p=self.weights.numpy())
        noise = rng.normal(size=(n, self.means.shape[1]))
        return self.means.numpy()[which] + self.variances.sqrt().numpy()[which] * noise

    def log_density(self, x: Tensor, sigma: Tensor) -> Tensor:
        """ln p(x; sigma), shape (n,), for x of shape (n, d), sigma of shape (n,)."""
        return self._logs(x, sigma)[0].logsumexp(1)

    def denoise(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """The posterior mean E[x0 | x] = x + sigma^2 score (Tweedie's formula; EDM, arXiv 2206.00364, equation 3), a
        `Denoiser`: the ideal one."""
        return x + sigma[:, None].square() * self.score(x, sigma)

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """grad_x ln p(x; sigma), shape (n, d)."""
        logs, pull = self._logs(x, sigma)
        return (logs.softmax(1)[..., None] * pull).sum(1)

    def _logs(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(ln of weight times density of each Gaussian (n, k), the score of each (n, k, d))."""
        variances = self.variances.to(x) + sigma.square()[:, None, None]
        away = self.means.to(x) - x[:, None]
        pull = away / variances
        logs = self.weights.to(x).log() - 0.5 * (away * pull + (2 * math.pi * variances).log()).sum(2)
        return logs, pull


def moons(n: int, rng: np.random.Generator) -> np.ndarray:
    """Two half circles that interlock, with noise of 0.05 (scikit-learn's `make_moons`), shape (n, 2)."""
    t, upper = rng.uniform(0, np.pi, n), rng.random(n) < 0.5
    x = np.where(upper, np.cos(t), 1 - np.cos(t))
    y = np.where(upper, np.sin(t), 0.5 - np.sin(t))
    return np.stack([x, y], 1) + rng.normal(0, 0.05, (n, 2))


def checkerboard(n: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform on every other of the 4 x 4 unit squares in [-2, 2]^2 (FFJORD, arXiv 1810.01367, section 4.1)."""
    column, row = rng.integers(0, 4, n), 2 * rng.integers(0, 2, n)
    return np.stack([column, row + column % 2], 1) - 2 + rng.random((n, 2))


def swiss_roll(n: int, rng: np.random.Generator) -> np.ndarray:
    """A spiral of one and a half turns in the plane, with noise (scikit-learn's `make_swiss_roll` without its height,
    over 10, as arXiv 1503.03585 learns it), shape (n, 2)."""
    t = 1.5 * np.pi * (1 + 2 * rng.random(n))
    return np.stack([t * np.cos(t), t * np.sin(t)], 1) / 10 + rng.normal(0, 0.03, (n, 2))


_MADE_UP: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "two-moons": moons,
    "checkerboard": checkerboard,
    "swiss-roll": swiss_roll,
}
NAMES = (*_MADE_UP, "mixture", "digits")


def is_keyword(spec: str) -> bool:
    """Whether a SPEC is the name of a set, such as `two-moons`, `mixture-16d` or `checkerboard:5000`, and no path."""
    found = _SPEC.fullmatch(spec)
    return found is not None and (found["name"] in NAMES or not (Path(spec).suffix or Path(spec).exists()))


def mixture_of(spec: str) -> Mixture | None:
    """The exact distribution that a set was drawn from; None where it is not known."""
    found = _SPEC.fullmatch(spec)
    return Mixture.built_in(int(found["d"] or 2)) if found and found["name"] == "mixture" else None


def built_in(spec: str) -> Table:
    """The set of a name: `two-moons`, `checkerboard`, `swiss-roll`, `mixture-Dd` of D dimensions, `digits`; `:N` after
    it asks for N rows.

    Raises:
        UserError: there is no such set, it has no such size, or the digits are asked for without scikit-learn.
    """
    found = _SPEC.fullmatch(spec)
    name = found["name"] if found else spec
    if found is None or name not in NAMES:
        raise unknown("set of vectors", name, NAMES)
    check(found["d"] is None or name == "mixture", f"{spec}: of the built-in sets only mixture-{found['d']}d has that")
    n, d = int(found["n"] or USUAL), int(found["d"] or 2)
    check(d >= 1, f"{spec}: a mixture needs at least 1 dimension")
    check(n * d <= MAX_VALUES, f"{spec}: {n:,} rows of {d:,} are more than the {MAX_VALUES:,} numbers that are kept")
    if name == "digits":
        check(found["n"] is None, f"{spec}: the digits are as many as they are, leave out :{n}")
        return _digits()
    rng = np.random.default_rng(1)
    x = Mixture.built_in(d).draw(n, rng) if name == "mixture" else _MADE_UP[name](n, rng)
    return Table(x.round(6))  # the last digits differ from machine to machine, and the digest is to be the same


def _digits() -> Table:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError(f"the digits come with scikit-learn ({error}): pip install scikit-learn") from error
    found = load_digits()
    columns = tuple(f"pixel{i}{j}" for i in range(DIGITS[0]) for j in range(DIGITS[1]))
    return Table(found.data.astype(np.float64), found.target.astype(str).tolist(), columns)
