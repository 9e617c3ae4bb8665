"""A small autoencoder of your own images, for latents: python examples/autoencoder.py DATA OUT

With the extra diffusers. Halved once, 3 x 16 x 16 values become 4 x 8 x 8. It lets one try latents where no published
autoencoder is at hand; for results take a published one.
"""

import argparse
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch.nn.functional import l1_loss

from ajest.tasks.images import image_task

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("data")
parser.add_argument("out", type=Path)
parser.add_argument("--resolution", type=int, default=16)
parser.add_argument("--halvings", type=int, default=1)
parser.add_argument("--seconds", type=float, default=180)
asked = parser.parse_args()

torch.manual_seed(0)
source, draws = image_task((asked.data,), resolution=asked.resolution).source("cpu"), torch.Generator().manual_seed(0)
model = AutoencoderKL(
    down_block_types=("DownEncoderBlock2D",) * (1 + asked.halvings),
    up_block_types=("UpDecoderBlock2D",) * (1 + asked.halvings),
    block_out_channels=(16,) + (32,) * asked.halvings,
    layers_per_block=1,
    mid_block_add_attention=False,
    norm_num_groups=8,
    latent_channels=4,
)
optimizer, begun = torch.optim.AdamW(model.parameters()), time.monotonic()
while (share := (time.monotonic() - begun) / asked.seconds) < 1:
    x = source.ingredients(32, draws).x0
    latent = model.encode(x).latent_dist
    loss = l1_loss(model.decode(latent.sample()).sample, x) + 1e-5 * latent.kl().mean() / latent.mean[0].numel()
    optimizer.param_groups[0]["lr"] = 4e-3 * (1 - share)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
with torch.no_grad():
    latents = model.encode(x := source.ingredients(256, draws).x0).latent_dist.mean
    off = float((model.decode(latents).sample - x).abs().mean())
scale = 1 / float(latents.std())
model.register_to_config(scaling_factor=scale)
model.save_pretrained(asked.out)
print(f"{asked.out}: decodes with a mean error of {127.5 * off:.1f} of 255; latents are scaled by {scale:.3f}")
