"""An AutoencoderKL of diffusers: between images and the latents that networks learn."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ajest.errors import UserError, check

from .loading import class_named, read_json_object


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """An autoencoder in evaluation mode. Its latents are shifted and scaled as diffusers' pipelines do it.

    Attributes:
        model: of diffusers.
        digest: of its config and weights.
        channels: of latents.
        factor: side of the square of pixels that becomes one position.
        scale, shift: a latent is `(z - shift) scale` of what the model makes, shape (channels, 1, 1) each.
    """

    model: Any
    digest: str
    channels: int
    factor: int
    scale: Tensor
    shift: Tensor

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, log-variance) of the latents of images in [-1, 1], shape (n, channels, h / factor, w / factor)."""
        posterior = self.model.encode(images).latent_dist
        return (posterior.mean - self.shift) * self.scale, posterior.logvar + 2 * self.scale.log()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images, about in [-1, 1], of latents."""
        return self.model.decode(latents / self.scale + self.shift, return_dict=False)[0]


def load_autoencoder(path: str | Path, device: torch.device | str = "cpu") -> Autoencoder:
    """The autoencoder of a folder that `from_pretrained` reads, or of the folder `vae` in it; read once and kept.

    Weights are safetensors: others would have to be unpickled, which runs whatever stands in them.

    Raises:
        UserError: no such folder, another class, or weights of another form.
    """
    folder = Path(path)
    folder = folder / "vae" if (folder / "vae" / "config.json").is_file() else folder
    check(
        (folder / "config.json").is_file(),
        f"{path} holds no autoencoder: name a folder with the config.json and weights of an AutoencoderKL",
    )
    weights = sorted(folder.glob("*.safetensors"))
    check(bool(weights), f"{folder} has no safetensors, and other forms are not read: save_pretrained writes them")
    stamp = tuple((file.stat().st_size, file.stat().st_mtime_ns) for file in weights)
    return _loaded(str(folder.resolve()), str(device), stamp)


@lru_cache(maxsize=2)
def _loaded(folder: str, device: str, stamp: tuple[tuple[int, int], ...]) -> Autoencoder:
    place = Path(folder)
    config = read_json_object(place / "config.json")
    name = str(config.get("_class_name", ""))
    check(name == "AutoencoderKL", f"{folder} holds {name or 'no class'}: latents are those of an AutoencoderKL")
    try:
        model = class_named(name, "ModelMixin").from_pretrained(
            folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"{folder} cannot be read as {name}: {str(error).splitlines()[0]}") from error
    digest = hashlib.sha256()
    settings = {k: v for k, v in config.items() if not k.startswith("_")}
    digest.update(repr(sorted(settings.items())).encode())
    for file in sorted(place.glob("*.safetensors")):
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    made = model.config
    check(made.in_channels == 3, f"{folder} is for images of {made.in_channels} channels, not 3")
    model.to(device).eval().requires_grad_(False)
    channels, factor = made.latent_channels, 1 << (len(made.block_out_channels) - 1)
    return Autoencoder(model, digest.hexdigest()[:16], channels, factor, *_scaling(made, device))


def _scaling(config: Any, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """What latents are scaled and shifted by: by channel where the config has both statistics of channels."""
    mean, std = (getattr(config, key, None) for key in ("latents_mean", "latents_std"))
    by_channel = mean is not None and std is not None
    shift = mean if by_channel else [getattr(config, "shift_factor", None) or 0.0] * config.latent_channels
    spread = std if by_channel else [1.0] * config.latent_channels
    scale = config.scaling_factor / torch.tensor(spread, device=device)
    return scale[:, None, None], torch.tensor(shift, device=device)[:, None, None]
