"""What a study's final says in sentences, and what it leaves unpaid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..bench.plan import READINGS
from ..bench.results import Results
from ..bench.verdict import interval, metric_name, number, p_value
from .results import ALPHA, duels, victors


def verdict(final: Mapping[str, Results]) -> list[str]:
    """Whether a rule beats both the baseline and random on every headline, and if none does, who came closest."""
    said = []
    for results in final.values():
        where, won = READINGS[results.config.whole].title, victors(results)
        seeds = len(results.config.seeds)
        if won:
            said.append(
                f"At {where}, certainly better than baseline and random on every headline metric ({seeds} seeds, "
                f"Holm-corrected p < {ALPHA:g}): {', '.join(won)}.{_uncharged(results, won)}"
            )
            continue
        mine = [d for d in duels(results) if d.arm not in ("baseline", "random")]
        if not mine:
            continue
        arms = dict.fromkeys(d.arm for d in mine)
        worst = [max((d for d in mine if d.arm == arm), key=lambda d: d.doubt) for arm in arms]
        duel = min(worst, key=lambda d: d.doubt)
        said.append(
            f"At {where}, no rule certainly beats both baseline and random on every headline metric "
            f"({duel.found.seeds} seeds). {duel.arm} came closest (its least certain comparison is the most certain); "
            f"what fails it is {metric_name(duel.metric, duel.weight)} against {duel.other}: "
            f"{number(duel.value, duel.metric)} against {number(duel.against, duel.metric)}, a difference of "
            f"{number(duel.found.difference, duel.metric)} (95 % interval {interval(duel.found, duel.metric)}, "
            f"corrected {p_value(duel.corrected)})."
        )
    return said


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
