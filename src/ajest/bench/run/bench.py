"""Running a bench: guide, calibration, then every arm on every seed, each resumable, then late evaluations."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ajest.bench.plan.config import BenchConfig, Costs, run_folder
from ajest.errors import Corrupt, UserError
from ajest.jobs.base import Launch
from ajest.jobs.local import Local
from ajest.jobs.pool import Report, sayer
from ajest.jobs.progress import board
from ajest.runtime.threads import configure_threads
from ajest.storage.checkpoint import sweep
from ajest.storage.lock import locked
from ajest.tasks.base import Measurement
from ajest.training.networks import Guidance
from ajest.training.run import execute
from ajest.training.run_folder import claim_folder, read_status, snapshots
from ajest.training.schedule import Schedule, clocks
from ajest.training.trainer import Trainer

from .calibration import agree_on_threads, agreed_threads, calibrate, calibrated_costs
from .disk import check_room, claims, give_back
from .evaluation import evaluate_snapshot
from .reached import common_amounts, curve_points, reached
from .real_data import measure_real_data


@dataclass(frozen=True)
class Job:
    """One piece of work for one process: what all runs wait for ("first"), the truth of a seed ("truth"), a whole run
    ("run"), or late evaluations of a run ("read")."""

    name: str
    kind: str
    root: Path
    config: BenchConfig
    costs: Costs
    device: str
    arm: int = 0
    seed: int = 0
    evaluations: tuple[tuple[int, int], ...] = ()  # (step, n)
    trackers: tuple[str, ...] = ()


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
        launch: where runs are made; None is on this machine, one a core on a CPU and one on a GPU.
        device: "cpu" or "cuda".
        trackers: that every run is told to, see `trackers.TRACKERS`.

    Raises:
        UserError: the folder holds another bench, is in use or cannot be written to, or
            runs failed for good (the others are done).
    """
    launch = Local() if launch is None else launch
    say = sayer()
    with locked(root):
        sweep(root, idle=60.0)  # a cluster's jobs may be at work
        claim_folder(root, config, "bench.json")
        check_room(root, claims(root, config), launch.count(device), say)
        # A bench that goes on does so with the threads it was timed with, however it is launched now.
        threads = agreed_threads(root) or launch.threads(device)

        def work(title: str, jobs: list[Job], prices: dict[str, float]) -> None:
            with board(title, prices) as lines:
                launch.work(_do, jobs, device, threads, lines, say, root)

        common: dict[str, Any] = {"root": root.resolve(), "config": config, "device": device, "trackers": trackers}
        first = Job("what all runs need", "first", costs={}, **common)
        if launch.near:
            configure_threads(threads)
            prepare(first, say)
        else:
            work(f"preparing {root}", [first], {first.name: 1.0})
        threads = agreed_threads(root) or threads
        common["costs"] = calibrated_costs(root)
        sizes = {config.n_final, config.n_curve}
        truth = [Job(f"what evaluations share, seed {s}", "truth", seed=s, **common) for s in config.seeds]
        runs = [
            Job(f"{arm.name}, seed {seed}", "run", arm=i, seed=seed, **common)
            for seed in config.seeds
            for i, arm in enumerate(config.arms)
        ]
        prices = {j.name: 0.02 * sum(sizes) / 1000 for j in truth} | {j.name: _price(j) for j in runs}
        with board(f"{len(config.arms)} arms x {len(config.seeds)} seeds in {root}", prices) as lines:
            launch.work(_do, truth, device, threads, lines, say, root)
            launch.work(_do, runs, device, threads, lines, say, root)
        late = list(_late_jobs(common, config, root))
        work("evaluating at equal budgets", late, {j.name: float(len(j.evaluations)) for j in late})
        give_back(root, config, common["costs"])


def prepare(job: Job, say: Callable[[str], None]) -> None:
    """What all runs wait for: how many threads each has, the references, the guide's own quality, and what every kind
    of step costs."""
    root, config = job.root, job.config
    configure_threads(agree_on_threads(root, config, job.device, torch.get_num_threads(), say))
    train_references(root, config, job.device, say)
    guide, steps = root / "guide", config.guide_iterations
    evaluate_snapshot(guide, steps, (1.0,), config.n_curve, root / "truth", device=job.device)
    say("timing every kind of step")
    calibrate(root, config, job.device)


