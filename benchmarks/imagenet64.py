"""A data set of ImageNet's size at 64 x 64: how long is it prepared, in how much memory and disk, and how soon opened?

    .venv/bin/python benchmarks/imagenet64.py --out FOLDER [--images 1281167] [--classes 1000]

Writes synthetic JPEG images as shards of WebDataset, prepares them by `ajest data prepare`, opens what came out and
draws super-batches of it. Memory is that of the preparing process: anonymous, which nobody but it can give back, and
resident, which holds pages of mapped files too. Needs 30 GB of disk for the whole size.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ajest.runtime.seeding import generator
from ajest.tasks.images.setup import image_task

SHARD = 10_000
DISTINCT = 2_000  # images; shards repeat them under other names, so that writing takes minutes
POLLED = 1.0  # seconds
DRAWS, SUPER_BATCH = 20, 2_048


def jpegs(count: int) -> list[bytes]:
    """Smooth random images, encoded."""
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        found.append(file.getvalue())
    return found


def write_shards(folder: Path, images: int, classes: int) -> int:
    """Bytes of shards with so many images."""
    folder.mkdir(parents=True)
    encoded = jpegs(min(images, DISTINCT))
    for first in range(0, images, SHARD):
        with tarfile.open(folder / f"train-{first // SHARD:05d}.tar", "w") as archive:
            for number in range(first, min(first + SHARD, images)):
                parts = (("jpg", encoded[number % len(encoded)]), ("cls", str(number % classes).encode()))
                for ending, content in parts:
                    entry = tarfile.TarInfo(f"{number:08d}.{ending}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
    return sum(path.stat().st_size for path in folder.iterdir())


def memory_of(process: int) -> tuple[int, int]:
    """(anonymous, resident) bytes of a process and its children; (0, 0) when it has ended."""
    found = [0, 0]
    children = Path(f"/proc/{process}/task/{process}/children")
    try:
        for one in (process, *map(int, children.read_text().split())):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in ("Anonymous", "Rss"):
                    found[name == "Rss"] += 1024 * int(rest.split()[0])
    except (OSError, ValueError):
        return 0, 0
    return found[0], found[1]


def prepared(shards: Path, file: Path) -> tuple[float, list[tuple[int, int]]]:
    """Seconds of `ajest data prepare`, and its memory every second."""
    began, moments = time.monotonic(), []
    command = [sys.executable, "-m", "ajest", "data", "prepare", str(shards), str(file)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            moments.append(memory_of(process.pid))
            time.sleep(POLLED)
    if process.returncode:
        raise SystemExit(f"preparing failed with exit code {process.returncode}")
    return time.monotonic() - began, [moment for moment in moments if moment[1]]


def opened(file: Path) -> tuple[float, float, int]:
    """(seconds to a task of it, seconds of a super-batch's draw, anonymous bytes then)."""
    began = time.monotonic()
    source = image_task((str(file),), warn=lambda _: None).source("cpu")
    ready = time.monotonic()
    for turn in range(DRAWS):
        source.draw(SUPER_BATCH, generator(0, "draw", turn))
    drawn = (time.monotonic() - ready) / DRAWS
    return ready - began, drawn, memory_of(os.getpid())[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--classes", type=int, default=1_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    shards, file = options.out / "shards", options.out / "prepared.npz"
    if shards.exists():
        raise SystemExit(f"{shards} is there already: name another folder")
    began = time.monotonic()
    size = write_shards(shards, options.images, options.classes)
    rows = [("images, classes", f"{options.images:,}, {options.classes:,}"),
            ("shards written", f"{time.monotonic() - began:.0f} s, {size / 1e9:.2f} GB")]  # fmt: skip
    seconds, moments = prepared(shards, file)
    quarter = max(1, len(moments) // 4)
    early, late = (max(a for a, _ in part) / 2**20 for part in (moments[:quarter], moments[-quarter:]))
    rows += [
        ("prepared", f"{seconds / 60:.1f} minutes, {options.images / seconds:,.0f} images/s"),
        ("on disk", f"{file.stat().st_size / 1e9:.2f} GB"),
        ("anonymous memory at most, first and last quarter", f"{early:.0f} MiB, {late:.0f} MiB"),
        ("resident at most, with pages of mapped files", f"{max(r for _, r in moments) / 2**20:,.0f} MiB"),
    ]
    first, draw, anonymous = opened(file)
    rows += [
        ("opened as a task", f"{first:.1f} s"),
        (f"a super-batch of {SUPER_BATCH:,} drawn", f"{draw * 1e3:.0f} ms"),
        ("anonymous memory then", f"{anonymous / 2**20:.0f} MiB"),
    ]
    print("| what | found |\n|---|--:|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
