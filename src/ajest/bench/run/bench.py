"""Running a bench: guide, calibration, learning rates, then every arm on every seed, then late evaluations; and again
with more seeds, where these are added until all is decided. Each is resumable."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import ceil
from pathlib import Path

from ajest.bench.plan.config import BenchConfig
from ajest.jobs.base import Launch
from ajest.jobs.local import Local
from ajest.jobs.pool import sayer
from ajest.jobs.progress import board
from ajest.runtime.threads import configure_threads
from ajest.storage.checkpoint import sweep
from ajest.storage.lock import locked
from ajest.training.run_folder import claim_folder, read_status
from ajest.training.trackers import Tracking

from .calibration import agreed_threads, calibrated_costs
from .disk import check_room, claims, give_back
from .jobs import (
    AtWork,
    OfRun,
    OfSeed,
    Say,
    Whole,
    evaluate_late,
    late_jobs,
    prepare,
    prepare_all,
    prepare_seed,
    price,
    run,
)
from .memory import settle_micro_batch
from .stages import enter, following, stage_of
from .tuning import borrowed, keep_tuned, tune


def run_bench(
    root: Path,
    config: BenchConfig,
    launch: Launch | None = None,
    device: str = "cpu",
    tracking: Tracking | None = None,
    decided: Callable[[Path], bool] = lambda root: False,
    rates: Path | None = None,
) -> None:
    """Train and evaluate everything that is not there yet.

    Args:
        root: the bench's folder.
        config: what to compare.
        launch: where runs are made; None is on this machine, one a core on a CPU and one a card on CUDA.
        device: "cpu" or "cuda".
        tracking: who is told of every run, beside its ledger.
        decided: whether nothing is open of what the folder has, for a bench that adds seeds until then.
        rates: tuning.json of another bench, whose learning rates a bench that asks for tuned ones takes.

    Raises:
        UserError: the folder holds another bench, is in use or cannot be written to; the device's memory is too small
            or the machine's cards differ; or runs failed for good (the others are done).
    """
    launch = Local() if launch is None else launch
    say, began = sayer(), time.monotonic()
    with locked(root):
        tuned = None if rates is None else borrowed(root, config, rates)  # before the folder is anybody's
        config = settle_micro_batch(root, config, launch.room(device), say)
        claim_folder(root, config, "bench.json")
        sweep(root, idle=60.0)  # a cluster's jobs may be at work
        if tuned is not None:
            keep_tuned(root, tuned)
        stage = stage_of(root, config)
        before = stage.seconds
        check_room(root, claims(root, config.with_seeds(stage.seeds)), launch.count(device), say)
        # A bench that goes on does so with the threads it was timed with, however it is launched now.
        threads = agreed_threads(root) or launch.threads(device)
        bench = AtWork(root.resolve(), config, device, Tracking() if tracking is None else tracking)
        if launch.near(device):
            configure_threads(threads)
            prepare_all(bench, say, say)
        else:
            first = Whole("what all runs need", bench)
            with board(f"preparing {root}", {first.name: 1.0}) as lines:
                launch.work(prepare, [first], device, threads, lines, say, root)
        threads = agreed_threads(root) or threads
        bench = replace(bench, costs=calibrated_costs(root))
        bench = replace(bench, config=tune(bench, launch, threads, say))
        made, at_once = 0, launch.count(device)
        while made < stage.seeds:
            bench = replace(bench, config=bench.config.with_seeds(stage.seeds))
            if made:
                check_room(root, claims(root, bench.config), at_once, say)
            pace = _make(bench, launch, threads, say)
            made = stage.seeds
            if stage.ended is None:
                spent = before + time.monotonic() - began
                timed = replace(stage, seconds=spent, pace=stage.pace if pace is None else pace)
                stage = following(config, timed, decided(root), partial(_priced, bench, at_once))
                enter(root, stage)
        give_back(root, bench.config, bench.costs)


def _make(bench: AtWork, launch: Launch, threads: int, say: Say) -> float | None:
    """Train and evaluate what is not there yet of all seeds; returns how many times as long it took as it was priced,
    None where no run was made."""
    root, config, device = bench.root, bench.config, bench.device
    seeds = [OfSeed(f"what evaluations share, seed {seed}", bench, seed) for seed in config.seeds]
    runs = [OfRun.of(bench, arm, seed) for seed in config.seeds for arm in range(len(config.arms))]
    shared = 0.02 * sum({config.n_final, config.n_curve}) / 1000
    prices = {job.name: shared for job in seeds} | {job.name: price(job) for job in runs}
    fresh, began = sum(not read_status(job.folder) for job in runs), time.monotonic()
    with board(f"{len(config.arms)} arms x {len(config.seeds)} seeds in {root}", prices) as lines:
        launch.work(prepare_seed, seeds, device, threads, lines, say, root)
        launch.work(run, runs, device, threads, lines, say, root)
    late = late_jobs(bench)
    with board("evaluating at equal budgets", {job.name: float(len(job.evaluations)) for job in late}) as lines:
        launch.work(evaluate_late, late, device, threads, lines, say, root)
    priced = _priced(bench, launch.count(device), fresh / len(config.arms))
    return (time.monotonic() - began) / priced if fresh else None


def _priced(bench: AtWork, at_once: int, seeds: float) -> float:
    """Seconds that all arms on so many seeds take by their calibrated costs."""
    arms = len(bench.config.arms)
    mean = sum(price(OfRun.of(bench, arm, bench.config.seeds[0])) for arm in range(arms)) / arms
    return mean * ceil(seeds * arms / at_once)
