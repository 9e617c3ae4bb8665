"""Which small network learns most in a CPU second: U-Nets and patch transformers under the same preconditioning.

    python benchmarks/networks.py --data train.zip --validation val.zip [--seconds 100] > table.md

All candidates see the same examples and take their steps in turns on one thread, until each has trained for so many
seconds; then the held-out loss of each one's average tells. Learning rates are the better of two a candidate.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch

from ajest import per_example_loss
from ajest.arms import ARMS
from ajest.bench.pool import settle
from ajest.images.architecture import SIZES, Architecture
from ajest.images.setup import image_task
from ajest.images.task import ImageTask
from ajest.training import LearningRate, Recipe, Trainer

CANDIDATES = {
    "U-Net, 16 channels": SIZES["mini"],
    "U-Net on 2 x 2 patches, 32 channels": Architecture(channels=32, multipliers=(1, 2, 2), blocks=1, patch=2),
    "transformer on 4 x 4 patches, 192 channels, 4 blocks": Architecture("transformer", 192, blocks=4, patch=4),
    "transformer on 8 x 8 patches, 256 channels, 6 blocks": Architecture("transformer", 256, blocks=6, patch=8),
}
RATES = (0.02, 0.05)
SHARES = (0.25, 0.5, 1.0)
BATCH, WIDTH, HELD_OUT = 32, 0.1, 512


class Contestant:
    """A candidate at one learning rate, with what it has to show."""

    def __init__(self, name: str, task: ImageTask, rate: float) -> None:
        self.name, self.rate, self.seconds, self.shown = name, rate, 0.0, [float("nan")] * len(SHARES)
        recipe = Recipe(BATCH, LearningRate(rate, 0, rampup=10 * BATCH), ema_widths=(WIDTH,), not_finite="zero")
        self.trainer = Trainer(task.source("cpu"), task.network("learner", 0), recipe, ARMS["baseline"], 0)

    def step(self, whole: float, batch) -> None:
        before = self.seconds
        self.seconds += sum(self.trainer.step().seconds.values())
        for i, share in enumerate(SHARES):
            if before < share * whole <= self.seconds:
                network = self.trainer.ema[WIDTH]
                with torch.no_grad():
                    parts = [per_example_loss(network(p.x, p.sigma, p.label), p) for p in batch.split(BATCH)]
                self.shown[i] = float(torch.cat(parts).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="*", default=["shapes"])
    parser.add_argument("--validation", nargs="*", default=["shapes"])
    parser.add_argument("--seconds", type=float, default=100)
    options = parser.parse_args()
    settle(1)
    base = image_task(tuple(options.data), tuple(options.validation), precision="bfloat16")
    held_out = replace(base, data=base.validation, digest=base.validation_digest, validation=(), validation_digest="")
    batch = held_out.source("cpu").draw(HELD_OUT, torch.Generator().manual_seed(0))
    contestants = [
        Contestant(name, replace(base, learner=found), rate) for name, found in CANDIDATES.items() for rate in RATES
    ]
    while waiting := [c for c in contestants if c.seconds < options.seconds]:
        for contestant in waiting:
            contestant.step(options.seconds, batch)
    heads = [f"loss after {share * options.seconds:g} s" for share in SHARES]
    print(f"| network | ms an image | examples | learning rate | {' | '.join(heads)} |")
    print("|---" * (4 + len(heads)) + "|")
    for name in CANDIDATES:
        best = min((c for c in contestants if c.name == name), key=lambda c: c.shown[-1])
        trained = best.trainer.ledger.counts.trained
        losses = " | ".join(f"{loss:.3f}" for loss in best.shown)
        print(f"| {name} | {1e3 * best.seconds / trained:.1f} | {trained:,} | {best.rate:g} | {losses} |")


if __name__ == "__main__":
    main()
