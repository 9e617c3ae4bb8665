"""What one training step asks of a GPU beside its kernels: waits of the host, copies, operations; see
`simulated_device`.

    python tests/step_counts.py [--where] [ARM ...]

prints a Markdown table, for a baseline and an AJEST step if no arms are named; `--where` the lines that wait, too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ajest.runtime.seeding import Streams
from ajest.selection.catalogue import arms_named
from ajest.selection.flow import Networks
from ajest.tasks.base import Task
from ajest.training.recipe import Recipe
from ajest.training.trainer import Trainer
from conftest import small_images, small_task
from simulated_device import Counts, simulated_cuda

_WARM = 3  # steps before the one that is counted: tables have grown, counters exist


def step_counts(task: Task, arm: str, recipe: Recipe | None = None) -> Counts:
    """The counts of one step of an arm on the simulated device."""
    with simulated_cuda() as device:
        chosen = arms_named((arm,))[0]
        learner, guide, proxy = (task.network(r, 0).to("cuda") for r in ("learner", "guide", "proxy"))
        networks = Networks(learner, guide.eval(), proxy if chosen.scoring.scorer == "proxy" else None)
        recipe = Recipe(super_batch=256, not_finite="zero") if recipe is None else recipe
        trainer = Trainer(task.source("cuda"), networks, recipe, chosen, Streams(0))
        for _ in range(_WARM):
            trainer.step()
        device.restart()
        trainer.step()
        return device.counts


def main(arms: Sequence[str], where: bool) -> None:
    print("| step | waits | copies to the device | bytes | copies to the host | bytes | operations |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, task in (("tree", small_task()), ("images", small_images())):
        for arm in arms or ("baseline", "ajest"):
            found = step_counts(task, arm)
            ways = ("host to device", "device to host")
            moved = " | ".join(f"{found.copies(way)} | {found.bytes(way):,}" for way in ways)
            print(f"| {arm}, {name} | {found.syncs} | {moved} | {found.operations:,} |")
            if where:
                print(found.table())


if __name__ == "__main__":
    main([word for word in sys.argv[1:] if word != "--where"], "--where" in sys.argv)
