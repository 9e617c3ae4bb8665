"""The energy MLP of the tree: a network whose gradient is the score.

Source: arXiv 2406.02507, appendix C; docs/method.md#tree-network.
"""

from __future__ import annotations

import itertools
from typing import Any, Literal

import torch
from torch import Tensor, nn

GainSign = Literal["free", "negative", "positive"]
GAIN_START = 0.02  # size of a gain whose sign is given
SKETCH = 64  # numbers in a sketch of a gradient
SILU_GAIN = 0.596  # RMS of silu(z) for standard normal z; MP-SiLU divides by it


def normalize(weight: Tensor) -> Tensor:
    """Each output row over `1e-4 + norm * sqrt(rows / numel)`, i.e. to unit RMS (EDM2 equation 47)."""
    norm = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
    return weight / (1e-4 + norm * (weight.shape[0] / weight.numel()) ** 0.5)


class _SiluWithSlope(torch.autograd.Function):
    """z -> (silu(z), silu'(z)) in one pass, both differentiable once: the score needs the second derivative."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> tuple[Tensor, Tensor]:
        s = torch.sigmoid(z)
        value = z * s
        slope = torch.sub(1, s).mul_(value).add_(s)
        ctx.save_for_backward(z, s)
        return value, slope

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        z, s = ctx.saved_tensors
        grad_value, grad_slope = grads
        # silu'' = s (1 - s) (2 + z (1 - 2 s)); silu' is cheaper to make again than to keep
        rest = torch.sub(1, s)
        curve = torch.sub(rest, s).mul_(z).add_(2).mul_(rest).mul_(grad_slope)
        slope = rest.mul_(z).add_(1).mul_(grad_value)
        return slope.add_(curve).mul_(s)


class MPLinear(nn.Module):
    """A magnitude-preserving linear layer without bias: rows of unit RMS over sqrt(fan_in)."""

    def __init__(self, fan_in: int, fan_out: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in, generator=generator))

    def used(self) -> Tensor:
        """The weight that acts, shape (out, in). A training pass first re-normalises the stored one in place."""
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                self.weight.copy_(normalize(self.weight))
        return normalize(self.weight) / self.weight.shape[1] ** 0.5


class EnergyMLP(nn.Module):
    """`E = gain * mean(y^2) / sigma - |xh|^2 / 2`, score = dE/dx; called as a denoiser, `x + sigma^2 score`.

    The gradient with respect to x is written out, so training needs one backward pass instead of two.

    Args:
        hidden: width of every layer.
        layers: hidden layers after the first linear one.
        sigma_data: standard deviation of the data.
        generator: for the initial weights (drawn on the CPU).
        gain_sign: of the gain: "free", as published, where it starts at 0 and its first steps decide; or "negative" by
            construction, minus the size of a parameter that starts at 0.02, or "positive" (docs/method.md#gain).
    """

    def __init__(
        self,
        hidden: int = 64,
        layers: int = 4,
        sigma_data: float = 0.5,
        generator: torch.Generator | None = None,
        gain_sign: GainSign = "free",
    ) -> None:
        super().__init__()
        self.sigma_data, self.gain_sign = sigma_data, gain_sign
        sizes = [4] + [hidden] * (layers + 1)
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            self.add_module(f"layer{i}", MPLinear(fan_in, fan_out, generator))
        self.gain = nn.Parameter(torch.full((1,), 0.0 if gain_sign == "free" else GAIN_START))

    @property
    def depth(self) -> int:
        return len(self._modules)

    def acting_gain(self) -> Tensor:
        """The gain that acts, shape (1,)."""
        if self.gain_sign == "free":
            return self.gain
        return self.gain.abs() if self.gain_sign == "positive" else -self.gain.abs()

    def scalars(self) -> dict[str, float]:
        """The gain, whose sign decides much of the loss."""
        return {"gain": self.acting_gain().item()}

    def flops(self) -> int:
        """Floating-point operations of one score of one example; a training step costs three times as many."""
        weights = [p.numel() for n, p in self.named_parameters() if n != "gain"]
        return 4 * sum(weights)

    def sketch_flops(self) -> int:
        """Operations of `sketched` for one example: a score, and a second pass with a derivative along a direction."""
        hidden = self.get_parameter("layer0.weight").shape[0]
        return 2 * self.flops() + 8 * hidden * SKETCH

    def _weights(self) -> list[Tensor]:
        first, *rest = (getattr(self, f"layer{i}").used() for i in range(self.depth))
        return [first, *(w / SILU_GAIN for w in rest)]

    def _inputs(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(scale of the input (n, 1), inputs [xh, ln(sigma)/4, 1] (n, 4))."""
        scale = torch.rsqrt(sigma.square() + self.sigma_data**2)[:, None]
        inputs = torch.cat([x * scale, sigma.log()[:, None] / 4, torch.ones_like(scale)], 1)
        return scale, inputs

    def energy(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The model's log-density up to a constant, shape (n,), for x of shape (n, 2), sigma of shape (n,)."""
        _, inputs = self._inputs(x, sigma)
        first, *rest = self._weights()
        y = inputs @ first.T
        for weight in rest:
            y = nn.functional.silu(y) @ weight.T
        return self.acting_gain() * y.square().mean(1) / sigma - inputs[:, :2].square().sum(1) / 2

    def score(self, x: Tensor, sigma: Tensor) -> Tensor:
        """dE/dx, shape (n, 2), differentiable once with respect to the weights."""
        return self._score(x, sigma)[0]

    def _score(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(dE/dx, the layer in the middle)."""
        scale, inputs = self._inputs(x, sigma)
        first, *rest = self._weights()
        y = inputs @ first.T
        slopes, middle = [], y
        for i, weight in enumerate(rest):
            value, slope = _SiluWithSlope.apply(y)
            slopes.append(slope)
            if i == len(rest) // 2:
                middle = value
            y = value @ weight.T
        grad = y * (self.acting_gain() * (2 / y.shape[1]) / sigma[:, None])
        for weight, slope in zip(reversed(rest), reversed(slopes), strict=True):
            grad = (grad @ weight) * slope
        return (grad @ first[:, :2] - inputs[:, :2]) * scale, middle

    @property
    def middle_shape(self) -> tuple[int, int]:
        """(numbers in the middle layer, coordinates)."""
        return self.get_parameter("layer0.weight").shape[0], 2

    def middle(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(the denoised x, the hidden layer in the middle, shape (n, hidden))."""
        score, hidden = self._score(x, sigma)
        return x + sigma[:, None].square() * score, hidden

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """The denoised x, shape (n, 2)."""
        return x + sigma[:, None].square() * self.score(x, sigma)

    def sketched(
        self, x: Tensor, sigma: Tensor, label: Tensor | None, target: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(denoised x, sketch of shape (n, 64) of the gradient of each example's loss for the last layer's weights).

        With v = weight sigma^2 (D - target) that gradient is the derivative of the energy along v, differentiated by
        the weights: `2 gain / (sigma H) (y' a^T + y a'^T)`, a the last hidden layer, y its output, ' along v. Inner
        products of sketches estimate those of gradients (random signs on both sides of the outer products).
        """
        denoised = self(x, sigma, label)
        scale, inputs = self._inputs(x, sigma)
        along = (denoised - target) * (weight * sigma.square())[:, None] * scale
        first, *rest = self._weights()
        y, slope_y = inputs @ first.T, along @ first[:, :2].T
        for used in rest:
            a, slope = _SiluWithSlope.apply(y)
            slope_a = slope * slope_y
            y, slope_y = a @ used.T, slope_a @ used.T
        signs = torch.Generator().manual_seed(0)
        left, right = ((torch.randint(2, (y.shape[1], SKETCH), generator=signs) * 2.0 - 1).to(y) for _ in range(2))
        sketch = (slope_y @ left) * (a @ right) + (y @ left) * (slope_a @ right)
        factor = self.acting_gain() * (2 / (y.shape[1] * SKETCH**0.5)) / sigma
        return denoised, sketch * factor[:, None]
