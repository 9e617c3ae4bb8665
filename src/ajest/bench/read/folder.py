"""A bench's folder, read into `Results`, finished or not. Nothing is computed that was not measured, none written."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ajest.bench.plan.config import BenchConfig, Costs, guide_folder, run_folder
from ajest.bench.run.calibration import calibrated_costs, known_objectives
from ajest.bench.run.optimal_loss import optimal_loss
from ajest.bench.run.reached import curve_points, identity_of, largest_common, reached
from ajest.bench.run.real_data import real_data_reference
from ajest.bench.run.stages import stage_of
from ajest.bench.run.tuning import tuning_of, with_tuned_rates
from ajest.errors import Corrupt, UserError
from ajest.storage import jsonl
from ajest.storage.config_file import read_config_file
from ajest.training.run_folder import read_status

from .margins import margins
from .results import Cell, Repeats, Results, Run, Where, compared


def read_bench(root: Path) -> BenchConfig:
    """What a bench compares, on the seeds that it has got to.

    Raises:
        UserError: the folder is no bench.
    """
    path = root / "bench.json"
    if not path.exists():
        raise UserError(f"{root} is not a bench: it has no bench.json (`ajest bench` makes one)")
    try:
        config = with_tuned_rates(root, read_config_file(path, BenchConfig))
        return config.with_seeds(stage_of(root, config).seeds)
    except Corrupt as error:
        raise UserError(str(error)) from error


def read(root: Path) -> Results:
    """Read a bench's folder, finished or not. Each file is read once, none is written.

    Raises:
        UserError: it is no bench.
    """
    config, costs = read_bench(root), calibrated_costs(root)
    numbers = range(1, config.guides + 1)
    twice = _guide_themselves(config)
    widths = {arm.name: config.recipe_of(arm).ema_widths[0] for arm in config.arms}
    identities = {identity_of(guide_folder(root, number)): number for number in numbers}

    def run(folder: Path, arm: str, seed: int) -> Run:
        found = _run(folder, arm, seed, config, costs)
        width = widths.get(arm, config.recipe.ema_widths[0])
        return replace(found, lines=_own(found.lines, config, identities, arm in twice, width))

    runs = {(a.name, s): run(run_folder(root, a.name, s), a.name, s) for a in config.arms for s in config.seeds}
    runs = _judged_alike(runs)
    amounts = largest_common(config, (r.reached for r in runs.values() if r.state == "done"))
    cells = _cells(config, runs, amounts)
    allowed = margins(config, cells, runs)
    real = {n: real_data_reference(root, n) for n in sorted({config.n_curve, config.n_final})}
    return Results(
        root=root,
        config=config,
        costs=costs,
        runs=runs,
        guides=tuple(run(guide_folder(root, n), guide_folder(root, n).name, config.guide(n).seed) for n in numbers),
        amounts=amounts,
        cells=compared(config, cells, allowed),
        real_data_reference={n: metrics for n, metrics in real.items() if metrics is not None},
        margins=allowed,
        repeats=_repeats(config, runs),
        ended=stage_of(root, config).ended if config.looks else None,
        tuned=tuning_of(root),
        optimal_loss=optimal_loss(root),
        objectives=known_objectives(root),
    )


def _guide_themselves(config: BenchConfig) -> set[str]:
    """Names of the arms whose networks answer twice."""
    return {arm.name for arm in config.arms if arm.updates.answers_twice}


def _run(folder: Path, arm: str, seed: int, config: BenchConfig, costs: Costs) -> Run:
    status = read_status(folder)
    ledger = jsonl.read(folder / "ledger.jsonl")
    crossed = reached(folder)
    return Run(
        arm=arm,
        seed=seed,
        state=status.get("state", "unfinished"),
        step=status.get("step", ledger[-1]["step"] if ledger else 0),
        why=status.get("why", ""),
        ledger=ledger,
        lines=jsonl.read(folder / "metrics.jsonl"),
        curve=curve_points(crossed, config, costs),
        reached=crossed,
    )


def _own(
    lines: list[dict[str, Any]], config: BenchConfig, guides: Mapping[str | None, int], own: bool, width: float
) -> list[dict[str, Any]]:
    """The evaluations that belong to the bench: with its own guides, named by their numbers, or of a run that guides
    itself (`own`) by its second answer; and settings, of the average of the `width` that it reports."""
    found = []
    for line in lines:
        guided, guide = line["weight"] != 1, line.get("guide")
        settings: dict[str, Any] = {"guide": {"head": True}} if guided and own else {}
        settings |= {"cfg": config.cfg} if guided and config.cfg != 1 else {}
        known = guide is None or own or guide in guides
        if line.get("settings", {}) == settings and line["width"] == width and known:
            found.append(line if guide is None else {**line, "guide": 1 if own else guides[guide]})
    return found


def _judged_alike(runs: dict[tuple[str, int], Run]) -> dict[tuple[str, int], Run]:
    """The runs with those evaluations alone that were made with the same weights of feature networks, of several the
    ones that most runs were judged with last: until the bench is started again, the others are missing."""
    last = Counter(json.dumps(run.lines[-1].get("judges")) for run in runs.values() if run.lines)
    if not last:
        return runs
    weights = json.loads(last.most_common(1)[0][0])
    return {k: replace(run, lines=[x for x in run.lines if x.get("judges") == weights]) for k, run in runs.items()}


def _cells(config: BenchConfig, runs: Mapping[tuple[str, int], Run], amounts: Mapping[str, float]) -> dict[Where, Cell]:
    cells: dict[Where, Cell] = {}
    twice = _guide_themselves(config)
    for (arm, seed), run in runs.items():
        if run.state != "done":
            continue
        for budget, amount in amounts.items():
            step, n, guides = run.reached[budget].get(amount), config.n_of(budget), config.guides_of(budget)
            if budget == "steps" and amount != config.iterations:
                n, guides = config.n_curve, 1
            for (metric, weight), by_guide in _measured(config, run, step, n).items():
                wanted = range(1, (guides if weight != 1 and arm not in twice else 1) + 1)
                if all(number in by_guide for number in wanted):  # a mean over some guides is no match for one over all
                    where = (budget, arm, metric, weight)
                    cell = cells.setdefault(where, Cell(*where, n, {}))
                    cell.values[seed] = fmean(by_guide[number] for number in wanted)
                    if len(wanted) > 1:
                        cell.by_guide[seed] = tuple(by_guide[number] for number in wanted)
    return cells


def _measured(
    config: BenchConfig, run: Run, step: int | None, n: int, noise: int = 0
) -> dict[tuple[str, float], dict[int, float]]:
    """What was measured of a snapshot: values by (metric, guidance weight), then by the guide's number, 1 where none
    guides."""
    known = {m.name for m in config.metrics}
    found: dict[tuple[str, float], dict[int, float]] = {}
    for line in run.lines:
        if (line["step"], line["n"], line.get("noise", 0)) == (step, n, noise):
            for metric, value in line["metrics"].items():
                if metric in known and math.isfinite(value):
                    found.setdefault((metric, line["weight"]), {})[line.get("guide", 1)] = value
    return found


def _repeats(config: BenchConfig, runs: Mapping[tuple[str, int], Run]) -> dict[tuple[str, float], Repeats]:
    """See `Results.repeats`."""
    found: dict[tuple[str, float], Repeats] = {}
    for seed in config.seeds:
        run = runs[config.baseline, seed]
        if run.state == "done":
            each = [_measured(config, run, run.step, config.n_final, k) for k in range(1, config.noise_repeats + 1)]
            for where in set.intersection(*map(set, each)) if each else ():
                if all(1 in by[where] for by in each):
                    found.setdefault(where, {})[seed] = tuple(by[where][1] for by in each)
    return found
