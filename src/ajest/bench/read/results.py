"""All numbers of a bench, read from its folder alone: the one thing that table, verdict and report are made of."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ajest.bench.plan.config import BenchConfig, Costs, run_folder
from ajest.bench.plan.readings import READINGS
from ajest.bench.run.calibration import calibrated_costs
from ajest.bench.run.evaluation import floor_of
from ajest.bench.run.reached import common_budgets, curve_points, identity_of, reached
from ajest.errors import Corrupt, UserError
from ajest.storage import checkpoint, jsonl
from ajest.storage.config import from_json
from ajest.tasks.base import Metric
from ajest.training.run_folder import read_status

from .statistics import Comparison, compare, corrected

#: (reading, arm, metric, guidance weight)
Where = tuple[str, str, str, float]


@dataclass(frozen=True)
class Cell:
    """One metric of one arm at one reading.

    Attributes:
        reading, arm, metric: names.
        weight: of guidance; 1 is none.
        n: samples it was measured on.
        values: by seed.
        against: comparisons with other arms by their name, see `compared`.
    """

    reading: str
    arm: str
    metric: str
    weight: float
    n: int
    values: dict[int, float]
    against: dict[str, Comparison] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        return fmean(self.values.values()) if self.values else math.nan

    @property
    def sd(self) -> float:
        return stdev(self.values.values()) if len(self.values) > 1 else math.nan


@dataclass(frozen=True)
class Run:
    """What one run has to show.

    Attributes:
        arm, seed: which.
        state: "done", "diverged", or "unfinished".
        step: steps taken.
        why: of a run that diverged.
        ledger: lines of its ledger.
        lines: lines of its metrics.
        curve: step at each point of the learning curve; None where it did not get.
    """

    arm: str
    seed: int
    state: str
    step: int
    why: str
    ledger: list[dict[str, Any]]
    lines: list[dict[str, Any]]
    curve: tuple[int | None, ...] = ()

    def points(self, n: int, weight: float) -> dict[int, dict[str, Any]]:
        """The evaluated points of its learning curve by their position, each a line of metrics at n samples."""
        lines = {line["step"]: line for line in self.lines if (line["n"], line["weight"]) == (n, weight)}
        return {i: lines[step] for i, step in enumerate(self.curve) if step in lines}


@dataclass(frozen=True)
class Results:
    """Everything a report says, as data.

    Attributes:
        root, config: the bench.
        costs: calibrated seconds of each kind of step; {} before calibration.
        runs: all runs by (arm, seed), unfinished ones too.
        guide: the guide's run.
        budgets: the common budget of each clock.
        cells: by where they are.
        floors: metrics of exact data by n.
    """

    root: Path
    config: BenchConfig
    costs: Costs
    runs: dict[tuple[str, int], Run]
    guide: Run
    budgets: dict[str, float]
    cells: dict[Where, Cell]
    floors: dict[int, dict[str, float]]

    @property
    def arms(self) -> list[str]:
        return [a.name for a in self.config.arms]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return self.config.task.metrics

    def columns(self) -> list[tuple[Metric, float]]:
        """(metric, guidance weight) of everything measured."""
        guided = [(m, self.config.weight) for m in self.metrics if m.guided]
        return [(m, 1.0) for m in self.metrics] + guided

    def headlines(self) -> list[tuple[Metric, float]]:
        return [(m, w) for m in self.metrics for w in m.headline_weights(self.config.weight)]

    def readings(self) -> list[str]:
        """The readings of which anything was evaluated."""
        return [r for r in READINGS if any(where[0] == r for where in self.cells)]

    def cell(self, reading: str, arm: str, metric: str, weight: float) -> Cell | None:
        return self.cells.get((reading, arm, metric, weight))

    def lacking(self, cell: Cell) -> list[int]:
        """Seeds that another arm has where this one has none: a mean over the rest is no match for the others'."""
        there = (self.cell(cell.reading, arm, cell.metric, cell.weight) for arm in self.arms)
        return sorted({seed for other in there if other is not None for seed in other.values} - set(cell.values))

    def _not_finite(self, run: Run) -> list[str]:
        last = run.ledger[-1] if run.ledger else {}
        steps, scores = last.get("not_finite", 0), last.get("scores_not_finite", 0)
        done = {"skip": "they were skipped", "zero": "zeros stood in the place of such gradients"}
        said = []
        if steps:
            what = done[self.config.recipe.not_finite]
            said.append(f"in {steps:,} steps the loss or its gradient was not finite; {what}.")
        if scores:
            said.append(f"{scores:,} scores were not finite; these examples were not trained on.")
        return said

    @property
    def unfinished(self) -> int:
        """How many runs are neither done nor given up."""
        return sum(run.state == "unfinished" for run in self.runs.values())

    def missing(self) -> list[str]:
        """What a reader should know is not there, a sentence each."""
        said = []
        for run in self.runs.values():
            name = f"{run.arm}, seed {run.seed}"
            if run.state == "diverged":
                said.append(f"{name}: stopped at step {run.step}. {run.why}. It is left out of every comparison.")
            elif run.state != "done":
                said.append(f"{name}: its training is not finished (step {run.step}).")
            said += [f"{name}: {text}" for text in self._not_finite(run)]
        for reading in self.config.readings:
            absent = [a for a in self.arms if not any(c.reading == reading and c.arm == a for c in self.cells.values())]
            if absent and len(absent) < len(self.arms):
                said.append(f"{READINGS[reading].title}: not evaluated yet for {', '.join(absent)}.")
            elif absent:
                said.append(f"{READINGS[reading].title}: not evaluated yet.")
        return said


