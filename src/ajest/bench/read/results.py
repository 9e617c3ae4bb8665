"""All numbers of a bench as one value: the one thing that tables, verdict and figures are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ajest.bench.plan.budgets import BUDGETS
from ajest.bench.plan.config import BenchConfig, Costs
from ajest.bench.plan.tuning import Tuned
from ajest.bench.run.reached import Reached
from ajest.bench.run.stages import Ended
from ajest.diffusion.optimal import OptimalLoss
from ajest.tasks.base import Metric

from .statistics import BySeed, Comparison, corrected, paired

#: (budget, arm, metric, guidance weight)
Where = tuple[str, str, str, float]
#: By (budget, metric, guidance weight) and seed what counts as equivalent, see `bench.read.margins`.
Margins = dict[tuple[str, str, float], dict[int, float]]

#: By seed, what was measured of the same run with other sampling noise.
Repeats = dict[int, tuple[float, ...]]


@dataclass(frozen=True)
class Cell:
    """One metric of one arm at one budget.

    Attributes:
        budget, arm, metric: names.
        weight: of guidance; 1 is none.
        n: samples it was measured on.
        values: by seed; of each the mean over guides where there are several.
        against: comparisons with other arms by their name, see `compared`.
        by_guide: by seed, the values with each guide; empty unless there are several.
    """

    budget: str
    arm: str
    metric: str
    weight: float
    n: int
    values: dict[int, float]
    against: dict[str, Comparison] = field(default_factory=dict)
    by_guide: dict[int, tuple[float, ...]] = field(default_factory=dict)

    @property
    def guides(self) -> int:
        """How many it was measured with, the first ones; 0 of what is unguided."""
        return 0 if self.weight == 1 else max(map(len, self.by_guide.values()), default=1)

    @property
    def measured(self) -> BySeed:
        """By seed, the values with each guide where there are several, else the value: what is compared."""
        return self.by_guide or self.values

    @property
    def mean(self) -> float:
        """Over seeds and guides; NaN without any."""
        return fmean(self.values.values()) if self.values else math.nan

    @property
    def sd(self) -> float:
        """Over seeds; NaN with fewer than two."""
        return stdev(self.values.values()) if len(self.values) > 1 else math.nan

    def gaps(self, other: Cell) -> dict[int, float]:
        """By seed that both have, how far this one is above the other."""
        return {seed: self.values[seed] - other.values[seed] for seed in sorted(set(self.values) & set(other.values))}


@dataclass(frozen=True)
class Run:
    """What one run has to show.

    Attributes:
        arm, seed: which.
        state: "done", "diverged", or "unfinished".
        step: steps taken.
        why: of a run that diverged.
        ledger: lines of its ledger.
        lines: lines of its metrics; a guide is named by its number.
        curve: step at each point of the learning curve; None where it did not get.
        reached: by clock the amounts at which it has a snapshot, each with the step of that.
    """

    arm: str
    seed: int
    state: str
    step: int
    why: str
    ledger: list[dict[str, Any]]
    lines: list[dict[str, Any]]
    curve: tuple[int | None, ...] = ()
    reached: Reached = field(default_factory=dict)

    def points(self, n: int, weight: float) -> dict[int, dict[str, Any]]:
        """The evaluated points of its learning curve by their position, each a line of metrics at n samples with the
        first guide."""
        lines = {
            line["step"]: line
            for line in self.lines
            if (line["n"], line["weight"]) == (n, weight) and line.get("guide", 1) == 1 and not line.get("noise")
        }
        return {i: lines[step] for i, step in enumerate(self.curve) if step in lines}


@dataclass(frozen=True)
class Results:
    """Everything that was measured, as data.

    Attributes:
        root, config: the bench.
        costs: calibrated seconds of each kind of step; {} before calibration.
        runs: all runs by (arm, seed), unfinished ones too.
        guides: the guides' runs.
        amounts: by budget the amount that all finished runs reached.
        cells: by where they are.
        real_data_reference: metrics of real data by their number, where they were measured.
        margins: what counts as equivalent.
        repeats: of the baseline's end, by (metric, guidance weight): further values with other sampling noise, with
            the first guide.
        ended: why a bench that adds seeds adds no more; None of others, and before that.
        tuned: how learning rates were found; None where none were looked for.
        optimal_loss: the least one by noise level, where it is known.
        objectives: of each arm whether its expected objective is the task's own, in words.
    """

    root: Path
    config: BenchConfig
    costs: Costs
    runs: dict[tuple[str, int], Run]
    guides: tuple[Run, ...]
    amounts: dict[str, float]
    cells: dict[Where, Cell]
    real_data_reference: dict[int, dict[str, float]]
    margins: Margins = field(default_factory=dict)
    repeats: dict[tuple[str, float], Repeats] = field(default_factory=dict)
    ended: Ended | None = None
    tuned: Tuned | None = None
    optimal_loss: OptimalLoss | None = None
    objectives: dict[str, str] = field(default_factory=dict)

    @property
    def guide(self) -> Run:
        """The first guide's run, against which arms compare that train against a guide."""
        return self.guides[0]

    @property
    def arms(self) -> list[str]:
        """Names, in the order of the bench."""
        return [a.name for a in self.config.arms]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All that the task measures."""
        return self.config.metrics

    def columns(self) -> list[tuple[Metric, float]]:
        """(metric, guidance weight) of everything measured."""
        guided = [(m, self.config.weight) for m in self.metrics if m.guided]
        return [(m, 1.0) for m in self.metrics] + guided

    def headlines(self) -> list[tuple[Metric, float]]:
        """(metric, guidance weight) of what the verdict rests on."""
        return [(m, w) for m in self.metrics for w in m.headline_weights(self.config.weight)]

    def evaluated(self) -> list[str]:
        """The budgets at which anything was evaluated."""
        return [b for b in BUDGETS if any(where[0] == b for where in self.cells)]

    def cell(self, budget: str, arm: str, metric: str, weight: float) -> Cell | None:
        """One metric of one arm at one budget; None where no seed has it."""
        return self.cells.get((budget, arm, metric, weight))

    def against(self, budget: str, column: tuple[Metric, float], others: Mapping[str, str]) -> dict[str, Comparison]:
        """How arms compare on one (metric, guidance weight) at a budget.

        Args:
            others: by arm the one that it is compared with; without a comparison it is left out.
        """
        metric, weight = column
        cells = {arm: self.cell(budget, arm, metric.name, weight) for arm in others}
        return {a: c.against[others[a]] for a, c in cells.items() if c is not None and others[a] in c.against}

    def delta(self, budget: str, metric: str, weight: float) -> float:
        """What counts as equivalent, mean over seeds; NaN where a seed does not know it."""
        known = self.margins.get((budget, metric, weight), {})
        return fmean(known.values()) if known else math.nan

    def lacking(self, cell: Cell) -> list[int]:
        """Seeds that another arm has where this one has none: a mean over the rest is no match for the others'."""
        there = (self.cell(cell.budget, arm, cell.metric, cell.weight) for arm in self.arms)
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

    def _unjudged(self, run: Run) -> list[str]:
        """Headlines that the end of a run has no value of although it was evaluated: its samples are not finite."""
        said = []
        for weight in dict.fromkeys(weight for _, weight in self.headlines()):
            where = run.step, self.config.n_final, weight
            last = [line["metrics"] for line in run.lines if (line["step"], line["n"], line["weight"]) == where]
            if last and not any(last):
                lacks = " and no ".join(metric.label for metric, at in self.headlines() if at == weight)
                guided = "" if weight == 1 else f" guided at {weight:g}"
                said.append(f"its samples{guided} are not finite, so it has no {lacks}.")
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
                said.append(f"{name}: stopped at step {run.step}, and left out of every comparison. Reason: {run.why}.")
            elif run.state != "done":
                said.append(f"{name}: its training is not finished (step {run.step}).")
            said += [f"{name}: {text}" for text in (*self._not_finite(run), *self._unjudged(run))]
        for budget in self.config.budgets:
            absent = [a for a in self.arms if not any(c.budget == budget and c.arm == a for c in self.cells.values())]
            if absent and len(absent) < len(self.arms):
                said.append(f"{BUDGETS[budget].title}: not evaluated yet for {', '.join(absent)}.")
            elif absent:
                said.append(f"{BUDGETS[budget].title}: not evaluated yet.")
        return said


