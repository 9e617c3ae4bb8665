"""The EDM2 denoiser, configuration G: a magnitude-preserving U-Net.

Source: arXiv 2312.02696, appendix B; docs/method.md#images, docs/method.md#preconditioning.

Magnitudes are preserved by construction: every weight is used normalised, every join is scaled. Scales that the
paper applies to activations (1 / 0.596 of MP-SiLU, the balance of a residual join) act on the weights of the next or
last convolution here: the same numbers for fewer passes over memory.
"""

from __future__ import annotations

import copy
import math
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ajest.errors import check
from ajest.runtime.compiling import uncompiled

SILU_GAIN = 0.596  # RMS of silu(z) for standard normal z
RESIDUAL_BALANCE = 0.3
LABEL_BALANCE = SKIP_BALANCE = 0.5
CLIP = 256.0
HEAD_CHANNELS = 64
UNCERTAINTY_CHANNELS = 128
EPSILON = 1e-4


def normalize(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """`x / (1e-4 + RMS over dims)`, norms in float32 (EDM2 equation 47)."""
    norm = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=torch.float32)
    scale = EPSILON + norm * math.sqrt(norm.numel() / x.numel())
    return x / scale.to(x.dtype)


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """`((1 - t) a + t b) / sqrt((1 - t)^2 + t^2)` (EDM2 equation 88)."""
    return torch.lerp(a, b, t) / math.hypot(1 - t, t)


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
    def renormalise(self) -> None:
        """Overwrite the stored weight by its normalised self (forced weight normalisation, EDM2 equation 66)."""
        self.weight.copy_(normalize(self.weight, tuple(range(1, self.weight.ndim))))


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


class Block(nn.Module):
    """A block of the encoder or decoder (EDM2 figure 21).

    Args:
        fan_in: channels of the input, those of a concatenated skip included.
        fan_out: channels of the output.
        embedding: channels of the embedding.
        kind: "enc" or "dec".
        resample: "keep", "down" or "up", before anything else.
        attention: with self-attention at the end.
        dropout: share of the residual branch's activations set to 0 in training.
        generator: for the initial weights.
    """

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        embedding: int,
        kind: str,
        resample: str = "keep",
        attention: bool = False,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.kind, self.resample, self.dropout = kind, resample, dropout
        self.heads = heads_of(fan_out) if attention else 0
        width = fan_out if kind == "enc" else fan_in
        self.emb_gain = nn.Parameter(torch.zeros([]))
        self.emb_linear = MPConv(embedding, fan_out, 0, generator)
        self.conv_res0 = MPConv(width, fan_out, 3, generator)
        self.conv_res1 = MPConv(fan_out, fan_out, 3, generator)
        self.conv_skip = MPConv(fan_in, fan_out, 1, generator) if fan_in != fan_out else None
        self.attn_qkv = MPConv(fan_out, 3 * fan_out, 1, generator) if attention else None
        self.attn_proj = MPConv(fan_out, fan_out, 1, generator) if attention else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (n, fan_in, h, w), embedding (n, channels)."""
        if self.resample == "down":
            x = functional.avg_pool2d(x, 2)
        elif self.resample == "up":
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
        if self.kind == "enc":
            x = x if self.conv_skip is None else self.conv_skip(x)
            x = normalize(x, (1,))
        y = self.conv_res0(functional.silu(x), gain=1 / SILU_GAIN)
        scale = (self.emb_linear(embedding, gain=self.emb_gain) + 1).to(y.dtype)
        y = functional.silu(y * scale[:, :, None, None])
        y = functional.dropout(y, self.dropout, self.training) if self.dropout else y
        share, rest = _balance(RESIDUAL_BALANCE)
        if self.kind == "dec" and self.conv_skip is not None:
            x, rest = self.conv_skip(x, gain=rest), 1.0
        x = torch.add(self.conv_res1(y, gain=share / SILU_GAIN), x, alpha=rest)
        if self.heads:
            x = torch.add(self._attend(x, gain=share), x, alpha=_balance(RESIDUAL_BALANCE)[1])
        return x.clamp(-CLIP, CLIP)

    def _attend(self, x: Tensor, gain: float) -> Tensor:
        """Cosine attention over all positions (EDM2 equation 36)."""
        assert self.attn_qkv is not None
        assert self.attn_proj is not None
        n, c, h, w = x.shape
        # Channels last throughout; the fused kernels want each head's channels contiguous.
        parts = self.attn_qkv(x).permute(0, 2, 3, 1).reshape(n, h * w, self.heads, c // self.heads, 3)
        q, k, v = normalize(parts, (3,)).permute(4, 0, 2, 1, 3).contiguous().unbind(0)
        y = functional.scaled_dot_product_attention(q, k, v)
        y = y.transpose(1, 2).reshape(n, h, w, c).permute(0, 3, 1, 2)
        return self.attn_proj(y, gain=gain)


def _balance(t: float) -> tuple[float, float]:
    """Factors of the second and of the first of two tensors joined by MP-sum."""
    scale = math.hypot(1 - t, t)
    return t / scale, (1 - t) / scale


def mp_cat(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Channels of a and b, scaled so that both weigh as `t` says (EDM2 equation 103)."""
    na, nb = a.shape[1], b.shape[1]
    scale = math.sqrt((na + nb) / ((1 - t) ** 2 + t**2))
    scale_a, scale_b = scale * (1 - t) / math.sqrt(na), scale * t / math.sqrt(nb)
    return torch.cat([a if scale_a == 1 else a * scale_a, b if scale_b == 1 else b * scale_b], 1)


