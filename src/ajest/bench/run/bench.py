"""Running a bench: guide, calibration, then every arm on every seed, each resumable, then late evaluations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ajest.bench.plan.config import BenchConfig
from ajest.jobs.base import Launch
from ajest.jobs.local import Local
from ajest.jobs.pool import sayer
from ajest.jobs.progress import board
from ajest.runtime.threads import configure_threads
from ajest.storage.checkpoint import sweep
from ajest.storage.lock import locked
from ajest.training.run_folder import claim_folder

from .calibration import agreed_threads, calibrated_costs
from .disk import check_room, claims, give_back
from .jobs import AtWork, OfRun, OfSeed, Whole, evaluate_late, late_jobs, prepare, prepare_all, prepare_seed, price, run
from .memory import settle_micro_batch


def run_bench(
    root: Path,
    config: BenchConfig,
    launch: Launch | None = None,
    device: str = "cpu",
    trackers: tuple[str, ...] = (),
) -> None:
    """Train and evaluate everything that is not there yet.

    Args:
        root: the bench's folder.
        config: what to compare.
        launch: where runs are made; None is on this machine, one a core on a CPU and one a card on CUDA.
        device: "cpu" or "cuda".
        trackers: that every run is told to, see `trackers.TRACKERS`.

    Raises:
        UserError: the folder holds another bench, is in use or cannot be written to; the device's memory is too small
            or the machine's cards differ; or runs failed for good (the others are done).
    """
    launch = Local() if launch is None else launch
    say = sayer()
    with locked(root):
        sweep(root, idle=60.0)  # a cluster's jobs may be at work
        config = settle_micro_batch(root, config, launch.room(device), say)
        claim_folder(root, config, "bench.json")
        check_room(root, claims(root, config), launch.count(device), say)
        # A bench that goes on does so with the threads it was timed with, however it is launched now.
        threads = agreed_threads(root) or launch.threads(device)
        bench = AtWork(root.resolve(), config, device, trackers)
        if launch.near(device):
            configure_threads(threads)
            prepare_all(bench, say, say)
        else:
            first = Whole("what all runs need", bench)
            with board(f"preparing {root}", {first.name: 1.0}) as lines:
                launch.work(prepare, [first], device, threads, lines, say, root)
        threads = agreed_threads(root) or threads
        bench = replace(bench, costs=calibrated_costs(root))
        seeds = [OfSeed(f"what evaluations share, seed {seed}", bench, seed) for seed in config.seeds]
        runs = [OfRun.of(bench, arm, seed) for seed in config.seeds for arm in range(len(config.arms))]
        shared = 0.02 * sum({config.n_final, config.n_curve}) / 1000
        prices = {job.name: shared for job in seeds} | {job.name: price(job) for job in runs}
        with board(f"{len(config.arms)} arms x {len(config.seeds)} seeds in {root}", prices) as lines:
            launch.work(prepare_seed, seeds, device, threads, lines, say, root)
            launch.work(run, runs, device, threads, lines, say, root)
        late = late_jobs(bench)
        with board("evaluating at equal budgets", {job.name: float(len(job.evaluations)) for job in late}) as lines:
            launch.work(evaluate_late, late, device, threads, lines, say, root)
        give_back(root, config, bench.costs)
