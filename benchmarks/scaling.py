"""What one run costs on many processes: measured here on 1, 2 and 4, simulated, and carried over to clusters of GPUs.

    .venv/bin/python benchmarks/scaling.py measure --out scaling.json     # 3 minutes on 2 cores, which must be idle
    .venv/bin/python benchmarks/scaling.py tables scaling.json            # the tables of docs/scaling.md
    .venv/bin/python benchmarks/scaling.py figure docs/scaling.png

The simulation is calibrated with: phase costs of one process over the number of examples; a probe of how much processes
slow each other down that share the cores, and how unevenly; and the time of the messages. Steps of 2 and 4 processes
are then predicted, and compared with what they took.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

import scaling_tables
from ajest import Batch, score
from ajest.runtime import distributed
from ajest.runtime.seeding import Streams, generator
from ajest.selection.catalogue import ARMS
from ajest.selection.flow import Networks
from ajest.tasks import Task
from ajest.tasks.images.setup import image_task
from ajest.tasks.tree.task import TreeTask
from ajest.training.optimizer import OptimizedNetwork
from ajest.training.recipe import LearningRate, Recipe
from ajest.training.trainer import Trainer
from cluster import Calibration, predicted

TASKS = ("tree", "images")
PROCESSES = (1, 2, 4)
PROBES = 24


def task_of(name: str) -> tuple[Task, Recipe]:
    if name == "tree":
        return TreeTask(), Recipe()
    task = image_task(("shapes:512",), ("shapes:256",), references=128)
    return task, Recipe(40, LearningRate(0.01, 0), ema_widths=(0.1, 0.05), not_finite="zero")


def trainer_of(name: str, arm: str) -> Trainer:
    task, recipe = task_of(name)
    guide = task.network("guide", 1).eval().requires_grad_(False)
    chosen = replace(ARMS[arm], chunks=min(ARMS[arm].chunks, 4 if name == "images" else 16))
    return Trainer(task.source("cpu"), Networks(task.network("learner", 0), guide), recipe, chosen, Streams(0))


def median(work: Callable[[], object], rounds: int, warmup: int = 2) -> float:
    times = []
    for turn in range(rounds + warmup):
        if dist.is_initialized():
            dist.barrier()
        start = time.perf_counter()
        work()
        if turn >= warmup:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def update(network: OptimizedNetwork, batch: Batch, total: int | None = None) -> None:
    """A gradient step on these, so small that it changes nothing."""
    _, finite = network.gradients(batch, 1e-6, total=total)
    network.step(bool(finite))


def lines(name: str, rounds: int) -> dict[str, list[float]]:
    """For each phase its fixed seconds and its seconds an example, on one process."""
    found: dict[str, list[float]] = {}
    sizes = {"tree": (4096, 2048, 1024, 410, 205), "images": (40, 20, 10, 5, 2)}[name]
    t = trainer_of(name, "ajest")
    for _ in range(3):
        t.step()
    whole = t.selector.source.draw(sizes[0], generator(0, "draw", 0))
    done = t.selector.source.complete(whole)
    reference = t.selector.networks.reference
    assert reference is not None
    phases: dict[str, Callable[[int], object]] = {
        "target": lambda n: t.selector.source.complete(whole[:n]),
        "learner scoring": lambda n: score(t.network, done[:n]),
        "reference scoring": lambda n: score(reference, done[:n]),
        "update": lambda n: update(t.learner, done[:n]),
    }
    for phase, work in phases.items():
        times = [median(partial(work, n), rounds) for n in sizes]
        # Weighted by size, so that the large parts, which make a step, are met best.
        slope, fixed = np.polyfit(sizes, times, 1, w=np.sqrt(sizes))
        found[phase] = [max(0.0, float(fixed)), float(slope)]
    drawn: dict[str, list[float]] = {}
    for turn in range(rounds + 2):
        step = t.step()
        if turn >= 2:
            for phase in ("draw", "select", "ema"):
                drawn.setdefault(phase, []).append(step.seconds[phase])
    return found | {phase: [statistics.median(v), 0.0] for phase, v in drawn.items()}


def worker(name: str, rounds: int) -> dict[str, Any]:
    """What each of several processes measures together with the others."""
    torch.set_num_threads(1)
    t = trainer_of(name, "baseline")
    network, count = t.network, {"tree": 1024, "images": 4}[name]
    part = t.selector.source.complete(t.selector.source.draw(count, generator(0, "draw", 0)))

    def probe() -> None:
        score(network, part)

    size, few = t.recipe.super_batch, dist.get_world_size()
    scores = torch.zeros(size)[distributed.rank_slice(size)]
    mine = part[:1]
    alone = OptimizedNetwork(t.network, t.recipe)
    alone._module = t.network  # averages with nobody
    messages = {
        "scores": median(lambda: distributed.gather(scores, size), 25),
        "times": median(lambda: distributed.largest([0.0] * 7), 25),
    }
    # Beside the gradients, losses are sent, and the hooks of the backward pass take their time.
    together, apart = (median(partial(update, o, mine, few), 25) for o in (t.learner, alone))
    found: dict[str, Any] = {"probe": _together(probe), "messages": messages | {"gradients": together - apart}}
    found["steps"] = {arm: median(trainer_of(name, arm).step, rounds, 3) for arm in ("baseline", "ajest")}
    return found


def _together(work: Callable[[], object]) -> list[list[float]]:
    """Seconds of each round and process, all at work at once."""
    times = []
    for _ in range(PROBES + 2):
        dist.barrier()
        start = time.perf_counter()
        work()
        mine = torch.tensor([time.perf_counter() - start])
        times.append(distributed.gather(mine, dist.get_world_size()).tolist())
    return times[2:]


def measure(out: Path, rounds: int) -> None:
    torch.set_num_threads(1)
    found: dict[str, Any] = {"torch": torch.__version__, "cores": os.cpu_count()}
    for name in TASKS:
        found[name] = {"phases": lines(name, rounds), "super_batch": task_of(name)[1].super_batch}
        for processes in PROCESSES:
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
            command += [__file__, "worker", name, "--rounds", str(rounds)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            line = next((x for x in done.stdout.splitlines() if x.startswith("{")), None)
            if line is None:
                raise SystemExit(done.stderr[-3000:])
            found[name][str(processes)] = json.loads(line)
            print(f"{name}, {processes} processes: {found[name][str(processes)]['steps']}", flush=True)
    out.write_text(json.dumps(found, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("measure", "tables", "figure", "worker"))
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("scaling.json"))
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    if options.verb == "figure":
        scaling_tables.figure(Path(options.paths[0]))
    elif options.verb == "measure":
        measure(options.out, options.rounds)
    elif options.verb == "worker":
        with distributed.joined():
            said = worker(options.paths[0], options.rounds)
            if distributed.rank() == 0:
                print(json.dumps(said), flush=True)
    else:
        measured = json.loads(Path(options.paths[0]).read_text())
        rows = {name: predicted(Calibration.of(measured[name]), measured[name], PROCESSES) for name in TASKS}
        found = [scaling_tables.facts(), scaling_tables.checks(rows)]
        found += [part() for part in (scaling_tables.steps, scaling_tables.trainings, scaling_tables.traffic)]
        print("\n\n".join([*found, scaling_tables.rates()]))


if __name__ == "__main__":
    main()
