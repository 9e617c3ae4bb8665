"""What a study found: decided once, from its results alone, and printed by page, JSON, terminal and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ajest.bench.plan.budgets import BUDGETS
from ajest.bench.read.margins import not_named
from ajest.bench.read.rates import tuning_table
from ajest.bench.read.recommendation import Recommendation
from ajest.bench.read.results import Results
from ajest.bench.read.score_reliability import Estimate, score_reliability, score_reliability_table
from ajest.bench.read.table import Table

from .dials import Heatmap, by_keep, heatmaps
from .plan import Study
from .results import Judged, PairwiseTest, StudyResults, costs_of, judged, matches, recommended
from .tables import (
    costs_table,
    guides_table,
    headline_table,
    keeps_table,
    matches_table,
    other_metrics_table,
    screening_table,
)
from .verdict import references_charged_to_none, verdict

#: Budgets at which it matters what selection costs.
TIMED = ("calibrated", "time_without_target")


@dataclass(frozen=True)
class FinalBench:
    """What the final found at one budget.

    Attributes:
        tests: every arm against the baseline and random on every headline metric.
        headlines: of these metrics the means and the differences.
        matches: rules of other keep fractions against random choice at theirs.
        other_metrics: all other metrics.
        costs: what selection costs; without rows where the budget is no time.
    """

    tests: tuple[PairwiseTest, ...]
    headlines: Table
    matches: Table
    other_metrics: Table
    costs: Table


@dataclass(frozen=True)
class GridFindings:
    """What one grid of dials shows.

    Attributes:
        keeps: from which keep fraction on the rule pays; without rows where the grid does not vary that.
        heatmaps: of the headline metrics.
    """

    keeps: Table
    heatmaps: tuple[Heatmap, ...]


@dataclass(frozen=True)
class DialsBench:
    """What the dials show at one budget.

    Attributes:
        name: of the bench.
        title: of the budget.
        seeds: how many means are over.
        grids: in the study's order.
    """

    name: str
    title: str
    seeds: int
    grids: tuple[GridFindings, ...]


@dataclass(frozen=True)
class Findings:
    """Everything a study's page says; whoever prints it decides nothing.

    Attributes:
        study: what is studied.
        results: the numbers behind it.
        verdict: sentences in the order of importance.
        recommendations: what to train with, for each budget; none before the final is finished.
        missing: sentences on what is not there.
        final: at each budget.
        references: what references cost, which no arm of the final is charged for, in words.
        guides: what each guide of autoguidance gives, and its price.
        screening: all rules by their mean rank.
        score_reliability: how far scores can be trusted, by arm and quantity, at the screening's first budget.
        score_reliability_table: the same for people.
        costs: what selection costs there.
        dials: at each budget.
        tuning: what the learning rates gave that were tried; without rows where none was.
    """

    study: Study
    results: StudyResults
    verdict: tuple[str, ...]
    recommendations: tuple[Recommendation, ...]
    missing: tuple[str, ...]
    final: tuple[FinalBench, ...]
    references: str
    guides: Table
    screening: Table
    score_reliability: Mapping[str, Mapping[str, Estimate]]
    score_reliability_table: Table
    costs: Table
    dials: tuple[DialsBench, ...]
    tuning: Table


def findings(study: Study, results: StudyResults) -> Findings:
    """What a study found, as far as it is finished. Reads no file."""
    final = [judged(bench) for bench in results.final.values()]
    finished = not any(bench.unfinished for bench in results.final.values())
    missing = [s for stage in results.stages().values() for bench in stage.values() for s in bench.missing()]
    missing += [s for bench in results.final.values() for s in not_named(bench)]
    screened = next(iter(results.screening.values()), None)
    trusted = {} if screened is None else score_reliability(screened)
    uncharged = "" if screened is None else references_charged_to_none(screened)
    return Findings(
        study=study,
        results=results,
        verdict=tuple(verdict(final)),
        recommendations=tuple(recommended(bench) for bench in final) if finished else (),
        missing=tuple(dict.fromkeys(missing)),
        final=tuple(_final(bench) for bench in final),
        references=references_charged_to_none(final[0].results) if final else "",
        guides=guides_table(results.guides.gains),
        screening=screening_table(results.screening, uncharged),
        score_reliability=trusted,
        score_reliability_table=score_reliability_table(trusted),
        costs=_NO_COSTS if screened is None else costs_table(screened, costs_of(screened)),
        dials=tuple(_dials(study, name, bench) for name, bench in results.dials.items()),
        tuning=tuning_table(study.task, results.tuned),
    )


_NO_COSTS = Table.of("", (), ())


def _final(bench: Judged) -> FinalBench:
    results = bench.results
    timed = results.config.final_budget in TIMED
    return FinalBench(
        tests=bench.tests,
        headlines=headline_table(bench),
        matches=matches_table(matches(results)),
        other_metrics=other_metrics_table(results),
        costs=costs_table(results, costs_of(results)) if timed else _NO_COSTS,
    )


def _dials(study: Study, name: str, results: Results) -> DialsBench:
    costs = costs_of(results)
    grids = (
        GridFindings(keeps_table(grid, by_keep(results, grid, costs)), tuple(heatmaps(results, grid)))
        for grid in study.grids
    )
    return DialsBench(name, BUDGETS[results.config.final_budget].title, len(results.config.seeds), tuple(grids))
