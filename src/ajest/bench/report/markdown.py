"""The results as Markdown, for a repository's documentation."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence

import torch

from ajest.bench.plan.readings import READINGS
from ajest.bench.read.cost import COST_HEADS, cost_rows, selection_costs
from ajest.bench.read.published import beside_ours
from ajest.bench.read.reliability import reliability, reliability_table
from ajest.bench.read.results import Cell, Results
from ajest.bench.read.statistics import ALPHA, LEAST_SEEDS
from ajest.bench.read.verdict import QUALITY_HEADS, caution, quality_rows, verdict
from ajest.bench.read.wording import amount, ends, number, shown
from ajest.tasks.base import Metric

from .sheets import Picture, gallery_of


def as_markdown(results: Results, groups: Mapping[str, Sequence[Picture]] | None = None) -> str:
    """Verdict, tables, costs, figures and, where the settings are the published ones, the comparison with them.

    Args:
        results: of the bench.
        groups: figures of `pictures`, as links to the files that `write_pictures` makes.
    """
    config = results.config
    arms, seeds = " ".join(results.arms), " ".join(map(str, config.seeds))
    parts = [
        f"# Results: {config.task.name}",
        f"{config.task.subject[0].upper()}{config.task.subject[1:]}. {ends(config)}, "
        f"with {config.recipe.super_batch:,} drawn examples each, seeds {seeds}, up to "
        f"{config.n_final:,} samples a measurement, autoguidance weight {config.weight:g}; report made with Python "
        f"{platform.python_version()}, torch {torch.__version__}. Arms: {arms}.",
        "Cells: mean over seeds; in brackets the 95 % paired bootstrap interval of the difference to "
        f"{config.baseline} (for {config.baseline} the standard deviation). **Bold**: certainly better or worse than "
        f"{config.baseline}: no seed is missing of {LEAST_SEEDS} or more, and the Holm-corrected p is below {ALPHA:g}, "
        "over all arms and headline metrics of a table, or over the arms on a metric that is no headline. "
        "+G: with autoguidance. Arrows point to the better side. The last column is what as many other real examples "
        "reach: no model should look better.",
        caution(config),
        "## Verdict",
        "\n".join(f"- {s}" for s in [*verdict(results), *results.missing()]),
    ]
    for reading in results.readings():
        parts += _reading(results, reading)
    quality = quality_rows(results)
    if quality:
        parts += [
            "## Time and samples to quality",
            f"What each arm needs to be as good as {config.baseline} is at the end of its run: median over "
            "the seeds, of which those that never got there stand behind all others; from learning curves at "
            f"{config.n_curve:,} samples. Dash: fewer than half got there.",
            grid(QUALITY_HEADS, quality),
        ]
    costs = selection_costs(config, results.costs)
    if costs:
        parts += ["## What selection costs", grid(COST_HEADS, cost_rows(costs))]
    trusted = reliability(results)
    if trusted:
        parts += ["## Reliability of scores", grid(*reliability_table(trusted))]
    if groups:
        parts += _linked(results, groups)
    published = beside_ours(results)
    if published:
        heads = ["figure", "arm", "published", "ours", "judgement"]
        rows = [[r.what, r.arm, r.published, r.ours, f"{r.judgement} ({r.why})" if r.why else r.judgement]
                for r in published]  # fmt: skip
        parts += [
            "## Beside the published figures",
            "arXiv 2509.15267 and its public notebooks, 5 seeds, mean +- standard deviation. *Agree*: the 95 % Welch "
            "interval of the difference of the two means holds 0; where no standard deviation was published, ours "
            "stands in for it.",
            grid(heads, rows),
        ]
    return "\n\n".join(parts) + "\n"


def _linked(results: Results, groups: Mapping[str, Sequence[Picture]]) -> list[str]:
    """Links to the figures that a reader of the tables wants: all arms, and of two arms what happened inside."""
    inside = [results.config.baseline, *(a.name for a in results.config.arms if a.scores)][:2]
    sections = {"Learning curves": "curves", "Pictures": "arms"}
    sections |= {f"Pictures of {arm}": gallery_of(arm) for arm in inside}
    parts = []
    for title, group in sections.items():
        if groups.get(group):
            # Curves say in their titles what they show.
            links = [f"![{p.caption}]({p.name})" for p in groups[group]]
            said = ["" if group == "curves" else f"{p.caption}\n\n" for p in groups[group]]
            parts += [f"## {title}", "\n\n".join(a + b for a, b in zip(said, links, strict=True))]
    return parts


def _reading(results: Results, reading: str) -> list[str]:
    columns = [c for c in results.columns() if any(results.cell(reading, a, c[0].name, c[1]) for a in results.arms)]
    n = next(cell.n for cell in results.cells.values() if cell.reading == reading)
    columns = [c for c in columns if c[0].name != "mandala_16k" or n > 16384]
    heads = ["metric", *results.arms, "real examples"]
    floor = results.floors.get(n, {})
    rows = [
        [f"{m.label}{' +G' if w != 1 else ''} {'↓' if m.better == 'lower' else '↑'}"]
        + [_shown(results, results.cell(reading, arm, m.name, w), m) for arm in results.arms]
        + [number(floor[m.name], m) if m.name in floor and w == 1 else ""]
        for m, w in columns
    ]
    title = f"## At {READINGS[reading].title}: {amount(reading, results.budgets[reading])}, {n:,} samples"
    notes = " ".join(results.config.task.notes(n))
    return [title, grid(heads, rows), *([notes] if notes else [])]


def _shown(results: Results, cell: Cell | None, metric: Metric) -> str:
    text = shown(results, cell, metric)
    value = text.value if text.outcome == "undecided" else f"**{text.value}**"
    return f"{value} ({text.detail})" if text.detail else value


def grid(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
