"""Does memory stay flat over hours? One process trains AJEST on the tree, saves, samples and measures in turns.

    .venv/bin/python benchmarks/soak.py --minutes 120 --out runs/soak

Resident memory is noted every few seconds in OUT/memory.jsonl. Afterwards the medians of the first and the last quarter
are compared, without the first ten minutes, in which caches fill; more than 2 % apart ends with exit code 1.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ajest.selection.catalogue import ARMS
from ajest.storage import jsonl
from ajest.tasks.base import Guided, Measurement
from ajest.tasks.tree.task import TreeTask
from ajest.training.networks import load_network
from ajest.training.recipe import Recipe
from ajest.training.run import execute, execution
from ajest.training.run_folder import RunConfig
from ajest.training.schedule import Schedule

SETTLE = 600.0  # seconds
SAMPLED_EVERY = 100  # steps
WANTED = 0.02


@dataclass(frozen=True)
class Moment:
    """Seconds since the start, steps taken, samplings done, resident bytes."""

    seconds: float
    steps: int
    sampled: int
    resident: int


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def soak(folder: Path, seconds: float, every: float) -> list[Moment]:
    """Train and sample for so long, memory noted as it goes."""
    task, cache = TreeTask(), folder / "truth"
    execute(folder / "guide", RunConfig(task, "guide", Recipe(), ARMS["baseline"], 0, 256), Schedule())
    guide, _ = load_network(folder / "guide")
    endless = RunConfig(task, "learner", Recipe(), ARMS["ajest"], 0, 10**9, "../guide")
    moments: list[Moment] = []
    start = noted = time.monotonic()
    sampled = 0
    for trainer in execution(folder / "run", endless, Schedule({"steps": tuple(range(500, 10**6, 500))})):
        if trainer.steps_taken and trainer.steps_taken % SAMPLED_EVERY == 0:
            task.evaluate(Guided(trainer.ema[0.01], guide, 2.0), Measurement(4096, 0, cache, "cpu", sampled % 10 == 0))
            sampled += 1
        now = time.monotonic()
        if now - noted >= every:
            noted = now
            moments.append(Moment(now - start, trainer.steps_taken, sampled, resident()))
            jsonl.append(folder / "memory.jsonl", vars(moments[-1]))
        if now - start >= seconds:
            break
    return moments


def growth(moments: list[Moment]) -> float:
    """Median memory of the last quarter over that of the first, less 1, after everything has settled."""
    settled = [m.resident for m in moments if m.seconds >= min(SETTLE, moments[-1].seconds / 4)]
    quarter = max(1, len(settled) // 4)
    return statistics.median(settled[-quarter:]) / statistics.median(settled[:quarter]) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--every", type=float, default=10, help="seconds between looks at the memory")
    parser.add_argument("--out", type=Path, default=Path("runs/soak"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    moments = soak(options.out, options.minutes * 60, options.every)
    grown, last = growth(moments), moments[-1]
    mega = [m.resident / 1e6 for m in moments]
    print(
        f"{last.seconds / 60:.0f} minutes, {last.steps:,} steps, sampled {last.sampled:,} times; resident memory "
        f"{min(mega):.0f} to {max(mega):.0f} MB, {grown:+.2%} from the first quarter to the last "
        f"(wanted: within {WANTED:.0%})"
    )
    raise SystemExit(abs(grown) > WANTED)


if __name__ == "__main__":
    main()