class Embedding(nn.Module):
    """A raw network's part that all of them share: noise level and class to one vector an example (EDM2 figure 21,
    embedding network).

    Attributes:
        patch: side of the squares of pixels that become one position.
        unit: what divides the height and width of every picture that the network takes.
    """

    def __init__(
        self, fourier: int, channels: int, classes: int, patch: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.patch = self.unit = patch
        self.emb_fourier = MPFourier(fourier, generator)
        self.emb_noise = MPConv(fourier, channels, 0, generator)
        self.emb_label = MPConv(classes, channels, 0, generator) if classes else None

    @property
    def last_layer(self) -> nn.Module:
        raise NotImplementedError

    def unshuffled(self, x: Tensor) -> Tensor:
        """Pictures (n, channels, h, w) as positions (n, channels patch^2, h / patch, w / patch).

        Raises:
            UserError: they have a side that the network cannot take, as at half resolution.
        """
        bad = [side for side in x.shape[2:] if side % self.unit]
        check(not bad, f"this network needs a resolution that {self.unit} divides, not {bad[0] if bad else 0}")
        return functional.pixel_unshuffle(x, self.patch)

    def embed(self, c_noise: Tensor, label: Tensor | None) -> Tensor:
        """(n, channels) in float32 from c_noise (n,) and labels: int64 (n,) or one-hot (n, classes). No label, -1 or
        None, is the zero vector in the place of a one-hot one."""
        embedding = self.emb_noise(self.emb_fourier(c_noise))
        if self.emb_label is not None:
            classes = self.emb_label.weight.shape[1]
            if label is None:
                one_hot = c_noise.new_zeros(len(c_noise), classes)
            elif label.ndim == 2:
                one_hot = label
            else:
                one_hot = functional.one_hot(label + 1, classes + 1)[:, 1:]
            embedding = mp_sum(embedding, self.emb_label(one_hot.float() * math.sqrt(classes)), LABEL_BALANCE)
        return functional.silu(embedding) / SILU_GAIN


class UNet(Embedding):
    """The raw network F.

    Args:
        resolution: height and width of the pictures.
        channels: of the first level.
        classes: of the labels; 0 for an unconditional network.
        multipliers: channels of each level, in units of the first.
        blocks: per level.
        attention: resolutions with self-attention.
        dropout: in all blocks.
        patch: side of the squares of pixels that become one position; 1 in the paper. Small networks learn more in a
            CPU second with 2, at a quarter of the positions.
        image_channels: 3 for RGB.
        generator: for the initial weights (drawn on the CPU).
    """

    def __init__(
        self,
        resolution: int,
        channels: int,
        classes: int,
        multipliers: tuple[int, ...] = (1, 2, 3, 4),
        blocks: int = 3,
        attention: tuple[int, ...] = (16, 8),
        dropout: float = 0.0,
        patch: int = 1,
        image_channels: int = 3,
        generator: torch.Generator | None = None,
    ) -> None:
        pixels = image_channels * patch**2
        widths = [channels * m for m in multipliers]
        embedding = max(widths)
        super().__init__(widths[0], embedding, classes, patch, generator)
        self.unit = patch << (len(widths) - 1)
        resolution //= patch
        options: dict[str, Any] = {"dropout": dropout, "generator": generator}
        self.enc = nn.ModuleDict()
        skips, now = [], pixels + 1
        for level, width in enumerate(widths):
            side = resolution >> level
            name, attends = f"{side}x{side}", side in attention
            if level == 0:
                self.enc[f"{name}_conv"] = MPConv(now, width, 3, generator)
                now = width
            else:
                self.enc[f"{name}_down"] = Block(now, now, embedding, "enc", "down", **options)
            skips.append(now)
            for i in range(blocks):
                self.enc[f"{name}_block{i}"] = Block(now, width, embedding, "enc", attention=attends, **options)
                skips.append(now := width)
        self.dec = nn.ModuleDict()
        for level, width in reversed(list(enumerate(widths))):
            side = resolution >> level
            name, attends = f"{side}x{side}", side in attention
            if level == len(widths) - 1:
                self.dec[f"{name}_in0"] = Block(now, now, embedding, "dec", attention=True, **options)
                self.dec[f"{name}_in1"] = Block(now, now, embedding, "dec", **options)
            else:
                self.dec[f"{name}_up"] = Block(now, now, embedding, "dec", "up", **options)
            for i in range(blocks + 1):
                fan_in = now + skips.pop()
                self.dec[f"{name}_block{i}"] = Block(fan_in, width, embedding, "dec", attention=attends, **options)
                now = width
        self.out_conv = MPConv(now, pixels, 3, generator)
        self.out_gain = nn.Parameter(torch.zeros([]))

    @property
    def last_layer(self) -> nn.Module:
        return self.out_conv

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        """x (n, channels, resolution, resolution) in the type to compute in; the answer has the same."""
        embedding = self.embed(c_noise, label)
        x = self.unshuffled(x)
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1).contiguous(memory_format=torch.channels_last)
        skips = []
        for block in self.enc.values():
            x = block(x, embedding) if isinstance(block, Block) else block(x)
            skips.append(x)
        for name, block in self.dec.items():
            if "block" in name:
                x = mp_cat(x, skips.pop(), SKIP_BALANCE)
            x = block(x, embedding)
        return functional.pixel_shuffle(self.out_conv(x, gain=self.out_gain), self.patch)


