"""Signs that numbers of networks end with: where a sign is a coin that training throws, it may decide a metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from ajest.bench.plan.budgets import BUDGETS
from ajest.tasks.base import Metric

from .numbers import number
from .results import Results, Run
from .table import Entry, Table
from .wording import metric_name


def signs_table(results: Results) -> Table:
    """Which seeds of each arm, and which guides, ended with a negative number and which with a positive one; without
    rows for tasks whose networks tell none (`ajest.diffusion.network.Network`)."""
    rows: list[list[Entry]] = []
    for name in _names(results):
        told = ((number, _number(run, name)) for number, run in enumerate(results.guides, 1))
        guides = {number: value for number, value in told if value is not None}
        if guides:
            rows.append(_row("guide" if len(results.guides) == 1 else "guides", name, guides))
        for arm in results.arms:
            found = {run.seed: v for run in _runs(results, arm) if (v := _number(run, name)) is not None}
            if found:
                rows.append(_row(arm, name, found))
    heads = ("network", "number", "negative: seeds", "positive: seeds", "at the end")
    return Table.of("Signs of what networks learned", heads, rows)


def _row(network: str, name: str, by_seed: Mapping[int, float]) -> list[Entry]:
    low, high = min(by_seed.values()), max(by_seed.values())
    sides = (", ".join(str(s) for s, v in by_seed.items() if sign * v > 0) for sign in (-1, 1))
    return [network, name, *sides, f"{low:.3g}" if len(by_seed) == 1 else f"{low:.3g} to {high:.3g}"]


def by_sign_table(results: Results, budget: str) -> Table:
    """Headline metrics of the seeds of either sign, apart; without rows where all arms have one sign.

    Args:
        results: of the bench.
        budget: at which it was evaluated.
    """
    rows: list[list[Entry]] = []
    headlines = results.headlines()
    for name in _names(results):
        signs = {arm: {sign: _seeds(results, arm, name, sign) for sign in (-1, 1)} for arm in results.arms}
        if len({sign for by_sign in signs.values() for sign, seeds in by_sign.items() if seeds}) < 2:
            continue
        for arm, by_sign in signs.items():
            for sign, seeds in by_sign.items():
                if seeds:
                    row: list[Entry] = [arm, f"{name} {'below' if sign < 0 else 'above'} 0", str(len(seeds))]
                    for metric, weight in headlines:
                        cell = results.cell(budget, arm, metric.name, weight)
                        values = [] if cell is None else [v for seed, v in cell.values.items() if seed in seeds]
                        row.append(_mean_and_sd(values, metric))
                    rows.append(row)
    heads = ["arm", "sign", "seeds", *(metric_name(*c) for c in headlines)]
    notes = (
        "Means over the seeds of one sign, with their standard deviation. A difference that is there only between "
        "seeds of other signs is one between signs, not between arms.",
    )
    return Table.of(f"At {BUDGETS[budget].title}, by the sign that training took", heads, rows, notes)


def seeds_by_sign(results: Results, arm: str) -> dict[str, tuple[list[int], list[int]]]:
    """(seeds of an arm that ended with a negative number, with a positive one) for each number of its networks."""
    return {name: (_seeds(results, arm, name, -1), _seeds(results, arm, name, 1)) for name in _names(results)}


def _mean_and_sd(values: Sequence[float], metric: Metric) -> str:
    if not values:
        return "-"
    spread = f" ± {number(stdev(values), metric)}" if len(values) > 1 else ""
    return f"{number(fmean(values), metric)}{spread}"


def _runs(results: Results, arm: str) -> list[Run]:
    return [run for (name, _), run in results.runs.items() if name == arm and run.state == "done"]


def _number(run: Run, name: str) -> float | None:
    """A number of the run's network at its end."""
    return run.ledger[-1].get("network", {}).get(name) if run.ledger else None


def _names(results: Results) -> list[str]:
    """Numbers that any network tells."""
    lines = [run.ledger[-1] for run in (*results.runs.values(), *results.guides) if run.ledger]
    return list(dict.fromkeys(name for line in lines for name in line.get("network", {})))


def _seeds(results: Results, arm: str, name: str, sign: int) -> list[int]:
    return [run.seed for run in _runs(results, arm) if (v := _number(run, name)) is not None and sign * v > 0]
