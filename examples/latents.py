"""Images learned as latents of an autoencoder: python examples/latents.py DATA [--autoencoder DIR]

With the extra diffusers. Encodes the images, trains on latents, draws some and decodes them. Without an autoencoder of
yours it makes a small one of random weights, which shows the way and no pictures.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("data", nargs="?", default="shapes:256")
parser.add_argument("--autoencoder", type=Path)
parser.add_argument("--resolution", default="32")
parser.add_argument("--steps", default="200")
parser.add_argument("--out", type=Path, default=Path("runs/latents"))
asked = parser.parse_args()

folder = asked.autoencoder
if folder is None:
    folder = asked.out / "autoencoder"
    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=2,
        latent_channels=4,
    ).save_pretrained(folder)
encoded, run = asked.out / "encoded", asked.out / "run"
for words in (
    ["data", "encode", asked.data, str(encoded), "--autoencoder", str(folder), "--resolution", asked.resolution],
    f"train images --data {encoded} --classes all --iterations {asked.steps} --out {run}".split(),
    ["sample", str(run), "--n", "8", "--sampler-steps", "8", "--out", str(asked.out / "drawn")],
):
    subprocess.run([sys.executable, "-m", "ajest", *words], check=True)
print(f"decoded samples: {asked.out / 'drawn'}")
