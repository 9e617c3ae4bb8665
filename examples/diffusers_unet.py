"""A UNet of diffusers trained, exported and guided by another: python examples/diffusers_unet.py DATA

With the extra diffusers. The bench takes the same configs: ajest bench images --network diffusers:runs/unet/main/config
"""

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel

from ajest import autoguide, sample, sigma_schedule
from ajest.integrations.diffusers import denoiser_of

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("data", nargs="?", default="shapes:512")
parser.add_argument("--steps", default="200")
parser.add_argument("--resolution", type=int, default=32)
parser.add_argument("--out", type=Path, default=Path("runs/unet"))
asked = parser.parse_args()

scheduler = DDPMScheduler(prediction_type="v_prediction", clip_sample=False)
denoisers = {}
for name, channels in (("main", 32), ("guide", 16)):
    config, run, exported = (asked.out / name / part for part in ("config", "run", "exported"))
    unet = UNet2DModel(
        sample_size=asked.resolution,
        block_out_channels=(channels, 2 * channels),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
    )
    unet.save_config(config)
    scheduler.save_config(config)
    train = f"train images --network diffusers:{config} --out {run} --iterations {asked.steps}".split()
    for words in (
        [*train, "--data", asked.data, "--resolution", str(asked.resolution)],
        ["export", str(run), "--to", "diffusers", str(exported)],
    ):
        subprocess.run([sys.executable, "-m", "ajest", *words], check=True)
    denoisers[name] = denoiser_of(UNet2DModel.from_pretrained(exported / "unet"), scheduler).eval()

noise = 80 * torch.randn(8, 3, asked.resolution, asked.resolution, generator=torch.Generator().manual_seed(0))
images = sample(autoguide(denoisers["main"], denoisers["guide"], weight=2.0), noise, sigma_schedule(16))
torch.save(images, asked.out / "images.pt")
print(f"{asked.out / 'images.pt'}: {len(images)} images from {images.min():.2f} to {images.max():.2f}")
