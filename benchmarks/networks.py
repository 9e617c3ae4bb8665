"""Which small network learns most in a CPU second: U-Nets and patch transformers under the same preconditioning.

    python benchmarks/networks.py --data train.zip --validation val.zip [--seconds 240] > table.md

All candidates see the same examples and take their steps in turns on one thread, until each has trained for so many
seconds with the recipe of `cpu-mini`; then the held-out loss of each one's average tells, and what its samples look
like to a feature network.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from ajest.bench.plan.presets import CPU_MINI
from ajest.runtime.seeding import Streams
from ajest.runtime.threads import configure_threads
from ajest.selection.catalogue import ARMS
from ajest.selection.flow import Networks
from ajest.tasks.base import Guided, Measurement
from ajest.tasks.images.architecture import SIZES, Architecture
from ajest.tasks.images.setup import image_task
from ajest.tasks.images.task import ImageTask
from ajest.training.trainer import Trainer

CANDIDATES = {
    "U-Net, 16 channels": Architecture(channels=16, multipliers=(1, 2, 2, 2), blocks=1, attention=(8,)),
    "U-Net on 2 x 2 patches, 32 channels (`mini`)": SIZES["mini"],
    "U-Net on 4 x 4 patches, 64 channels": Architecture(
        channels=64, multipliers=(1, 2), blocks=1, attention=(8,), patch=4
    ),
    "transformer on 4 x 4 patches, 128 channels, 4 blocks": Architecture("transformer", 128, blocks=4, patch=4),
    "transformer on 8 x 8 patches, 256 channels, 6 blocks": Architecture("transformer", 256, blocks=6, patch=8),
}
SHARES = (1 / 4, 1 / 2, 1.0)
SEED = 1000  # none of the preset's


class Contestant:
    """A candidate with what it has to show."""

    def __init__(self, name: str, task: ImageTask) -> None:
        self.name, self.task, self.seconds = name, task, 0.0
        self.shown: list[dict[str, float]] = []
        recipe = CPU_MINI.bench(task).recipe
        networks = Networks(task.network("learner", SEED))
        self.trainer = Trainer(task.source("cpu"), networks, recipe, ARMS["baseline"], Streams(SEED))

    def step(self, whole: float, cache: Path) -> None:
        self.trainer.progress = min(1.0, self.seconds / whole)
        self.seconds += sum(self.trainer.step().seconds.values())
        if self.seconds >= SHARES[len(self.shown)] * whole:
            network = self.trainer.ema[self.trainer.recipe.ema_widths[0]]
            self.shown.append(self.task.evaluate(Guided(network), Measurement(CPU_MINI.n_final, SEED, cache)).metrics)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="*", default=["shapes"])
    parser.add_argument("--validation", nargs="*", default=["shapes"])
    parser.add_argument("--seconds", type=float, default=240)
    options = parser.parse_args()
    configure_threads(1)
    settings = CPU_MINI.settings(options.data) | {"classes": 10}
    base = image_task(tuple(options.data), tuple(options.validation), **settings)  # type: ignore[arg-type]
    contestants = [Contestant(name, replace(base, learner=found)) for name, found in CANDIDATES.items()]
    with tempfile.TemporaryDirectory() as cache:
        while waiting := [c for c in contestants if len(c.shown) < len(SHARES)]:
            for contestant in waiting:
                contestant.step(options.seconds, Path(cache))
    heads = [f"{what} after {s * options.seconds:g} s" for what in ("loss", "KID × 1000") for s in SHARES]
    print(f"| network | ms an image | examples | {' | '.join(heads)} |")
    print("|---" * (3 + len(heads)) + "|")
    for c in contestants:
        trained = c.trainer.ledger.counts.trained
        losses = [f"{m['loss']:.3f}" for m in c.shown]
        kids = [f"{1e3 * m['kid']:.0f} ± {1e3 * (m['kid_high'] - m['kid']):.0f}" for m in c.shown]
        print(f"| {c.name} | {1e3 * c.seconds / trained:.1f} | {trained:,} | {' | '.join(losses + kids)} |")


if __name__ == "__main__":
    main()
