"""A study's page: what was asked, what came out, with every number's command."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from matplotlib.figure import Figure

from ajest.bench.plan.budgets import BUDGETS
from ajest.bench.read.cost import cost_table, selection_costs
from ajest.bench.read.numbers import number
from ajest.bench.read.recommendation import as_json
from ajest.bench.read.results import Cell, Results
from ajest.bench.read.score_reliability import score_reliability, score_reliability_table
from ajest.bench.read.statistics import ALPHA, COVERAGE, LEAST_SEEDS
from ajest.bench.read.table import Entry, Table, TableCell
from ajest.bench.read.wording import gap, metric_head, metric_name, tone
from ajest.bench.report.figures import WHISKERS, encoded
from ajest.bench.report.markdown import section
from ajest.bench.report.tables import markdown_table
from ajest.storage.checkpoint import write_atomic, write_json
from ajest.tasks.base import Metric

from . import figures
from .guides import GuideGain, read_gains
from .plan import Grid, Study
from .results import (
    PairwiseTest,
    by_keep,
    counted,
    matches,
    mean_ranks,
    pairwise_tests,
    recommended,
    results_of,
    table_of,
)
from .verdict import reference_costs, verdict


def write_page(root: Path, study: Study, command: str) -> list[str]:
    """Write study.md, figures/ and one .json of all values a stage into a study's folder; returns the verdict.

    Args:
        root: the study's folder, finished or not.
        study: what is studied.
        command: that makes it.
    """
    screened, dialled, final = (results_of(root, study, stage) for stage in ("screening", "dials", "final"))
    guides = read_gains(root / "guides")
    said = verdict(final)
    parts = [
        f"# Study: {study.task.name}",
        f"{study.task.subject[0].upper()}{study.task.subject[1:]}. Budgets are what the baseline needs for "
        f"{study.iterations:,} steps of {study.recipe.super_batch:,} examples; the learning rate is annealed for each "
        f"budget. Rules are screened on seeds {_seeds(study.screening_seeds)} and judged on seeds "
        f"{_seeds(study.final_seeds)}; equal samples are {study.samples:,} examples trained on; {study.n:,} samples a "
        f"measurement, autoguidance weight {study.weight:g}. Made by `{command}` "
        f"with Python {platform.python_version()}, torch {torch.__version__}.",
        *([" ".join(notes)] if (notes := study.task.notes(study.n)) else []),
        *(["## Verdict", "\n".join(f"- {s}" for s in said)] if said else []),
    ]
    (root / "recommendations.json").unlink(missing_ok=True)  # of another state of the folder
    if final and not any(results.unfinished for results in final.values()):
        chosen = [recommended(results) for results in final.values()]
        write_json(root / "recommendations.json", as_json(study.task.name, chosen))
        parts += ["## Recommendation", "\n".join(f"- {str(r)[0].upper()}{str(r)[1:]}." for r in chosen)]
    missing = [s for stage in (screened, dialled, final) for results in stage.values() for s in results.missing()]
    if missing:
        parts += ["## What is missing", "\n".join(f"- {s}" for s in dict.fromkeys(missing))]
    if final:
        parts += ["## Final", *_final(root, final)]
    if guides:
        parts += ["## Autoguidance and what its guide costs", *_guides(guides)]
    if screened:
        parts += ["## Screening", *_screening(root, screened)]
    if dialled:
        parts += ["## Dials", *_dials(root, study, dialled)]
    write_atomic(root / "study.md", "\n\n".join(parts) + "\n")
    for stage, results in {"screening": screened, "dials": dialled, "final": final}.items():
        if results:
            write_json(root / f"{stage}.json", {name: table_of(found) for name, found in results.items()})
    return said


def _final(root: Path, final: Mapping[str, Results]) -> list[str]:
    parts, everything = [], []
    for results in final.values():
        found = pairwise_tests(results)
        everything += found
        parts += [f"### At {BUDGETS[results.config.final_budget].title}", _headlines(results, found)]
        parts += [*_matches(results), "Elsewhere (is what is gained lost there?):", _elsewhere(results)]
    timed = ("calibrated", "time_without_target")
    parts += [part for results in final.values() if results.config.final_budget in timed for part in _costs(results)]
    for other in ("baseline", "random"):
        parts.append(_linked(root, f"final-{other}", f"differences to {other}", figures.forest(everything, other)))
    parts += [
        f"{WHISKERS} In brackets {COVERAGE} paired bootstrap intervals; on how many of the seeds it is better (the "
        "probability of improvement); p of a paired t-test, Holm-corrected over all comparisons at the budget. "
        f"**Bold**: certainly better, *italic*: certainly worse, as no seed is missing of {LEAST_SEEDS} or more and p "
        f"is below {ALPHA:g}; elsewhere that is against the baseline, corrected over the arms on each metric by "
        f"itself. {_references(next(iter(final.values())))}"
    ]
    return parts


def _headlines(results: Results, found: Sequence[PairwiseTest]) -> str:
    """Arms down; of each headline metric the mean and the differences to baseline and random."""
    others, columns = ("baseline", "random"), results.headlines()
    by_pair = {(d.arm, d.other, d.metric.name, d.weight): d for d in found}
    heads = ["arm", "steps"]
    for metric, weight in columns:
        heads += [metric_head(metric, weight), *(f"minus {other}" for other in others)]
    rows = []
    for arm in results.arms:
        row: list[Entry] = [arm, _steps(results, arm)]
        for metric, weight in columns:
            row.append(_mean(results, results.cell(results.config.final_budget, arm, metric.name, weight), metric))
            tests = [by_pair.get((arm, other, metric.name, weight)) for other in others]
            row += ["" if d is None else gap(d.found, metric, tested=True) for d in tests]
        rows.append(row)
    return _table(heads, rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[Entry]]) -> str:
    return markdown_table(Table.of("", heads, rows))


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


def _references(results: Results) -> str:
    """What references cost, which no arm is charged for here."""
    shares, arms = reference_costs(results), results.config.arms
    used = {r: [a.name for a in arms if a.reference == r] for r in shares}
    names = {"guide": "guide", "strong": "strong reference"}
    said = [
        f"Training the {names[r]} took {shares[r]:.0%} of a run's budget, once for all runs; it is not charged to "
        f"{', '.join(users)}."
        for r, users in used.items()
        if users
    ]
    return " ".join(said)


def _matches(results: Results) -> list[str]:
    """Rules of other keep fractions against random choice at theirs."""
    rows: list[list[Entry]] = [
        [d.arm, d.other, metric_name(d.metric, d.weight), gap(d.found, d.metric, tested=True)] for d in matches(results)
    ]
    if not rows:
        return []
    heads = ["arm", "random choice of as many", "metric", "difference"]
    return ["Against random choice at the same keep fraction:", _table(heads, rows)]


def _elsewhere(results: Results) -> str:
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
    return _table(["arm", *(metric_head(*c) for c in columns)], rows)


def _guides(guides: Sequence[GuideGain]) -> list[str]:
    heads = ["guide", "charged", "weight, chosen on other seeds", "metric", "guided", "minus unguided",
             "minus the trained guide"]  # fmt: skip
    rows: list[list[Entry]] = []
    for g in guides:
        gains = [gap(other, g.metric) for other in (g.gain, g.trained)]
        rows.append([g.guide, g.charged, f"{g.weight:g}", g.metric.label, number(g.value, g.metric), *gains])
    limit = "One guide of one seed serves all runs; the intervals do not hold what another guide would do."
    return [_table(heads, rows), limit]


def _screening(root: Path, screened: Mapping[str, Results]) -> list[str]:
    ranks = mean_ranks(screened)
    first = next(iter(screened.values()))
    summaries = {a.name: a.summary for a in first.config.arms}
    heads = ["mean rank", "rule", "what it does"]
    for results in screened.values():
        short = BUDGETS[results.config.final_budget].title.removeprefix("equal ")
        heads += [f"{metric_name(m, w)}, {short} {'↓' if m.better == 'lower' else '↑'}" for m, w in results.headlines()]
    rows = []
    for arm, rank in ranks.items():
        row: list[Entry] = [f"{rank:.1f}", arm, summaries.get(arm, "")]
        for results in screened.values():
            for metric, weight in results.headlines():
                cell = results.cell(results.config.final_budget, arm, metric.name, weight)
                row.append(_mean(results, cell, metric))
        rows.append(row)
    parts = [_table(heads, rows), _references(first)]
    trusted = score_reliability(first)
    figure = figures.scores(trusted)
    if figure is not None:
        heading, *table = section(score_reliability_table(trusted), level=3)
        parts += [heading, _linked(root, "scores", "reliability of scores", figure), *table]
    return [*parts, *_costs(first)]


def _costs(results: Results) -> list[str]:
    """What selection costs by the bench's own timing."""
    costs = selection_costs(results.config, counted(results))
    if not costs:
        return []
    title = BUDGETS[results.config.final_budget].title
    return [f"What selection costs, as timed for {title}:", markdown_table(cost_table(costs))]


