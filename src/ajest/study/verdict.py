"""What a study's final says in sentences, and what it leaves unpaid."""

from __future__ import annotations

from collections.abc import Sequence

from ajest.bench.plan.budgets import BUDGETS
from ajest.bench.read.numbers import number, p_value
from ajest.bench.read.rates import untuned_note
from ajest.bench.read.results import Results
from ajest.bench.read.statistics import LEAST_SEEDS
from ajest.bench.read.wording import code, metric_name, series

from .results import Judged, PairwiseTest


def verdict(final: Sequence[Judged]) -> list[str]:
    """Whether a rule beats both the baseline and random on every headline, and if none does, who came closest."""
    said = []
    for bench in final:
        config, won = bench.results.config, bench.winners
        where, seeds = BUDGETS[config.final_budget].title, len(config.seeds)
        if won:
            verb = "beats" if len(won) == 1 else "beat"
            said.append(
                f"At {where}, {series(won)} certainly {verb} both baseline and random on every headline metric "
                f"({seeds} seeds)."
            )
            said += _uncharged(bench.results, won)
        elif any(d.arm not in ("baseline", "random") for d in bench.tests):
            said.append(
                f"At {where}, no rule certainly beats both baseline and random on every headline metric "
                f"({seeds} seeds)."
            )
            said += _closest(bench.tests)
    seeds = min((len(bench.results.config.seeds) for bench in final), default=LEAST_SEEDS)
    if said and (note := untuned_note(final[0].results.config)):
        said[0] = f"{said[0]} {note}"
    if said and seeds < LEAST_SEEDS:
        are = "1 seed is" if seeds == 1 else f"{seeds} seeds are"
        said.append(f"{are} a first look; {LEAST_SEEDS} are the least for a claim.")
    return said


def _closest(tests: Sequence[PairwiseTest]) -> list[str]:
    """The rule whose least certain comparison is the most certain; one that lacks seeds is none of them."""
    mine = [d for d in tests if d.arm not in ("baseline", "random")]
    partial = list(dict.fromkeys(d.arm for d in mine if d.found.missing))
    worst = [
        max((d for d in mine if d.arm == arm), key=lambda d: d.p_one_sided)
        for arm in dict.fromkeys(d.arm for d in mine)
        if arm not in partial
    ]
    said = []
    if worst:
        nearest = min(worst, key=lambda d: d.p_one_sided)
        found, metric = nearest.found, nearest.metric
        verb = {"worse": "is certainly worse than", "equivalent": "is equivalent to"}.get(
            found.outcome, "does not beat"
        )
        said = [
            f"Closest: {code(nearest.arm)}.",
            f"It {verb} {nearest.other} on {metric_name(metric, nearest.weight)} "
            f"({number(found.value, metric)} against {number(found.other, metric)}, {metric.better} is better; "
            f"{p_value(found.corrected)}).",
        ]
    if partial:
        said.append(f"Seeds of {series(partial)} are missing, so they are not ranked.")
    return said


def reference_costs(results: Results) -> dict[str, float]:
    """Time that training each reference took, as a share of the budget of a run."""
    config, costs = results.config, results.costs
    if "guide" not in costs or "uniform" not in costs:
        return {}
    step = {"guide": sum(costs["guide"].values()), "strong": sum(costs["uniform"].values())}
    steps = {"guide": config.guide_iterations, "strong": config.strong_iterations}
    return {name: steps[name] * step[name] / config.time(costs) for name in steps}


def references_charged_to_none(results: Results) -> str:
    """What references cost, which no arm is charged for, in words; "" where none is used."""
    shares, arms = reference_costs(results), results.config.arms
    used = {r: [a.name for a in arms if a.reference == r] for r in shares}
    names = {"guide": "guide", "strong": "strong reference"}
    said = [
        f"Training the {names[r]} took {shares[r]:.0%} of a run's budget, once for all runs. It is not charged to "
        f"{series(users)}."
        for r, users in used.items()
        if users
    ]
    return " ".join(said)


def _uncharged(results: Results, arms: Sequence[str]) -> list[str]:
    """What winners have not paid for."""
    shares = reference_costs(results)
    return [
        f"{code(arm.name)} uses a reference whose training, not charged here, took {shares[arm.reference]:.0%} of a "
        "budget."
        for arm in results.config.arms
        if arm.name in arms and arm.reference in shares
    ]
