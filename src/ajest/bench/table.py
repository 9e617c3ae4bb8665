"""The verdict as tables for a terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from .plan import READINGS
from .results import Results
from .verdict import interval, metric_name, number


def verdict_tables(results: Results) -> list[Table]:
    """One table for each of equal time and equal samples: headline metrics of every arm."""
    tables = []
    for reading in ("calibrated", "samples"):
        if reading not in results.budgets:
            continue
        budget = results.budgets[reading]
        unit = f"{budget:,.0f} examples trained on" if reading == "samples" else f"{budget:.1f} s of training"
        table = Table(title=f"At {READINGS[reading].title}: {unit}", title_justify="left")
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
                row.append(number(cell.mean, metric) if cell else "-")
                row.append(f"{number(found.difference, metric)} ({interval(found, metric)})" if found else "")
            table.add_row(*row)
        tables.append(table)
    return tables
