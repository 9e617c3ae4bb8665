"""Published figures of arXiv 2509.15267 and its public notebooks, beside ours (METHOD 7)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats

from ..tree.task import TreeTask
from .results import Results

SEEDS = 5
_ARMS = ("baseline", "early-ajest", "ajest", "random")

#: (reading, metric, guidance) -> (mean, sd) by arm; sd NaN where none was published.
_FULL: dict[tuple[str, str, bool], tuple[tuple[float, float], ...]] = {
    ("steps", "loss", False): ((0.0108, 0.0028), (0.0106, 0.0028), (0.0135, 0.0039), (0.0124, 0.0024)),
    ("steps", "l2", False): ((0.0183, 0.0042), (0.0171, 0.0035), (0.0181, 0.0039), (0.0192, 0.0034)),
    ("steps", "mandala", False): ((0.511, 0.066), (0.507, 0.065), (0.462, 0.057), (0.474, 0.058)),
    ("steps", "mandala", True): ((0.741, 0.106), (0.750, 0.072), (0.689, 0.101), (0.720, 0.068)),
    ("steps", "classification", False): ((0.886, 0.019), (0.884, 0.023), (0.857, 0.025), (0.872, 0.017)),
    ("steps", "classification", True): ((0.939, 0.009), (0.935, 0.010), (0.918, 0.017), (0.931, 0.005)),
}
_MEANS: dict[tuple[str, str, bool], tuple[float, ...]] = {
    ("samples", "loss", False): (0.0255, 0.0220, 0.0135, 0.0124),
    ("samples", "mandala", False): (0.404, 0.424, 0.462, 0.474),
    ("samples", "mandala", True): (0.527, 0.581, 0.689, 0.720),
    ("samples", "classification", True): (0.832, 0.858, 0.918, 0.931),
    ("steps", "mandala_16k", False): (0.628, 0.629, 0.567),
    ("steps", "mandala_16k", True): (0.820, 0.811, 0.744),
}


@dataclass(frozen=True)
class Row:
    """One published figure beside ours; `judgement` is "agree", "differ" or "not comparable"."""

    what: str
    arm: str
    published: str
    ours: str
    judgement: str
    why: str = ""


def comparable(results: Results) -> bool:
    """Whether the bench has the paper's settings."""
    config, task = results.config, results.config.task
    return (
        isinstance(task, TreeTask)
        and (config.iterations, config.guide_iterations, config.recipe.super_batch) == (4096, 512, 4096)
        and (task.hidden, task.guide_hidden, task.layers, task.label) == (64, 32, 4, "A")
        and config.weight == 3
        and config.n_final == 163_840
    )


def beside_ours(results: Results) -> list[Row]:
    """All published figures of the tree with ours; [] unless the bench has the paper's settings."""
    if not comparable(results):
        return []
    table = dict(_FULL)
    table |= {k: tuple((m, math.nan) for m in means) for k, means in _MEANS.items()}
    labels = {m.name: m.label for m in results.metrics}
    rows = []
    for (reading, metric, guided), figures in table.items():
        budget = "whole run" if reading == "steps" else "equal samples"
        what = f"{labels[metric]}{' +G' if guided else ''}, {budget}"
        for arm, (mean, sd) in zip(_ARMS, figures, strict=False):
            rows.append(_row(results, what, reading, arm, metric, guided, mean, sd))
    rows += _others(results)
    return rows


def _row(results: Results, what: str, reading: str, arm: str, metric: str, guided: bool, mean: float, sd: float) -> Row:
    published = f"{mean:g}" if math.isnan(sd) else f"{mean:g} +- {sd:g}"
    cell = results.cell(reading, arm, metric, results.config.weight if guided else 1.0)
    if cell is None or len(cell.values) < 2 or (reading == "steps" and results.budgets["steps"] != 4096):
        return Row(what, arm, published, "-", "not comparable", "ours is not there yet")
    ours = f"{cell.mean:.4g} +- {cell.sd:.2g}"
    # Welch's interval of the difference of two means; where no sd was published, ours stands in for it.
    mine, theirs = cell.sd**2 / len(cell.values), (cell.sd if math.isnan(sd) else sd) ** 2 / SEEDS
    freedom = (mine + theirs) ** 2 / (mine**2 / (len(cell.values) - 1) + theirs**2 / (SEEDS - 1))
    reach = float(stats.t.ppf(0.975, freedom)) * math.sqrt(mine + theirs)
    gap = cell.mean - mean
    agree = abs(gap) <= reach
    return Row(what, arm, published, ours, "agree" if agree else "differ", "" if agree else f"by {gap:+.3g}")


def _others(results: Results) -> list[Row]:
    rows = []
    fired = [r.ledger[-1]["fired_at"] for (a, _), r in results.runs.items() if a == "early-ajest" and r.ledger]
    known = [f for f in fired if f is not None]
    if known:
        inside = all(172 <= f <= 363 for f in known)
        rows.append(
            Row("iteration at which early selection stopped", "early-ajest", "172-363", f"{min(known)}-{max(known)}",
                "agree" if inside else "differ", "ours smooths the comparison over 16 steps")
        )  # fmt: skip
    guide = [line["metrics"]["loss"] for line in results.guide.lines if "loss" in line["metrics"]]
    if guide:
        close = abs(guide[-1] - 0.0508) <= 0.1 * 0.0508
        judgement, why = "agree" if close else "differ", "one guide each: within 10 % counts as agreement"
        rows.append(Row("loss of the guide", "guide", "0.0508", f"{guide[-1]:.4f}", judgement, why))
    for arm, seconds in (("baseline", 0.26), ("random", 0.26), ("ajest", 0.74)):
        config = next((a for a in results.config.arms if a.name == arm), None)
        cost = results.costs.get(config.kinds()[0]) if config else None
        if cost:
            rows.append(
                Row("seconds per iteration", arm, f"{seconds:g}", f"{sum(cost.values()):.3f}", "not comparable",
                    "another machine and another implementation")
            )  # fmt: skip
    return rows
