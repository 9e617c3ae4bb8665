"""Findings for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ajest.bench.read.findings import RECOMMENDED, Findings

from .tables import rich_table


def print_findings(console: Console, findings: Findings) -> None:
    """Headline tables, then all sentences: the answer first."""
    for table in verdict_tables(findings):
        console.print(table)
    for line in verdict_lines(findings):
        console.print(line, markup=False, highlight=False)


def verdict_tables(findings: Findings) -> list[Table]:
    """One table for each budget that the verdict rests on: headline metrics of every arm."""
    return [rich_table(table) for table in findings.headlines]


def verdict_lines(findings: Findings) -> list[str]:
    """The answer, the verdict, what is missing, the notes and what other benches say, a sentence a line."""
    return [
        findings.answer,
        *_listed("", findings.verdict),
        *_listed("What is missing:", findings.missing),
        *_listed("What else was found:", findings.notes),
        *_listed(f"{RECOMMENDED}:", findings.recommended),
    ]


def _listed(title: str, sentences: Sequence[str]) -> list[str]:
    return [*([title] if title else []), *(f"- {sentence}" for sentence in sentences)] if sentences else []
