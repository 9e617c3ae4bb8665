"""Which network: a few dials from which a denoiser is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from ajest.errors import check

from .denoiser import EDM2Denoiser
from .layers import Embedding, heads_of
from .transformer import PatchTransformer
from .unet import UNet

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Architecture:
    """A raw network of EDM2 configuration G (arXiv 2312.02696) or of the same parts.

    Attributes:
        kind: "unet", the published one; or "transformer", a small transformer on patches.
        channels: of the U-Net's first level, or of every token.
        multipliers: channels of each level of the U-Net, in units of the first.
        blocks: of each level of the U-Net, or of the transformer.
        attention: resolutions with self-attention in the U-Net.
        patch: side of the squares of pixels that become one position.
        dropout: of the U-Net's residual branches.
    """

    kind: Literal["unet", "transformer"] = "unet"
    channels: int = 64
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    blocks: int = 3
    attention: tuple[int, ...] = (16, 8)
    patch: int = 1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check(min(self.channels, self.blocks, self.patch) >= 1, "channels, blocks and patch must be at least 1")
        check(len(self.multipliers) >= 1 and min(self.multipliers) >= 1, "multipliers must be at least 1")
        check(0 <= self.dropout < 1, f"dropout must lie in [0, 1), not {self.dropout}")

    def fit(self, resolution: int) -> None:
        """Make sure, without building it, that the network can be built for images of this resolution.

        Raises:
            UserError: the resolution cannot be divided as often as the levels ask, or channels not into heads.
        """
        levels = len(self.multipliers) if self.kind == "unet" else 1
        unit = self.patch << (levels - 1)
        check(resolution % unit == 0, f"this network needs a resolution that {unit} divides, not {resolution}")
        if self.kind == "transformer":
            heads_of(self.channels)
        else:
            for level, multiplier in enumerate(self.multipliers):
                if level == levels - 1 or (resolution // self.patch >> level) in self.attention:
                    heads_of(self.channels * multiplier)

    def build(self, resolution: int, classes: int, generator: torch.Generator | None = None) -> Embedding:
        """The raw network for images of this resolution; `classes` 0 is unconditional.

        Raises:
            UserError: see `fit`.
        """
        self.fit(resolution)
        if self.kind == "transformer":
            return PatchTransformer(resolution, self.channels, classes, self.patch, self.blocks, generator=generator)
        return UNet(
            resolution,
            self.channels,
            classes,
            self.multipliers,
            self.blocks,
            self.attention,
            self.dropout,
            self.patch,
            generator=generator,
        )

    def denoiser(
        self,
        resolution: int,
        classes: int,
        sigma_data: float = 0.5,
        precision: Precision = "float32",
        generator: torch.Generator | None = None,
    ) -> EDM2Denoiser:
        """The network with its preconditioning, initialised from `generator`."""
        raw = self.build(resolution, classes, generator)
        return EDM2Denoiser(raw, (3, resolution, resolution), sigma_data, getattr(torch, precision), generator)


#: The published sizes at 64x64 (docs/method.md#images), and two that a CPU trains in minutes.
SIZES: dict[str, Architecture] = {
    "nano": Architecture(channels=16, multipliers=(1, 2, 2), blocks=1, attention=(8,), patch=2),
    "mini": Architecture(channels=32, multipliers=(1, 2, 2), blocks=1, attention=(8,), patch=2),
    "xxs": Architecture(channels=64),
    "xs": Architecture(channels=128),
    "s": Architecture(channels=192),
    "m": Architecture(channels=256),
}

#: Learning rates: the published ones (EDM2, arXiv 2312.02696, table 6), and those of `cpu-mini`'s networks.
LEARNING_RATES: dict[str, float] = {"nano": 0.04, "mini": 0.04, "xxs": 0.017, "xs": 0.012, "s": 0.010, "m": 0.009}