def randoms(config: BenchConfig) -> dict[float, str]:
    """The arm that chooses at random all the time and changes nothing else, by the share that it keeps; of several the
    first."""
    found: dict[float, str] = {}
    for arm in config.arms:
        if arm.policy == "random" and arm.trigger.mode == "always" and arm.axis == "selection":
            found.setdefault(arm.keep, arm.name)
    return found


def rivals(config: BenchConfig) -> dict[str, str]:
    """By arm the one that chooses as many at random, where there is such a one, and it is another and not the
    baseline."""
    at_random, same = randoms(config), (None, config.baseline)
    return {a.name: at_random[a.keep] for a in config.arms if at_random.get(a.keep) not in (*same, a.name)}


def compared(config: BenchConfig, cells: Mapping[Where, Cell], margins: Margins | None = None) -> dict[Where, Cell]:
    """The cells with their comparisons with the baseline, and with random choice of as many examples where such an arm
    is there, by these `margins`.

    The p of each is corrected over its family: all comparisons at one budget with the baseline, or with random choice,
    on all headline metrics together, and on every other metric by itself.
    """
    metrics, at_random = {m.name: m for m in config.metrics}, rivals(config)
    opponents = {
        arm.name: {config.baseline: "baseline"} | {other: "random" for other in [at_random.get(arm.name)] if other}
        for arm in config.arms
    }
    families: dict[tuple[Any, ...], dict[tuple[Where, str], Comparison]] = {}
    for where, cell in cells.items():
        metric = metrics[cell.metric]
        headline = cell.weight in metric.headline_weights(config.weight)
        for other, kind in opponents.get(cell.arm, {}).items():
            opponent = cells.get((cell.budget, other, cell.metric, cell.weight))
            if opponent is None or cell.arm in (other, config.baseline):
                continue
            allowed = (margins or {}).get((cell.budget, cell.metric, cell.weight))
            found = paired(cell.measured, opponent.measured, metric.sign, config.seeds, allowed, config.looks)
            if found is not None:
                family = (cell.budget, kind) if headline else (cell.budget, kind, cell.metric, cell.weight)
                families.setdefault(family, {})[where, other] = found
    against: dict[Where, dict[str, Comparison]] = {}
    for members in families.values():
        for (where, other), found in zip(members, corrected(list(members.values())), strict=True):
            against.setdefault(where, {})[other] = found
    return {where: replace(cell, against=against.get(where, {})) for where, cell in cells.items()}
