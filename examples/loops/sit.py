"""A trainer in the shape of SiT's, small: torchrun --nproc-per-node=2 examples/loops/sit.py --out runs/sit

Plain PyTorch, one process or several. It goes on from its last checkpoint, in the middle of an epoch too.
"""

import argparse
import json
import os
from contextlib import suppress
from itertools import islice
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from ajest import PowerEMA


class Latents(Dataset):
    """Latents (4, 8, 8) of eight classes, made up: yours."""

    def __init__(self, count: int = 512) -> None:
        stream = torch.Generator().manual_seed(0)
        self.y = torch.randint(8, (count,), generator=stream)
        means = torch.randn(8, 4, 1, 1, generator=stream)
        self.x = means[self.y] + 0.3 * torch.randn(count, 4, 8, 8, generator=stream)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple:
        return self.x[i], self.y[i]


class SiT(nn.Module):
    """A transformer on patches of 2 x 2 that answers with a velocity: yours."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patches = nn.Conv2d(4, width, 2, 2)
        self.place = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.time, self.label = nn.Linear(1, width), nn.Embedding(8, width)
        self.block = nn.TransformerEncoderLayer(width, 2, 2 * width, 0.0, batch_first=True, norm_first=True)
        self.out = nn.ConvTranspose2d(width, 4, 2, 2)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).mT + self.place + (self.time(t[:, None]) + self.label(y))[:, None]
        return self.out(self.block(tokens).mT.unflatten(2, (4, 4)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=32, help="of all processes together")
    parser.add_argument("--checkpoint-every", type=int, default=50)
    args = parser.parse_args()
    if "RANK" in os.environ:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    device = torch.device("cuda", rank % torch.cuda.device_count()) if torch.cuda.is_available() else "cpu"

    torch.manual_seed(0)
    network = SiT().to(device)
    model = DistributedDataParallel(network) if world > 1 else network
    adam, ema = torch.optim.AdamW(network.parameters(), lr=1e-3), PowerEMA(network, widths=(0.05,))
    dataset = Latents()
    sampler: DistributedSampler[int] = DistributedSampler(dataset, num_replicas=world, rank=rank)
    loader = DataLoader(dataset, args.batch_size // world, sampler=sampler, drop_last=True)

    step = 0
    args.out.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        stored = torch.load(args.out / "last.pt", map_location="cpu", weights_only=True)
        network.load_state_dict(stored["model"])
        adam.load_state_dict(stored["adam"])
        ema.load_state_dict(stored["ema"])
        step = stored["step"]
    epoch, done = divmod(step, len(loader))

    while step < args.steps:
        sampler.set_epoch(epoch)
        for x, y in islice(loader, done, args.steps - step + done):
            x, y = x.to(device), y.to(device)
            # Drawn for all processes together, so that any number of them draws the same.
            stream = torch.Generator().manual_seed(step)
            t = torch.randn(args.batch_size, generator=stream)[rank::world].sigmoid().to(device)
            noise = torch.randn(args.batch_size, *x.shape[1:], generator=stream)[rank::world].to(device)
            at = t[:, None, None, None]
            losses = (model((1 - at) * x + at * noise, t, y) - (noise - x)).square().flatten(1).mean(1)
            losses.mean().backward()
            adam.step()
            adam.zero_grad()
            step += 1
            ema.update(step)
            mean = losses.detach().mean() / world
            if world > 1:
                dist.all_reduce(mean)
            if rank == 0:
                with (args.out / "log.jsonl").open("a") as log:
                    log.write(json.dumps({"step": step, "loss": mean.item()}) + "\n")
            if rank == 0 and (step % args.checkpoint_every == 0 or step == args.steps):
                stored = {"model": network.state_dict(), "adam": adam.state_dict(), "ema": ema.state_dict()}
                stored["step"] = step
                torch.save(stored, args.out / "last.pt")
        epoch, done = epoch + 1, 0
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
