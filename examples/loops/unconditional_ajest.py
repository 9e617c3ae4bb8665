"""The same with selection: accelerate launch examples/loops/unconditional_ajest.py --output_dir runs/ddpm

The shape is that of their script, in one process or several. It goes on from its last checkpoint, in the middle of an
epoch too.
"""

import argparse
import json
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from ajest import Scores, select_across


class Scheduler:
    """The linear noise schedule of DDPM."""

    def __init__(self, steps: int = 1000) -> None:
        self.alphas_cumprod = (1 - torch.linspace(1e-4, 0.02, steps)).cumprod(0)

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        alpha = self.alphas_cumprod.to(clean.device)[timesteps].view(-1, 1, 1, 1)
        return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise


class UNet(nn.Module):
    """Answers with the noise: yours, or a UNet2DModel."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.time, self.first = nn.Linear(1, width), nn.Conv2d(1, width, 3, padding=1)
        self.middle, self.last = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        time = self.time(timesteps[:, None] / 1000)[:, :, None, None]
        return self.last(self.middle((self.first(x) + time).relu()).relu())


def images(count: int = 512) -> TensorDataset:
    """Squares of 8 x 8 pixels, made up: yours."""
    stream = torch.Generator().manual_seed(0)
    corner = torch.randint(5, (count, 2), generator=stream)
    rows, columns = torch.arange(8)[None, :, None], torch.arange(8)[None, None]
    y, x = corner[:, :1, None], corner[:, 1:, None]
    inside = (rows >= y) & (rows < y + 4) & (columns >= x) & (columns < x + 4)
    return TensorDataset(inside[:, None].float() * 2 - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--train_batch_size", type=int, default=32, help="of each process")
    parser.add_argument("--max_train_steps", type=int, default=200)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--checkpointing_steps", type=int, default=50)
    args = parser.parse_args()
    accelerator = Accelerator(dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=0))

    torch.manual_seed(0)
    noise_scheduler = Scheduler()
    model = UNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate)
    loader = DataLoader(images(), args.train_batch_size, shuffle=True, drop_last=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    total = args.train_batch_size * accelerator.num_processes
    first = accelerator.process_index * args.train_batch_size
    own = slice(first, first + args.train_batch_size)

    global_step = 0
    args.output_dir.mkdir(parents=True, exist_ok=True)
    checkpoints = sorted(args.output_dir.glob("checkpoint-*"))
    if checkpoints:
        accelerator.load_state(checkpoints[-1])
        global_step = int(checkpoints[-1].name.removeprefix("checkpoint-"))
    epoch, done = divmod(global_step, len(loader))

    while global_step < args.max_train_steps:
        batches = accelerator.skip_first_batches(loader, done)
        batches.set_epoch(epoch)
        for (clean,) in batches:
            # Drawn for all processes together, so that any number of them draws the same.
            stream = torch.Generator().manual_seed(global_step)
            noise = torch.randn(total, *clean.shape[1:], generator=stream)[own].to(clean.device)
            timesteps = torch.randint(1000, (total,), generator=stream)[own].to(clean.device)
            noisy = noise_scheduler.add_noise(clean, noise, timesteps)
            with torch.no_grad():
                scores = Scores((model(noisy, timesteps) - noise).square().flatten(1).mean(1), sigma=timesteps.float())
            draws = torch.Generator(clean.device).manual_seed(global_step)
            chosen = select_across(scores, total // 4, "hard", draws, strata=4)
            noisy, timesteps, noise = map(chosen.take, (noisy, timesteps, noise))
            with accelerator.accumulate(model):
                loss = mse_loss(model(noisy, timesteps), noise)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
            global_step += 1
            mean = accelerator.reduce(loss.detach(), "mean").item()
            if accelerator.is_main_process:
                with (args.output_dir / "log.jsonl").open("a") as log:
                    log.write(json.dumps({"step": global_step, "loss": mean}) + "\n")
            if global_step % args.checkpointing_steps == 0 or global_step == args.max_train_steps:
                accelerator.save_state(args.output_dir / f"checkpoint-{global_step:06d}")
            if global_step == args.max_train_steps:
                break
        epoch, done = epoch + 1, 0
    accelerator.end_training()


if __name__ == "__main__":
    main()
