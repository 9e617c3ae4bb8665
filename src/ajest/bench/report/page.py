"""The report: one self-contained page, and all numbers as CSV and JSON beside it. A pure function of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2

from ajest.bench.plan.config import run_folder
from ajest.bench.plan.readings import READINGS
from ajest.bench.read.cost import COST_HEADS, cost_rows, selection_costs
from ajest.bench.read.published import beside_ours
from ajest.bench.read.reliability import reliability, reliability_table
from ajest.bench.read.results import Cell, Results, collect
from ajest.bench.read.statistics import ALPHA, LEAST_SEEDS
from ajest.bench.read.verdict import QUALITY_HEADS, caution, decisive, quality_rows, verdict
from ajest.bench.read.wording import amount, ends, number, p_value, shown
from ajest.bench.run.reached import reached
from ajest.storage.checkpoint import write_atomic, write_json
from ajest.tasks.base import Metric

from .export import as_csv, as_json
from .markdown import as_markdown
from .sheets import Picture, gallery_of, pictures, write_pictures


def write_report(root: Path) -> Results:
    """Write report.html, results.csv, .json and .md, and figures/ into a bench's folder; returns what they say.

    Works on half-finished benches and says what is missing.
    """
    results = collect(root)
    groups = pictures(results)
    write_pictures(root, groups)
    write_atomic(root / "report.html", render(results, groups))
    write_atomic(root / "results.csv", as_csv(results))
    write_atomic(root / "results.md", as_markdown(results, groups))
    write_json(root / "results.json", as_json(results))
    return results


def render(results: Results, groups: Mapping[str, Sequence[Picture]] | None = None) -> str:
    """The page; `groups` are the figures of `pictures`, if they are made already."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ajest.bench.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    config, drawn = results.config, pictures(results) if groups is None else groups
    costs = selection_costs(config, results.costs)
    return environment.get_template("report.html").render(
        config=config,
        results=results,
        ends=ends(config),
        equal=[READINGS[reading].title for reading in decisive(results) or [config.whole]],
        alpha=ALPHA,
        least_seeds=LEAST_SEEDS,
        verdict=verdict(results),
        missing=results.missing(),
        tables=[_table(results, reading) for reading in results.readings()],
        metrics=config.task.metrics,
        differences=drawn["differences"],
        curves=drawn["curves"],
        caution=caution(config),
        cost_heads=COST_HEADS,
        costs=cost_rows(costs),
        trusted=reliability_table(reliability(results)),
        quality_heads=QUALITY_HEADS,
        quality=quality_rows(results),
        cost_figures=drawn["costs"],
        used=_used(results),
        guide=_guide(results),
        side_by_side=drawn["arms"],
        galleries=[(arm, drawn[gallery_of(arm)]) for arm in results.arms],
        published=beside_ours(results),
    )


def _table(results: Results, reading: str) -> dict[str, Any]:
    """One reading: arms down, metrics across."""
    headlines = results.headlines()
    ordered = [*headlines, *(c for c in results.columns() if c not in headlines)]
    columns = [c for c in ordered if any(results.cell(reading, a, c[0].name, c[1]) for a in results.arms)]
    # Mandala at 16,384 samples says nothing new where no more were taken.
    n = next((c.n for c in results.cells.values() if c.reading == reading), 0)
    columns = [c for c in columns if c[0].name != "mandala_16k" or n > 16384]
    floor = results.floors.get(n, {})
    return {
        "reading": READINGS[reading],
        "budget": amount(reading, results.budgets[reading]),
        "n": n,
        "notes": results.config.task.notes(n),
        "columns": [
            {"label": m.label, "guided": w != 1, "better": m.better, "headline": (m, w) in headlines}
            for m, w in columns
        ],
        "rows": [
            {
                "arm": arm,
                "steps": _steps_at(results, reading, arm),
                "cells": [_shown(results, results.cell(reading, arm, m.name, w), m) for m, w in columns],
            }
            for arm in results.arms
        ],
        "floor": [number(floor[m.name], m) if m.name in floor and w == 1 else "" for m, w in columns],
    }


def _steps_at(results: Results, reading: str, arm: str) -> str:
    """Steps that the arm's seeds had taken at a reading."""
    budget = results.budgets[reading]
    steps = {
        reached(run_folder(results.root, arm, seed))[reading].get(budget)
        for seed in results.config.seeds
        if results.runs[arm, seed].state != "diverged"
    } - {None}
    known = sorted(s for s in steps if s is not None)
    if not known:
        return "-"
    return f"{known[0]:,}" if len(known) == 1 else f"{known[0]:,} to {known[-1]:,}"


def _shown(results: Results, cell: Cell | None, metric: Metric) -> dict[str, str]:
    text = shown(results, cell, metric)
    found = cell.against.get(results.config.baseline) if cell else None
    title = "not evaluated yet" if cell is None else "mean over seeds, standard deviation"
    if found is not None:
        title = (
            f"difference {number(found.difference, metric)}, better on {found.better:.0%} of {found.seeds} seeds, "
            f"{p_value(found.p)}, Holm-corrected {p_value(found.corrected)}"
        )
    tone = "" if text.outcome == "undecided" else text.outcome
    return {"value": text.value, "detail": text.detail, "tone": tone, "title": title}


def _guide(results: Results) -> str:
    if not results.guide.ledger:
        return "The guide is not trained yet."
    seconds = sum(results.guide.ledger[-1]["seconds"].values())
    text = (
        f"The guide took {seconds:.1f} s ({results.guide.step:,} steps), once for all runs; no arm is charged for it."
    )
    uses = [a.name for a in results.config.arms if a.reference == "guide"]
    if uses and "guide" in results.costs and "uniform" in results.costs:
        spent = results.config.guide_iterations * sum(results.costs["guide"].values())
        share = spent / results.config.time(results.costs)
        text += (
            f" Charged, it would add {share:.0%} of a whole {results.config.baseline} run to every run that uses it: "
            f"{', '.join(uses)} while training, and every arm when sampled with autoguidance."
        )
    return text


def _used(results: Results) -> list[list[str]]:
    """What a whole run of each arm used, mean over its finished seeds."""
    rows = []
    for arm in results.arms:
        last = [r.ledger[-1] for (a, _), r in results.runs.items() if a == arm and r.state == "done"]
        if not last:
            continue
        counts = [f"{fmean(line[name] for line in last):,.0f}" for name in ("drawn", "scored", "trained")]
        flops = f"{fmean(line['flops'] for line in last) / 1e12:.3g}"
        seconds = [
            fmean(sum(line["seconds"].values()) for line in last),
            fmean(line["warmup_seconds"] for line in last),
        ]
        fired = sorted({line["fired_at"] for line in last} - {None})
        changed = "" if not fired else f"{fired[0]}" if len(fired) == 1 else f"{fired[0]} to {fired[-1]}"
        rows.append([arm, *counts, flops, f"{seconds[0]:.1f}", f"{seconds[1]:.2f}", changed])
    return rows
