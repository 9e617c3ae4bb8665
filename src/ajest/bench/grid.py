"""Running a bench: guide, calibration, then every arm on every seed, each resumable, then the readings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import Corrupt, UserError
from ..folders import adopt, locked, read_status, snapshots
from ..runs import Schedule, clocks, execute
from ..training import Trainer
from .calibration import calibrate, calibrated_threads
from .evaluation import common_budgets, curve_points, evaluate_snapshot, floor_of, reached
from .plan import BenchConfig, Costs, run_folder
from .pool import Report, cores, default_workers, limited, sayer, settle, work
from .progress import board


@dataclass(frozen=True)
class Job:
    """One piece of work for one process: the truth of a seed, a whole run, or late evaluations of a run."""

    name: str
    kind: str
    root: Path
    config: BenchConfig
    costs: Costs
    device: str
    arm: int = 0
    seed: int = 0
    evaluations: tuple[tuple[int, int], ...] = ()  # (step, n)


def run_bench(root: Path, config: BenchConfig, workers: int | None = None, device: str = "cpu") -> None:
    """Train and evaluate everything that is not there yet.

    Args:
        root: the bench's folder.
        config: what to compare.
        workers: runs at the same time; None is one a core on a CPU and one on a GPU.
        device: "cpu" or "cuda".

    Raises:
        UserError: the folder holds another bench, is in use or cannot be written to, or a worker was killed.
    """
    workers = default_workers(device) if workers is None else workers
    if workers < 1:
        raise UserError(f"workers must be at least 1, not {workers}")
    with locked(root):
        adopt(root, config, "bench.json")
        # A bench that goes on does so with the threads it was timed with, whatever the number of workers now.
        threads = calibrated_threads(root) or limited(max(1, cores() // workers))
        settle(threads)
        say = sayer()
        train_references(root, config, device, say)
        evaluate_snapshot(
            root / "guide", config.guide_iterations, (1.0,), config.n_curve, root / "truth", device=device
        )
        say("timing every kind of step")
        costs = calibrate(root, config, device)

        common: dict[str, Any] = {"root": root, "config": config, "costs": costs, "device": device}
        sizes = {config.n_final, config.n_curve}
        truth = [Job(f"what evaluations share, seed {s}", "truth", seed=s, **common) for s in config.seeds]
        runs = [
            Job(f"{arm.name}, seed {seed}", "run", arm=i, seed=seed, **common)
            for seed in config.seeds
            for i, arm in enumerate(config.arms)
        ]
        prices = {j.name: 0.02 * sum(sizes) / 1000 for j in truth} | {j.name: _price(j) for j in runs}
        with board(f"{len(config.arms)} arms x {len(config.seeds)} seeds in {root}", prices) as lines:
            work(_do, truth, workers, threads, lines, say)
            work(_do, runs, workers, threads, lines, say)
        late = list(_late_jobs(common, config, root))
        with board("evaluating at equal budgets", {j.name: float(len(j.evaluations)) for j in late}) as lines:
            work(_do, late, workers, threads, lines, say)


def train_references(root: Path, config: BenchConfig, device: str, say: Callable[[str], None]) -> None:
    """Train the guide, and the strong reference if an arm asks for one, unless they are there."""
    wanted = {"guide": config.guide}
    if any(arm.reference == "strong" for arm in config.arms):
        wanted["strong"] = config.strong
    for name, run in wanted.items():
        say(f"training the {name}" if name == "guide" else "training the strong reference")
        if execute(root / name, run(), Schedule(), device, complain=say) != "done":
            raise UserError(f"the {name}: {read_status(root / name)['why']}")


def _price(job: Job) -> float:
    """Seconds that a run will take, for the display."""
    arm, config = job.config.arms[job.arm], job.config
    step = max(sum(job.costs[kind].values()) for kind in arm.kinds())
    train = config.iterations * step if config.end == "steps" else config.time(job.costs)
    return 2 * train  # its evaluation takes about as long again


def _late_jobs(common: dict[str, Any], config: BenchConfig, root: Path) -> list[Job]:
    """The readings whose budget is known only when all runs are there."""
    budgets = common_budgets(root, config)
    jobs = []
    for seed in config.seeds:
        for i, arm in enumerate(config.arms):
            found = reached(run_folder(root, arm.name, seed))
            wanted = {
                (found[clock][budget], config.n_of(clock))
                for clock, budget in budgets.items()
                if budget in found[clock]
            }
            if wanted:
                name = f"{arm.name}, seed {seed}"
                jobs.append(Job(name, "read", arm=i, seed=seed, evaluations=tuple(sorted(wanted)), **common))
    return jobs


def _do(job: Job, report: Report) -> list[str]:
    """A job, in a worker. Returns complaints worth showing."""
    complaints: list[str] = []
    config, root = job.config, job.root
    cache = root / "truth"
    if job.kind == "truth":
        for n in sorted({config.n_curve, config.n_final}):
            config.task.prepare(n, job.seed, cache, job.device)
            if job.seed == config.seeds[0]:
                floor_of(root, config, n, job.device)
        return complaints

    arm = config.arms[job.arm]
    folder = run_folder(root, arm.name, job.seed)
    evaluations = job.evaluations
    if job.kind == "run":
        _train(job, folder, report, complaints.append)
        evaluations = _early_evaluations(config, folder, job.costs)
    end = read_status(folder).get("step")
    history = set(curve_points(folder, config, job.costs)) if job.seed == config.seeds[0] else set()
    for i, (step, n) in enumerate(evaluations):
        report("evaluating", i + 1, len(evaluations) + 1, f"step {step}")
        keep = (step == end and n == config.n_final) or (step in history and n == config.n_curve)
        weights = (1.0, config.weight)
        try:
            evaluate_snapshot(folder, step, weights, n, cache, root / "guide", device=job.device, keep_tensors=keep)
        except Corrupt as error:
            complaints.append(f"{error}; delete {folder} and start again to make it anew")
    return complaints


def _train(job: Job, folder: Path, report: Report, complain: Callable[[str], None]) -> None:
    config = job.config
    began, first = time.monotonic(), None
    schedule = config.schedule(job.costs)

    def progress(step: int, trainer: Trainer) -> None:
        nonlocal began, first
        if first is None:
            began, first = time.monotonic(), step
            return
        rate = (step - first) / (time.monotonic() - began)
        done, total = float(step), float(config.iterations)
        if schedule.end is not None:
            clock, total = schedule.end
            done = min(total, clocks(trainer.ledger.facts(), step, job.costs)[clock])
        report("training", done, total, f"{rate:.3g} steps/s")

    run = config.run(config.arms[job.arm], job.seed)
    if execute(folder, run, schedule, job.device, progress, complain) == "diverged":
        complain(f"diverged: {read_status(folder)['why']}")


def _early_evaluations(config: BenchConfig, folder: Path, costs: Costs) -> tuple[tuple[int, int], ...]:
    """What can be evaluated as soon as a run is done: its learning curve, its end and equal samples."""
    stored = snapshots(folder)
    wanted = {(step, config.n_curve) for step in curve_points(folder, config, costs) if step is not None}
    last = read_status(folder).get("step")
    if last in stored:
        wanted.add((last, config.n_final))
    most = max(config.budgets(costs)["samples"])
    at = reached(folder)["samples"].get(most)
    if at is not None:
        wanted.add((at, config.n_final))
    return tuple(sorted(wanted))