class EDM2Denoiser(nn.Module):
    """Preconditioning around a raw network, and the uncertainty head of training (EDM2 section 2 and equation 21).

    Args:
        unet: a raw network `F(c_in x, c_noise, label)` with `patch`, the side of its pixels, and `last_layer`.
        shape: (channels, height, width) of its pictures.
        sigma_data: standard deviation of the data.
        precision: in which `unet` computes; weights and preconditioning stay in float32.
        generator: for the head's initial weights.
    """

    def __init__(
        self,
        unet: Embedding,
        shape: tuple[int, int, int],
        sigma_data: float = 0.5,
        precision: torch.dtype = torch.float32,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.unet, self.shape, self.sigma_data, self.precision = unet, shape, sigma_data, precision
        self.logvar_fourier = MPFourier(UNCERTAINTY_CHANNELS, generator)
        self.logvar_linear = MPConv(UNCERTAINTY_CHANNELS, 1, 0, generator)

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """The denoised x in float32, shape of `x`; `sigma` has shape (n,)."""
        if self.training and torch.is_grad_enabled():
            for module in self.modules():
                if isinstance(module, MPConv):
                    module.renormalise()
        x = x.float()
        level = sigma.float()[:, None, None, None]
        scale = torch.rsqrt(level.square() + self.sigma_data**2)
        raw = self.unet((x * scale).to(self.precision), sigma.float().log() / 4, label).float()
        return x * (self.sigma_data * scale).square() + raw * (level * self.sigma_data * scale)

    def sketched(
        self, x: Tensor, sigma: Tensor, label: Tensor | None, target: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(denoised x, sketch of shape (n, d) of the gradient of each example's loss for the last layer's weights).

        The sketch has the weights that act at a pixel itself, summed over pixels: (output channels) x (input
        channels) numbers, without the weights of neighbouring pixels.
        """
        seen: list[Tensor] = []

        def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen.append(inputs[0])

        hook = self.unet.last_layer.register_forward_pre_hook(see)
        try:
            denoised = self(x, sigma, label)
        finally:
            hook.remove()
        level = sigma[:, None, None, None]
        scale = torch.rsqrt(level.square() + self.sigma_data**2)
        error = (denoised - target) * (weight[:, None, None, None] * level * self.sigma_data * scale)
        hidden = seen[0].float()
        hidden = hidden.flatten(2) if hidden.ndim == 4 else hidden.transpose(1, 2)
        error = functional.pixel_unshuffle(error, self.unet.patch).flatten(2)
        return denoised, torch.einsum("ncp,nkp->nck", error, hidden).flatten(1)

    def uncertainty(self, sigma: Tensor) -> Tensor:
        """u(sigma), the learned log-variance of the loss at a noise level, shape (n,)."""
        return self.logvar_linear(self.logvar_fourier(sigma.log() / 4))[:, 0]

    def flops(self) -> int:
        """Floating-point operations of denoising one example; backward costs twice as many again."""
        return self._flops

    def sketch_flops(self) -> int:
        """Operations of `sketched` for one example: what it adds to a forward pass is as little as one convolution."""
        return self.flops()

    @cached_property
    def _flops(self) -> int:
        """Counted on a copy that has shapes and no numbers."""
        shell = copy.deepcopy(self).to("meta").eval()
        x, sigma = torch.empty(1, *self.shape, device="meta"), torch.empty(1, device="meta")
        embedding = shell.unet.emb_label if isinstance(shell.unet, Embedding) else None
        label = None if embedding is None else torch.empty(1, embedding.weight.shape[1], device="meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad(), uncompiled():
            shell(x, sigma, label)
        return int(counter.get_total_flops())
