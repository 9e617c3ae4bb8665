"""The verdict as tables for a terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from ajest.bench.plan.readings import READINGS
from ajest.bench.read.results import Results
from ajest.bench.read.verdict import decisive
from ajest.bench.read.wording import amount, interval, metric_name, number, shown


def verdict_tables(results: Results) -> list[Table]:
    """One table for each reading that the verdict rests on: headline metrics of every arm."""
    tables = []
    for reading in decisive(results):
        title = f"At {READINGS[reading].title}: {amount(reading, results.budgets[reading])}"
        table = Table(title=title, title_justify="left")
        table.add_column("arm")
        for metric, weight in results.headlines():
            arrow = "lower" if metric.better == "lower" else "higher"
            table.add_column(f"{metric_name(metric, weight)}\n({arrow} is better)", justify="right")
            table.add_column(f"minus {results.config.baseline}\n(95 % interval)", justify="right")
        for arm in results.arms:
            row = [escape(arm)]
            for metric, weight in results.headlines():
                cell = results.cell(reading, arm, metric.name, weight)
                found = cell.against.get(results.config.baseline) if cell else None
                text = shown(results, cell, metric)
                row.append(text.value if found else f"{text.value} ({text.detail})" if text.detail else text.value)
                few = f"; {found.seeds} of {len(results.config.seeds)} seeds" if found and found.missing else ""
                row.append(f"{number(found.difference, metric)} ({interval(found, metric)}{few})" if found else "")
            table.add_row(*row)
        tables.append(table)
    return tables
