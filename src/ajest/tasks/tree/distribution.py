"""The fractal-like mixture of Gaussians of the autoguidance paper.

Source: arXiv 2406.02507, appendix C; docs/method.md#tree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

ORIGIN = (0.0030, 0.0325)
SCALE = (1.3136, 1.3844)
LEVELS = 7
PER_BRANCH = 8  # Gaussians along one branch; they share one covariance
ALONG = np.linspace(0.07, 0.93, PER_BRANCH)
ROOT_ANGLE = {"A": math.pi / 4, "B": 5 * math.pi / 4}
LOG2_E = math.log2(math.e)


@dataclass(frozen=True)
class Branch:
    """One branch of the tree: `PER_BRANCH` Gaussians of equal weight and covariance along a segment.

    Attributes:
        label: class, "A" or "B".
        depth: 0 (root) to 6 (twig).
        phi: unnormalised weight of each of its Gaussians.
        start: where it begins, in the plane of the data.
        along: from its beginning to its end, in the plane of the data.
        covariance: 2 x 2, of each of its Gaussians.
    """

    label: str
    depth: int
    phi: float
    start: np.ndarray
    along: np.ndarray
    covariance: np.ndarray

    @property
    def means(self) -> np.ndarray:
        return self.start + self.along * ALONG[:, None]


@lru_cache(maxsize=1)
def branches() -> tuple[Branch, ...]:
    """All 254 branches, class A first, depth first."""
    rng = np.random.RandomState(2)
    scale = np.array(SCALE)

    def grow(label: str, position: np.ndarray, angle: float, depth: int) -> Iterator[Branch]:
        if depth == LEVELS:
            return
        length = 0.292 * 0.8**depth * (1 + 0.2 * rng.randn())
        thickness = 0.2 * 0.8**depth / length
        size = scale * length * 0.06
        direction = np.array([np.cos(angle), np.sin(angle)])
        outer = np.outer(direction, direction)
        covariance = (outer + (np.eye(2) - outer) * thickness**2) * np.outer(size, size)
        step = direction * length
        yield Branch(label, depth, length * 0.5**depth, position * scale, step * scale, covariance)
        for sign in (1, -1):
            turned = angle + sign * 0.7**depth * (1 + 0.2 * rng.randn())
            yield from grow(label, position + step, turned, depth + 1)

    origin = np.array(ORIGIN)
    return tuple(b for label, angle in ROOT_ANGLE.items() for b in grow(label, origin, angle, 0))


class TreeDistribution:
    """Exact density, score and sampling of the tree at any noise level.

    At noise level sigma every covariance C becomes C + sigma^2 I. The eight Gaussians of a branch share C and
    stand at points of one line, so with A = (C + sigma^2 I)^-1, the line's middle m and direction d, their
    exponents are -(A-distance of x to the line)^2 / 2 - v (t_j - t*)^2 / 2, v = d'Ad: per branch a handful of
    numbers, per Gaussian one addition chain and one exp2. No eigen-decomposition, no cancellation, and only
    elementwise operations that run alike on CPU and CUDA.

    Args:
        label: class "A" or "B", or None for both.
        device: where the constants live.
        dtype: float32, or float64 for reference values.
    """

    #: Examples per block and thread on a CPU: some 10 temporaries of 127 x 512 float32 stay in a core's caches.
    BLOCK = 512

    def __init__(
        self,
        label: str | None = "A",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        chosen = [b for b in branches() if label in (None, b.label)]
        if not chosen:
            raise ValueError(f"the tree has classes A and B, not {label!r}")
        self.branches = chosen
        self.dtype, self.device = dtype, torch.device(device)
        phi = np.array([b.phi for b in chosen])
        phi = phi / (phi.sum() * PER_BRANCH)
        self.branch_mass = phi * PER_BRANCH
        self.depth = np.array([b.depth for b in chosen])
        middle = np.array([b.start + 0.5 * b.along for b in chosen])
        along = np.array([b.along for b in chosen])
        covariance = np.array([b.covariance for b in chosen])
        self._t = [float(t) for t in ALONG - 0.5]

        def column(values: np.ndarray) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)[:, None]

        self._mx, self._my = column(middle[:, 0]), column(middle[:, 1])
        self._dx, self._dy = column(along[:, 0]), column(along[:, 1])
        self._cxx, self._cxy, self._cyy = (column(covariance[:, i, j]) for i, j in ((0, 0), (0, 1), (1, 1)))
        self._log2_phi = column(np.log2(phi))
        means = np.concatenate([b.means for b in chosen])
        self._means = torch.tensor(means, dtype=dtype, device=device)
        self._factors = torch.tensor(np.linalg.cholesky(covariance), dtype=dtype, device=device)
        cumulative = np.cumsum(np.repeat(phi, PER_BRANCH))
        self._cumulative = torch.tensor(cumulative[:-1], dtype=torch.float32, device=device)

    def component(self, uniform: Tensor) -> Tensor:
        """Index of the Gaussian for uniform numbers in [0, 1), shape (n,)."""
        return torch.searchsorted(self._cumulative, uniform.to(torch.float32), right=True)

    def sample(self, uniform: Tensor, normal: Tensor, sigma: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """Exact samples at noise level sigma from given random numbers.

        Args:
            uniform: shape (n,), in [0, 1): which Gaussian.
            normal: shape (n, 4), standard normal: two numbers for the Gaussian, two for the noise.
            sigma: noise level, a number or shape (n,).

        Returns:
            (x of shape (n, 2), index of the Gaussian of shape (n,), in the order of `branches()`).
        """
        clean, index = self.clean(uniform, normal[:, :2])
        if isinstance(sigma, Tensor):
            sigma = sigma[:, None]
        return clean + sigma * normal[:, 2:].to(self.dtype), index

    def clean(self, uniform: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Exact samples without noise from given random numbers, as `sample`; `normal` has shape (n, 2)."""
        index = self.component(uniform)
        # An index of another kind takes twice as long.
        factor = self._factors.index_select(0, torch.div(index, PER_BRANCH, rounding_mode="floor"))
        return self._means.index_select(0, index) + (factor @ normal.to(self.dtype)[..., None]).squeeze(-1), index

    def log_density(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """ln p(x; sigma), shape (n,), for x of shape (n, 2)."""
        return self._blocks(x, sigma, 0)

    def score(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """grad_x ln p(x; sigma), shape (n, 2), for x of shape (n, 2)."""
        return self._blocks(x, sigma, 1)

    def denoise(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """The posterior mean E[x0 | x] = x + sigma^2 score (docs/method.md#loss): a `Denoiser`, the ideal one."""
        return x + sigma[:, None].square() * self.score(x, sigma)

    @property
    def flops(self) -> float:
        """Operations of denoising one point: of each Gaussian about three dozen."""
        return 36.0 * PER_BRANCH * len(self.depth)

    def responsibilities(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """Posterior probability of each branch given x, shape (n, branches)."""
        return self._blocks(x, sigma, 2)

    @torch.no_grad()
    def _blocks(self, x: Tensor, sigma: Tensor | float, part: int) -> Tensor:
        x = x.to(self.dtype)
        sigma = torch.as_tensor(sigma, dtype=self.dtype, device=x.device)
        one = part == 0 and sigma.dim() == 0  # then the Gaussians are the same for all examples
        size = self.BLOCK * torch.get_num_threads() if x.device.type == "cpu" else 8192
        points = x.split(size)
        levels = [sigma[None]] * len(points) if one else sigma.expand(len(x)).split(size)
        results = [self._block(a, b, part) for a, b in zip(points, levels, strict=True)]
        return torch.cat(results) if results else x.new_empty(0)

    def _block(self, x: Tensor, sigma: Tensor, part: int) -> Tensor:
        """One block; rows are branches, columns examples; exponents in base 2, where exp2 is fastest. The noise levels
        are those of all examples, or one for all of them where densities are asked for."""
        x_row, y_row = x.T.contiguous()[:, None]
        variance = (sigma * sigma)[None]
        a, c = self._cxx + variance, self._cyy + variance
        inverse_det = torch.mul(a, c).sub_(self._cxy.square()).reciprocal_()
        rx, ry = x_row - self._mx, y_row - self._my
        ux = torch.mul(c, self._dx).sub_(self._cxy * self._dy).mul_(inverse_det)  # A d
        uy = torch.mul(a, self._dy).sub_(self._cxy * self._dx).mul_(inverse_det)
        v = torch.mul(ux, self._dx).addcmul_(uy, self._dy)
        inverse_v = v.reciprocal()
        along = ux if len(sigma) > 1 else ux.expand_as(rx).clone()
        nearest = along.mul_(rx).addcmul_(uy, ry).mul_(inverse_v)  # t*, where the line comes closest to x
        across = torch.mul(ry, self._dx).sub_(torch.mul(rx, self._dy)).square_().mul_(inverse_v)
        peak = across.mul_(inverse_det).mul_(-0.5 * LOG2_E)
        peak.add_(inverse_det.log2(), alpha=0.5).add_(self._log2_phi)
        half_v = v.mul_(-0.5 * LOG2_E)

        # The largest exponent of all, from the Gaussian closest to t* on each branch.
        gap = (self._t[-1] - self._t[0]) / (PER_BRANCH - 1)
        closest = (nearest - self._t[0]).mul_(1 / gap).round_().clamp_(0, PER_BRANCH - 1)
        closest = closest.mul_(gap).add_(self._t[0]).sub_(nearest)
        largest = closest.square_().mul_(half_v).add_(peak).amax(0)
        peak.sub_(largest)

        weight, first_moment = torch.zeros_like(nearest), torch.zeros_like(nearest)  # sums of w_j and of w_j t_j
        term = closest
        for t in self._t:
            torch.sub(nearest, t, out=term).square_().mul_(half_v).add_(peak).exp2_()
            weight.add_(term)
            if part == 1:
                first_moment.add_(term, alpha=t)

        total = weight.sum(0)
        if part == 0:
            return (largest + total.log2()) / LOG2_E - math.log(2 * math.pi)
        if part == 2:
            return weight.div_(total).T
        # score = A (sum_j w_j (mu_j - x)) / sum_j w_j, summed over branches
        px = torch.mul(first_moment, self._dx).addcmul_(weight, rx, value=-1)
        py = first_moment.mul_(self._dy).addcmul_(weight, ry, value=-1)
        sx = c.mul_(px).addcmul_(py, self._cxy, value=-1).mul_(inverse_det).sum(0)
        sy = a.mul_(py).addcmul_(px, self._cxy, value=-1).mul_(inverse_det).sum(0)
        return torch.stack([sx, sy], 1).div_(total[:, None])
