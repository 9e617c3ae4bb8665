"""A study's page: what was asked, what came out, with every number's command. It prints findings and decides none."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from ajest.bench.read.intervals import ALPHA, COVERAGE, least_for_bootstrap
from ajest.bench.read.recommendation import as_json
from ajest.bench.read.statistics import LEAST_SEEDS
from ajest.bench.read.table import Table
from ajest.bench.report.drawing import DrawnFigure
from ajest.bench.report.figures import WHISKERS
from ajest.bench.report.markdown import section
from ajest.bench.report.tables import MARKS, markdown_table
from ajest.storage.checkpoint import write_atomic, write_json

from .figures import Figures, draw
from .findings import Findings, findings
from .plan import Study
from .results import read_study, table_of


def write_page(root: Path, study: Study, command: str) -> Findings:
    """Write study.md, figures/, recommendations.json and one .json of all values a stage into a study's folder; returns
    what they say.

    Args:
        root: the study's folder, finished or not.
        study: what is studied.
        command: that makes it.
    """
    found = findings(study, read_study(root, study))
    figures = draw(found)
    for figure in figures.all():
        write_atomic(root / figure.name, figure.content.data)
    if found.recommendations:
        write_json(root / "recommendations.json", as_json(study.task.name, list(found.recommendations)))
    else:
        (root / "recommendations.json").unlink(missing_ok=True)  # of another state of the folder
    write_atomic(root / "study.md", render(found, figures, command))
    for stage, benches in found.results.stages().items():
        if benches:
            write_json(root / f"{stage}.json", {name: table_of(results) for name, results in benches.items()})
    return found


def render(found: Findings, figures: Figures, command: str) -> str:
    """The page.

    Args:
        found: what it says.
        figures: of these findings, as links to their files.
        command: that makes it.
    """
    study = found.study
    parts = [
        f"# Study: {study.task.name}",
        *(f"**{sentence}**" for sentence in found.verdict[:1]),
        *map(_linked, figures.forests),
        *([WHISKERS] if figures.forests else []),
        *_listed("", found.verdict[1:]),
        *_listed("## Recommendation", [" ".join(r.sentences()) for r in found.recommendations]),
        *_listed("## What is missing", found.missing),
        "## What is studied",
        f"{study.task.subject[0].upper()}{study.task.subject[1:]}. Budgets are what the baseline needs for "
        f"{study.iterations:,} steps of {study.recipe.super_batch:,} examples. The learning rate is annealed for each "
        f"budget. Rules are screened on seeds {_seeds(study.screening_seeds)} and judged on seeds "
        f"{_seeds(study.final_seeds)}. Equal samples are {study.samples:,} examples trained on. A measurement is of "
        f"{study.n:,} samples, with autoguidance weight {study.weight:g}. Made by `{command}` "
        f"with Python {platform.python_version()}, torch {torch.__version__}.",
        *([" ".join(notes)] if (notes := study.task.notes(study.n)) else []),
        *_final(found),
        *section(found.tuning),
        *section(found.guides),
        *map(_linked, figures.guides),
        *_screening(found, figures),
        *_dials(found, figures),
    ]
    return "\n\n".join(parts) + "\n"


def _listed(title: str, sentences: Sequence[str]) -> list[str]:
    return [*([title] if title else []), "\n".join(f"- {s}" for s in sentences)] if sentences else []


def _final(found: Findings) -> list[str]:
    if not found.final:
        return []
    parts = ["## Final"]
    for bench in found.final:
        parts += [*section(bench.headlines, level=3), *_below(bench.matches), *_below(bench.other_metrics)]
    for bench in found.final:
        parts += _below(bench.costs)
    parts += [
        f"In brackets: the {COVERAGE} paired interval, and on how many of the seeds it is better (the probability of "
        f"improvement). From {least_for_bootstrap()} seeds on, intervals rest on a bootstrap; with fewer on Student's "
        "t. Then comes p of a paired t-test, Holm-corrected over all comparisons at the budget. "
        f"{MARKS} Certain means that no seed is missing of {LEAST_SEEDS} or more and p is below {ALPHA:g}. Equivalent "
        "means that the interval is within delta and a test corrected likewise says so. Other metrics are compared "
        f"with the baseline, and corrected over the arms on each metric by itself. {found.references}"
    ]
    return parts


def _screening(found: Findings, figures: Figures) -> list[str]:
    trusted = section(found.score_reliability_table, level=3)
    trusted[1:1] = map(_linked, figures.scores)  # below the heading
    return [*section(found.screening), *trusted, *_below(found.costs)]


def _dials(found: Findings, figures: Figures) -> list[str]:
    parts = ["## Dials"] if found.dials else []
    for bench in found.dials:
        parts.append(f"At {bench.title}, mean over {bench.seeds} seeds:")
        for i, grid in enumerate(bench.grids):
            parts += [*_below(grid.keeps), *map(_linked, figures.dials[bench.name, i])]
    return parts


def _below(table: Table) -> list[str]:
    """A table below its title, as a line of text; nothing for a table without rows."""
    return [table.title, markdown_table(table)] if table else []


def _linked(figure: DrawnFigure) -> str:
    return f"![{figure.caption}]({figure.name})"


def _seeds(seeds: Sequence[int]) -> str:
    whole = tuple(range(seeds[0], seeds[0] + len(seeds)))
    return f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 2 and seeds == whole else " ".join(map(str, seeds))
