"""Selection, averages and guidance in a loop of one's own: python examples/own_training_loop.py [--steps 400]

Learns a ring of eight blobs with AJEST: a small guide is trained first, then each step scores a super-batch with
learner and guide and trains on the most learnable fifth. Samples are then drawn with and without autoguidance.
"""

import argparse

import torch
from torch import Tensor, nn

from ajest import (
    Batch,
    Counts,
    Ledger,
    PowerEMA,
    Scores,
    autoguide,
    keep_freed_memory,
    per_example_loss,
    sample,
    score,
    select,
    sigma_schedule,
)


class Denoiser(nn.Module):
    """Yours, any: it is called with x, sigma of shape (n,) and labels, and answers with the clean x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = [nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        sigma = sigma[:, None]
        scale = (1 + sigma**2).sqrt()
        return x / scale**2 + sigma / scale * self.layers(torch.cat([x / scale, sigma.log() / 4], 1))


def super_batch(count: int, generator: torch.Generator) -> Batch:
    """Your data, your noise levels, your weights: here weights that make an untrained network's loss 1 everywhere."""
    blob = torch.randint(8, (count,), generator=generator)
    angle = blob * torch.pi / 4
    clean = torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(count, 2, generator=generator)
    sigma = (1.2 * torch.randn(count, generator=generator) - 1.2).exp()
    x = clean + sigma[:, None] * torch.randn(count, 2, generator=generator)
    return Batch(x=x, sigma=sigma, weight=1 + sigma**-2, id=blob, target=clean)


def train(network: Denoiser, steps: int, guide: nn.Module | None, seed: int) -> tuple[PowerEMA, Ledger]:
    """Train on the fifth that is most learnable against the guide; without a guide on everything."""
    generator = torch.Generator().manual_seed(seed)
    adam, ema, ledger = torch.optim.Adam(network.parameters(), lr=1e-2), PowerEMA(network, widths=(0.1,)), Ledger()
    for step in range(steps):
        with ledger.phase("draw"):
            batch = super_batch(1024, generator)
        if guide is not None:
            with ledger.phase("learner scoring"):
                mine = score(network, batch)
            with ledger.phase("reference scoring"):
                theirs = score(guide, batch)
            with ledger.phase("select"):
                batch = batch[select(Scores(mine, theirs), count=205, name="jest", generator=generator)]
        with ledger.phase("update"):
            per_example_loss(network(batch.x, batch.sigma), batch).mean().backward()
            adam.step()
            adam.zero_grad()
        with ledger.phase("ema"):
            ema.update(step + 1)
        scored = 0 if guide is None else 1024
        ledger.close_step("AJEST" if scored else "uniform", Counts(1024, scored, len(batch)), flops=0.0)
    return ema, ledger


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    steps = parser.parse_args().steps
    keep_freed_memory()
    torch.manual_seed(0)
    guide, _ = train(Denoiser(16), steps // 4, None, seed=1)
    learner, ledger = train(Denoiser(64), steps, guide[0.1], seed=2)
    sigmas = sigma_schedule(steps=16, sigma_max=10)
    start = 10 * torch.randn(2000, 2, generator=torch.Generator().manual_seed(3))
    for name, denoiser in {"alone": learner[0.1], "guided": autoguide(learner[0.1], guide[0.1], weight=1.5)}.items():
        x = sample(denoiser, start, sigmas)
        print(f"{name}: samples lie {(x.norm(dim=1) - 1).abs().mean():.3f} from the ring on average")
    seconds = {phase: round(spent, 2) for phase, spent in ledger.seconds.items() if spent}
    print(f"seconds by phase: {seconds}; {ledger.counts.trained:,} of {ledger.counts.drawn:,} examples trained on")


if __name__ == "__main__":
    main()
