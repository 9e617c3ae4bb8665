"""What looking losses up and drawing by them costs on one core, beside the steps that they are part of.

    python benchmarks/choosing.py [--rounds 60] > table.md

Times are of the processor, so other processes count as far as they take caches. Each call has data of its own, since
on the same numbers a processor soon knows the outcome of every comparison. "After a step" puts a training step before
each call, as in training, where code and data have left the caches in between.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from ajest import Scores, keep_freed_memory, select
from ajest.diffusion.batch import Batch
from ajest.runtime.seeding import Streams
from ajest.selection.catalogue import ARMS
from ajest.selection.flow import Networks
from ajest.selection.memory import BINS, LossMemory, LossTracker, bin_of
from ajest.tasks.tree.task import TreeTask
from ajest.training.recipe import Recipe
from ajest.training.trainer import Trainer
from straightforward import hard_by_strata
from timing import machine

SUPER_BATCH, KEPT = 4096, 819
LEARNED = 400  # batches of kept examples that the memory has seen
WANTED = {"recall": 0.5, "hard": 0.8}  # ms

Work = Callable[[], object]


def median_ms(contestants: Mapping[str, Work], rounds: int, before: Work | None = None) -> dict[str, float]:
    """Median milliseconds of the processor, in turns; `before` comes before each and is not timed."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 5):
        for name, work in contestants.items():
            if before is not None:
                before()
            start = time.thread_time()
            work()
            spent = time.thread_time() - start
            if turn >= 5:
                times[name].append(1e3 * spent)
    return {name: statistics.median(t) for name, t in times.items()}


def pieces(batches: list[Batch]) -> dict[str, tuple[str, Work]]:
    """What is timed: (what it does, does it), each call on the next of the batches."""
    tracker = LossTracker(LossMemory("both"))
    numbers = torch.Generator().manual_seed(0)
    for i in range(LEARNED):
        trained = batches[i % len(batches)][torch.randperm(SUPER_BATCH, generator=numbers)[:KEPT]]
        tracker.learn(trained, torch.rand(KEPT, generator=numbers))
    table = torch.rand((int(max(batch.id.max() for batch in batches)) + 1) * BINS, generator=numbers)
    reference = torch.rand(SUPER_BATCH, generator=numbers)
    scores = [Scores(torch.rand(SUPER_BATCH, generator=numbers).exp(), reference, b.sigma) for b in batches]
    kept = [batch[:KEPT] for batch in batches]
    turn = itertools.count()

    def each(values: list) -> Callable:
        """The next of the values at each call."""
        return lambda: values[next(turn) % len(values)]

    batch, score, few = each(batches), each(scores), each(kept)
    losses = torch.rand(KEPT, generator=numbers)

    def dense() -> torch.Tensor:
        asked = batch()
        return table[asked.id * BINS + bin_of(asked.sigma)]

    return {
        "recall": (f"look up {SUPER_BATCH:,} losses by example and noise level (`recall`)",
                   lambda: tracker.recall(batch())),
        "dense": ("the same from a table with room for all, nothing learned", dense),
        "learn": (f"learn {KEPT} losses", lambda: tracker.learn(few(), losses)),
        "hard": (f"draw {KEPT} by z-scores within 16 strata (`hard`)",
                 lambda: select(score(), KEPT, "hard", numbers)),
        "by strata": ("the same stratum by stratum, with `torch.multinomial`",
                      lambda: hard_by_strata(score(), KEPT, 16, numbers)),
        "one stratum": ("draw by z-scores in one stratum",
                        lambda: select(score(), KEPT, "hard", numbers, strata=1)),
        "jest": (f"draw {KEPT} in 16 chunks (`ajest`)", lambda: select(score(), KEPT, "jest", numbers)),
    }  # fmt: skip


def trainer(arm: str) -> Trainer:
    task = TreeTask()
    networks = Networks(task.network("learner", 0), task.network("guide", 1).eval())
    return Trainer(task.source("cpu"), networks, Recipe(), ARMS[arm], Streams(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    keep_freed_memory()
    torch.set_num_threads(1)
    source, random = TreeTask().source("cpu"), trainer("random")
    found = pieces([source.draw(SUPER_BATCH, torch.Generator().manual_seed(i)) for i in range(64)])
    works = {name: work for name, (_, work) in found.items()}
    hot, cold = median_ms(works, rounds), median_ms(works, rounds, random.step)
    print(f"{machine('cpu')}\n\n| what | again and again | after a step | wanted |\n|---|--:|--:|--:|")
    for name, (what, _) in found.items():
        wanted = f"{WANTED[name]} ms" if name in WANTED else ""
        print(f"| {what} | {hot[name]:.2f} ms | {cold[name]:.2f} ms | {wanted} |")
    steps = median_ms({arm: trainer(arm).step for arm in ("baseline", "random", "recall", "hard", "ajest")}, rounds)
    print("\n| a step of | processor time | a step of `random` = 1 |\n|---|--:|--:|")
    for arm, ms in steps.items():
        print(f"| `{arm}` | {ms:.1f} ms | {ms / steps['random']:.2f} |")


if __name__ == "__main__":
    main()
