"""A bench's folder, read into `Results`, finished or not. Nothing is computed that was not measured, none written."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ajest.bench.plan.config import BenchConfig, Costs, run_folder
from ajest.bench.run.calibration import calibrated_costs
from ajest.bench.run.reached import curve_points, identity_of, largest_common, reached
from ajest.bench.run.real_data import real_data_reference
from ajest.errors import Corrupt, UserError
from ajest.storage import jsonl
from ajest.storage.config_file import read_config_file
from ajest.training.run_folder import read_status

from .margins import margins
from .results import Cell, Results, Run, Where, compared


def read_bench(root: Path) -> BenchConfig:
    """What a bench compares.

    Raises:
        UserError: the folder is no bench.
    """
    path = root / "bench.json"
    if not path.exists():
        raise UserError(f"{root} is not a bench: it has no bench.json (`ajest bench` makes one)")
    try:
        return read_config_file(path, BenchConfig)
    except Corrupt as error:
        raise UserError(str(error)) from error


def read(root: Path) -> Results:
    """Read a bench's folder, finished or not. Each file is read once, none is written.

    Raises:
        UserError: it is no bench.
    """
    config, costs = read_bench(root), calibrated_costs(root)
    guide_identity = identity_of(root / "guide")

    def run(folder: Path, arm: str, seed: int) -> Run:
        found = _run(folder, arm, seed, config, costs)
        return replace(found, lines=_own(found.lines, config, guide_identity))

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
        guide=run(root / "guide", "guide", config.guide_seed),
        amounts=amounts,
        cells=compared(config, cells, allowed),
        real_data_reference={n: metrics for n, metrics in real.items() if metrics is not None},
        margins=allowed,
    )


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


def _own(lines: list[dict[str, Any]], config: BenchConfig, guide: str | None) -> list[dict[str, Any]]:
    """The evaluations that belong to the bench: with its own guide and settings, of the average it reports."""
    width = config.recipe.ema_widths[0]
    return [
        line
        for line in lines
        if line.get("guide") in (None, guide) and "settings" not in line and line["width"] == width
    ]


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
    known = {m.name for m in config.task.metrics}
    for (arm, seed), run in runs.items():
        if run.state != "done":
            continue
        for budget, amount in amounts.items():
            step, n = run.reached[budget].get(amount), config.n_of(budget)
            if budget == "steps" and amount != config.iterations:
                n = config.n_curve
            for line in run.lines:
                if (line["step"], line["n"]) != (step, n):
                    continue
                for metric, value in line["metrics"].items():
                    if metric in known and math.isfinite(value):
                        where = (budget, arm, metric, line["weight"])
                        cells.setdefault(where, Cell(*where, n, {})).values[seed] = value
    return cells
