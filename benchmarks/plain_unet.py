"""The EDM2 denoiser as one writes it down from the paper: the yardstick for the network's speed.

Activations are scaled where the formulas scale them, memory lies as PyTorch lays it, attention is written out.
Weights bear the names of `ajest.tasks.images.unet`, so that one state fits both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ajest.tasks.images.architecture import Architecture


def normalize(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    norm = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=torch.float32)
    return x / (1e-4 + norm * math.sqrt(norm.numel() / x.numel())).to(x.dtype)


def silu(x: Tensor) -> Tensor:
    return functional.silu(x) / 0.596


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    return ((1 - t) * a + t * b) / math.sqrt((1 - t) ** 2 + t**2)


def mp_cat(a: Tensor, b: Tensor, t: float = 0.5) -> Tensor:
    na, nb = a.shape[1], b.shape[1]
    c = math.sqrt((na + nb) / ((1 - t) ** 2 + t**2))
    return torch.cat([a * (c * (1 - t) / math.sqrt(na)), b * (c * t / math.sqrt(nb))], 1)


class Fourier(nn.Module):
    freqs: Tensor
    phases: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 2 * math.pi * torch.randn(channels))
        self.register_buffer("phases", 2 * math.pi * torch.rand(channels))

    def forward(self, c: Tensor) -> Tensor:
        return math.sqrt(2) * torch.cos(c[:, None] * self.freqs + self.phases)


class Conv(nn.Module):
    def __init__(self, fan_in: int, fan_out: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in, *[kernel] * 2 * bool(kernel)))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        dims = tuple(range(1, self.weight.ndim))
        if self.training:
            with torch.no_grad():
                self.weight.copy_(normalize(self.weight, dims))
        weight = (normalize(self.weight, dims) * (gain / math.sqrt(self.weight[0].numel()))).to(x.dtype)
        return x @ weight.T if weight.ndim == 2 else functional.conv2d(x, weight, padding=weight.shape[-1] // 2)


class Block(nn.Module):
    def __init__(self, fan_in: int, fan_out: int, embedding: int, kind: str, resample: str, attention: bool) -> None:
        super().__init__()
        self.kind, self.resample, self.heads = kind, resample, max(1, fan_out // 64) if attention else 0
        self.emb_gain = nn.Parameter(torch.zeros([]))
        self.emb_linear = Conv(embedding, fan_out, 0)
        self.conv_res0 = Conv(fan_out if kind == "enc" else fan_in, fan_out, 3)
        self.conv_res1 = Conv(fan_out, fan_out, 3)
        self.conv_skip = Conv(fan_in, fan_out, 1) if fan_in != fan_out else None
        self.attn_qkv = Conv(fan_out, 3 * fan_out, 1) if attention else None
        self.attn_proj = Conv(fan_out, fan_out, 1) if attention else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        if self.resample == "down":
            x = functional.avg_pool2d(x, 2)
        elif self.resample == "up":
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
        if self.kind == "enc":
            x = x if self.conv_skip is None else self.conv_skip(x)
            x = normalize(x, (1,))
        y = self.conv_res0(silu(x))
        y = y * (1 + self.emb_linear(embedding, self.emb_gain)).to(y.dtype)[:, :, None, None]
        y = self.conv_res1(silu(y))
        if self.kind == "dec" and self.conv_skip is not None:
            x = self.conv_skip(x)
        x = mp_sum(x, y, 0.3)
        if self.attn_qkv is not None and self.attn_proj is not None:
            x = mp_sum(x, self.attn_proj(self._attend(self.attn_qkv(x))), 0.3)
        return x.clip(-256, 256)

    def _attend(self, qkv: Tensor) -> Tensor:
        n, _, h, w = qkv.shape
        q, k, v = normalize(qkv.reshape(n, self.heads, -1, 3, h * w), (2,)).unbind(3)  # (n, heads, channels, positions)
        weights = torch.einsum("nhcq,nhck->nhqk", q, k / math.sqrt(q.shape[2])).softmax(3)
        return torch.einsum("nhqk,nhck->nhcq", weights, v).reshape(n, -1, h, w)


class UNet(nn.Module):
    def __init__(self, dials: Architecture, resolution: int, classes: int) -> None:
        super().__init__()
        widths = [dials.channels * m for m in dials.multipliers]
        embedding, now, skips = max(widths), 4, []
        self.classes = classes
        self.emb_fourier = Fourier(widths[0])
        self.emb_noise = Conv(widths[0], embedding, 0)
        self.emb_label = Conv(classes, embedding, 0)
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        for level, width in enumerate(widths):
            side = resolution >> level
            name, attends = f"{side}x{side}", side in dials.attention
            first = Conv(now, width, 3) if level == 0 else Block(now, now, embedding, "enc", "down", False)
            self.enc[f"{name}_down" if level else f"{name}_conv"] = first
            now = now if level else width
            skips.append(now)
            for i in range(dials.blocks):
                self.enc[f"{name}_block{i}"] = Block(now, width, embedding, "enc", "keep", attends)
                skips.append(now := width)
        for level, width in reversed(list(enumerate(widths))):
            side = resolution >> level
            name, attends = f"{side}x{side}", side in dials.attention
            if level == len(widths) - 1:
                self.dec[f"{name}_in0"] = Block(now, now, embedding, "dec", "keep", True)
                self.dec[f"{name}_in1"] = Block(now, now, embedding, "dec", "keep", False)
            else:
                self.dec[f"{name}_up"] = Block(now, now, embedding, "dec", "up", False)
            for i in range(dials.blocks + 1):
                self.dec[f"{name}_block{i}"] = Block(now + skips.pop(), width, embedding, "dec", "keep", attends)
                now = width
        self.out_conv = Conv(now, 3, 3)
        self.out_gain = nn.Parameter(torch.zeros([]))

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor) -> Tensor:
        embedding = self.emb_noise(self.emb_fourier(c_noise))
        one_hot = functional.one_hot(label, self.classes).float() * math.sqrt(self.classes)
        embedding = silu(mp_sum(embedding, self.emb_label(one_hot), 0.5))
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        skips = []
        for block in self.enc.values():
            x = block(x, embedding) if isinstance(block, Block) else block(x)
            skips.append(x)
        for name, block in self.dec.items():
            if "block" in name:
                x = mp_cat(x, skips.pop())
            x = block(x, embedding)
        return self.out_conv(x, self.out_gain)


class PlainDenoiser(nn.Module):
    """Of single pixels, conditional, without dropout.

    Args:
        dials: the network's.
        resolution, classes: of the images.
        precision: in which the U-Net computes.
    """

    def __init__(
        self, dials: Architecture, resolution: int, classes: int, precision: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.unet, self.precision = UNet(dials, resolution, classes), precision
        self.logvar_fourier, self.logvar_linear = Fourier(128), Conv(128, 1, 0)

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        level, s = sigma[:, None, None, None], 0.5
        c_skip, c_out = s**2 / (level**2 + s**2), level * s / (level**2 + s**2).sqrt()
        c_in = 1 / (level**2 + s**2).sqrt()
        return c_skip * x + c_out * self.unet((c_in * x).to(self.precision), sigma.log() / 4, label).float()
