"""The verdict: a few sentences computed from the numbers, with their certainty."""

from __future__ import annotations

import math

from ..metrics import Metric
from .cost import selection_costs
from .plan import READINGS, BenchConfig
from .quality import to_quality
from .recommendation import cited
from .results import Cell, Results
from .statistics import Comparison

ALPHA = 0.05


def number(value: float, metric: Metric | None = None) -> str:
    """A number for people, in the metric's scale, with the digits that its size deserves."""
    value *= metric.scale if metric else 1
    if math.isnan(value):
        return "-"
    size = abs(value)
    digits = 4 if 0 < size < 0.1 else 3 if size < 10 else 2 if size < 100 else 1
    return f"{value:.{digits}f}"


def interval(found: Comparison, metric: Metric) -> str:
    return "one seed" if math.isnan(found.low) else f"{number(found.low, metric)} to {number(found.high, metric)}"


def p_value(p: float) -> str:
    if math.isnan(p):
        return "not testable"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def metric_name(metric: Metric, weight: float) -> str:
    return f"{metric.label} with autoguidance" if weight != 1 else metric.label


def caution(config: BenchConfig) -> str:
    """What a reader should know of learning rates at equal budgets (No Train No Gain, arXiv 2307.06440)."""
    if config.recipe.learning_rate.clock == "share":
        return (
            "The learning rate is annealed over the whole of each run, so arms compare fairly at "
            f"{READINGS[config.whole].title}. A caution for what is read before: there, arms that are further on in "
            "their runs have annealed further."
        )
    return (
        f"A caution: the learning rate follows the number of {config.recipe.learning_rate.clock}. At equal budgets of "
        "another kind, arms that took more have also annealed further, which is a part of their lead."
    )


QUALITY_HEADS = (
    "metric, where the baseline ends",
    "arm",
    "seconds of training",
    "examples trained on",
    "seeds that got there",
)


def quality_rows(results: Results) -> list[list[str]]:
    """Time- and samples-to-quality for people, under `QUALITY_HEADS`."""
    rows = []
    for q in to_quality(results):
        seconds, samples = q.needed["calibrated"], q.needed["samples"]
        rows.append(
            [
                f"{metric_name(q.metric, q.weight)} {number(q.target, q.metric)}",
                q.arm,
                "-" if math.isnan(seconds) else f"{seconds:.3g}",
                "-" if math.isnan(samples) else f"{samples:,.0f}",
                f"{q.reached} of {q.seeds}",
            ]
        )
    return rows


def verdict(results: Results) -> list[str]:
    """Sentences in the order of importance; the first says what to do."""
    seeds = behind(results)
    said = [sentence for reading in ("calibrated", "samples") for sentence in _at(results, reading)]
    if len(results.arms) < 2:
        return [f"{results.arms[0]} stands alone: a verdict needs a second arm to compare it with."]
    if not said:
        return ["There is no verdict yet: no budget was reached and evaluated by all arms."]
    said = [_in_short(results), *said, *_paid(results)]
    said += [*_guidance(results), *cited(results.config)]
    if seeds < 5:
        said.append(
            f"Only {seeds} seed{'s' if seeds > 1 else ''} stand{'' if seeds > 1 else 's'} behind this: "
            "take it as a first look. Five are the least for a claim."
        )
    return said


def behind(results: Results) -> int:
    """Seeds that all arms have finished: those that a comparison rests on."""
    return sum(all(results.runs[arm, seed].state == "done" for arm in results.arms) for seed in results.config.seeds)


def examples(count: float) -> str:
    """A number of examples for people."""
    return f"{count / 1e6:.2f} million examples" if count >= 1e6 else f"{count:,.0f} examples"


def _in_short(results: Results) -> str:
    """The first sentence: what is certain, at equal time and at equal samples."""
    baseline, parts = results.config.baseline, []
    for reading in ("calibrated", "samples"):
        if reading not in results.budgets:
            continue
        wins = []
        for metric, weight in results.headlines():
            cells = [results.cell(reading, arm, metric.name, weight) for arm in results.arms]
            sure = [c.arm for c in cells if c is not None and _certain(c, baseline, metric.sign)]
            if sure:
                wins.append(f"{', '.join(sure)} on {metric_name(metric, weight)}")
        outcome = (
            f"certainly better than {baseline}: {'; '.join(wins)}" if wins else f"nothing certainly beats {baseline}"
        )
        parts.append(f"at {READINGS[reading].title}, {outcome}")
    seeds = behind(results)
    return f"In short, from {seeds} seed{'s' if seeds > 1 else ''}: {'. '.join(p[0].upper() + p[1:] for p in parts)}."


