"""A small patch transformer from the same magnitude-preserving parts, the U-Net's rival on CPUs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import RESIDUAL_BALANCE, SILU_GAIN, Embedding, MPConv, heads_of, mp_sum, normalize

FOURIER_CHANNELS = 64
WIDENING = 4  # hidden channels of an MLP in units of its input's


class TransformerBlock(nn.Module):
    """Cosine self-attention, then an MLP; both modulated by the embedding and joined by MP-sum."""

    def __init__(self, channels: int, embedding: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.heads = heads_of(channels)
        self.emb_gain = nn.Parameter(torch.zeros(2))
        self.emb_linear = MPConv(embedding, (1 + WIDENING) * channels, 0, generator)
        self.qkv = MPConv(channels, 3 * channels, 0, generator)
        self.proj = MPConv(channels, channels, 0, generator)
        self.mlp0 = MPConv(channels, WIDENING * channels, 0, generator)
        self.mlp1 = MPConv(WIDENING * channels, channels, 0, generator)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (n, tokens, channels), embedding (n, channels)."""
        n, tokens, c = x.shape
        shift = self.emb_linear(embedding)[:, None]
        x = normalize(x, (2,))
        scaled = x * (1 + self.emb_gain[0] * shift[..., :c]).to(x.dtype)
        parts = self.qkv(scaled).reshape(n, tokens, 3, self.heads, c // self.heads)
        q, k, v = (part.transpose(1, 2) for part in normalize(parts, (4,)).unbind(2))
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, c)
        x = mp_sum(x, self.proj(y), RESIDUAL_BALANCE)
        y = self.mlp0(normalize(x, (2,))) * (1 + self.emb_gain[1] * shift[..., c:]).to(x.dtype)
        return mp_sum(x, self.mlp1(functional.silu(y), gain=1 / SILU_GAIN), RESIDUAL_BALANCE)


class PatchTransformer(Embedding):
    """A raw network F on square patches.

    Args:
        resolution: height and width of the images.
        channels: of every token.
        classes: of the labels; 0 for an unconditional network.
        patch: side of a patch.
        depth: blocks.
        image_channels: 3 for RGB.
        generator: for the initial weights.
    """

    def __init__(
        self,
        resolution: int,
        channels: int,
        classes: int,
        patch: int = 4,
        depth: int = 6,
        image_channels: int = 3,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(FOURIER_CHANNELS, channels, classes, patch, generator)
        side = resolution // patch
        self.patch_in = MPConv(image_channels * patch**2 + 1, channels, 0, generator)
        self.position = nn.Parameter(torch.randn(side * side, channels, generator=generator))
        self.blocks = nn.ModuleList(TransformerBlock(channels, channels, generator) for _ in range(depth))
        self.out = MPConv(channels, image_channels * patch**2, 0, generator)
        self.out_gain = nn.Parameter(torch.zeros([]))

    def _positions(self, rows: int, columns: int) -> Tensor:
        """The embedding of each position, (rows x columns, channels): of a smaller image the means over what each
        of its positions covers."""
        side = math.isqrt(len(self.position))
        if (rows, columns) == (side, side):
            return self.position
        grid = self.position.T.reshape(1, -1, side, side)
        return functional.adaptive_avg_pool2d(grid, (rows, columns)).flatten(2)[0].T

    def forward(
        self, x: Tensor, c_noise: Tensor, label: Tensor | None, with_hidden: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """See `Embedding`."""
        embedding = self.embed(c_noise, label)
        n, _, h, w = x.shape
        tokens = self.unshuffled(x).flatten(2).transpose(1, 2)
        tokens = self.patch_in(torch.cat([tokens, torch.ones_like(tokens[..., :1])], 2))
        tokens = mp_sum(tokens, normalize(self._positions(h // self.patch, w // self.patch), (1,)).to(x.dtype), 0.5)
        for block in self.blocks:
            tokens = block(tokens, embedding)
        hidden = normalize(tokens, (2,))
        out = self.out(hidden, gain=self.out_gain).transpose(1, 2)
        out = functional.pixel_shuffle(out.reshape(n, -1, h // self.patch, w // self.patch), self.patch)
        return (out, hidden.transpose(1, 2)) if with_hidden else out
