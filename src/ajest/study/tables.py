"""Tables of a study as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from ajest.bench.plan.budgets import BUDGETS
from ajest.bench.read.cost import SelectionCost, cost_table
from ajest.bench.read.numbers import number
from ajest.bench.read.results import Cell, Results
from ajest.bench.read.table import Entry, Table, TableCell
from ajest.bench.read.wording import gap, metric_head, metric_name, tone
from ajest.tasks.base import Metric

from .dials import AtKeep
from .guides import GuideGain
from .plan import Grid
from .results import Judged, PairwiseTest, mean_ranks


def headline_table(final: Judged) -> Table:
    """Arms down; of each headline metric the mean and the differences to baseline and random."""
    results, others = final.results, ("baseline", "random")
    columns, budget = results.headlines(), results.config.final_budget
    by_pair = {(d.arm, d.other, d.metric.name, d.weight): d for d in final.tests}
    heads = ["arm", "steps"]
    for metric, weight in columns:
        heads += [metric_head(metric, weight), *(f"minus {other}" for other in others)]
    rows = []
    for arm in results.arms:
        row: list[Entry] = [arm, _steps(results, arm)]
        for metric, weight in columns:
            row.append(_mean(results, results.cell(budget, arm, metric.name, weight), metric))
            tests = [by_pair.get((arm, other, metric.name, weight)) for other in others]
            row += ["" if d is None else gap(d.found, metric, tested=True) for d in tests]
        rows.append(row)
    return Table.of(f"At {BUDGETS[budget].title}", heads, rows)


def matches_table(found: Sequence[PairwiseTest]) -> Table:
    """Rules of other keep fractions against random choice at theirs."""
    rows: list[list[Entry]] = [
        [d.arm, d.other, metric_name(d.metric, d.weight), gap(d.found, d.metric, tested=True)] for d in found
    ]  # fmt: skip
    heads = ("arm", "random choice of as many", "metric", "difference")
    return Table.of("Against random choice at the same keep fraction:", heads, rows)


def other_metrics_table(results: Results) -> Table:
    """Arms down, and all metrics that are no headline."""
    headlines = results.headlines()
    columns = [c for c in results.columns() if c not in headlines and c[0].name != "mandala_16k"]
    rows = []
    for arm in results.arms:
        row: list[Entry] = [arm]
        for metric, weight in columns:
            cell = results.cell(results.config.final_budget, arm, metric.name, weight)
            against = cell.against.get(results.config.baseline) if cell else None
            row.append(replace(_mean(results, cell, metric), tone=tone(against)))
        rows.append(row)
    heads = ["arm", *(metric_head(*c) for c in columns)]
    return Table.of("Other metrics:", heads, rows)


def costs_table(results: Results, costs: Sequence[SelectionCost]) -> Table:
    """What selection costs by a bench's own timing."""
    title = f"What selection costs, as timed for {BUDGETS[results.config.final_budget].title}:"
    return replace(cost_table(costs), title=title, notes=())


def guides_table(gains: Sequence[GuideGain]) -> Table:
    """What each guide gives, with its price."""
    heads = ("guide", "charged", "forward passes", "weight, chosen on other seeds", "metric", "guided",
             "minus unguided", "minus the trained guide")  # fmt: skip
    rows: list[list[Entry]] = [
        [g.guide, g.charged, g.passes, f"{g.weight:g}", g.metric.label, number(g.gain.value, g.metric),
         gap(g.gain, g.metric), gap(g.trained, g.metric)]
        for g in gains
    ]  # fmt: skip
    several = max((g.gain.guides for g in gains), default=1)
    limit = (
        f"Trained guides are {several}, crossed with the seeds: intervals hold what another guide would do."
        if several > 1
        else "One guide of one seed serves all runs; the intervals do not hold what another guide would do."
    )
    passes = "Forward passes are those of the sampled network for each of its answers; g is one of the trained guide."
    return Table.of("Autoguidance and what its guide costs", heads, rows, (limit, passes))


def screening_table(screened: Mapping[str, Results], references: str) -> Table:
    """Rules by their mean rank, with each headline metric at each budget.

    Args:
        screened: the benches of the screening.
        references: what references cost, in words; "" for none.
    """
    first = next(iter(screened.values()), None)
    summaries = {} if first is None else {a.name: a.summary for a in first.config.arms}
    heads = ["mean rank", "rule", "what it does"]
    for results in screened.values():
        short = BUDGETS[results.config.final_budget].title.removeprefix("equal ")
        heads += [f"{metric_name(m, w)}, {short} {'↓' if m.better == 'lower' else '↑'}" for m, w in results.headlines()]
    rows = []
    for arm, rank in mean_ranks(screened).items():
        row: list[Entry] = [f"{rank:.1f}", arm, summaries.get(arm, "")]
        for results in screened.values():
            for metric, weight in results.headlines():
                cell = results.cell(results.config.final_budget, arm, metric.name, weight)
                row.append(_mean(results, cell, metric))
        rows.append(row)
    return Table.of("Screening", heads, rows, (references,) if references else ())


def keeps_table(grid: Grid, found: Sequence[AtKeep]) -> Table:
    """From which keep fraction on a rule pays for its scores."""
    heads = ("keep", "cost of an example, by the model", "as measured", "metric", grid.arm,
             "minus random at the same keep", "minus baseline")  # fmt: skip
    rows: list[list[Entry]] = []
    for f in found:
        costs = ["-", "-"] if f.cost is None else [f"{f.cost.model_ratio:.2f}", f"{f.cost.example_ratio:.2f}"]
        gaps = [gap(other, f.metric) for other in (f.random, f.baseline)]
        rows.append([f"{f.keep:g}", *costs, metric_name(f.metric, f.weight), number(f.value, f.metric), *gaps])
    return Table.of(f"From which keep fraction on does `{grid.arm}` pay?", heads, rows)


def _mean(results: Results, cell: Cell | None, metric: Metric) -> TableCell:
    """A mean, with the number of seeds where these are not all."""
    if cell is None:
        return TableCell("-")
    few = len(cell.values) < len(results.config.seeds)
    return TableCell(number(cell.mean, metric), f"{len(cell.values)} seeds" if few else "")


def _steps(results: Results, arm: str) -> str:
    """Mean steps of the runs that are done."""
    steps = [run.step for (name, _), run in results.runs.items() if name == arm and run.state == "done"]
    return f"{fmean(steps):,.0f}" if steps else "-"
