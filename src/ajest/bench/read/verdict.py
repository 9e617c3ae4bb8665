"""The verdict: a few sentences computed from the numbers, with their certainty."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from ajest.bench.plan.budgets import BUDGETS
from ajest.bench.plan.config import BenchConfig
from ajest.bench.run.stages import Ended
from ajest.tasks.base import Metric

from .cost import SelectionCost
from .folder import read
from .groups import group_notes
from .numbers import number
from .rates import untuned_note
from .recommendation import cited
from .results import Results
from .statistics import ALPHA, LEAST_SEEDS, Comparison, Outcome, corrected, paired
from .timing import StepTime, fallbacks, timing_notes
from .wording import in_units, metric_name, told

#: Budgets that count the time or the work of scoring: there selection pays for itself or does not.
CHARGED = ("calibrated", "time_without_target", "flops")


def decisive(results: Results) -> list[str]:
    """The budgets that a verdict rests on: equal time, equal samples and what all runs end at, as far as they are
    there. Equal steps, which cost unequally much, count only where there is nothing else."""
    there = [b for b in dict.fromkeys(("calibrated", "samples", results.config.final_budget)) if b in results.amounts]
    return [b for b in there if b != "steps"] or there


def caution(config: BenchConfig) -> str:
    """What a reader should know of learning rates at equal budgets (No Train No Gain, arXiv 2307.06440)."""
    if config.recipe.learning_rate.clock == "share":
        return (
            "The learning rate is annealed over the whole of each run, so arms compare fairly at "
            f"{BUDGETS[config.final_budget].title}. A caution for what is read before: there, arms that are further on "
            "in their runs have annealed further."
        )
    return (
        f"A caution: the learning rate follows the number of {config.recipe.learning_rate.clock}. At equal budgets of "
        "another kind, arms that took more have also annealed further, which is a part of their lead."
    )


def charged(results: Results) -> str | None:
    """The budget at which it is judged whether selection pays for itself; None where no budget counts its cost."""
    return next((b for b in CHARGED if b in results.amounts), None)


def verdict(results: Results, costs: Sequence[SelectionCost] = (), times: Sequence[StepTime] = ()) -> list[str]:
    """Sentences in the order of importance; the first says what to do.

    Args:
        results: of the bench.
        costs: of selection, by the clock of the budget that is `charged`.
        times: what steps took in the runs.
    """
    if len(results.arms) < 2:
        return [f"{results.arms[0]} stands alone: a verdict needs a second arm to compare it with."]
    budgets = decisive(results)
    said = [sentence for budget in budgets for sentence in _at(results, budget)]
    if not said:
        return ["There is no verdict yet: no budget was reached and evaluated by all arms."]
    said = [_in_short(results, budgets), *group_notes(results, budgets), *said, *_paid(results, costs)]
    said += [*_guidance(results), *cited(results.config), *timing_notes(times, fallbacks(results))]
    seeds = behind(results)
    if results.ended is not None:
        said.append(f"Seeds were added up to {len(results.config.seeds)}: {_ENDED[results.ended]}")
    if seeds < LEAST_SEEDS:
        said.append(
            f"Only {seeds} seed{'' if seeds == 1 else 's'} stand{'s' if seeds == 1 else ''} behind this: "
            f"take it as a first look. {LEAST_SEEDS} are the least for a claim."
        )
    return said


#: Why no seeds are added any more.
_ENDED: dict[Ended, str] = {
    "decided": "every comparison with the baseline that lacks no seed is decided.",
    "most": "no more were planned.",
    "time": "no time was left for more.",
}


def is_decided(root: Path) -> bool:
    """Whether nothing is open in a bench's folder: every comparison of a headline with the baseline, at each decisive
    budget, is decided, or lacks a seed for good."""
    results = read(root)
    found = [
        comparison
        for budget in decisive(results)
        for metric, weight in results.headlines()
        for comparison in _against(results, budget, metric, weight, results.config.baseline).values()
    ]
    return bool(found) and all(f.outcome != "undecided" or f.missing for f in found)


def behind(results: Results) -> int:
    """Seeds that all arms have finished: those that a comparison rests on."""
    return sum(all(results.runs[arm, seed].state == "done" for arm in results.arms) for seed in results.config.seeds)


def _in_short(results: Results, budgets: list[str]) -> str:
    """The first sentence: what is certain at each budget."""
    baseline, parts = results.config.baseline, []
    for budget in budgets:
        wins, equal = [], []
        for metric, weight in results.headlines():
            found = _against(results, budget, metric, weight, baseline)
            sure = [arm for arm, comparison in found.items() if comparison.outcome == "better"]
            if sure:
                wins.append(f"{', '.join(sure)} on {metric_name(metric, weight)}")
            same = [arm for arm, comparison in found.items() if comparison.outcome == "equivalent"]
            if same:
                equal.append(f"{', '.join(same)} on {metric_name(metric, weight)}")
        outcome = (
            f"certainly better than {baseline}: {'; '.join(wins)}" if wins else f"nothing certainly beats {baseline}"
        )
        equivalent = f", and within delta of it: {'; '.join(equal)}" if equal else ""
        parts.append(f"At {BUDGETS[budget].title}, {outcome}{equivalent}")
    seeds = behind(results)
    opening = "In short" if seeds >= LEAST_SEEDS else "A first look"
    answer = f"{opening}, from {seeds} seed{'' if seeds == 1 else 's'}: {'. '.join(parts)}."
    return f"{answer} {untuned_note(results.config)}".rstrip()


def _against(results: Results, budget: str, metric: Metric, weight: float, other: str) -> dict[str, Comparison]:
    """How every arm compares with another on one metric."""
    cells = [results.cell(budget, arm, metric.name, weight) for arm in results.arms]
    return {cell.arm: cell.against[other] for cell in cells if cell is not None and other in cell.against}


def _at(results: Results, budget: str) -> list[str]:
    """The best arm on each headline metric."""
    said = []
    for metric, weight in results.headlines():
        found = _against(results, budget, metric, weight, results.config.baseline)
        if found:
            where = f"At {BUDGETS[budget].title} ({in_units(budget, results.amounts[budget])})"
            best = _best(results, budget, metric, weight, found)
            said.append(f"{where}, {metric_name(metric, weight)}: {best}")
    return said


def _best(results: Results, budget: str, metric: Metric, weight: float, found: dict[str, Comparison]) -> str:
    """Arms are ranked by their paired difference to the baseline, those that lack seeds are not."""
    baseline, planned = results.config.baseline, len(results.config.seeds)
    cells = {arm: results.cells[budget, arm, metric.name, weight] for arm in (baseline, *found)}
    ranked = {arm: f for arm, f in found.items() if not results.lacking(cells[arm])}
    best = max((arm for arm, f in ranked.items() if f.improvement > 0), key=lambda a: ranked[a].improvement, default="")
    if not ranked:
        text = f"no arm but {baseline} has every seed, so none is ranked."
    elif not best:
        text = f"no arm is better than {baseline} ({number(cells[baseline].mean, metric)})."
    else:
        leader = ranked[best]
        certainty = {"better": "certain", "equivalent": "equivalent"}.get(leader.outcome, "not certain")
        few = f" ({leader.seeds} of {planned} seeds)" if leader.missing else ""
        text = (
            f"{best} is best with {number(leader.value, metric)} against {number(leader.other, metric)} for "
            f"{baseline}, {told(leader, metric)}: {certainty}{few}."
        )
    better, worse, equal = (
        [a for a, f in found.items() if f.outcome == o and a != best] for o in ("better", "worse", "equivalent")
    )
    if better:
        text += f" Also certainly better: {', '.join(better)}."
    if worse:
        text += f" Certainly worse than {baseline}: {', '.join(worse)}."
    if equal:
        text += f" Equivalent to {baseline}: {', '.join(equal)}."
    for arm, f in found.items():
        if arm in ranked:
            continue
        text += (
            f" {arm} lacks seeds and is not ranked: on the {f.seeds} of {planned} that it shares with {baseline} it "
            f"has {number(f.value, metric)} against {number(f.other, metric)}."
        )
    return text


def _paid(results: Results, costs: Sequence[SelectionCost]) -> list[str]:
    """Whether selection paid for its overhead: against random, which costs nothing to choose, where time is equal."""
    budget = charged(results)
    if not costs:
        return []
    dearest, cheapest = max(c.example_ratio for c in costs), min(c.example_ratio for c in costs)
    share = max(c.overhead_share for c in costs)
    factor = f"{cheapest:.1f}" if round(cheapest, 1) == round(dearest, 1) else f"{cheapest:.1f} to {dearest:.1f}"
    said = [
        f"Scoring and choosing take up to {share:.0%} of a selecting step. With the super-batch that had to be drawn, "
        f"an example chosen by scores costs {factor} times as much time as one trained on without choosing."
    ]
    return said if budget is None else [*said, *_repaid(results, budget, [cost.arm for cost in costs])]


def _repaid(results: Results, budget: str, arms: list[str]) -> list[str]:
    """Whether these arms are better at a budget than arms that do not pay for scores."""
    opponent, said = "random" if "random" in results.arms else results.config.baseline, []
    for metric, weight in results.headlines():
        found = _against(results, budget, metric, weight, opponent)
        outcomes: dict[Outcome, list[str]] = {o: [] for o in get_args(Outcome)}
        for arm in arms:
            if arm in found:
                outcomes[found[arm].outcome].append(arm)
        parts = [f"{', '.join(names)}: {outcome}" for outcome, names in outcomes.items() if names]
        if parts:
            verb = "paid" if outcomes["better"] else "did not visibly pay"
            said.append(
                f"Selection {verb} for this on {metric_name(metric, weight)}: at {BUDGETS[budget].title}, "
                f"compared with {opponent}, {'; '.join(parts)} (Holm-corrected p < {ALPHA:g} decides)."
            )
    return said


def _guidance(results: Results) -> list[str]:
    """What autoguidance does to the baseline, in a sentence."""
    config, end = results.config, results.config.final_budget
    metrics, found = [], []
    for metric in results.metrics:
        plain, guided = (results.cell(end, config.baseline, metric.name, w) for w in (1.0, config.weight))
        if plain is not None and guided is not None and (metric.headline != "no" or metric.curve):
            sides = guided.measured, plain.measured
            comparison = paired(*sides, metric.sign, config.seeds, planned_looks=config.looks)
            if comparison is not None:
                metrics.append(metric)
                found.append(comparison)
    verbs: dict[Outcome, str] = {
        "better": "certainly improves",
        "worse": "certainly worsens",
        "equivalent": "hardly moves",
        "undecided": "moves",
    }
    parts = [
        f"{verbs[f.outcome]} {m.label} from {number(f.other, m)} to {number(f.value, m)}"
        for m, f in zip(metrics, corrected(found), strict=True)
    ]
    if not parts:
        return []
    return [
        f"Autoguidance with weight {config.weight:g}, on {config.baseline} after the whole run, {', '.join(parts)}."
    ]
