"""The verdict as tables for a terminal."""

from __future__ import annotations

from rich.table import Table

from ajest.bench.read.findings import Findings

from .tables import rich_table


def verdict_tables(findings: Findings) -> list[Table]:
    """One table for each budget that the verdict rests on: headline metrics of every arm."""
    return [rich_table(table) for table in findings.headlines]
