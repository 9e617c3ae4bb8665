"""Published figures of arXiv 2509.15267 and its public notebooks, beside ours (docs/method.md#published)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ajest.bench.plan.config import BenchConfig
from ajest.selection.arm import Arm
from ajest.selection.triggers import Trigger
from ajest.tasks.tree.task import TreeTask
from ajest.training.recipe import LearningRate

from .distributions import t_ppf
from .results import Results
from .statistics import ALPHA, COVERAGE
from .table import Entry, Table, TableCell, Tone

SEEDS = 5

#: The published setting; ours smooths the comparison of early selection over 16 steps.
_TASK = TreeTask(
    label="A", hidden=64, guide_hidden=32, layers=4, p_mean=-2.3, p_std=1.5, sigma_data=0.5,
    sampler_steps=32, sigma_max=5.0, sigma_min=0.002, gain_sign="free",
)  # fmt: skip
_RATE = LearningRate(peak=0.01, decay=512, rampup=0, clock="steps")
_ARMS = {
    "baseline": Arm("baseline", "uniform"),
    "early-ajest": Arm("early-ajest", "jest", keep=0.2, reference="guide", chunks=16, trigger=Trigger("early")),
    "ajest": Arm("ajest", "jest", keep=0.2, reference="guide", chunks=16),
    "random": Arm("random", "random", keep=0.2),
}
_BUDGETS = {"steps": 4096.0, "samples": 4096.0 * 819}


@dataclass(frozen=True)
class PublishedMean:
    """A published mean over `SEEDS` seeds; its standard deviation is NaN where none was published."""

    mean: float
    sd: float = math.nan


def _figures(*figures: tuple[float, ...]) -> dict[str, PublishedMean]:
    return {arm: PublishedMean(*figure) for arm, figure in zip(_ARMS, figures, strict=False)}


_WHOLE = {
    ("loss", False): _figures((0.0108, 0.0028), (0.0106, 0.0028), (0.0135, 0.0034), (0.0124, 0.0024)),
    ("l2", False): _figures((0.0183, 0.0042), (0.0171, 0.0035), (0.0181, 0.0039), (0.0192, 0.0034)),
    ("mandala", False): _figures((0.511, 0.066), (0.507, 0.065), (0.462, 0.057), (0.474, 0.058)),
    ("mandala", True): _figures((0.741, 0.106), (0.750, 0.072), (0.689, 0.101), (0.720, 0.068)),
    ("classification", False): _figures((0.886, 0.019), (0.884, 0.023), (0.857, 0.025), (0.872, 0.017)),
    ("classification", True): _figures((0.939, 0.009), (0.935, 0.010), (0.918, 0.017), (0.931, 0.005)),
    ("mandala_16k", False): _figures((0.628,), (0.629,), (0.567,)),
    ("mandala_16k", True): _figures((0.820,), (0.811,), (0.744,)),
}  # fmt: skip
_EQUAL_SAMPLES = {
    ("loss", False): _figures((0.0255,), (0.0220,)),
    ("mandala", False): _figures((0.404,), (0.424,)),
    ("mandala", True): _figures((0.527,), (0.581,)),
    ("classification", True): _figures((0.832,), (0.858,)),
}

#: By (budget, metric, whether guided), then by arm. Arms that keep a fifth of every super-batch have trained on the
#: equal number of examples when their run is over: there it is the same figure, with its standard deviation.
PUBLISHED: dict[tuple[str, str, bool], dict[str, PublishedMean]] = {
    **{("steps", *what): figures for what, figures in _WHOLE.items()},
    **{
        ("samples", *what): figures | {arm: _WHOLE[what][arm] for arm in ("ajest", "random")}
        for what, figures in _EQUAL_SAMPLES.items()
    },
}


_TONES: dict[str, Tone] = {"agree": "agree", "differ": "differ", "not comparable": ""}


@dataclass(frozen=True)
class Row:
    """One published figure beside ours; `judgement` is "agree", "differ" or "not comparable"."""

    what: str
    arm: str
    published: str
    ours: str
    judgement: str
    why: str = ""


def comparable(config: BenchConfig) -> bool:
    """Whether a bench has all of the published settings that its numbers depend on, its arms aside."""
    recipe = config.recipe
    return (
        (config.task, config.end, config.weight, config.n_final) == (_TASK, "steps", 3, 163_840)
        and (config.iterations, config.guide_iterations, config.guide_recipe) == (4096, 512, None)
        and (recipe.super_batch, recipe.learning_rate) == (4096, _RATE)
        and (recipe.betas, recipe.ema_widths[0]) == ((0.9, 0.99), 0.01)
    )


def beside_ours(results: Results) -> list[Row]:
    """All published figures of the tree with ours, for the arms that are as published; [] unless the bench has the
    published settings."""
    if not comparable(results.config):
        return []
    labels = {m.name: m.label for m in results.metrics}
    arms = [arm.name for arm in results.config.arms if arm == _ARMS.get(arm.name)]
    rows = []
    for (budget, metric, guided), figures in PUBLISHED.items():
        where = "whole run" if budget == "steps" else "equal samples"
        what = f"{'guided ' if guided else ''}{labels[metric]}, {where}"
        for arm, figure in figures.items():
            if arm in arms:
                rows.append(_row(results, what, (budget, arm, metric, guided), figure))
    return rows + _others(results, arms)


def published_table(results: Results) -> Table:
    """`beside_ours` for people."""
    rows: list[list[Entry]] = [
        [r.what, r.arm, r.published, r.ours, TableCell(r.judgement, r.why, _TONES[r.judgement])]
        for r in beside_ours(results)
    ]
    note = (
        f"arXiv 2509.15267 and its public notebooks, {SEEDS} seeds, mean ± standard deviation. They agree where the "
        f"{COVERAGE} Welch interval of the difference of the two means holds 0. Where no standard deviation was "
        "published, ours stands in for it. Agreement of noisy means is weak evidence: see the spread."
    )
    heads = ("figure", "arm", "published", "ours", "judgement")
    return Table.of("Beside the published figures", heads, rows, (note,))


def _row(results: Results, what: str, where: tuple[str, str, str, bool], figure: PublishedMean) -> Row:
    budget, arm, metric, guided = where
    published = f"{figure.mean:g}" if math.isnan(figure.sd) else f"{figure.mean:g} ± {figure.sd:g}"
    cell = results.cell(budget, arm, metric, results.config.weight if guided else 1.0)
    if cell is None or results.amounts[budget] != _BUDGETS[budget]:
        return Row(what, arm, published, "-", "not comparable", "ours is not there yet")
    ours = f"{cell.mean:.4g} ± {cell.sd:.2g}"
    few = f"{len(cell.values)} of {len(results.config.seeds)} seeds"
    # Where no sd was published, ours stands in for it.
    reach = welch_reach(cell.sd, len(cell.values), cell.sd if math.isnan(figure.sd) else figure.sd, SEEDS)
    if math.isnan(reach):
        return Row(what, arm, published, ours, "not comparable", f"no spread over {few}")
    gap = cell.mean - figure.mean
    agree = abs(gap) <= reach
    why = [] if agree else [f"by {gap:+.3g}"]
    if len(cell.values) < len(results.config.seeds):
        why.append(few)
    return Row(what, arm, published, ours, "agree" if agree else "differ", ", ".join(why))


def welch_reach(sd: float, n: int, other_sd: float, other_n: int) -> float:
    """Half the width of Welch's interval of the difference of two means; NaN where their spread is not known."""
    if n < 2 or other_n < 2 or not sd + other_sd > 0:
        return math.nan
    mine, theirs = sd**2 / n, other_sd**2 / other_n
    freedom = (mine + theirs) ** 2 / (mine**2 / (n - 1) + theirs**2 / (other_n - 1))
    return float(t_ppf(1 - ALPHA / 2, freedom)) * math.sqrt(mine + theirs)


