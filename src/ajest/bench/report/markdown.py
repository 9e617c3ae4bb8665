"""The findings as Markdown, for a repository's documentation."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import torch

from ajest.bench.read.findings import RECOMMENDED, Findings
from ajest.bench.read.table import Table

from .drawing import DrawnFigure, Figures
from .tables import MARKS, markdown_table


def as_markdown(findings: Findings, figures: Figures | None = None) -> str:
    """Verdict, tables, costs, figures and, where the settings are the published ones, the comparison with them.

    Args:
        findings: of the bench.
        figures: of the bench, as links to the files that `write_figures` makes.
    """
    config = findings.results.config
    arms, seeds = " ".join(findings.results.arms), " ".join(map(str, config.seeds))
    drawn = Figures() if figures is None else figures
    beside = f", classifier-free guidance weight {config.cfg:g}" if config.cfg != 1 else ""
    parts = [
        f"# Results: {config.task.name}",
        f"**{findings.answer}**",
        *map(_figure, drawn.lead),
        *_listed("", findings.verdict),
        *_listed("## What is missing", findings.missing),
        "## Headline metrics",
        *(part for table in (*findings.headlines, *findings.rivals) for part in section(table, 3)),
        *map(_figure, [*drawn.seeds, *drawn.differences]),
        *_listed("### What else was found", findings.notes),
        *_listed(f"### {RECOMMENDED}", findings.recommended),
        "## What is compared",
        f"{config.task.subject[0].upper()}{config.task.subject[1:]}. {findings.ends}, "
        f"with {config.recipe.super_batch:,} drawn examples each, seeds {seeds}, up to "
        f"{config.n_final:,} samples a measurement, autoguidance weight {config.weight:g}{beside}; report made with "
        f"Python {platform.python_version()}, torch {torch.__version__}. Arms: {arms}.",
        findings.caution,
        "## All metrics",
        f"{findings.legend} {MARKS}",
    ]
    for table in findings.tables:
        parts += section(table.turned("metric"), 3)
    for table in (
        *findings.by_sign,
        findings.rates,
        findings.tuning,
        findings.signs,
        findings.power,
        findings.variance,
        findings.time_to_quality,
        findings.level_table,
        findings.cost_table,
        findings.step_times_table,
        findings.score_reliability_table,
    ):
        parts += section(table)
    parts += _linked(findings, drawn)
    parts += section(findings.published)
    return "\n\n".join(parts) + "\n"


def section(table: Table, level: int = 2) -> list[str]:
    """A heading, the table and its notes; nothing for a table without rows."""
    notes = [" ".join(table.notes)] if table.notes else []
    return [f"{'#' * level} {table.title}", markdown_table(table), *notes] if table else []


def _listed(title: str, sentences: Sequence[str]) -> list[str]:
    return [*([title] if title else []), "\n".join(f"- {s}" for s in sentences)] if sentences else []


def _figure(drawn: DrawnFigure) -> str:
    return f"{drawn.caption}\n\n![{drawn.caption}]({drawn.name})"


def _linked(findings: Findings, figures: Figures) -> list[str]:
    """Links to the figures that a reader of the tables wants: all arms, and of two arms what happened inside."""
    config = findings.results.config
    inside = [config.baseline, *(a.name for a in config.arms if a.scores)][:2]
    parts = _figures("Learning curves", figures.curves, captions=False)  # their titles say what they show
    parts += _figures("Losses by noise level", figures.levels)
    parts += _figures("Samples", figures.side_by_side)
    for arm in inside:
        parts += _figures(f"Inside {arm}", figures.galleries.get(arm, ()))
    return parts


def _figures(title: str, drawn: tuple[DrawnFigure, ...], captions: bool = True) -> list[str]:
    said = [_figure(f) if captions else f"![{f.caption}]({f.name})" for f in drawn]
    return [f"## {title}", "\n\n".join(said)] if said else []
