"""What a study found: ranks of the screening, who goes into the final, and the final's comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ajest.bench.plan.config import Costs, spared
from ajest.bench.read.cost import SelectionCost, selection_costs
from ajest.bench.read.folder import read
from ajest.bench.read.recommendation import Recommendation
from ajest.bench.read.results import Cell, Results
from ajest.bench.read.statistics import Comparison, corrected, paired
from ajest.errors import UserError
from ajest.selection.arm import Arm
from ajest.selection.catalogue import ARMS
from ajest.tasks.base import Metric

from .plan import ALWAYS, Grid, Stage, Study


def results_of(root: Path, study: Study, stage: Stage) -> dict[str, Results]:
    """The results of a stage's benches that have any, by the name of their folder."""
    names = study.folders(stage)
    found = {name: read(root / stage / name) for name in names if (root / stage / name / "bench.json").exists()}
    return {name: results for name, results in found.items() if results.cells}


def mean_ranks(results: Mapping[str, Results]) -> dict[str, float]:
    """Mean rank of each arm over the headline metrics of all benches, 1 for the best. Arms that
    have not finished every seed, because they diverged for instance, are last."""
    ranks: dict[str, list[float]] = {}
    for found in results.values():
        for metric, weight in found.headlines():
            cells = {a: found.cell(found.config.final_budget, a, metric.name, weight) for a in found.arms}
            seeds = len(found.config.seeds)
            worth = {
                a: c.mean * metric.sign if c is not None and len(c.values) == seeds else -math.inf
                for a, c in cells.items()
            }
            for arm in found.arms:
                ranks.setdefault(arm, []).append(1.0 + sum(other > worth[arm] for other in worth.values()))
    return {arm: fmean(r) for arm, r in sorted(ranks.items(), key=lambda item: fmean(item[1]))}


def finalists(screened: Mapping[str, Results], dialled: Mapping[str, Results], count: int) -> tuple[Arm, ...]:
    """Who goes into the final, by a rule and not by hand: the `count` rules of best mean rank over the screening's
    budgets, and of the variants in the grids of dials that one of best mean rank which keeps as much as random choice
    does (another keep fraction is another batch, not another rule).

    Raises:
        UserError: a stage has begun and not ended: its ranks would not be those of all seeds.
    """
    for stage in (*screened.values(), *dialled.values()):
        if left := stage.unfinished:
            raise UserError(f"{stage.root} has {left} unfinished runs: finish that stage first, or name --finalists")
    found: list[Arm] = []
    for results, most, keeps in ((screened, count, None), (dialled, 1, ARMS["random"].keep)):
        known = {a.name: a for r in results.values() for a in r.config.arms}
        taken = {*ALWAYS, *(arm.name for arm in found)}
        best = [
            name
            for name in mean_ranks(results)
            if name not in taken and known[name].policy != "random" and keeps in (None, known[name].keep)
        ]
        found += [known[name] for name in best[:most]]
    return tuple(found)


@dataclass(frozen=True)
class PairwiseTest:
    """One arm against another on one headline metric at one budget.

    Attributes:
        budget: what is equal.
        arm, other: names.
        metric, weight: what is compared.
        found: the paired comparison, corrected over all tests at the budget.
    """

    budget: str
    arm: str
    other: str
    metric: Metric
    weight: float
    found: Comparison

    @property
    def p_one_sided(self) -> float:
        """One-sided p, not corrected, that the arm is not better: near 1 where it is worse, 1/2 with one seed."""
        if math.isnan(self.found.p):
            return 0.5
        return self.found.p / 2 if self.found.improvement > 0 else 1 - self.found.p / 2


def pairwise_tests(results: Results, others: Sequence[str] = ("baseline", "random")) -> list[PairwiseTest]:
    """Every arm against each of the others on every headline metric, corrected together; the first of these is
    never the arm, so that no comparison is there twice."""
    return _compared(results, [(a, o) for a in results.arms for o in others if a not in (o, others[0])])


def matches(results: Results) -> list[PairwiseTest]:
    """Arms of other keep fractions than random choice has, each against random choice at its own, where that is there;
    corrected together."""
    randoms = _randoms(results)
    rules = [a for a in results.config.arms if a.policy != "random" and a.keep != ARMS["random"].keep]
    return _compared(results, [(a.name, randoms[a.keep]) for a in rules if a.keep in randoms])


def _randoms(results: Results) -> dict[float, str]:
    """Arms that choose at random, by their keep fraction."""
    return {a.keep: a.name for a in results.config.arms if a.policy == "random"}


