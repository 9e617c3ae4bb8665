"""Finding each arm's learning rate before the runs that count begin."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

from ajest.bench.plan.config import BenchConfig, run_folder
from ajest.bench.plan.trials import trial_bench, trial_name, tried_for
from ajest.bench.plan.tuning import Tuned, Tuning, best_rate, between
from ajest.errors import check, listed
from ajest.jobs.base import Launch, Report
from ajest.jobs.progress import board
from ajest.storage import checkpoint, jsonl
from ajest.storage.checkpoint import read_sealed, write_sealed
from ajest.storage.config import from_json, to_json
from ajest.tasks.base import Measurement
from ajest.training.run_folder import claim_folder, read_status, snapshots
from ajest.training.trackers import Tracking

from .disk import check_room, claims
from .evaluation import evaluate_snapshot
from .jobs import AtWork, OfRun, OfSeed, train


@dataclass(frozen=True)
class _Round:
    """Trials at some rates, in a folder of their own: more rates are another round.

    Attributes:
        bench: of the trials.
        rates: that are tried.
    """

    bench: AtWork
    rates: tuple[float, ...]


def tuning_of(root: Path) -> Tuned | None:
    """What tuning found in a folder, None before that."""
    path = root / "tuning.json"
    return from_json(Tuned, read_sealed(path)["tuned"], str(path)) if path.exists() else None


def with_tuned_rates(root: Path, config: BenchConfig) -> BenchConfig:
    """The bench with the learning rates that were found in its folder, if it asks for any and they are there."""
    tuned = None if config.tuning is None else tuning_of(root)
    if tuned is None or config.tuning is None:
        return config
    # Seeds that are added later are none of those on which a borrowed rate was found either.
    tuning = replace(config.tuning, seeds=tuple(sorted({*config.tuning.seeds, *tuned.seeds})))
    return replace(config, rates=tuned.rates, tuned=tuned.said(), at_edge=tuned.at_edge, tuning=tuning)


def borrowed(root: Path, config: BenchConfig, path: Path) -> Tuned:
    """The learning rates that another bench found, if it is what this one asks for; `keep_tuned` stores them.

    Args:
        root: folder of this bench.
        config: of this bench.
        path: the other's tuning.json.

    Raises:
        UserError: no such file, arms without a rate, another metric, other data or another batch, seeds that this bench
            reports, or other rates than the folder has.
    """
    check(path.is_file(), f"{path} is not there: give the tuning.json of a bench that was tuned")
    tuned = replace(from_json(Tuned, read_sealed(path)["tuned"], str(path)), borrowed=True)
    lacking = [arm.name for arm in config.arms if arm.name not in tuned.rates]
    check(not lacking, f"{path} has no learning rate for {listed(lacking)}: leave these out, or tune")
    metric = config.tuned_by
    check(tuned.metric == metric, f"{path} has rates by {tuned.metric}, and this bench's are found by {metric}")
    mine = _found_for(config)
    check(
        tuned.found_for in ("", mine),
        f"the rates of {path} were found for {tuned.found_for}, and this bench is of {mine}: tune",
    )
    both = sorted({*tuned.seeds} & {*config.seeds})
    check(not both, f"the rates of {path} were found on seeds that this bench reports: {listed(both)}")
    known = tuning_of(root)
    check(
        known is None or known.rates == tuned.rates,
        f"{root} has learning rates already, and {path} others: leave out --rates, or name a new folder with --out",
    )
    return tuned


def keep_tuned(root: Path, tuned: Tuned) -> None:
    """Store them in a bench's folder, unless it has some."""
    if tuning_of(root) is None:
        root.mkdir(parents=True, exist_ok=True)
        write_sealed(root / "tuning.json", {"tuned": to_json(tuned)})


def _found_for(config: BenchConfig) -> str:
    """What decides which rates are good, in words."""
    digest = str(getattr(config.task, "digest", ""))[:8]
    subject = f"{config.task.name} ({config.task.subject}{digest and f', {digest}'})"
    return f"{subject} at {config.recipe.super_batch:,} examples a step"