def read_bench(root: Path) -> BenchConfig:
    path = root / "bench.json"
    if not path.exists():
        raise UserError(f"{root} is not a bench: it has no bench.json (`ajest bench` makes one)")
    try:
        return from_json(BenchConfig, checkpoint.read_json(path), str(path))
    except Corrupt as error:
        raise UserError(str(error)) from error


def collect(root: Path) -> Results:
    """Read a bench's folder, finished or not.

    Raises:
        UserError: it is no bench.
    """
    config = read_bench(root)
    costs = calibrated_costs(root)
    runs = {(arm.name, seed): _run(root, config, costs, arm.name, seed) for arm in config.arms for seed in config.seeds}
    runs = _judged_alike(runs)
    budgets = common_budgets(root, config)
    cells = _cells(root, config, runs, budgets)
    guide = _run(root, config, costs, "guide", config.guide_seed)
    return Results(root, config, costs, runs, guide, budgets, cells, _floors(root, config))


def _run(root: Path, config: BenchConfig, costs: Costs, arm: str, seed: int) -> Run:
    folder = root / "guide" if arm == "guide" else run_folder(root, arm, seed)
    status = read_status(folder)
    ledger = jsonl.read(folder / "ledger.jsonl")
    step = status.get("step", ledger[-1]["step"] if ledger else 0)
    lines = _own(root, config, jsonl.read(folder / "metrics.jsonl"))
    curve = curve_points(folder, config, costs)
    return Run(arm, seed, status.get("state", "unfinished"), step, status.get("why", ""), ledger, lines, curve)


def _own(root: Path, config: BenchConfig, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The evaluations that belong to the bench: with its own guide and settings, of the average it reports."""
    guide, width = identity_of(root / "guide"), config.recipe.ema_widths[0]
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


def _cells(
    root: Path, config: BenchConfig, runs: dict[tuple[str, int], Run], budgets: dict[str, float]
) -> dict[Where, Cell]:
    cells: dict[Where, Cell] = {}
    known = {m.name for m in config.task.metrics}
    for (arm, seed), run in runs.items():
        if run.state != "done":
            continue
        crossed = reached(run_folder(root, arm, seed))
        for reading, budget in budgets.items():
            step, n = crossed[reading].get(budget), config.n_of(reading)
            if reading == "steps" and budget != config.iterations:
                n = config.n_curve
            for line in run.lines:
                if (line["step"], line["n"]) != (step, n):
                    continue
                for metric, value in line["metrics"].items():
                    if metric in known and math.isfinite(value):
                        where = (reading, arm, metric, line["weight"])
                        cells.setdefault(where, Cell(*where, n, {})).values[seed] = value
    return compared(config, cells)


def compared(config: BenchConfig, cells: Mapping[Where, Cell]) -> dict[Where, Cell]:
    """The cells with their comparisons with the baseline and with random choice.

    The p of each is corrected over its family: all comparisons of one reading with one opponent, on all headline
    metrics together, and on every other metric by itself.
    """
    metrics = {m.name: m for m in config.task.metrics}
    families: dict[tuple[Any, ...], dict[tuple[Where, str], Comparison]] = {}
    for where, cell in cells.items():
        metric = metrics[cell.metric]
        headline = cell.weight in metric.headline_weights(config.weight)
        for other in dict.fromkeys((config.baseline, "random")):
            opponent = cells.get((cell.reading, other, cell.metric, cell.weight))
            if opponent is None or cell.arm in (other, config.baseline):
                continue
            found = compare(cell.values, opponent.values, metric.sign, config.seeds)
            if found is not None:
                family = (cell.reading, other) if headline else (cell.reading, other, cell.metric, cell.weight)
                families.setdefault(family, {})[where, other] = found
    against: dict[Where, dict[str, Comparison]] = {}
    for members in families.values():
        for (where, other), found in zip(members, corrected(list(members.values())), strict=True):
            against.setdefault(where, {})[other] = found
    return {where: replace(cell, against=against.get(where, {})) for where, cell in cells.items()}


def _floors(root: Path, config: BenchConfig) -> dict[int, dict[str, float]]:
    """Metrics of real data by n; none where they were not taken and the data are not there any more."""
    found = {}
    for n in sorted({config.n_curve, config.n_final}):
        with suppress(UserError):
            found[n] = floor_of(root, config, n)
    return found
