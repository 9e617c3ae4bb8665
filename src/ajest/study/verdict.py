"""What a study's final says in sentences, and what it leaves unpaid."""

from __future__ import annotations

from collections.abc import Sequence

from ajest.bench.plan.budgets import BUDGETS
from ajest.bench.read.rates import untuned_note
from ajest.bench.read.results import Results
from ajest.bench.read.statistics import ALPHA, LEAST_SEEDS
from ajest.bench.read.wording import metric_name, number, told

from .results import Judged, PairwiseTest


def verdict(final: Sequence[Judged]) -> list[str]:
    """Whether a rule beats both the baseline and random on every headline, and if none does, who came closest."""
    said = []
    for bench in final:
        config, won = bench.results.config, bench.winners
        where, seeds = BUDGETS[config.final_budget].title, len(config.seeds)
        if won:
            said.append(
                f"At {where}, certainly better than baseline and random on every headline metric ({seeds} seeds, "
                f"Holm-corrected p < {ALPHA:g}): {', '.join(won)}.{_uncharged(bench.results, won)}"
            )
        elif any(d.arm not in ("baseline", "random") for d in bench.tests):
            said.append(
                f"At {where}, no rule certainly beats both baseline and random on every headline metric ({seeds} "
                f"seeds).{_closest(bench.tests)}"
            )
    seeds = min((len(bench.results.config.seeds) for bench in final), default=LEAST_SEEDS)
    if said and (note := untuned_note(final[0].results.config)):
        said.insert(0, note)
    if said and seeds < LEAST_SEEDS:
        said.append(f"{seeds} seed{'' if seeds == 1 else 's'}: take it as a first look. {LEAST_SEEDS} are the least "
                    "for a claim.")  # fmt: skip
    return said


def _closest(tests: Sequence[PairwiseTest]) -> str:
    """The rule whose least certain comparison is the most certain; one that lacks seeds is none of them."""
    mine = [d for d in tests if d.arm not in ("baseline", "random")]
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


def references_charged_to_none(results: Results) -> str:
    """What references cost, which no arm is charged for, in words; "" where none is used."""
    shares, arms = reference_costs(results), results.config.arms
    used = {r: [a.name for a in arms if a.reference == r] for r in shares}
    names = {"guide": "guide", "strong": "strong reference"}
    said = [
        f"Training the {names[r]} took {shares[r]:.0%} of a run's budget, once for all runs; it is not charged to "
        f"{', '.join(users)}."
        for r, users in used.items()
        if users
    ]
    return " ".join(said)


def _uncharged(results: Results, arms: Sequence[str]) -> str:
    """What winners have not paid for."""
    shares = reference_costs(results)
    owed = [
        f"{arm.name} uses a reference whose training, not charged here, took {shares[arm.reference]:.0%} of a budget"
        for arm in results.config.arms
        if arm.name in arms and arm.reference in shares
    ]
    return f" But {'; '.join(owed)}." if owed else ""
