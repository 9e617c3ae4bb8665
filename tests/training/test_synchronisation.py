"""How often a training step waits for its device: once, when it has been given everything to do."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ajest.runtime.seeding import Streams
from ajest.selection.catalogue import ARMS
from ajest.selection.flow import Networks
from ajest.training.run import execution
from ajest.training.run_folder import RunConfig
from ajest.training.schedule import Schedule
from ajest.training.trainer import Trainer
from conftest import small_images, small_recipe, small_task
from simulated_device import simulated_cuda
from step_counts import step_counts

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")

#: Arms that look examples up in a hash table, which asks whether all were found; the others wait once a step.
LOOK_UP = {"evolved", "infobatch", "recall", "recall-cooling", "recall-id", "stale", "stale-cooling", "stale-id"}
#: An assignment of noise is found on the host.
ASSIGNED = {"assignment", "assignment-norms", "minibatch-ot"}
#: The table of remembered losses, the tree's sketch of gradients and assignments still wait.
ELSEWHERE = ("tasks/tree/network.py", "selection/cells.py", "diffusion/noising/pairings.py")


def trainer(arm, **recipe):
    task = small_task()

    def network(role, seed):
        return task.network(role, seed).to("cuda")

    proxy = network("guide", 0) if arm.scoring.scorer == "proxy" else None
    networks = Networks(network("learner", 0), network("guide", 5).eval(), proxy)
    return Trainer(task.source("cuda"), networks, small_recipe(**recipe), arm, Streams(0))


def own(waits):
    """Those that belong to the step itself."""
    return [wait for wait in waits if not wait.where.startswith(ELSEWHERE)]


@pytest.mark.parametrize("name", sorted(set(ARMS) - {"half-resolution"}))
def test_a_step_waits_once(name):
    with simulated_cuda() as device:
        t = trainer(ARMS[name])
        for _ in range(8):
            t.step()
        device.restart()
        for _ in range(3):  # a step on which stale arms score, and two on which they look up
            t.step()
        assert [wait.where.split(":")[0] for wait in own(device.counts.waits)] == ["runtime/host.py"] * 3
        assert any("cells.py" in wait.where for wait in device.counts.waits) == (name in LOOK_UP)
        if name not in LOOK_UP | ASSIGNED:
            assert device.counts.copies("device to host") == 3
        seconds = t.ledger.total_seconds + t.ledger.warmup_seconds
        t.ledger.settle()
        assert t.ledger.total_seconds + t.ledger.warmup_seconds > seconds > 0
        assert int(t.example_counts.trained.sum()) == t.ledger.counts.trained


def published():
    """{(arm, task): (waits, copies to the device, copies to the host)} of the table in benchmarks/README.md."""
    text = (Path(__file__).parents[2] / "benchmarks" / "README.md").read_text()
    rows = re.findall(r"^\| ([\w-]+), (tree|images) \| \S+ \| (\d+) \| \S+ \| (\d+) \| \S+ \| (\d+) \|$", text, re.M)
    return {(arm, task): tuple(map(int, counts)) for arm, task, *counts in rows}


@pytest.mark.parametrize(
    ("arm", "task"),
    [
        *((arm, "images") for arm in ("baseline", "ajest", "recall", "stale", "assignment")),
        *((arm, "tree") for arm in ("joint-gradient", "recall", "stale", "assignment")),
    ],
)
def test_steps_wait_and_copy_as_often_as_is_published(arm, task):
    found = step_counts(small_images() if task == "images" else small_task(), arm)
    counts = found.syncs, found.copies("host to device"), found.copies("device to host")
    assert counts == published()[arm, task]


def test_weights_loss_and_counts_are_read_in_few_bytes():
    with simulated_cuda() as device:
        t = trainer(ARMS["ajest"])
        device.restart()
        t.step()
        assert device.counts.bytes("device to host") == 8 * (4 + 256 + 51)  # numbers, ids drawn and trained on


def test_a_step_some_of_whose_scores_are_not_finite_asks_again():
    class Broken:
        def __init__(self, source):
            self.source, self.draw = source, source.draw

        def complete(self, batch):
            whole = self.source.complete(batch)
            target = whole.target.clone()
            target[7].fill_(float("nan"))
            return replace(whole, target=target)

    with simulated_cuda() as device:
        t = trainer(ARMS["ajest"])
        t.selector.source = Broken(t.selector.source)
        device.restart()
        step = t.step()
        assert [wait.where.split(":")[0] for wait in own(device.counts.waits)] == [
            "runtime/host.py", "selection/scoring.py", "selection/scoring.py", "runtime/host.py"
        ]  # fmt: skip
        assert 7 not in step.kept.cpu().tolist()
        assert t.ledger.scores_not_finite == 1


def test_writing_nothing_down_waits_for_nothing(tmp_path):
    """Clocks of measured seconds are looked at after each step, as far as they are known."""
    config = RunConfig(small_task(), "learner", small_recipe(), ARMS["baseline"], 0, 5)
    schedule = Schedule({"seconds": (1e9,)}, ledger_every=100, checkpoint_seconds=1e9)
    with simulated_cuda() as device:
        run = execution(tmp_path, config, schedule, "cuda")
        for _ in range(4):
            next(run)
        device.restart()
        t = next(run)
        assert [wait.where.split(":")[0] for wait in own(device.counts.waits)] == ["runtime/host.py"]
        next(run)  # the last step: all of it is booked
        known = t.ledger.facts()
        t.ledger.settle()
        assert t.ledger.facts() == known
        assert sum(t.ledger.timed_by_kind.values()) == 1