def _others(results: Results, arms: list[str]) -> list[Row]:
    """What was published beside the metrics."""
    rows = []
    early = [r for (arm, _), r in results.runs.items() if arm == "early-ajest" and arm in arms and r.state == "done"]
    fired = [run.ledger[-1]["fired_at"] for run in early]
    known = [f for f in fired if f is not None]
    if fired:
        inside = all(172 <= f <= 363 for f in known) and known == fired
        ours = f"{min(known)}-{max(known)}" if known else "never"
        rows.append(
            Row("iteration at which early selection stopped", "early-ajest", "172-363", ours,
                "agree" if inside else "differ", "ours smooths the comparison over 16 steps")
        )  # fmt: skip
    guide = [line["metrics"]["loss"] for line in results.guide.lines if "loss" in line["metrics"]]
    if guide:
        close = abs(guide[-1] - 0.0508) <= 0.1 * 0.0508
        judgement, why = "agree" if close else "differ", "one guide each: within 10 % counts as agreement"
        rows.append(Row("loss of the guide", "guide", "0.0508", f"{guide[-1]:.4f}", judgement, why))
    for arm, seconds in (("baseline", 0.26), ("random", 0.26), ("ajest", 0.74)):
        cost = results.costs.get(_ARMS[arm].kinds()[0].label) if arm in arms else None
        if cost:
            rows.append(
                Row("seconds per iteration", arm, f"{seconds:g}", f"{sum(cost.values()):.3f}", "not comparable",
                    "another machine and another implementation")
            )  # fmt: skip
    return rows
