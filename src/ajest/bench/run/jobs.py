"""The jobs of a bench, each one function of one value that a worker can be sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ajest.bench.plan.config import BenchConfig, Costs, guide_folder, run_folder
from ajest.errors import Corrupt, UserError
from ajest.jobs.base import Report
from ajest.jobs.progress import plainly
from ajest.runtime.threads import configure_threads
from ajest.selection.arm import Arm
from ajest.tasks.base import Measurement
from ajest.training.run import execute
from ajest.training.run_folder import read_status, snapshots
from ajest.training.schedule import Schedule, clocks
from ajest.training.trackers import Tracking
from ajest.training.trainer import Trainer

from .calibration import agree_on_threads, calibrate
from .evaluation import each_guide, evaluate_snapshot
from .optimal_loss import measure_optimal_loss
from .reached import common_amounts, curve_points, reached
from .real_data import measure_real_data

Say = Callable[[str], None]


@dataclass(frozen=True, order=True)
class Due:
    """Evaluations to be made of a snapshot.

    Attributes:
        step: of the snapshot.
        n: samples.
        guides: with so many, from the first on.
        noise: number of the sampling noise, see `evaluate_snapshot`.
    """

    step: int
    n: int
    guides: int = 1
    noise: int = 0


Evaluations = tuple[Due, ...]


@dataclass(frozen=True)
class AtWork:
    """A bench as its jobs see it.

    Attributes:
        root, config, device: the bench, and where it computes.
        tracking: who is told of the runs.
        costs: calibrated; {} before that.
    """

    root: Path
    config: BenchConfig
    device: str
    tracking: Tracking = field(default_factory=Tracking)
    costs: Costs = field(default_factory=dict)

    @property
    def cache(self) -> Path:
        """Folder for what evaluations share."""
        return self.root / "truth"


@dataclass(frozen=True)
class Whole:
    """The job that all others wait for."""

    name: str
    bench: AtWork


@dataclass(frozen=True)
class OfSeed:
    """A job of one seed."""

    name: str
    bench: AtWork
    seed: int


@dataclass(frozen=True)
class OfRun:
    """A job of one run.

    Attributes:
        name: for people.
        bench: whose.
        position: of the arm in the bench.
        seed: of the run.
        evaluations: to be made, where they are known before.
    """

    name: str
    bench: AtWork
    position: int
    seed: int
    evaluations: Evaluations = ()

    @classmethod
    def of(cls, bench: AtWork, position: int, seed: int, evaluations: Evaluations = ()) -> OfRun:
        """Named after arm and seed."""
        return cls(f"{bench.config.arms[position].name}, seed {seed}", bench, position, seed, evaluations)

    @property
    def arm(self) -> Arm:
        return self.bench.config.arms[self.position]

    @property
    def folder(self) -> Path:
        return run_folder(self.bench.root, self.arm.name, self.seed)


def prepare(job: Whole, report: Report) -> list[str]:
    """`prepare_all`, in a worker."""
    complaints: list[str] = []
    prepare_all(job.bench, lambda what: report(what, 0.0, 1.0, ""), complaints.append)
    return complaints


def prepare_all(bench: AtWork, begin: Say, warn: Say) -> None:
    """What all runs wait for: how many threads each has, the references, the guides' own quality, and what every kind
    of step costs.

    Args:
        bench: whose.
        begin: told what is begun.
        warn: told complaints.
    """
    root, config = bench.root, bench.config
    configure_threads(agree_on_threads(root, config, bench.device, torch.get_num_threads(), warn))
    train_references(root, config, bench.device, begin, warn)
    for number in range(1, config.guides + 1):
        guide = guide_folder(root, number)
        evaluate_snapshot(guide, config.guide_iterations, (1.0,), config.n_curve, bench.cache, device=bench.device)
    begin("timing every kind of step")
    calibrate(root, config, bench.device)


def train_references(root: Path, config: BenchConfig, device: str, begin: Say, warn: Say) -> None:
    """Train the guides, and the strong reference if an arm asks for one, unless they are there; see `prepare_all`."""
    many = config.guides > 1
    wanted = [
        (
            f"guide {number} of {config.guides}" if many else "the guide",
            guide_folder(root, number),
            config.guide(number),
            config.guide_schedule(),
        )
        for number in range(1, config.guides + 1)
    ]
    if any(arm.reference == "strong" for arm in config.arms):
        wanted.append(("the strong reference", root / "strong", config.strong(), Schedule()))
    for name, folder, run, schedule in wanted:
        begin(f"training {name}")

        def progress(step: int, trainer: Trainer, what: str = f"training {name}", steps: int = run.iterations) -> None:
            plainly(f"{what}: {step:,} of {steps:,} steps")

        if execute(folder, run, schedule, device, progress, warn) != "done":
            raise UserError(f"{name}: {read_status(folder)['why']}")


def prepare_seed(job: OfSeed, report: Report) -> list[str]:
    """What the evaluations of a seed share; with the first seed, what real data and the best denoiser reach."""
    bench, config = job.bench, job.bench.config
    for n in sorted({config.n_curve, config.n_final}):
        config.task.prepare(Measurement(n, job.seed, bench.cache, bench.device))
        if job.seed == config.seeds[0]:
            measure_real_data(bench.root, config, n, bench.device)
    if job.seed == config.seeds[0]:
        measure_optimal_loss(bench.root, config, bench.device)
    return []


def run(job: OfRun, report: Report) -> list[str]:
    """Train a run, and evaluate what can be evaluated as soon as it is done."""
    complaints: list[str] = []
    train(job, report, complaints.append)
    _evaluate(replace(job, evaluations=_early_evaluations(job)), report, complaints.append)
    return complaints


def evaluate_late(job: OfRun, report: Report) -> list[str]:
    """Evaluate a run where its job says."""
    complaints: list[str] = []
    _evaluate(job, report, complaints.append)
    return complaints


def price(job: OfRun) -> float:
    """Seconds that a run will take, for the display."""
    config, costs = job.bench.config, job.bench.costs
    step = max(sum(costs[kind.label].values()) for kind in job.arm.kinds())
    train = config.iterations * step if config.end == "steps" else config.time(costs)
    return train * (1 + (1 + config.guides) / 2)  # evaluations with one guide, and without, take about as long again


def late_jobs(bench: AtWork) -> list[OfRun]:
    """Evaluations at budgets whose amount is known only when all runs are there."""
    config, jobs = bench.config, []
    amounts = common_amounts(bench.root, config)
    for seed in config.seeds:
        for position, arm in enumerate(config.arms):
            found = reached(run_folder(bench.root, arm.name, seed))
            wanted = {_due(config, c, found[c][amount]) for c, amount in amounts.items() if amount in found[c]}
            if wanted:
                jobs.append(OfRun.of(bench, position, seed, tuple(sorted(wanted))))
    return jobs


def _evaluate(job: OfRun, report: Report, warn: Say) -> None:
    bench, config, folder = job.bench, job.bench.config, job.folder
    end = read_status(folder).get("step")
    first = job.seed == config.seeds[0]
    history = set(curve_points(reached(folder), config, bench.costs)) if first else set()
    for i, due in enumerate(job.evaluations):
        step, n = due.step, due.n
        report("evaluating", i + 1, len(job.evaluations) + 1, f"step {step}")
        shown = (step == end and n == config.n_final) or (step in history and n == config.n_curve)
        for guidance, weights, cfg in each_guide(bench.root, config, due.guides, folder, step):
            keep = shown and not due.noise and guidance.run in (folder, guide_folder(bench.root, 1))
            asked = [weight for weight in weights if not due.noise or weight in config.headline_weights()]
            try:
                evaluate_snapshot(
                    folder, step, asked, n, bench.cache, guidance, device=bench.device, keep_tensors=keep,
                    noise=due.noise, cfg=cfg, say=warn,
                )  # fmt: skip
            except Corrupt as error:
                warn(f"{error}; delete {folder} and start again to make it anew")


def _due(config: BenchConfig, budget: str, step: int) -> Due:
    """What a budget asks of the snapshot taken there."""
    return Due(step, config.n_of(budget), config.guides_of(budget))


def train(job: OfRun, report: Report, warn: Say) -> None:
    """Train a run to its end."""
    bench, config = job.bench, job.bench.config
    began, first = time.monotonic(), None
    schedule = replace(config.schedule(bench.costs), tracking=bench.tracking)

    def progress(step: int, trainer: Trainer) -> None:
        nonlocal began, first
        if first is None:
            began, first = time.monotonic(), step
            return
        rate = (step - first) / (time.monotonic() - began)
        done, total = float(step), float(config.iterations)
        if schedule.end is not None:
            clock, total = schedule.end
            done = min(total, clocks(trainer.ledger.facts(), step, bench.costs)[clock])
        report("training", done, total, f"{rate:.3g} steps/s")

    planned = config.run(job.arm, job.seed)
    if execute(job.folder, planned, schedule, bench.device, progress, warn) == "diverged":
        warn(f"diverged: {read_status(job.folder)['why']}")


def _early_evaluations(job: OfRun) -> Evaluations:
    """What can be evaluated as soon as a run is done: its learning curve, its end, and budgets that all runs reach."""
    config, costs, folder = job.bench.config, job.bench.costs, job.folder
    stored, found = snapshots(folder), reached(folder)
    wanted = {Due(step, config.n_curve) for step in curve_points(found, config, costs) if step is not None}
    last = read_status(folder).get("step")
    if last in stored:
        wanted.add(_due(config, config.final_budget, last))
        if job.arm.name == config.baseline:
            wanted |= {Due(last, config.n_final, noise=k + 1) for k in range(config.noise_repeats)}
    for clock, amounts in config.amounts(costs).items():
        at = found[clock].get(max(amounts))
        if clock != "seconds" and at is not None:  # how much of measured time all runs reach, only their ends tell
            wanted.add(_due(config, clock, at))
    return tuple(sorted(wanted))
