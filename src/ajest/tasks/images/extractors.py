"""Feature networks behind one protocol: what distances between sets of images are measured in.

A Fréchet distance is called FID in Inception's features only; in others it has a name of its own.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ajest.errors import UserError, unknown
from ajest.runtime.distributed import in_chunks

from . import dinov2, inception, lite0
from .source import check_levels


@dataclass(frozen=True)
class Features:
    """What a feature network says of images.

    Attributes:
        features: float32, shape (n, d), on the CPU.
        logits: of the 1000 classes of ImageNet, shape (n, 1000); None if the network has no head.
    """

    features: Tensor
    logits: Tensor | None = None

    def __len__(self) -> int:
        return len(self.features)


class Extractor(Protocol):
    """A feature network: images (n, 3, h, w), or (n, 1, h, w) in grey, uint8, on any device -> Features.

    Attributes:
        name: by which it is asked for.
        key: of its Fréchet distance in metrics files.
        distance: the name of that distance for people.
        width: of its features.
        classifies: whether it also makes logits.
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
    def classifies(self) -> bool: ...
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
        classifies: whether it also tells the classes of ImageNet.
        make: (path or None, device) -> what runs it, and the identity of its weights.
    """

    key: str
    distance: str
    features: str
    width: int
    classifies: bool
    make: Callable[[str | None, str], tuple[Callable[[Tensor], Features], str]]


@dataclass(frozen=True)
class Network:
    """An extractor from a function; see `Extractor`."""

    name: str
    key: str
    distance: str
    width: int
    classifies: bool
    identity: str
    run: Callable[[Tensor], Features]
    device: str

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Features:
        if images.ndim == 4 and images.shape[1] == 1:  # in grey
            images = images.expand(-1, 3, -1, -1)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be uint8 of shape (n, 3, h, w), not {images.dtype} of {(*images.shape,)}")
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


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _lite0(path: str | None, device: str) -> tuple[Callable[[Tensor], Features], str]:
    if path is not None:
        raise UserError(f"lite0 brings its own weights: say lite0 without ={path}")
    network = lite0.load(device)
    identity = f"lite0 {_digest(lite0.weights_path())} bilinear {lite0.RESOLUTION}"
    return lambda images: Features(*network(lite0.prepare(images))), identity


def _inception(path: str | None, device: str) -> tuple[Callable[[Tensor], Features], str]:
    network = inception.load(path, device)
    fidelity = f"torch-fidelity {_version('torch-fidelity')} inception-2015-12-05-6726825d"
    identity = fidelity if path is None else f"inception {_digest(path)}"
    return lambda images: Features(network(images)), identity


def _dinov2(path: str | None, device: str) -> tuple[Callable[[Tensor], Features], str]:
    network, revision = dinov2.load(path, device)
    if path is None:
        weights = f"{dinov2.MODEL} {revision}"
    else:
        weights = " ".join(_digest(p) for p in sorted([*Path(path).glob("*.safetensors"), Path(path) / "config.json"]))
    identity = f"dinov2 {weights} transformers {_version('transformers')}, positions of torch.hub"
    return lambda images: Features(network(images)), identity


NAMES: dict[str, Name] = {
    "lite0": Name("fd_lite0", "FD-Lite0", "EfficientNet-Lite0's features", lite0.WIDTH, True, _lite0),
    "inception": Name("fid", "FID", "Inception-V3's features", inception.WIDTH, False, _inception),
    "dinov2": Name("fd_dinov2", "FD-DINOv2", "DINOv2 ViT-L/14's features", dinov2.WIDTH, False, _dinov2),
}


def name_of(spec: str) -> Name:
    """What the feature network NAME or NAME=PATH is called.

    Raises:
        UserError: an unknown name.
    """
    name = spec.partition("=")[0]
    if name not in NAMES:
        raise unknown("feature extractor", name, NAMES)
    return NAMES[name]


def extractor(spec: str, device: torch.device | str = "cpu") -> Extractor:
    """A feature network by NAME or NAME=PATH, PATH holding its weights; read once and kept.

    `lite0` needs nothing more. `inception` takes torch-fidelity's weights, or a TorchScript file (which has to be
    trusted like a program) or safetensors by PATH. `dinov2` takes those of transformers, or a local folder by PATH.

    Raises:
        UserError: an unknown name, or weights or packages that are not there.
    """
    name_of(spec)
    name, separator, path = spec.partition("=")
    if separator and not (path and Path(path).exists()):
        raise UserError(f"{path or 'the empty path'} does not exist: name the weights of {name} by {name}=PATH")
    where = Path(path).resolve() if separator else None
    return _made(name, None if where is None else str(where), str(device), () if where is None else _stamp(where))


def _stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Changes when a file, or those of a folder, are written anew."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return tuple((f.name, s.st_size, s.st_mtime_ns) for f in files for s in (f.stat(),))


@lru_cache(maxsize=4)
def _made(name: str, path: str | None, device: str, stamp: tuple[tuple[str, int, int], ...]) -> Extractor:
    called = NAMES[name]
    run, identity = called.make(path, device)
    return Network(name, called.key, called.distance, called.width, called.classifies, identity, run, device)


#: Images that a feature network looks at together: the fastest number on a CPU, whose cache then holds the activations
#: of Lite0.
BATCH = 16


def extract(images: Tensor | np.ndarray, network: Extractor, batch: int = BATCH) -> Features:
    """Features of many images, a batch at a time.

    Args:
        images: uint8, shape (N, 3, h, w); of memory-mapped arrays only a batch is read at a time.
        network: the feature network.
        batch: images at a time.

    Raises:
        UserError: no images, or such as are not uint8.
    """
    if len(images) == 0:
        raise UserError("there are no images to judge: ask for at least one")
    check_levels(images)

    def part(rows: slice) -> Tensor:
        # Memory-mapped arrays are often read-only, which torch warns about: a batch is copied.
        return images[rows] if isinstance(images, Tensor) else torch.from_numpy(np.array(images[rows]))

    return looked_at(part, len(images), [network], batch)[0]


def looked_at(some: Callable[[slice], Tensor], n: int, networks: Sequence[Extractor], batch: int) -> list[Features]:
    """What each network says of n images, of which a batch at a time is made.

    Args:
        some: those of the numbers of a slice: uint8, shape (m, 3, h, w).
        n: how many.
        networks: the feature networks.
        batch: images at a time.
    """

    def packed(rows: slice) -> Tensor:
        images = some(rows)
        found = [network(images) for network in networks]
        return torch.cat([x for f in found for x in (f.features, f.logits) if x is not None], 1)

    rest, seen = in_chunks(packed, n, batch), []
    for network in networks:
        features, rest = rest[:, : network.width].contiguous(), rest[:, network.width :]
        logits = rest[:, : lite0.CLASSES].contiguous() if network.classifies else None
        rest = rest[:, lite0.CLASSES :] if network.classifies else rest
        seen.append(Features(features, logits))
    return seen
