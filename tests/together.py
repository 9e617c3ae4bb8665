"""What several processes of one run do, for test_distributed.py: `torchrun together.py FOLDER` or `python ...`."""

import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from ajest.runtime import distributed
from ajest.runtime.seeding import Streams
from ajest.selection import agreement
from ajest.selection.across import select_across
from ajest.selection.catalogue import ARMS
from ajest.selection.flow import Networks
from ajest.selection.registry import select
from ajest.selection.scoring import Scores
from ajest.storage import checkpoint
from ajest.tasks.base import Guided, Measurement
from ajest.tasks.images import lite0
from ajest.training.recipe import LearningRate, Recipe
from ajest.training.trainer import Trainer
from conftest import small_recipe, small_task, tiny_images

STEPS = 6

#: name -> (arm, changes of the recipe); those of images begin with "images".
SCENARIOS = {
    "uniform": ("baseline", {"micro_batch": 100}),
    "random": ("random", {}),
    "ajest": ("ajest", {}),
    "micro": ("ajest", {"micro_batch": 20}),
    "early": ("early-ajest", {}),  # fires in the middle, see `trainer_of`
    "joint": ("joint-gradient", {}),
    "stale": ("stale", {}),
    "recall": ("recall", {}),
    "unbiased": ("hard-unbiased", {}),
    "draws": ("learnable-draws", {}),
    "proxy": ("proxy", {}),
    "rank": ("ajest", {"scope": "rank"}),
    "noised": ("stratified", {}),
    "noised-device": ("stable-target-16", {"drawing": "device", "super_batch": 250}),
    "paired-device": ("minibatch-ot", {"drawing": "device", "super_batch": 250}),
    "levels": ("first-moment", {}),
    "schedule-free": ("schedule-free", {}),
    "device": ("learnable-draws", {"drawing": "device"}),
    "images-device": ("ajest", {"drawing": "device"}),
    "images": ("ajest", {}),
    "images-uniform": ("baseline", {"micro_batch": 8}),
}


def trainer_of(name: str) -> Trainer:
    arm, changes = SCENARIOS[name]
    arm = replace(ARMS[arm], chunks=min(4, ARMS[arm].chunks))
    images_task = name.startswith("images")
    task = tiny_images() if images_task else small_task()
    recipe = Recipe(30, LearningRate(0.01, 0)) if images_task else small_recipe()
    recipe = replace(recipe, **changes)
    guide = task.network("guide", 1).eval().requires_grad_(False)
    if arm.reference == "strong":
        guide = task.network("learner", 1).eval().requires_grad_(False)
    if name == "early":  # a guide that the learner is ahead of, which takes it half of the steps to be sure of
        guide.gain.fill_(1.0)
        arm = replace(arm, trigger=replace(arm.trigger, half_life=STEPS / 2))
    allocation = arm.noising.allocation
    if allocation is not None:  # looks at losses twice within these steps
        allocation = replace(allocation, warmup=0.4, every=0.4)
        arm = replace(arm, noising=replace(arm.noising, allocation=allocation))
    proxy = task.network("guide", 2) if arm.scoring.scorer == "proxy" else None
    networks = Networks(task.network("learner", 0), guide, proxy)
    return Trainer(task.source("cpu"), networks, recipe, arm, Streams(0))


def state_of(name: str) -> tuple[dict, dict]:
    trainer = trainer_of(name)
    for step in range(STEPS):
        trainer.progress = step / STEPS
        trainer.step()
    tensors, facts = trainer.state()
    for timed in ("seconds", "seconds_by_kind", "warmup_seconds"):
        facts["ledger"].pop(timed)
    return tensors, facts


def judged(folder: Path) -> tuple[dict, dict]:
    """Samples and metrics of untrained networks; 70 images are two chunks: of four processes two get none."""
    images_task, tree = tiny_images(), small_task()
    found = images_task.evaluate(
        Guided(images_task.network("learner", 0).eval()), Measurement(70, 0, folder, keep_tensors=True)
    )
    points = tree.evaluate(Guided(tree.network("learner", 0).eval()), Measurement(4200, 0, folder, keep_tensors=True))
    tensors = {f"images/{k}": v for k, v in found.tensors.items()} | {f"tree/{k}": v for k, v in points.tensors.items()}
    return tensors, {"images": found.metrics, "tree": points.metrics}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    agreement.EVERY = 2  # so that every scenario is seen to agree
    lite0.RESOLUTION = 32  # of whatever size, each judges its part of the images
    with distributed.joined() if count > 1 else nullcontext():
        assert distributed.world() == count
        whole = torch.arange(7.0)[:, None]
        assert torch.equal(distributed.gather(whole[distributed.rank_slice(7)], 7), whole)
        assert torch.equal(distributed.gather_all(whole[distributed.rank_slice(7)])[0], whole)
        values = torch.randn(26, 2, generator=torch.Generator().manual_seed(0))
        own = values[distributed.rank_slice(26)]
        top = select_across(Scores(own[:, 0]), 12, "high-loss").take(own)
        wanted = values[select(Scores(values[:, 0]), 12, "high-loss")]
        assert torch.equal(top, wanted[distributed.rank_slice(12)])
        assert distributed.largest([float(distributed.rank()), 1.0]) == [count - 1, 1]
        for name, (tensors, facts) in {**{n: state_of(n) for n in SCENARIOS}, "judged": judged(folder)}.items():
            # All have the same: any of them could write.
            sums = [t.double().sum().item() for t in tensors.values()]
            assert distributed.largest(sums) == sums == [-x for x in distributed.largest([-x for x in sums])], name
            if distributed.rank() == 0:
                checkpoint.save(folder / name, tensors, facts)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
