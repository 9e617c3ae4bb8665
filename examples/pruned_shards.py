"""From shards of images to a verdict and a model card: python examples/pruned_shards.py [DATA] [--iterations 48]

Is a set better pruned before training, or chosen from while training? Writes shards as WebDataset has them, unless DATA
are some. Trains a first network, prunes the set to a half by its losses, and benches that half beside a random half and
beside choosing hard examples, at equal time. Then writes all numbers as Parquet and a network for the hub.
"""

import argparse
import csv
import io
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
from matplotlib.image import imsave

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("data", nargs="?")
parser.add_argument("--iterations", default="48")
parser.add_argument("--resolution", default="16")
parser.add_argument("--out", type=Path, default=Path("runs/shards"))
asked = parser.parse_args()


def ajest(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "ajest", *map(str, words)], check=True)


def write_shards(folder: Path, shards: int = 2, each: int = 128) -> Path:
    """Two classes of images, rings and bars, in .tar files: key.png and key.cls for each."""
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    noise = np.random.default_rng(0)
    for shard in range(shards):
        with tarfile.open(folder / f"shard-{shard:05d}.tar", "w") as archive:
            for number in range(each):
                at, width, kind = noise.uniform(-0.4, 0.4, 2), noise.uniform(0.1, 0.4), number % 2
                distance = np.hypot(x - at[0], y - at[1]) - 0.5 if kind else x - at[0] + at[1] * y
                picture = np.exp(-((distance / width) ** 2))[..., None] * noise.uniform(0.3, 1, 3)
                png = io.BytesIO()
                imsave(png, picture, format="png")
                for ending, content in (("png", png.getvalue()), ("cls", str(kind).encode())):
                    entry = tarfile.TarInfo(f"{shard:03d}-{number:05d}.{ending}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
    return folder


out, rng = asked.out, random.Random(0)
data = asked.data or write_shards(out / "data")
learn = ["images", "--data", data, "--resolution", asked.resolution, "--iterations", asked.iterations]
learn += ["--network", "nano", "--super-batch", 64]
ajest("train", *learn, "--out", out / "first")
ajest("data", "prune", out / "first", out / "hard-half.csv", "--by", "difficulty", "--keep", "50%")
ajest("data", "kept", out / "first", out / "all.csv")
ids = [row["id"] for row in csv.DictReader((out / "all.csv").read_text().splitlines())]
(out / "random-half.csv").write_text("\n".join(["id", *rng.sample(ids, len(ids) // 2)]) + "\n")
arms = ["baseline", "random", "hard-running", "--keep-list", out / "hard-half.csv", out / "random-half.csv"]
ajest("bench", *learn, "--arms", *arms, "--seeds", 0, 1, "--out", out / "bench")
ajest("report", out / "bench", "--parquet")
ajest("export", out / "bench" / "arms" / "hard-running" / "seed-0", out / "network")
print(f"verdict: {out / 'bench' / 'report.html'}; network and card: {out / 'network'}")
