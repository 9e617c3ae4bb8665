"""One training on 1, 2, 4, ... GPUs: what a step takes, and whether they keep the examples that one GPU keeps.

    PYTHONPATH=src python benchmarks/several_gpus.py --device cuda [--rounds 9]

The super-batch is the same whatever the number of GPUs: what is measured is how much sooner a training ends. Processes
speak by NCCL. On the CPU two processes speak by gloo, with tiny networks: to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch

from ajest.runtime import distributed
from ajest.runtime.device import Device, device_of
from ajest.runtime.threads import configure_threads
from ajest.tasks.images.architecture import SIZES
from ajest.training.recipe import LearningRate, Recipe
from gpu_pieces import WARMUP_STEPS, half, task_of
from images import trainer_of
from timing import settle

ARMS = ("baseline", "ajest")


@dataclass(frozen=True)
class Measured:
    """What one number of processes found of an arm.

    Attributes:
        arm: its name.
        seconds: of a step, the median.
        kept: ids of the examples that its first step trained on, in order.
        loss: the mean loss of those.
    """

    arm: str
    seconds: float
    kept: list[int]
    loss: float


def worker(device: Device, rounds: int) -> list[Measured]:
    """What this process measures together with the others."""
    where = device_of(device)
    task = task_of(SIZES["xxs"], half(SIZES["xxs"]), device)
    recipe = Recipe(256 if device == "cuda" else 10, LearningRate(0.01, 0), ema_widths=(0.1,), not_finite="zero")
    found = []
    for arm in ARMS:
        trainer = trainer_of(task, recipe, where, arm)
        first = trainer.step()
        ids = first.batch.id if first.kept is None else first.batch.id[first.kept]
        for _ in range(WARMUP_STEPS):
            trainer.step()
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            trainer.step()
            settle(device)
            times.append(time.perf_counter() - start)
        found.append(Measured(arm, statistics.median(times), sorted(ids.tolist()), first.loss))
    return found


def measured(device: Device, rounds: int) -> Iterator[tuple[int, dict[str, Measured]]]:
    """For each number of processes what they find, by arm.

    Raises:
        SystemExit: they failed, with what they said.
    """
    count = 2 if device == "cpu" else torch.cuda.device_count()
    processes = [2**k for k in range(count.bit_length()) if 2**k <= count]
    for n in processes:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}", __file__]
        command += ["--worker", "--device", device, "--rounds", str(rounds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        line = next((line for line in done.stdout.splitlines() if line.startswith("[{")), None)
        if done.returncode or line is None:
            raise SystemExit(f"{n} processes: {done.stderr[-3000:]}")
        yield n, {part["arm"]: Measured(**part) for part in json.loads(line)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--worker", action="store_true", help="one of several processes")
    options = parser.parse_args()
    configure_threads(1 if options.device == "cpu" else None)
    if options.worker:
        with distributed.joined():
            mine = worker(options.device, options.rounds)
            if distributed.rank() == 0:  # two at once could mix their lines
                print(json.dumps([asdict(part) for part in mine]), flush=True)
        return
    if options.device == "cuda" and torch.cuda.device_count() < 2:
        print("There is one GPU here. One training on several of them (NCCL) needs two, and was not measured.")
        return
    print("| processes, a device each | step of | time | one process / this | same examples | loss, relative change |")
    print("|--:|---|--:|--:|---|--:|", flush=True)
    alone: dict[str, Measured] = {}
    for n, found in measured(options.device, options.rounds):
        alone = alone or found
        for arm, part in found.items():
            one = alone[arm]
            same = "yes" if part.kept == one.kept else "no"
            print(
                f"| {n} | {arm} | {part.seconds * 1e3:.1f} ms | {one.seconds / part.seconds:.2f} | {same} "
                f"| {abs(part.loss / one.loss - 1):.1e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
