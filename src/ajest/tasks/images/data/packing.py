"""Pack a data set once for fast training."""

from __future__ import annotations

import glob
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ajest.errors import UserError
from ajest.storage.checkpoint import unwritable
from ajest.tasks.images.sheets import png

from .cache import write_rows
from .locks import hold, is_free
from .sets import ImageSet, open_images
from .splits import Split


def prepare(
    spec: Sequence[str],
    out: Path,
    resolution: int = 64,
    split: Split = "train",
    skip_bad: bool = False,
    warn: Callable[[str], None] = print,
) -> ImageSet:
    """Write a data set as one file that `open_images` reads: .npz (used in place, fastest) or .zip (EDM's form, PNG).

    Images, labels, classes, ids and digest are the same afterwards.

    Raises:
        UserError: an unknown suffix, bad files, or a place that cannot be written to.
    """
    if out.suffix not in (".npz", ".zip"):
        raise UserError(f"{out}: the packed file must be named .npz or .zip")
    if any(Path(s).exists() and out.exists() and out.samefile(s) for s in spec):
        raise UserError(f"{out} is read, so it cannot be written to: name another file last")
    found = open_images(spec, resolution, split, skip_bad, warn=warn)
    temporary = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in out.parent.glob(f".{glob.escape(out.name)}.*"):
            if is_free(left):  # of a process that was killed
                left.unlink(missing_ok=True)
        with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}.", delete=False) as file:
            temporary = Path(file.name)
            hold(file)
            (_write_npz if out.suffix == ".npz" else _write_zip)(file, found)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(out)
    except OSError as error:
        raise unwritable(out, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return found


def _write_npz(file: Any, found: ImageSet) -> None:
    arrays = {"ids": np.array(found.ids)}
    if found.labels is not None:
        arrays |= {"labels": found.labels, "classes": np.array(found.classes), "names": np.array(found.names)}
    n, channels, height, width = found.images.shape
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as member:
            write_rows(member, found.images, (n, height, width, channels), (0, 2, 3, 1))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _write_zip(file: Any, found: ImageSet) -> None:
    members = [f"{i // 1000:05d}/img{i:08d}.png" for i in range(len(found))]
    labels = None if found.labels is None else list(map(list, zip(members, found.labels.tolist(), strict=True)))
    facts: dict[str, Any] = {"labels": labels, "ids": dict(zip(members, map(str, found.ids), strict=True))}
    facts |= {"classes": found.classes, "names": found.names}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed already
        for member, image in zip(members, found.images, strict=True):
            archive.writestr(zipfile.ZipInfo(member), png(image.transpose(1, 2, 0)))
        archive.writestr(zipfile.ZipInfo("dataset.json"), json.dumps(facts), zipfile.ZIP_DEFLATED)