def train_references(root: Path, config: BenchConfig, device: str, say: Callable[[str], None]) -> None:
    """Train the guide, and the strong reference if an arm asks for one, unless they are there."""
    wanted = {"guide": (config.guide(), config.guide_schedule())}
    if any(arm.reference == "strong" for arm in config.arms):
        wanted["strong"] = config.strong(), Schedule()
    for name, (run, schedule) in wanted.items():
        say(f"training the {name}" if name == "guide" else "training the strong reference")
        if execute(root / name, run, schedule, device, warn=say) != "done":
            raise UserError(f"the {name}: {read_status(root / name)['why']}")


def _price(job: Job) -> float:
    """Seconds that a run will take, for the display."""
    arm, config = job.config.arms[job.arm], job.config
    step = max(sum(job.costs[kind.label].values()) for kind in arm.kinds())
    train = config.iterations * step if config.end == "steps" else config.time(job.costs)
    return 2 * train  # its evaluation takes about as long again


def _late_jobs(common: dict[str, Any], config: BenchConfig, root: Path) -> list[Job]:
    """Evaluations at budgets whose amount is known only when all runs are there."""
    common_to_all = common_amounts(root, config)
    jobs = []
    for seed in config.seeds:
        for i, arm in enumerate(config.arms):
            found = reached(run_folder(root, arm.name, seed))
            wanted = {
                (found[clock][amount], config.n_of(clock))
                for clock, amount in common_to_all.items()
                if amount in found[clock]
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
    if job.kind == "first":
        prepare(job, complaints.append)
        return []
    if job.kind == "truth":
        for n in sorted({config.n_curve, config.n_final}):
            config.task.prepare(Measurement(n, job.seed, cache, job.device))
            if job.seed == config.seeds[0]:
                measure_real_data(root, config, n, job.device)
        return complaints

    arm = config.arms[job.arm]
    folder = run_folder(root, arm.name, job.seed)
    evaluations = job.evaluations
    if job.kind == "run":
        _train(job, folder, report, complaints.append)
        evaluations = _early_evaluations(config, folder, job.costs)
    end = read_status(folder).get("step")
    history = set(curve_points(reached(folder), config, job.costs)) if job.seed == config.seeds[0] else set()
    for i, (step, n) in enumerate(evaluations):
        report("evaluating", i + 1, len(evaluations) + 1, f"step {step}")
        keep = (step == end and n == config.n_final) or (step in history and n == config.n_curve)
        weights = (1.0, config.weight)
        try:
            evaluate_snapshot(
                folder, step, weights, n, cache, Guidance(root / "guide"), device=job.device, keep_tensors=keep,
                say=complaints.append,
            )  # fmt: skip
        except Corrupt as error:
            complaints.append(f"{error}; delete {folder} and start again to make it anew")
    return complaints


def _train(job: Job, folder: Path, report: Report, warn: Callable[[str], None]) -> None:
    config = job.config
    began, first = time.monotonic(), None
    schedule = replace(config.schedule(job.costs), trackers=job.trackers)

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
    if execute(folder, run, schedule, job.device, progress, warn) == "diverged":
        warn(f"diverged: {read_status(folder)['why']}")


def _early_evaluations(config: BenchConfig, folder: Path, costs: Costs) -> tuple[tuple[int, int], ...]:
    """What can be evaluated as soon as a run is done: its learning curve, its end, and budgets that all runs reach."""
    stored, found = snapshots(folder), reached(folder)
    wanted = {(step, config.n_curve) for step in curve_points(found, config, costs) if step is not None}
    last = read_status(folder).get("step")
    if last in stored:
        wanted.add((last, config.n_final))
    for clock, amounts in config.amounts(costs).items():
        at = found[clock].get(max(amounts))
        if clock != "seconds" and at is not None:  # how much of measured time all runs reach, only their ends tell
            wanted.add((at, config.n_of(clock)))
    return tuple(sorted(wanted))