def _dials(root: Path, study: Study, dialled: Mapping[str, Results]) -> list[str]:
    parts = []
    for name, results in dialled.items():
        parts.append(f"At {BUDGETS[results.config.final_budget].title}, mean over {len(results.config.seeds)} seeds:")
        for i, grid in enumerate(study.grids):
            parts += _keeps(results, grid)
            for metric, weight in results.headlines():
                figure = figures.heatmap(results, grid, metric, weight)
                if figure is not None:
                    caption = f"{grid.arm}: {metric_name(metric, weight)} over {grid.down[0]} and {grid.across[0]}"
                    parts.append(_linked(root, f"dials-{name}-{i + 1}-{metric.name}-{weight:g}", caption, figure))
    return parts


def _keeps(results: Results, grid: Grid) -> list[str]:
    """From which keep fraction on a rule pays for its scores."""
    found = by_keep(results, grid)
    if not found:
        return []
    heads = ["keep", "cost of an example, by the model", "as measured", "metric", grid.arm,
             "minus random at the same keep", "minus baseline"]  # fmt: skip
    rows: list[list[Entry]] = []
    for f in found:
        costs = ["-", "-"] if f.cost is None else [f"{f.cost.model_ratio:.2f}", f"{f.cost.example_ratio:.2f}"]
        gaps = [gap(other, f.metric) for other in (f.random, f.baseline)]
        rows.append([f"{f.keep:g}", *costs, metric_name(f.metric, f.weight), number(f.value, f.metric), *gaps])
    return [f"From which keep fraction on does `{grid.arm}` pay?", _table(heads, rows)]


def _linked(root: Path, name: str, caption: str, figure: Figure) -> str:
    path = Path("figures") / f"{name}.png"
    write_atomic(root / path, encoded(figure, "png").data)
    return f"![{caption}]({path.as_posix()})"


def _seeds(seeds: Sequence[int]) -> str:
    whole = tuple(range(seeds[0], seeds[0] + len(seeds)))
    return f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 2 and seeds == whole else " ".join(map(str, seeds))
