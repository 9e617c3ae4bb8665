"""The verdict: a few sentences computed from the numbers, with their certainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ajest.bench.plan.budgets import BUDGETS
from ajest.bench.plan.config import BenchConfig
from ajest.bench.run.stages import Ended
from ajest.tasks.base import Metric

from .cost import SelectionCost
from .folder import read
from .groups import group_notes, groups_of_seeds, in_groups
from .numbers import number, p_value
from .rates import untuned_note
from .results import Results, rivals
from .statistics import LEAST_SEEDS, Comparison, Outcome, corrected, paired
from .timing import StepTime, fallbacks, timing_notes
from .wording import code, metric_name, on_metrics, series

#: Budgets that count the time or the work of scoring: there selection pays for itself or does not.
CHARGED = ("calibrated", "time_without_target", "flops")
#: A headline metric and its guidance weight.
Column = tuple[Metric, float]
#: Headlines, and arms that have the same outcome on these.
_Group = tuple[tuple[Column, ...], list[str]]


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
            f"{BUDGETS[config.final_budget].title}. At what is read before, arms that are further on in their runs "
            "have annealed further."
        )
    return (
        f"The learning rate follows the number of {config.recipe.learning_rate.clock}. At equal budgets of another "
        "kind, arms that took more have also annealed further, which is a part of their lead."
    )


def charged(results: Results) -> str | None:
    """The budget at which it is judged whether selection pays for itself; None where no budget counts its cost."""
    return next((b for b in CHARGED if b in results.amounts), None)


def verdict(results: Results, costs: Sequence[SelectionCost] = (), times: Sequence[StepTime] = ()) -> list[str]:
    """Sentences in the order of importance; the first is the answer, with what is to be known before believing it.

    Args:
        results: of the bench.
        costs: of selection, by the clock of the budget that is `charged`.
        times: what steps took in the runs.
    """
    if len(results.arms) < 2:
        return [f"{code(results.arms[0])} stands alone: a comparison needs a second arm."]
    budgets = decisive(results)
    read = [found for budget in budgets if (found := _standing(results, budget)).baseline]
    if not read:
        base = [results.runs[results.config.baseline, seed] for seed in results.config.seeds]
        if all(run.state == "diverged" for run in base):
            return [f"There is no verdict: {code(results.config.baseline)} diverged on every seed; lower its rate."]
        return ["There is no verdict yet: no budget was reached and evaluated by all arms."]
    first, *others = read
    answer, *also = _outcome(first)
    groups = groups_of_seeds(results, budgets)
    said = [*_leaders(results, first), *(_outcome(other)[0] for other in others), *in_groups(groups), *also]
    said += _lacking(results, first)
    for other in others:
        said += [*_outcome(other)[1:], *_leaders(results, other), *_lacking(results, other)]
    said += [*group_notes(results, groups), *_cost(costs), *_guidance(results)]
    said += timing_notes(times, fallbacks(results))
    if results.ended is not None:
        said.append(f"Seeds were added up to {len(results.config.seeds)}: {_ENDED[results.ended]}")
    return [" ".join([answer, *_reservations(results, first)]), *said]


def _reservations(results: Results, standing: _Standing) -> list[str]:
    """What stands beside the answer wherever that is read, a sentence each."""
    said, seeds = [note] if (note := untuned_note(results.config)) else [], _behind(standing)
    if seeds < LEAST_SEEDS:
        stands = "1 seed stands" if seeds == 1 else f"{seeds} seeds stand"
        said.append(f"Only {stands} behind this, a first look; {LEAST_SEEDS} are the least for a claim.")
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
        for by_arm in _standing(results, budget).baseline.values()
        for comparison in by_arm.values()
    ]
    return bool(found) and all(f.outcome != "undecided" or f.missing for f in found)


@dataclass(frozen=True)
class _Standing:
    """How arms compare at a budget, by headline metric and arm.

    Attributes:
        budget: its name.
        where: the same as the beginning of a sentence.
        opponent: the baseline, in words.
        headlines: all of them.
        baseline: comparisons with the baseline; of headlines that have any.
        random: the same with random choice of as many examples.
    """

    budget: str
    where: str
    opponent: str
    headlines: int
    baseline: Mapping[Column, Mapping[str, Comparison]]
    random: Mapping[Column, Mapping[str, Comparison]]


def _standing(results: Results, budget: str) -> _Standing:
    against = []
    for others in (dict.fromkeys(results.arms, results.config.baseline), rivals(results.config)):
        found = {column: results.against(budget, column, others) for column in results.headlines()}
        against.append({column: by_arm for column, by_arm in found.items() if by_arm})
    where, opponent = f"At {BUDGETS[budget].title}", code(results.config.baseline)
    return _Standing(budget, where, opponent, len(results.headlines()), *against)


def _behind(standing: _Standing) -> int:
    """Seeds that comparisons with the baseline rest on: the most of any, since an arm that lost some says so itself."""
    return max(found.seeds for by_arm in standing.baseline.values() for found in by_arm.values())


#: Of an outcome what one arm does to another, and what several do.
_VERBS: dict[Outcome, tuple[str, str]] = {
    "better": ("certainly beats", "certainly beat"),
    "worse": ("is certainly worse than", "are certainly worse than"),
    "equivalent": ("is equivalent to", "are equivalent to"),
}
_CHANCE = "random choice"


def _outcome(standing: _Standing) -> list[str]:
    """What is decided at a budget; the first sentence is the answer there."""
    base, random = standing.baseline, standing.random
    both = _groups(
        {c: {a: f for a, f in by_arm.items() if a in base.get(c, {}) and base[c][a].outcome == "better"}
         for c, by_arm in random.items()}, "better"
    )  # fmt: skip
    over_base, over_random = (_groups(found, "better") for found in (base, random))
    if both:
        answer, told = _sentence(standing, both[0], "better", f"both {standing.opponent} and {_CHANCE}"), both[:1]
    elif over_base:
        answer, told = _sentence(standing, over_base[0], "better", standing.opponent), over_base[:1]
    else:
        answer, told = f"{standing.where}, nothing certainly beats {standing.opponent}.", []
    if random and not over_random:
        answer = f"{answer[:-1]}{', but nothing certainly beats' if over_base else ' or'} {_CHANCE}."
    said = [_sentence(standing, group, "better", _CHANCE) for group in over_random if group not in told]
    said += [_sentence(standing, group, "better", standing.opponent) for group in over_base if group not in told]
    for outcome in ("worse", "equivalent"):
        for found, other in ((random, _CHANCE), (base, standing.opponent)):
            said += [_sentence(standing, group, outcome, other) for group in _groups(found, outcome)]
    return [answer, *said]


def _groups(found: Mapping[Column, Mapping[str, Comparison]], outcome: Outcome) -> list[_Group]:
    """Arms with this outcome, together with those that have it on the same headlines; most headlines first."""
    columns: dict[str, tuple[Column, ...]] = {}
    for column, by_arm in found.items():
        for arm, comparison in by_arm.items():
            if comparison.outcome == outcome:
                columns[arm] = (*columns.get(arm, ()), column)
    groups: dict[tuple[Column, ...], list[str]] = {}
    for arm, mine in columns.items():
        groups.setdefault(mine, []).append(arm)
    return sorted(groups.items(), key=lambda group: -len(group[0]))


def _sentence(standing: _Standing, group: _Group, outcome: Outcome, other: str) -> str:
    columns, arms = group
    verb = _VERBS[outcome][len(arms) > 1]
    return f"{standing.where}, {series(arms)} {verb} {other} {on_metrics(columns, standing.headlines)}."


def _leaders(results: Results, standing: _Standing) -> list[str]:
    """The best arm on each headline metric. Arms are ranked by their paired difference to the baseline, those that lack
    seeds are not."""
    said = []
    for (metric, weight), found in standing.baseline.items():
        opening = f"On {metric_name(metric, weight)} {_lower(standing.where)}"
        cells = {arm: results.cells[standing.budget, arm, metric.name, weight] for arm in found}
        ranked = [arm for arm, cell in cells.items() if not results.lacking(cell)]
        best = max(ranked, key=lambda arm: found[arm].improvement, default="")
        if not best:
            said.append(f"{opening}, no arm but {standing.opponent} has every seed: none is ranked.")
            continue
        leader = found[best]
        numbers = f"{number(leader.value, metric)} against {number(leader.other, metric)}"
        if leader.improvement <= 0:
            said.append(f"{opening}, no arm is better than {standing.opponent} ({number(leader.other, metric)}).")
            continue
        verb = {"better": "certainly beats", "equivalent": "is equivalent to"}.get(leader.outcome, "may beat")
        certainty = f"{metric.better} is better ({p_value(leader.corrected)})"
        said.append(f"{opening}, {code(best)} {verb} {standing.opponent}: {numbers}, {certainty}.")
    return said


def _lacking(results: Results, standing: _Standing) -> list[str]:
    """Arms that lack seeds, with what those show that they share with the baseline."""
    said = []
    for (metric, weight), found in standing.baseline.items():
        for arm, comparison in found.items():
            opening = f"On {metric_name(metric, weight)} {_lower(standing.where)}, {code(arm)}"
            if results.lacking(results.cells[standing.budget, arm, metric.name, weight]):
                numbers = f"{number(comparison.value, metric)} against {number(comparison.other, metric)}"
                said.append(f"{opening} lacks seeds and is not ranked: {numbers} where both have one.")
            elif comparison.missing:
                planned = comparison.seeds + comparison.missing
                said.append(f"{opening} is compared on {comparison.seeds} of {planned} seeds.")
    return said


def _cost(costs: Sequence[SelectionCost]) -> list[str]:
    """What selection costs; whether it is worth that is decided where time is equal."""
    if not costs:
        return []
    share = max(c.overhead_share for c in costs)
    low, high = (f"{pick(c.example_ratio for c in costs):.1f}" for pick in (min, max))
    return [
        f"Scoring and choosing take up to {share:.0%} of a selecting step.",
        "With the super-batch that had to be drawn, an example chosen by scores costs "
        f"{low if low == high else f'{low} to {high}'} times as much time as one without choosing.",
    ]


def _guidance(results: Results) -> list[str]:
    """What autoguidance does to the baseline, a sentence for each metric."""
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
        "undecided": "may move",
    }
    return [
        f"After the whole run, autoguidance {verbs[f.outcome]} {m.label} of {code(config.baseline)} from "
        f"{number(f.other, m)} to {number(f.value, m)}."
        for m, f in zip(metrics, corrected(found), strict=True)
    ]


def _lower(text: str) -> str:
    return f"{text[0].lower()}{text[1:]}"
