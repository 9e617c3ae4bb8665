"""How long a small bench takes if its workers are forked from a process that has imported what they need, and if each
begins anew, in turns.

    python benchmarks/workers.py [TIMES]

A bench before them imports what this process itself needs, and begins the process that workers are forked from.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from ajest.bench.plan.config import BenchConfig
from ajest.bench.run.bench import run_bench
from ajest.jobs import pool
from ajest.jobs.local import Local
from ajest.selection.catalogue import arms_named
from ajest.tasks.tree.task import TreeTask
from ajest.training.recipe import LearningRate, Recipe


def small_bench() -> BenchConfig:
    """Two arms on two seeds, of 40 small steps each."""
    return BenchConfig(
        task=TreeTask(hidden=16, guide_hidden=8, layers=2, sampler_steps=8),
        recipe=Recipe(super_batch=256, learning_rate=LearningRate(decay=16)),
        arms=arms_named(("baseline", "random")),
        seeds=(0, 1),
        iterations=40,
        guide_iterations=8,
        n_final=512,
        n_curve=256,
        calibration_rounds=3,
    )


def seconds() -> float:
    """Of one small bench."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        run_bench(Path(folder) / "bench", small_bench(), Local())
        return time.perf_counter() - begun


def anew(*_: Any) -> Any:
    """How processes start that each import all for themselves."""
    return multiprocessing.get_context("spawn")


def main(times: int) -> None:
    seconds()  # what this process itself imports and keeps
    print("| bench | forked, s | each anew, s | ratio |")
    print("| --- | --: | --: | --: |")
    for number in range(1, times + 1):
        forked = seconds()
        with mock.patch.object(pool, "_context", anew):
            each = seconds()
        print(f"| {number} | {forked:.1f} | {each:.1f} | {forked / each:.2f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
