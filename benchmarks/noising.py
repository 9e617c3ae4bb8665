"""What drawing costs that an arm changes: noise levels, weights, targets, pairings, beside the baseline's whole step.

    python benchmarks/noising.py [--rounds 40] > table.md

All are timed in turns on one core, on the tree with clean examples as targets at a super-batch of 4,096. "More" is what
an arm's draw takes beyond the baseline's, as a share of the baseline's step.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable

import torch

from ajest import keep_freed_memory
from ajest.diffusion.batch import Source
from ajest.diffusion.noising.ingredients import Ingredients
from ajest.diffusion.noising.pairings import Pairing
from ajest.diffusion.noising.source import noised
from ajest.runtime.seeding import Streams
from ajest.selection.catalogue import ARMS
from ajest.selection.flow import Networks
from ajest.tasks.tree.task import TreeTask
from ajest.training.recipe import Recipe
from ajest.training.trainer import Trainer
from timing import machine, timed

SUPER_BATCH = 4096
WANTED = 0.03  # of the baseline's step
PIXELS, PAIRED = (3, 64, 64), 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    keep_freed_memory()
    task, recipe = TreeTask(target="x0", sigma_max=80.0), Recipe(super_batch=SUPER_BATCH)
    source = task.source("cpu")
    trainer = Trainer(source, Networks(task.network("learner", 0)), recipe, ARMS["baseline"], Streams(0))
    arms = {
        name: arm
        for name, arm in ARMS.items()
        if arm.policy == "uniform" and arm.noising.axes and arm.noising.target != "exact"
    }
    works: dict[str, Callable[[], object]] = {"step": trainer.step, "baseline": _draw(source)}
    works |= {name: _draw(noised(source, arm.noising, SUPER_BATCH)) for name, arm in arms.items()}
    found = timed(works, rounds, "cpu")
    print(f"{machine('cpu')}\n\n| arm | draw, ms | more, of a step of {1e3 * found['step']:.1f} ms |\n|---|---|---|")
    for name in ("baseline", *arms):
        more = (found[name] - found["baseline"]) / found["step"]
        print(f"| {name} | {1e3 * found[name]:.2f} | {more:+.1%}{' (wanted: 3 %)' * (more > WANTED)} |", flush=True)
    print(f"\n| pairing of {PAIRED:,} images of 64 by 64 | ms |\n|---|---|")
    x0, eps = (torch.randn(PAIRED, *PIXELS) for _ in range(2))
    parts = Ingredients(x0, eps, torch.ones(PAIRED), torch.arange(PAIRED), None)
    pairings = {name: ARMS[name].noising.pairing for name in ("assignment", "nearest-4")}
    paired = {name: _pair(pairing, parts) for name, pairing in pairings.items() if pairing is not None}
    for name, seconds in timed(paired, 3, "cpu").items():
        print(f"| {name} | {1e3 * seconds:.1f} |", flush=True)


def _pair(pairing: Pairing, parts: Ingredients) -> Callable[[], object]:
    """Pairs images with noise that is drawn already."""
    noise = torch.randn(len(parts.x0), pairing.candidates, *parts.x0.shape[1:])
    return lambda: pairing.paired(parts, noise, min(pairing.among, len(parts.x0)))


def _draw(source: Source) -> Callable[[], object]:
    """Draws a super-batch with its targets, another one at each call."""
    turn = itertools.count()
    return lambda: source.complete(source.draw(SUPER_BATCH, torch.Generator().manual_seed(next(turn))))


if __name__ == "__main__":
    main()
