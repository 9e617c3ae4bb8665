"""A study's results: read from its folder, ranked by the screening, and compared in the final."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from ajest.bench.plan.config import spared
from ajest.bench.plan.tuning import Tuned
from ajest.bench.read.cost import SelectionCost, selection_costs
from ajest.bench.read.folder import read
from ajest.bench.read.recommendation import Recommendation
from ajest.bench.read.results import Cell, Results, randoms
from ajest.bench.read.statistics import Comparison, corrected, paired
from ajest.bench.run.tuning import tuning_of
from ajest.errors import UserError
from ajest.selection.arm import Arm
from ajest.selection.catalogue import ARMS
from ajest.tasks.base import Metric

from .guides import GuidesResults, read_guides
from .plan import ALWAYS, TUNED, Stage, Study


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
class StudyResults:
    """What a study's folder holds, finished or not.

    Attributes:
        screening, dials, final: benches of these stages that have any values, by the name of their folder.
        guides: what each guide gives.
        tuned: how learning rates were found; None where none were looked for.
    """

    screening: Mapping[str, Results]
    dials: Mapping[str, Results]
    final: Mapping[str, Results]
    guides: GuidesResults = field(default_factory=GuidesResults)
    tuned: Tuned | None = None

    def stages(self) -> dict[str, Mapping[str, Results]]:
        """The stages whose benches compare arms, by name."""
        return {"screening": self.screening, "dials": self.dials, "final": self.final}


def read_study(root: Path, study: Study) -> StudyResults:
    """The results of all stages, each bench read once."""
    screened, dialled, final = (results_of(root, study, stage) for stage in ("screening", "dials", "final"))
    return StudyResults(screened, dialled, final, read_guides(root / "guides"), tuning_of(root / TUNED))


@dataclass(frozen=True)
class PairwiseTest:
    """One arm against another on one headline metric at one budget.

    Attributes:
        budget: what is equal.
        arm, other: names.
        metric, weight: what is compared.
        gaps: the difference of each seed that both have.
        found: the paired comparison, corrected over all tests at the budget.
    """

    budget: str
    arm: str
    other: str
    metric: Metric
    weight: float
    gaps: tuple[float, ...]
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
    at_random = randoms(results.config)
    rules = [a for a in results.config.arms if a.policy != "random" and a.keep != ARMS["random"].keep]
    return _compared(results, [(a.name, at_random[a.keep]) for a in rules if a.keep in at_random])


def _compared(results: Results, pairs: Sequence[tuple[str, str]]) -> list[PairwiseTest]:
    budget, which, found = results.config.final_budget, [], []
    for metric, weight in results.headlines():
        for arm, other in pairs:
            a, b = (results.cell(budget, name, metric.name, weight) for name in (arm, other))
            comparison = versus(results, a, b, metric)
            if a is not None and b is not None and comparison is not None:
                which.append((arm, other, metric, weight, tuple(a.gaps(b).values())))
                found.append(comparison)
    return [PairwiseTest(budget, *pair, f) for pair, f in zip(which, corrected(found), strict=True)]


def versus(results: Results, a: Cell | None, b: Cell | None, metric: Metric) -> Comparison | None:
    """Two cells of a metric over the seeds that both have; None where there are none."""
    if a is None or b is None:
        return None
    margins = results.margins.get((a.budget, a.metric, a.weight))
    return paired(a.measured, b.measured, metric.sign, results.config.seeds, margins, results.config.looks)


@dataclass(frozen=True)
class Judged:
    """A bench of the final with what its verdict rests on.

    Attributes:
        results: the numbers behind it.
        tests: every arm against the baseline and random on every headline metric, corrected together.
        winners: arms that certainly beat both on every headline metric.
    """

    results: Results
    tests: tuple[PairwiseTest, ...]
    winners: tuple[str, ...]


def judged(results: Results) -> Judged:
    """A bench of the final, judged."""
    tests = pairwise_tests(results)
    mine = {arm: [d for d in tests if d.arm == arm] for arm in results.arms if arm not in ("baseline", "random")}
    asked = 2 * len(results.headlines())  # of what did not finish, or is not finite, there is no comparison
    won = (a for a, found in mine.items() if len(found) == asked and all(d.found.outcome == "better" for d in found))
    return Judged(results, tuple(tests), tuple(won))


def recommended(final: Judged) -> Recommendation:
    """A rule that certainly beats both the baseline and random on every headline metric; else what certainly beats the
    baseline on one and certainly loses on none: random choice, or where that does not, such a rule; else the baseline.
    Of several the one of best mean rank. Arms that did not finish every seed are not recommended."""
    config = final.results.config
    baseline, ranked = config.baseline, mean_ranks({"": final.results})

    def of(arm: str, why: str) -> Recommendation:
        length = config.iterations, config.recipe.super_batch
        return Recommendation(config.final_budget, arm, len(config.seeds), *length, why)

    if final.winners:
        arm = next(a for a in ranked if a in final.winners)
        return of(arm, "it certainly beats baseline and random on every headline metric")
    against = {a: [d for d in final.tests if (d.arm, d.other) == (a, baseline)] for a in ranked}
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
        random_beats = any(d.found.outcome == "better" for d in against.get("random", ()))
        unlike = "and certainly loses nowhere, as random does" if random_beats else "which random does not"
        return of(better[0], f"it certainly beats baseline, {unlike}")
    some_beat = any(d.found.outcome == "better" for found in against.values() for d in found)
    return of(baseline, "nothing certainly beats it" + " without certainly losing elsewhere" * some_beat)


def costs_of(results: Results) -> tuple[SelectionCost, ...]:
    """What selection costs by the clock of a bench's budget: without the exact target where that leaves it out."""
    spares = results.config.final_budget == "time_without_target"
    return tuple(selection_costs(results.config, spared(results.costs) if spares else results.costs))


def table_of(results: Results) -> list[dict[str, Any]]:
    """Every value by seed, as plain data."""
    return [
        {"arm": c.arm, "metric": c.metric, "weight": c.weight, "n": c.n, "by_seed": c.values}
        for c in results.cells.values()
        if c.budget == results.config.final_budget
    ]
