"""What a bench's budgets, arms and runs have to show, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from ajest.bench.plan.budgets import BUDGETS
from ajest.tasks.base import Metric

from .intervals import COVERAGE
from .margins import named
from .numbers import number
from .results import Results, rivals
from .table import Entry, Table, TableCell
from .wording import gap, in_units, metric_head, metric_name, shown

#: At so many samples some metrics are measured again; that says nothing new where no more were taken.
_SMALL_N = 16_384


def budget_table(results: Results, budget: str) -> Table:
    """Arms down, metrics across, those that the verdict rests on first; the last row is what real examples reach.

    Args:
        results: of the bench.
        budget: at which something was evaluated.
    """
    headlines = results.headlines()
    ordered = [*headlines, *(c for c in results.columns() if c not in headlines)]
    n = next(cell.n for cell in results.cells.values() if cell.budget == budget)
    columns = [
        (m, w)
        for m, w in ordered
        if any(results.cell(budget, arm, m.name, w) for arm in results.arms)
        and (m.name != "mandala_16k" or n > _SMALL_N)
    ]
    heads = [TableCell(metric_head(*c), tone="headline" if c in headlines else "") for c in columns]
    rows: list[list[Entry]] = [
        [arm, _steps_at(results, budget, arm)]
        + [shown(results, results.cell(budget, arm, m.name, w), m) for m, w in columns]
        for arm in results.arms
    ]
    notes = [f"{n:,} samples a measurement.", *results.config.task.notes(n), *named(results, budget)]
    real = results.real_data_reference.get(n)
    if real is None:
        notes.append(f"What {n:,} real examples reach was not measured: the same command with the data does that.")
    if real != {}:  # of a task that knows none
        rows.append(_real_examples(real or {}, columns))
    return Table.of(
        f"At {BUDGETS[budget].title}: {in_units(budget, results.amounts[budget])}",
        ["arm", "steps", *heads],
        rows,
        notes,
    )


def _real_examples(real: Mapping[str, float], columns: Sequence[tuple[Metric, float]]) -> list[Entry]:
    values = [number(real[m.name], m) if m.name in real and w == 1 else "" for m, w in columns]
    return [TableCell(text, tone="aside") for text in ("real examples", "", *values)]


def _steps_at(results: Results, budget: str, arm: str) -> str:
    """Steps that the arm's seeds had taken at a budget."""
    amount = results.amounts[budget]
    runs = [results.runs[arm, seed] for seed in results.config.seeds]
    at = {run.reached.get(budget, {}).get(amount) for run in runs if run.state != "diverged"}
    return _span(sorted(step for step in at if step is not None)) or "-"


def _span(values: Sequence[int]) -> str:
    """Rising numbers as "4", or "4 to 9"; "" for none."""
    if not values:
        return ""
    return f"{values[0]:,}" if len(values) == 1 else f"{values[0]:,} to {values[-1]:,}"


def headline_table(results: Results, budget: str) -> Table:
    """Arms down; of each headline metric the value and the difference to the baseline."""
    config, headlines = results.config, results.headlines()
    heads = ["arm"]
    for metric, weight in headlines:
        heads += [
            f"{metric_name(metric, weight)}\n({metric.better} is better)",
            f"minus {config.baseline}\n({COVERAGE} interval)",
        ]
    rows: list[list[Entry]] = []
    for arm in results.arms:
        row: list[Entry] = [arm]
        for metric, weight in headlines:
            cell = results.cell(budget, arm, metric.name, weight)
            found = cell.against.get(config.baseline) if cell else None
            value = shown(results, cell, metric)
            row += [TableCell(value.value), gap(found, metric)] if found else [value, ""]
        rows.append(row)
    return Table.of(f"At {BUDGETS[budget].title}: {in_units(budget, results.amounts[budget])}", heads, rows)


def rivals_table(results: Results, budget: str) -> Table:
    """Arms down; of each headline metric the difference to random choice of as many examples, which shows what the
    choice itself brings; without rows where no arm has such a rival."""
    others, headlines = rivals(results.config), results.headlines()
    against = [results.against(budget, column, others) for column in headlines]
    rows: list[list[Entry]] = []
    for arm in results.arms:
        if any(arm in found for found in against):
            gaps = [gap(found.get(arm), metric, True) for found, (metric, _) in zip(against, headlines, strict=True)]
            rows.append([arm, others[arm], *gaps])
    heads = ["arm", "random choice of as many", *(metric_head(*column) for column in headlines)]
    note = (
        f"Each is the mean difference over seeds, with its {COVERAGE} interval. Then come the share of seeds on which "
        "the arm is better, and p, corrected over this table. Better on 0% of seeds is worse on every one."
    )
    return Table.of(f"Minus random choice, {BUDGETS[budget].title}", heads, rows, (note,))


def arms_table(results: Results) -> Table:
    """What each arm does, in what it differs from the plainest one, and whether that moves what is minimised."""
    known = results.objectives
    rows: list[list[Entry]] = [
        [
            arm.name,
            f"{100 * arm.keep:g} %",
            TableCell(arm.axis or "nothing", tone="text"),
            TableCell(known.get(arm.name, "-"), tone="text"),
            TableCell(arm.summary, tone="text"),
        ]
        for arm in results.config.arms
    ]
    heads = ("differs in", "objective", "what it does")
    return Table.of("", ("arm", "keeps", *(TableCell(head, tone="text") for head in heads)), rows)


def used_table(results: Results) -> Table:
    """What a whole run of each arm used, mean over its finished seeds."""
    heads = (
        "arm, whole run",
        "examples drawn",
        "scored",
        "trained on",
        "network TFLOP",
        "seconds, as measured",
        "warm-up, not counted",
        "graphs compiled",
        "calls that ran eager",
        "trigger fired after step",
    )
    rows = []
    for arm in results.arms:
        last = [r.ledger[-1] for (a, _), r in results.runs.items() if a == arm and r.state == "done"]
        if not last:
            continue
        counts = [f"{fmean(line[name] for line in last):,.0f}" for name in ("drawn", "scored", "trained")]
        flops = f"{fmean(line['flops'] for line in last) / 1e12:.3g}"
        seconds = fmean(sum(line["seconds"].values()) for line in last)
        warmup = fmean(line["warmup_seconds"] for line in last)
        compiled = [f"{fmean(line.get(name, 0) for line in last):,.0f}" for name in ("compilations", "eager_calls")]
        fired = _span(sorted({line["fired_at"] for line in last} - {None}))
        rows.append([arm, *counts, flops, f"{seconds:.1f}", f"{warmup:.2f}", *compiled, fired])
    return Table.of("What a whole run used", heads, rows)