def _compared(results: Results, pairs: Sequence[tuple[str, str]]) -> list[PairwiseTest]:
    budget, which, found = results.config.final_budget, [], []
    for metric, weight in results.headlines():
        for arm, other in pairs:
            a, b = (results.cell(budget, name, metric.name, weight) for name in (arm, other))
            comparison = _versus(results, a, b, metric)
            if comparison is not None:
                which.append((arm, other, metric, weight))
                found.append(comparison)
    return [PairwiseTest(budget, *duel, f) for duel, f in zip(which, corrected(found), strict=True)]


def _versus(results: Results, a: Cell | None, b: Cell | None, metric: Metric) -> Comparison | None:
    return None if a is None or b is None else paired(a.values, b.values, metric.sign, results.config.seeds)


def winners(results: Results) -> list[str]:
    """Arms that certainly beat both the baseline and random on every headline metric."""
    all_duels = pairwise_tests(results)
    mine = {arm: [d for d in all_duels if d.arm == arm] for arm in results.arms if arm not in ("baseline", "random")}
    return [arm for arm, found in mine.items() if found and all(d.found.outcome == "better" for d in found)]


def recommended(results: Results) -> Recommendation:
    """A rule that certainly beats both the baseline and random on every headline metric; else what certainly beats the
    baseline on one and certainly loses on none: random choice, or where that does not, such a rule; else the baseline.
    Of several the one of best mean rank. Arms that did not finish every seed are not recommended."""
    config, won = results.config, winners(results)
    baseline, ranked = config.baseline, mean_ranks({"": results})

    def of(arm: str, why: str) -> Recommendation:
        length = f"{config.iterations:,} steps of {config.recipe.super_batch:,} examples"
        return Recommendation(config.final_budget, arm, len(config.seeds), length, why)

    if won:
        arm = next(a for a in ranked if a in won)
        return of(arm, "it certainly beats baseline and random on every headline metric")
    against = {a: [d for d in pairwise_tests(results) if (d.arm, d.other) == (a, baseline)] for a in ranked}
    better = [
        arm
        for arm, found in against.items()
        if any(d.found.outcome == "better" for d in found)
        and not any(d.found.outcome == "worse" or d.found.missing for d in found)
    ]
    if "random" in better:
        why = "no rule certainly beats both it and baseline, and it certainly beats baseline"
        return of("random", f"{why}: what helps for certain is the smaller batch")
    if better:
        return of(better[0], "it certainly beats baseline, which random does not")
    return of(baseline, "nothing certainly beats it")


@dataclass(frozen=True)
class AtKeep:
    """A rule at one keep fraction, against random choice at the same and against the baseline.

    Attributes:
        keep: the fraction.
        cost: of its selecting step.
        metric, weight: what is compared.
        value: its mean, over the seeds that it has.
        random, baseline: the comparisons; None where the other is not there.
    """

    keep: float
    cost: SelectionCost | None
    metric: Metric
    weight: float
    value: float
    random: Comparison | None
    baseline: Comparison | None


def by_keep(results: Results, grid: Grid) -> list[AtKeep]:
    """From which keep fraction on a rule pays: its variants along `keep`, its other dial nearest to its usual 1."""
    (across, keeps), (_, others) = grid.across, grid.down
    if across != "keep":
        return []
    usual, budget = min(others, key=lambda v: abs(v - 1)), results.config.final_budget
    costs = {c.arm: c for c in selection_costs(results.config, counted(results))}
    randoms, found = _randoms(results), []
    for keep in keeps:
        name = grid.name_of(usual, keep)
        for metric, weight in results.headlines():
            mine, random, baseline = (
                results.cell(budget, arm, metric.name, weight)
                for arm in (name, randoms.get(keep, ""), results.config.baseline)
            )
            if mine is None:
                continue
            versus = [_versus(results, mine, other, metric) for other in (random, baseline)]
            found.append(AtKeep(keep, costs.get(name), metric, weight, mine.mean, *versus))
    return found


def counted(results: Results) -> Costs:
    """The costs that a bench's budget counts: without the exact target where its clock leaves that out."""
    return spared(results.costs) if results.config.final_budget == "time_without_target" else results.costs


def table_of(results: Results) -> list[dict[str, Any]]:
    """Every value by seed, as plain data."""
    return [
        {"arm": c.arm, "metric": c.metric, "weight": c.weight, "n": c.n, "by_seed": c.values}
        for c in results.cells.values()
        if c.budget == results.config.final_budget
    ]
