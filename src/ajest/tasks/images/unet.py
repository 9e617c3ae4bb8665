"""The U-Net of EDM2, configuration G (arXiv 2312.02696, appendix B; docs/method.md#images)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import (
    RESIDUAL_BALANCE,
    SILU_GAIN,
    SKIP_BALANCE,
    Embedding,
    MPConv,
    balance,
    doubled,
    heads_of,
    mp_cat,
    normalize,
)

CLIP = 256.0


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
            x = doubled(x)
        if self.kind == "enc":
            x = x if self.conv_skip is None else self.conv_skip(x)
            x = normalize(x, (1,))
        y = self.conv_res0(functional.silu(x), gain=1 / SILU_GAIN)
        scale = (self.emb_linear(embedding, gain=self.emb_gain) + 1).to(y.dtype)
        y = functional.silu(y * scale[:, :, None, None])
        y = functional.dropout(y, self.dropout, self.training) if self.dropout else y
        share, rest = balance(RESIDUAL_BALANCE)
        if self.kind == "dec" and self.conv_skip is not None:
            x, rest = self.conv_skip(x, gain=rest), 1.0
        x = torch.add(self.conv_res1(y, gain=share / SILU_GAIN), x, alpha=rest)
        if self.heads:
            x = torch.add(self._attend(x, gain=share), x, alpha=balance(RESIDUAL_BALANCE)[1])
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


class UNet(Embedding):
    """The raw network F.

    Args:
        resolution: height and width of the images.
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

    def forward(
        self, x: Tensor, c_noise: Tensor, label: Tensor | None, with_hidden: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """See `Embedding`."""
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
        out = functional.pixel_shuffle(self.out_conv(x, gain=self.out_gain), self.patch)
        return (out, x.flatten(2)) if with_hidden else out
