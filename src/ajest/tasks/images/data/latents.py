"""Images as latents of an autoencoder: encoded once, memory-mapped from then on.

A folder holds `latents.npy`, float16 of shape (N, 2, 2, channels, h, w): of each image as it is and mirrored, the mean
and the log-variance; `images.npy`, the images themselves, which samples are compared with; and `latents.json`, which is
written last.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ajest.errors import Corrupt, UserError, check
from ajest.integrations.diffusers.autoencoder import Autoencoder, load_autoencoder
from ajest.storage.checkpoint import read_sealed, unwritable, write_sealed

from .grey import grey
from .loading import progress
from .sets import ImageSet, open_images
from .splits import Split

FACTS = "latents.json"
BATCH = 16  # images encoded at a time
KEPT = 64 * BATCH  # after so many a process that is killed goes on where it was


@dataclass(frozen=True)
class LatentSpace:
    """Which latents.

    Attributes:
        channels: of them.
        side: their height and width.
        autoencoder: digest of what encodes and decodes them.
    """

    channels: int
    side: int
    autoencoder: str


@dataclass(frozen=True, eq=False)
class LatentSet:
    """A folder of latents.

    Attributes:
        images: the images, with `latents` beside them.
        space: which latents.
        sigma_data: their standard deviation.
        autoencoder: where that was which made them.
    """

    images: ImageSet
    space: LatentSpace
    sigma_data: float
    autoencoder: str


def is_latents(spec: Sequence[str]) -> bool:
    """Whether a data set is a folder of latents."""
    return len(spec) == 1 and (Path(spec[0]) / FACTS).is_file()


def read_latents(folder: str | Path) -> LatentSet:
    """The latents of a folder.

    Raises:
        UserError: it is damaged.
    """
    place = Path(folder)
    try:
        facts: dict[str, Any] = read_sealed(place / FACTS)
        pixels, latents = (np.load(place / f"{n}.npy", "r", allow_pickle=False) for n in ("images", "latents"))
        channels, side = latents.shape[3:5]
        space = LatentSpace(channels, side, str(facts["autoencoder"]["digest"]))
        labels = None if facts["labels"] is None else np.array(facts["labels"], dtype=np.int64)
        classes, names, ids = tuple(facts["classes"]), tuple(facts["names"]), np.array(facts["ids"])
        check(len(ids) == len(pixels) == len(latents), f"{place}: its files are of different lengths: encode it anew")
        images = ImageSet(pixels, labels, classes, names, ids, str(facts["digest"]), latents)
        return LatentSet(images, space, float(facts["sigma_data"]), str(facts["autoencoder"]["path"]))
    except (Corrupt, OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{place} holds no whole set of latents ({error}): encode it anew") from error


def open_set(
    spec: Sequence[str],
    resolution: int,
    split: Split,
    skip_bad: bool = False,
    warn: Callable[[str], None] = print,
    in_grey: bool = False,
) -> ImageSet:
    """A data set of images, in grey where that is wanted, or of a folder of latents; see `open_images`.

    Raises:
        UserError: see there; or latents of images of another resolution.
    """
    if not is_latents(spec):
        images = open_images(spec, resolution, split, skip_bad, warn=warn)
        return grey(images, warn) if in_grey else images
    check(not in_grey, f"{spec[0]} holds latents, which have no grey: leave out --grey")
    found = read_latents(spec[0]).images
    side = found.images.shape[2]
    check(side == resolution, f"{spec[0]} holds latents of images of {side} x {side}: leave out --resolution")
    return found


def encode(
    images: ImageSet,
    autoencoder: str | Path,
    out: Path,
    device: torch.device | str = "cpu",
) -> LatentSet:
    """Encode images into a folder; what was begun and stopped goes on where it was.

    Raises:
        UserError: there is such a folder already, the autoencoder cannot be read or does not fit the images, or the
            folder cannot be written to.
    """
    check(not out.exists(), f"{out} exists already: name another folder, or remove it")
    model = load_autoencoder(autoencoder, device)
    side = images.images.shape[2]
    check(side % model.factor == 0, f"this autoencoder needs a resolution that {model.factor} divides, not {side}")
    where = {"path": str(Path(autoencoder).resolve()), "digest": model.digest}
    shape = (len(images), 2, 2, model.channels, side // model.factor, side // model.factor)
    digest = hashlib.blake2b(json.dumps([images.digest, model.digest]).encode(), digest_size=16).hexdigest()
    work = out.with_name(f".{out.name}.encoding")
    try:
        done = _begun(work, digest, shape)
        latents = np.lib.format.open_memmap(work / "latents.npy", "r+")
        with progress("encoding images", -(-(shape[0] - done) // BATCH)) as advance:
            for start in range(done, shape[0], BATCH):
                rows = slice(start, min(start + BATCH, shape[0]))
                latents[rows] = _encoded(images.images[rows], model, device)
                if rows.stop % KEPT == 0:
                    latents.flush()
                    write_sealed(work / "progress.json", {"digest": digest, "done": rows.stop})
                advance()
        latents.flush()
        _copy(images.images, work / "images.npy")
        facts = {
            "digest": digest,
            "autoencoder": where,
            "sigma_data": _deviation(latents),
            "ids": [str(name) for name in images.ids],
            "labels": None if images.labels is None else images.labels.tolist(),
            "classes": images.classes,
            "names": images.names,
        }
        write_sealed(work / FACTS, facts)
        (work / "progress.json").unlink(missing_ok=True)
        work.rename(out)
    except OSError as error:
        raise unwritable(out, error) from error
    return read_latents(out)


def decoder(path: str, space: LatentSpace, device: torch.device | str = "cpu") -> Autoencoder:
    """The autoencoder of a folder, which must be the one that made these latents.

    Raises:
        UserError: it is not there, or another one.
    """
    found = load_autoencoder(path, device)
    check(
        found.digest == space.autoencoder,
        f"{path} holds another autoencoder ({found.digest}) than the one that made the latents ({space.autoencoder}): "
        "name that with --autoencoder",
    )
    return found


def _encoded(images: np.ndarray, model: Autoencoder, device: torch.device | str) -> np.ndarray:
    """Mean and log-variance of images and of their mirrors, float16 (n, 2, 2, channels, h, w)."""
    x = torch.from_numpy(np.array(images)).to(device).float().div_(127.5).sub_(1)
    both = [torch.stack(model.encode(form.contiguous()), 1) for form in (x, x.flip(3))]
    return torch.stack(both, 1).half().cpu().numpy()


def _begun(work: Path, digest: str, shape: tuple[int, ...]) -> int:
    """How many images are encoded in the folder already, which is made anew if it is of others."""
    with suppress(Corrupt, KeyError, TypeError, ValueError, OSError):
        found = read_sealed(work / "progress.json")
        if found["digest"] == digest and np.load(work / "latents.npy", "r").shape == shape:
            return int(found["done"])
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    np.lib.format.open_memmap(work / "latents.npy", "w+", np.float16, shape).flush()
    return 0


def _copy(images: np.ndarray, path: Path) -> None:
    copied = np.lib.format.open_memmap(path, "w+", np.uint8, images.shape)
    for start in range(0, len(images), 1024):
        copied[start : start + 1024] = images[start : start + 1024]
    copied.flush()


def _deviation(latents: np.ndarray) -> float:
    """The standard deviation of all numbers of latents drawn from these means and variances."""
    total = squares = 0.0
    for start in range(0, len(latents), 256):
        part = latents[start : start + 256].astype(np.float64)
        total += part[:, :, 0].mean((1, 2, 3, 4)).sum()
        squares += (np.square(part[:, :, 0]) + np.exp(part[:, :, 1])).mean((1, 2, 3, 4)).sum()
    mean = total / len(latents)
    return float(np.sqrt(squares / len(latents) - mean**2))
