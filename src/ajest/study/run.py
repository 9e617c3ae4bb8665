"""Running a stage of a study: runs of one seed in turns, so that what they all draw is drawn once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path

import torch

from ajest.bench.plan.config import BenchConfig, Costs, guide_folder, run_folder
from ajest.bench.run.calibration import agree_on_threads, agreed_threads, calibrate, calibrated_costs
from ajest.bench.run.disk import check_room, claims
from ajest.bench.run.evaluation import each_guide, evaluate_snapshot
from ajest.bench.run.jobs import AtWork, Say, train_references
from ajest.bench.run.memory import runs_in_turns
from ajest.bench.run.tuning import borrowed, keep_tuned, tune, tuning_of, with_tuned_rates
from ajest.jobs.local import Local
from ajest.jobs.pool import Report, sayer
from ajest.jobs.progress import board
from ajest.runtime.threads import configure_threads
from ajest.storage.lock import locked
from ajest.tasks.base import Measurement
from ajest.training.run import execution
from ajest.training.run_folder import claim_folder, read_status
from ajest.training.shared_draws import SharedDraws, in_turns

from .guides import WEIGHTS, Guided, best_weights, evaluate_guided, guides_of, judged_weights, others_folder
from .plan import TUNED, Stage, Study

#: Runs that share their draws in one process; more would leave processes idle at the end of a stage.
TOGETHER = 16


@dataclass(frozen=True)
class Group:
    """Runs of one seed, made in turns by one process.

    Attributes:
        name: for people.
        runs: (folder of the bench, its config, position of the arm) of each; what is shared needs the first alone.
        seed: of all.
        costs: of the stage.
        truth: folder for what evaluations share.
    """

    name: str
    runs: tuple[tuple[Path, BenchConfig, int], ...]
    seed: int
    costs: Costs
    truth: Path
    device: str


@dataclass(frozen=True)
class Preparation:
    """What all runs of a stage wait for.

    Attributes:
        name: for people.
        root: the study's folder.
        folder: of the stage.
        benches: by the name of their folder; the first has every kind of step.
        device: where to compute.
        others: benches whose guides alone are wanted, by where these are to be.
    """

    name: str
    root: Path
    folder: Path
    benches: Mapping[str, BenchConfig]
    device: str
    others: Mapping[Path, BenchConfig] = field(default_factory=dict)


def run_stage(
    root: Path, study: Study, stage: Stage, benches: Mapping[str, BenchConfig], launch: Local, device: str
) -> None:
    """Train and evaluate everything of a stage that is not there yet.

    Args:
        root: the study's folder.
        study: what is studied.
        stage: which stage.
        benches: the stage's benches by the name of their folder.
        launch: how many processes make runs.
        device: "cpu" or "cuda".

    Raises:
        UserError: the folder holds another study, is in use or cannot be written to; the device's memory is too small;
            or runs failed for good (the others are done).
    """
    with locked(root):
        say = sayer()
        folder, first = root / stage, next(iter(benches))
        together = runs_in_turns(benches[first], launch.room(device), TOGETHER, say)
        claim_folder(root, study.asked, "study.json")
        wanted = [claim for name, config in benches.items() for claim in claims(folder / name, config)]
        check_room(root, wanted, together * launch.count(device), say)
        others = _other_guides(folder, study, benches[first]) if stage == "guides" else {}
        threads = _prepared(Preparation("what all runs need", root, folder, dict(benches), device, others), launch, say)
        costs = calibrated_costs(folder / first)
        groups = list(_groups(root, folder, benches, costs, device, together))
        truths = {g.seed: replace(g, name=f"what evaluations share, seed {g.seed}", runs=g.runs[:1]) for g in groups}
        with board(f"{stage} in {root}", {g.name: float(len(g.runs)) for g in [*truths.values(), *groups]}) as lines:
            launch.work(_truth, list(truths.values()), device, threads, lines, say, root)
            launch.work(_group, groups, device, threads, lines, say, root)


def _other_guides(folder: Path, study: Study, bench: BenchConfig) -> dict[Path, BenchConfig]:
    """Benches whose guides the stage "guides" compares with the study's own."""
    others = study.task.other_guides()
    return {others_folder(folder, name): replace(bench, task=task) for name, task in others.items()}


def tune_study(root: Path, study: Study, launch: Local, device: str, rates: Path | None = None) -> Study:
    """The study with the learning rates that it asks for, found now unless they are there: of all arms of all stages,
    at the first budget of the screening. `rates` is tuning.json of another study, whose rates are taken instead.

    Raises:
        UserError: as `run_stage`.
    """
    if study.tuning is None:
        return study
    end = study.screening_ends[0]
    bench = replace(study.bench(study.every_arm(), study.screening_seeds, end), tuning=study.tuning)
    folder = root / TUNED
    if tuning_of(folder) is None:
        with locked(root):
            taken = None if rates is None else borrowed(folder, bench, rates)  # before the folder is anybody's
            claim_folder(root, study.asked, "study.json")
            if taken is not None:
                keep_tuned(folder, taken)
            else:
                say = sayer()
                threads = _prepared(Preparation("what tuning needs", root, root, {TUNED: bench}, device), launch, say)
                at_work = AtWork(folder.resolve(), bench, device, costs=calibrated_costs(folder))
                tune(at_work, launch, threads, say)
    found = with_tuned_rates(folder, bench)
    return replace(study, rates=found.rates, tuned=found.tuned, at_edge=found.at_edge)


