"""Which network: a few dials from which a denoiser is built."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from ajest.errors import check, unknown
from ajest.integrations.diffusers import DiffusersModel, read_model
from ajest.integrations.diffusers.prediction import Predicted

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
        attention: resolutions with self-attention in the U-Net; of each of them the level that is nearest.
        patch: side of the squares of pixels that become one position.
        dropout: of the U-Net's residual branches.
        name: what it is called in what is said of it.
        labelled: whether it takes labels at all.
        sigma_max: the highest noise level that it knows.
    """

    name: ClassVar[str] = "the network"
    labelled: ClassVar[bool] = True
    sigma_max: ClassVar[float] = math.inf
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

    def fit(
        self,
        resolution: int,
        channels: int = 3,
        classes: int = 0,
        dropout: float = 0.0,
        embedding: tuple[int, ...] = (),
    ) -> None:
        """Make sure, without building it, that the network can be built for images of this resolution; any number of
        channels and of classes can be had, and any share of labels dropped.

        Raises:
            UserError: the resolution cannot be divided as often as the levels ask, or channels not into heads; or
                embeddings of several tokens.
        """
        check(
            len(embedding) < 2,
            f"this network takes one embedding an image, not {embedding[0] if embedding else 0} tokens: give their "
            "mean, shape (N, d), or take a model of diffusers that reads tokens",
        )
        levels = len(self.multipliers) if self.kind == "unet" else 1
        unit = self.patch << (levels - 1)
        check(resolution % unit == 0, f"this network needs a resolution that {unit} divides, not {resolution}")
        if self.kind == "transformer":
            heads_of(self.channels)
        else:
            for level, multiplier in enumerate(self.multipliers):
                if level == levels - 1 or (resolution // self.patch >> level) in self.attending(resolution):
                    heads_of(self.channels * multiplier)

    def attending(self, resolution: int) -> tuple[int, ...]:
        """The resolutions of the U-Net's levels with self-attention, for images of this resolution: where no level has
        a resolution of `attention`, the one whose ratio to it is nearest to 1 stands for it."""
        sides = [max(1, resolution // self.patch >> level) for level in range(len(self.multipliers))]
        nearest = (min(sides, key=lambda side: abs(math.log(side / wanted))) for wanted in self.attention)
        return tuple(dict.fromkeys(nearest))

    def build(
        self, resolution: int, classes: int, generator: torch.Generator | None = None, channels: int = 3
    ) -> Embedding:
        """The raw network for images of this resolution and so many `channels`; `classes` 0 is unconditional.

        Raises:
            UserError: see `fit`.
        """
        self.fit(resolution)
        if self.kind == "transformer":
            return PatchTransformer(
                resolution, self.channels, classes, self.patch, self.blocks, channels, generator=generator
            )
        return UNet(
            resolution,
            self.channels,
            classes,
            self.multipliers,
            self.blocks,
            self.attending(resolution),
            self.dropout,
            self.patch,
            channels,
            generator=generator,
        )

    def denoiser(
        self,
        resolution: int,
        classes: int,
        sigma_data: float = 0.5,
        precision: Precision = "float32",
        generator: torch.Generator | None = None,
        channels: int = 3,
        embedding: tuple[int, ...] = (),
        objective: str = "edm",
    ) -> EDM2Denoiser:
        """The network with its preconditioning, initialised from `generator`, for images of so many `channels`; it is
        told classes, or an `embedding` of this shape, and predicts what `objective` names."""
        raw = self.build(resolution, embedding[0] if embedding else classes, generator, channels)
        shape = (channels, resolution, resolution)
        return EDM2Denoiser(raw, shape, sigma_data, getattr(torch, precision), generator, objective)


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

#: What a network is made from.
NetworkSettings = Architecture | DiffusersModel

#: Of models of diffusers, whose weights are not normalised: that of DDPM for small images (arXiv 2006.11239, B).
DIFFUSERS_RATE = 2e-4


def network_named(text: str, predicted: Predicted | None = None) -> tuple[NetworkSettings, float]:
    """(what a network is made from, its learning rate).

    Args:
        text: a size of `SIZES`, or diffusers:PATH, see `read_model`.
        predicted: what a model of diffusers predicts, in place of what the config of its scheduler says.

    Raises:
        UserError: an unknown name; a model that cannot be read; `predicted` of what is no model of diffusers.
    """
    kind, colon, path = text.partition(":")
    if kind == "diffusers" and colon:
        return read_model(path, predicted), DIFFUSERS_RATE
    if text not in SIZES:
        raise unknown("network", text, [*SIZES, "diffusers:PATH"])
    return SIZES[text], LEARNING_RATES[text]
