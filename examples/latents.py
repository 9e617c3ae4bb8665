"""Images learned as latents of an autoencoder: python examples/latents.py DATA [--autoencoder DIR]

With the extra diffusers. Encodes the images, trains on latents, draws some and decodes them. Without an autoencoder of
yours it trains a small one first.
"""

import argparse
import subprocess
import sys
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("data", nargs="?", default="shapes:256")
parser.add_argument("--autoencoder", type=Path)
parser.add_argument("--resolution", default="16")
parser.add_argument("--seconds", default="60", help="of training an autoencoder")
parser.add_argument("--steps", default="200", help="of training on latents")
parser.add_argument("--out", type=Path, default=Path("runs/latents"))
asked = parser.parse_args()

folder = asked.autoencoder
if folder is None:
    folder = asked.out / "autoencoder"
    script = Path(__file__).with_name("autoencoder.py")
    words = [asked.data, folder, "--resolution", asked.resolution, "--seconds", asked.seconds]
    subprocess.run([sys.executable, script, *words], check=True)
encoded, run = asked.out / "encoded", asked.out / "run"
for words in (
    ["data", "encode", asked.data, str(encoded), "--autoencoder", str(folder), "--resolution", asked.resolution],
    f"train images --data {encoded} --classes all --iterations {asked.steps} --out {run}".split(),
    ["sample", str(run), "--n", "8", "--sampler-steps", "8", "--out", str(asked.out / "drawn")],
):
    subprocess.run([sys.executable, "-m", "ajest", *words], check=True)
print(f"decoded samples: {asked.out / 'drawn'}")