def _at(results: Results, reading: str) -> list[str]:
    if reading not in results.budgets:
        return []
    budget = results.budgets[reading]
    what = f"{budget:.3g} s of training" if reading != "samples" else f"{examples(budget)} trained on"
    said = []
    for metric, weight in results.headlines():
        cells = [results.cell(reading, arm, metric.name, weight) for arm in results.arms]
        there = [c for c in cells if c is not None and c.values]
        base = results.cell(reading, results.config.baseline, metric.name, weight)
        if len(there) < 2 or base is None:
            continue
        best = max(there, key=lambda c: c.mean * metric.sign)
        where = f"At {READINGS[reading].title} ({what}), {metric_name(metric, weight)}"
        said.append(f"{where}: {_best(results, metric, best, base, there)}")
    return said


def _best(results: Results, metric: Metric, best: Cell, base: Cell, there: list[Cell]) -> str:
    baseline = results.config.baseline
    better = [c for c in there if _certain(c, baseline, metric.sign)]
    worse = [c for c in there if _certain(c, baseline, -metric.sign)]
    if best.arm == baseline:
        text = f"no arm is better than {baseline} ({number(base.mean, metric)})."
    else:
        found = best.against[baseline]
        certainty = "certain" if best in better else "not certain"
        text = (
            f"{best.arm} is best with {number(best.mean, metric)} against {number(base.mean, metric)} for {baseline}, "
            f"a difference of {number(found.difference, metric)} (95 % interval {interval(found, metric)}, "
            f"better on {found.better:.0%} of seeds, corrected {p_value(best.corrected)}): {certainty}."
        )
        others = [c.arm for c in better if c is not best]
        if others:
            text += f" Also certainly better: {', '.join(others)}."
    if worse:
        text += f" Certainly worse than {baseline}: {', '.join(c.arm for c in worse)}."
    return text


def _certain(cell: Cell, other: str, sign: int) -> bool:
    """Better (in the direction of sign) beyond the corrected level."""
    found = cell.against.get(other)
    return found is not None and cell.corrected < ALPHA and found.difference * sign > 0


def _paid(results: Results) -> list[str]:
    """Whether selection paid for its overhead: against random at equal time, which costs nothing to choose."""
    costs = selection_costs(results.config, results.costs)
    if not costs:
        return []
    dearest, cheapest = max(c.example_ratio for c in costs), min(c.example_ratio for c in costs)
    share = max(c.overhead_share for c in costs)
    factor = f"{cheapest:.1f}" if round(cheapest, 1) == round(dearest, 1) else f"{cheapest:.1f} to {dearest:.1f}"
    said = [
        f"Scoring and choosing take up to {share:.0%} of a selecting step. With the super-batch that had to be drawn, "
        f"an example chosen by scores costs {factor} times as much time as one trained on without choosing."
    ]
    opponent = "random" if "random" in results.arms else results.config.baseline
    for metric, weight in results.headlines():
        outcomes: dict[str, list[str]] = {"better": [], "worse": [], "undecided": []}
        for cost in costs:
            cell = results.cell("calibrated", cost.arm, metric.name, weight)
            found = cell.against.get(opponent) if cell is not None else None
            if found is None or math.isnan(found.low):
                continue
            low, high = sorted((found.low * metric.sign, found.high * metric.sign))
            outcomes["better" if low > 0 else "worse" if high < 0 else "undecided"].append(cost.arm)
        parts = [f"{', '.join(arms)}: {outcome}" for outcome, arms in outcomes.items() if arms]
        if parts:
            name = metric_name(metric, weight)
            verb = "paid" if outcomes["better"] else "did not visibly pay"
            said.append(
                f"Selection {verb} for this on {name}: at equal time, compared with {opponent}, {'; '.join(parts)} "
                "(by 95 % intervals, not corrected)."
            )
    return said


def _guidance(results: Results) -> list[str]:
    """What autoguidance does to the baseline, in a sentence."""
    weight, arm = results.config.weight, results.config.baseline
    parts = []
    whole = results.config.whole
    for metric in results.metrics:
        plain, guided = (results.cell(whole, arm, metric.name, w) for w in (1.0, weight))
        if plain is not None and guided is not None and (metric.headline != "no" or metric.curve):
            better = (guided.mean - plain.mean) * metric.sign > 0
            verb = "improves" if better else "worsens"
            parts.append(f"{verb} {metric.label} from {number(plain.mean, metric)} to {number(guided.mean, metric)}")
    if not parts:
        return []
    return [f"Autoguidance with weight {weight:g}, on {arm} after the whole run, {', '.join(parts)}."]
