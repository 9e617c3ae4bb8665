"""What a study's final says in sentences, and what it leaves unpaid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ajest.bench.plan.budgets import BUDGETS
from ajest.bench.read.results import Results
from ajest.bench.read.statistics import ALPHA, LEAST_SEEDS
from ajest.bench.read.wording import metric_name, number, told

from .results import pairwise_tests, winners


def verdict(final: Mapping[str, Results]) -> list[str]:
    """Whether a rule beats both the baseline and random on every headline, and if none does, who came closest."""
    said = []
    for results in final.values():
        where, won = BUDGETS[results.config.final_budget].title, winners(results)
        seeds = len(results.config.seeds)
        if won:
            said.append(
                f"At {where}, certainly better than baseline and random on every headline metric ({seeds} seeds, "
                f"Holm-corrected p < {ALPHA:g}): {', '.join(won)}.{_uncharged(results, won)}"
            )
        elif any(d.arm not in ("baseline", "random") for d in pairwise_tests(results)):
            said.append(
                f"At {where}, no rule certainly beats both baseline and random on every headline metric ({seeds} "
                f"seeds).{_closest(results)}"
            )
    seeds = min((len(results.config.seeds) for results in final.values()), default=LEAST_SEEDS)
    if said and seeds < LEAST_SEEDS:
        said.append(f"{seeds} seed{'' if seeds == 1 else 's'}: take it as a first look. {LEAST_SEEDS} are the least "
                    "for a claim.")  # fmt: skip
    return said


def _closest(results: Results) -> str:
    """The rule whose least certain comparison is the most certain; one that lacks seeds is none of them."""
    mine = [d for d in pairwise_tests(results) if d.arm not in ("baseline", "random")]
    partial = list(dict.fromkeys(d.arm for d in mine if d.found.missing))
    text = f" {', '.join(partial)}: seeds are missing, so not ranked." if partial else ""
    worst = [
        max((d for d in mine if d.arm == arm), key=lambda d: d.p_one_sided)
        for arm in dict.fromkeys(d.arm for d in mine)
        if arm not in partial
    ]
    if not worst:
        return text
    duel = min(worst, key=lambda d: d.p_one_sided)
    found = duel.found
    return (
        f" {duel.arm} came closest (its least certain comparison is the most certain); what fails it is "
        f"{metric_name(duel.metric, duel.weight)} against {duel.other}: {number(found.value, duel.metric)} against "
        f"{number(found.other, duel.metric)}, {told(found, duel.metric)}.{text}"
    )


def reference_costs(results: Results) -> dict[str, float]:
    """Time that training each reference took, as a share of the budget of a run."""
    config, costs = results.config, results.costs
    if "guide" not in costs or "uniform" not in costs:
        return {}
    step = {"guide": sum(costs["guide"].values()), "strong": sum(costs["uniform"].values())}
    steps = {"guide": config.guide_iterations, "strong": config.strong_iterations}
    return {name: steps[name] * step[name] / config.time(costs) for name in steps}


def _uncharged(results: Results, arms: Sequence[str]) -> str:
    """What winners have not paid for."""
    shares = reference_costs(results)
    owed = [
        f"{arm.name} uses a reference whose training, not charged here, took {shares[arm.reference]:.0%} of a budget"
        for arm in results.config.arms
        if arm.name in arms and arm.reference in shares
    ]
    return f" But {'; '.join(owed)}." if owed else ""