def tune(bench: AtWork, launch: Launch, threads: int, say: Callable[[str], None]) -> BenchConfig:
    """Find the learning rates that a bench asks for, unless they are found. Resumable, run by run.

    Args:
        bench: calibrated, its references trained.
        launch, threads: where and how its runs are made.
        say: told complaints, and what was found.

    Returns:
        The bench with these rates.

    Raises:
        UserError: runs failed for good (the others are done).
    """
    root, config = bench.root, bench.config
    tuning = config.tuning
    if tuning is None or tuning_of(root) is not None:
        return with_tuned_rates(root, config)
    names, metric = tried_for(config, tuning.shared), config.tuned_by
    sign = next(m.sign for m in config.metrics if m.name == metric)
    trials: dict[str, dict[float, dict[int, float]]] = {name: {} for name in dict.fromkeys(names.values())}
    best: dict[str, float | None] = {}
    grid: tuple[float, ...] = ()
    fresh, rounds = tuning.first(config.recipe.learning_rate.peak), list[_Round]()
    while fresh:
        rounds.append(_begin(bench, tuning, fresh, len(rounds) + 1))
        _work(rounds[-1], launch, threads, say)
        grid = tuple(sorted((*grid, *fresh)))
        for name, found in trials.items():
            found |= {rate: _values(rounds[-1], name, rate, metric) for rate in fresh}
            best[name] = best_rate(found, tuning.seeds, sign)
        fresh = tuning.further(grid, (rate for rate in best.values() if rate is not None))
    at_edge = tuple(arm for arm, name in names.items() if best[name] in (None, grid[0], grid[-1]))
    taken = {
        name: between(trials[name], rate, tuning.seeds, tuning.factor, sign)
        for name, rate in best.items()
        if rate is not None
    }
    peaks = {arm: taken[name] for arm, name in names.items() if name in taken}
    seconds = sum(map(_seconds, rounds))
    tuned = Tuned(metric, peaks, names, trials, at_edge, seconds, found_for=_found_for(config))
    write_sealed(root / "tuning.json", {"tuned": to_json(tuned)})
    for arm in at_edge:
        say(f"{arm}: no rate from {grid[0]:.3g} to {grid[-1]:.3g} is its best with a worse one on either side")
    return with_tuned_rates(root, config)


def _begin(bench: AtWork, tuning: Tuning, rates: tuple[float, ...], number: int) -> _Round:
    root = bench.root / "tuning" / f"round-{number}"
    config = trial_bench(bench.config, tuning, rates)
    claim_folder(root, config, "bench.json")
    for reference in ("guide", "strong"):
        if (bench.root / reference).exists():
            shutil.copytree(bench.root / reference, root / reference, dirs_exist_ok=True)
    return _Round(replace(bench, root=root, config=config, tracking=Tracking()), rates)


def _work(tried: _Round, launch: Launch, threads: int, say: Callable[[str], None]) -> None:
    bench = tried.bench
    check_room(bench.root, claims(bench.root, bench.config), launch.count(bench.device), say)
    seeds = [OfSeed(f"what evaluations share, seed {seed}", bench, seed) for seed in bench.config.seeds]
    runs = [OfRun.of(bench, arm, seed) for seed in bench.config.seeds for arm in range(len(bench.config.arms))]
    title = f"tuning learning rates: {', '.join(f'{rate:.3g}' for rate in tried.rates)}"
    with board(title, {job.name: 0.05 for job in seeds} | {job.name: 1.0 for job in runs}) as lines:
        launch.work(_prepare, seeds, bench.device, threads, lines, say, bench.root)
        launch.work(trial, runs, bench.device, threads, lines, say, bench.root)


def _prepare(job: OfSeed, report: Report) -> list[str]:
    config = job.bench.config
    config.task.prepare(Measurement(config.n_curve, job.seed, job.bench.cache, job.bench.device))
    return []


def trial(job: OfRun, report: Report) -> list[str]:
    """Train a run and measure its end, unguided; nothing else of it is kept."""
    complaints: list[str] = []
    bench, config = job.bench, job.bench.config
    if jsonl.read(job.folder / "metrics.jsonl"):
        return complaints
    train(job, report, complaints.append)
    status = read_status(job.folder)
    if status["state"] == "done":
        report("evaluating", 1, 2, "")
        evaluate_snapshot(
            job.folder, status["step"], (1.0,), config.n_curve, bench.cache, device=bench.device, say=complaints.append
        )
    for stem in (*snapshots(job.folder).values(), *checkpoint.stems(job.folder, "checkpoint").values()):
        checkpoint.delete(stem)
    return complaints


def _values(tried: _Round, arm: str, rate: float, metric: str) -> dict[int, float]:
    """A metric at the end of an arm's runs at a rate, by seed; those that diverged have none."""
    found = {}
    for seed in tried.bench.config.seeds:
        folder = run_folder(tried.bench.root, trial_name(arm, rate), seed)
        for line in jsonl.read(folder / "metrics.jsonl"):
            if isfinite(value := line["metrics"].get(metric, float("nan"))):
                found[seed] = value
    return found


def _seconds(tried: _Round) -> float:
    """Of training, as measured, of all runs."""
    config = tried.bench.config
    folders = (run_folder(tried.bench.root, arm.name, seed) for arm in config.arms for seed in config.seeds)
    last = (lines[-1] for folder in folders if (lines := jsonl.read(folder / "ledger.jsonl")))
    return sum(sum(line["seconds"].values()) + line["warmup_seconds"] for line in last)