def _prepared(preparation: Preparation, launch: Local, say: Say) -> int:
    """Make what all runs wait for, and say how many threads each of them has: a study that goes on does so with those
    that it was timed with, however it is launched now."""
    root, device = preparation.root, preparation.device
    threads = agreed_threads(root) or launch.threads(device)
    if launch.near(device):
        configure_threads(threads)
        _prepare_all(preparation, say, say)
    else:
        with board(f"preparing {preparation.folder}", {preparation.name: 1.0}) as lines:
            launch.work(_prepare, [preparation], device, threads, lines, say, root)
    return agreed_threads(root) or threads


def run_guides(root: Path, study: Study, launch: Local, device: str) -> None:
    """The stage "guides": choose each guide's weight on the screening's seeds, judge it on the final's.

    Raises:
        UserError: as `run_stage`.
    """
    folder = root / "guides"
    benches = study.stage("guides")
    run_stage(root, study, "guides", benches, launch, device)
    costs = calibrated_costs(folder / "chosen")
    charged = study.charged(costs)
    run_stage(root, study, "guides", benches | {"charged": charged}, launch, device)

    def evaluate(name: str, config: BenchConfig, weights: dict[str, tuple[float, ...]]) -> None:
        jobs = [
            Guided(f"{name}, seed {s}", folder / name, config, s, weights, name == "charged", root / "truth", device)
            for s in config.seeds
        ]
        with board(f"guides, {name}", {j.name: 1.0 for j in jobs}) as lines:
            launch.work(evaluate_guided, jobs, device, launch.threads(device), lines, sayer(), root)

    evaluate("chosen", benches["chosen"], {g.name: WEIGHTS for g in guides_of(study.task)})
    best = best_weights(folder / "chosen", benches["chosen"])
    evaluate("full", benches["full"], judged_weights(best, study.task))
    evaluate("charged", charged, best)


def _prepare(job: Preparation, report: Report) -> list[str]:
    """`_prepare_all`, in a worker."""
    complaints: list[str] = []
    _prepare_all(job, lambda what: report(what, 0.0, 1.0, ""), complaints.append)
    return complaints


def _prepare_all(job: Preparation, begin: Say, warn: Say) -> None:
    """How many threads each run has, the references, and what every kind of step costs; see `jobs.prepare_all`."""
    root, folder, device = job.root, job.folder, job.device
    first, *others = job.benches
    everything = job.benches[first]
    configure_threads(agree_on_threads(root, everything, device, torch.get_num_threads(), warn))
    for where, config in ((root, everything), *job.others.items()):
        train_references(where, config, device, begin, warn)
    for name, config in job.benches.items():
        claim_folder(folder / name, config, "bench.json")
        for reference in (*(guide_folder(root, k + 1) for k in range(config.guides)), root / "strong"):
            if reference.exists():
                shutil.copytree(reference, folder / name / reference.name, dirs_exist_ok=True)
    begin("timing every kind of step")
    calibrate(folder / first, everything, device)
    for name in others:
        shutil.copy(folder / first / "calibration.json", folder / name / "calibration.json")


def _groups(
    root: Path, folder: Path, benches: Mapping[str, BenchConfig], costs: Costs, device: str, together: int
) -> Iterator[Group]:
    seeds = sorted({seed for config in benches.values() for seed in config.seeds})
    for seed in seeds:
        # Arms that take many steps stand together: they share draws when the others have ended.
        runs = sorted(
            (sum(costs[arm.kinds()[0].label].values()), name, i)
            for name, config in benches.items()
            if seed in config.seeds
            for i, arm in enumerate(config.arms)
        )
        size = ceil(len(runs) / ceil(len(runs) / together))  # even parts: a small rest would leave its process idle
        for k in range(0, len(runs), size):
            part = tuple((folder / name, benches[name], i) for _, name, i in runs[k : k + size])
            yield Group(f"seed {seed}, runs {k + 1} to {k + len(part)}", part, seed, costs, root / "truth", device)


def _truth(group: Group, report: Report) -> list[str]:
    _, config, _ = group.runs[0]
    config.task.prepare(Measurement(config.n_final, group.seed, group.truth, group.device))
    return []


def _group(group: Group, report: Report) -> list[str]:
    """Train the runs of a group in turns, then evaluate the end of each."""
    complaints: list[str] = []
    source = SharedDraws(group.runs[0][1].task.source(group.device))
    total = len(group.runs)
    executions = []
    for root, config, i in group.runs:
        arm = config.arms[i]
        folder = run_folder(root, arm.name, group.seed)
        schedule = config.schedule(group.costs)
        run = config.run(arm, group.seed)
        executions.append(execution(folder, run, schedule, group.device, complaints.append, source))

    def progress(behind: int, ahead: int, left: int) -> None:
        report("training", total - left, 2.0 * total, f"{left} runs at step {behind:,}")

    in_turns(executions, progress)
    for k, (root, config, i) in enumerate(group.runs):
        arm = config.arms[i]
        folder = run_folder(root, arm.name, group.seed)
        status = read_status(folder)
        if status.get("state") == "diverged":
            complaints.append(f"{arm.name}: diverged: {status['why']}")
            continue
        report("evaluating", total + k, 2.0 * total, arm.name)
        for guidance, weights, cfg in each_guide(root, config, config.guides, folder, status["step"]):
            evaluate_snapshot(
                folder, status["step"], weights, config.n_final, group.truth, guidance, device=group.device,
                cfg=cfg, say=complaints.append,
            )  # fmt: skip
    return complaints
