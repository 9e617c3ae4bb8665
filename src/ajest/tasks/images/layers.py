"""Magnitude-preserving layers of EDM2 (arXiv 2312.02696, appendix B; docs/method.md#images).

Magnitudes are preserved by construction: every weight is used normalised, every join is scaled. Scales that the
paper applies to activations (1 / 0.596 of MP-SiLU, the balance of a residual join) act on the weights of the next or
last convolution here: the same numbers for fewer passes over memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ajest.errors import check

SILU_GAIN = 0.596  # RMS of silu(z) for standard normal z
RESIDUAL_BALANCE = 0.3
LABEL_BALANCE = SKIP_BALANCE = 0.5
HEAD_CHANNELS = 64
EPSILON = 1e-4


def normalize(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """`x / (1e-4 + RMS over dims)`, norms in float32 (EDM2 equation 47)."""
    norm = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=torch.float32)
    scale = EPSILON + norm * math.sqrt(norm.numel() / x.numel())
    return x / scale.to(x.dtype)


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """`((1 - t) a + t b) / sqrt((1 - t)^2 + t^2)` (EDM2 equation 88)."""
    return torch.lerp(a, b, t) / math.hypot(1 - t, t)


class _Doubled(torch.autograd.Function):
    """Each position four times. Going back, a sum over windows has the bits of what autograd knows, and on a
    GPU needs no atomic additions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return functional.interpolate(x, scale_factor=2, mode="nearest")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return functional.avg_pool2d(gradient, 2, divisor_override=1)


def doubled(x: Tensor) -> Tensor:
    """(n, channels, h, w) at twice the height and width."""
    return _Doubled.apply(x)


def balance(t: float) -> tuple[float, float]:
    """Factors of the second and of the first of two tensors joined by MP-sum."""
    scale = math.hypot(1 - t, t)
    return t / scale, (1 - t) / scale


def mp_cat(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Channels of a and b, scaled so that both weigh as `t` says (EDM2 equation 103)."""
    na, nb = a.shape[1], b.shape[1]
    scale = math.sqrt((na + nb) / ((1 - t) ** 2 + t**2))
    scale_a, scale_b = scale * (1 - t) / math.sqrt(na), scale * t / math.sqrt(nb)
    return torch.cat([a if scale_a == 1 else a * scale_a, b if scale_b == 1 else b * scale_b], 1)


class MPFourier(nn.Module):
    """`sqrt(2) cos(freqs * c + phases)` with fixed random frequencies and phases (EDM2 equation 75)."""

    def __init__(self, channels: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.register_buffer("freqs", 2 * np.pi * torch.randn(channels, generator=generator))
        self.register_buffer("phases", 2 * np.pi * torch.rand(channels, generator=generator))

    freqs: Tensor
    phases: Tensor

    def forward(self, c: Tensor) -> Tensor:
        """(n,) to (n, channels), in float32."""
        return torch.cos(torch.outer(c.float(), self.freqs) + self.phases) * math.sqrt(2)


class MPConv(nn.Module):
    """A convolution (kernel 1 or 3) or, with kernel 0, a linear layer, with a normalised weight and no bias."""

    def __init__(self, fan_in: int, fan_out: int, kernel: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        shape = (fan_out, fan_in, *[kernel] * 2 * bool(kernel))
        self.weight = nn.Parameter(torch.randn(shape, generator=generator))

    def used(self, gain: Tensor | float, dtype: torch.dtype) -> Tensor:
        """The weight that acts: normalised in float32, times `gain / sqrt(fan_in)`."""
        weight = normalize(self.weight, tuple(range(1, self.weight.ndim)))
        return (weight * (gain / math.sqrt(weight[0].numel()))).to(dtype)

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        weight = self.used(gain, x.dtype)
        if weight.ndim == 2:
            return x @ weight.T
        return functional.conv2d(x, weight, padding=weight.shape[-1] // 2)


@torch.no_grad()
def renormalise(layers: Iterable[MPConv]) -> None:
    """Overwrite stored weights by their normalised selves (forced weight normalisation, EDM2 equation 66).

    Weights of one shape an output are normalised together: a U-Net has over a hundred of them, and on a GPU each
    kernel costs its launch.
    """
    alike: dict[torch.Size, list[Tensor]] = {}
    for layer in layers:
        alike.setdefault(layer.weight.shape[1:], []).append(layer.weight)
    for weights in alike.values():
        together = normalize(torch.cat(weights), tuple(range(1, weights[0].ndim)))
        torch._foreach_copy_(weights, together.split([len(weight) for weight in weights]))


def heads_of(channels: int) -> int:
    """Heads of attention over so many channels: of 64 each, or one where there are fewer.

    Raises:
        UserError: the channels cannot be parted evenly.
    """
    heads = max(1, channels // HEAD_CHANNELS)
    check(
        channels % heads == 0,
        f"attention over {channels} channels cannot be parted into {heads} heads: take multiples of {HEAD_CHANNELS} "
        f"channels, or less than {2 * HEAD_CHANNELS}",
    )
    return heads


class Embedding(nn.Module):
    """A raw network's part that all of them share: noise level and class to one vector an example (EDM2 figure 21,
    embedding network).

    Its `forward(x, c_noise, label, with_hidden)` takes x of shape (n, channels, h, w) in the type to compute in and
    answers in the same; with `with_hidden` it gives what enters the last layer beside it, shape (n, width, positions).

    Attributes:
        patch: side of the squares of pixels that become one position.
        unit: what divides the height and width of every image that the network takes.
    """

    def __init__(
        self, fourier: int, channels: int, classes: int, patch: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.patch = self.unit = patch
        self.emb_fourier = MPFourier(fourier, generator)
        self.emb_noise = MPConv(fourier, channels, 0, generator)
        self.emb_label = MPConv(classes, channels, 0, generator) if classes else None

    def unshuffled(self, x: Tensor) -> Tensor:
        """Images (n, channels, h, w) as positions (n, channels patch^2, h / patch, w / patch).

        Raises:
            UserError: they have a side that the network cannot take, as at half resolution.
        """
        bad = [side for side in x.shape[2:] if side % self.unit]
        check(not bad, f"this network needs a resolution that {self.unit} divides, not {bad[0] if bad else 0}")
        return functional.pixel_unshuffle(x, self.patch)

    def embed(self, c_noise: Tensor, label: Tensor | None) -> Tensor:
        """(n, channels) in float32 from c_noise (n,) and labels: int64 (n,), or vectors (n, classes) that are brought
        to the length of one-hot ones. No label, -1 or None, is the zero vector."""
        embedding = self.emb_noise(self.emb_fourier(c_noise))
        if self.emb_label is not None:
            classes = self.emb_label.weight.shape[1]
            if label is None:
                one_hot = c_noise.new_zeros(len(c_noise), classes)
            elif label.ndim == 2:
                one_hot = functional.normalize(label.float(), dim=1)
            else:
                one_hot = functional.one_hot(label + 1, classes + 1)[:, 1:]
            embedding = mp_sum(embedding, self.emb_label(one_hot.float() * math.sqrt(classes)), LABEL_BALANCE)
        return functional.silu(embedding) / SILU_GAIN
