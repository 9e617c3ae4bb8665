"""What a bench found: decided once, from its results alone, and printed by page, Markdown, terminal, CSV and JSON."""

from __future__ import annotations

from dataclasses import dataclass

from ajest.bench.plan.budgets import BUDGETS
from ajest.bench.plan.config import spared

from .by_level import LevelCurves, level_curves, level_table
from .cost import SelectionCost, cost_table, selection_costs
from .margins import not_named
from .power import detectable, power_table
from .published import published_table
from .rates import rates_table, tuning_table
from .recommendation import cited
from .results import Results
from .score_reliability import Estimate, score_reliability, score_reliability_table
from .signs import by_sign_table, signs_table
from .table import Table
from .tables import arms_table, budget_table, headline_table, rivals_table, used_table
from .time_to_quality import time_to_quality_table
from .timing import step_times, step_times_table
from .variance import variance_table
from .verdict import caution, charged, decisive, verdict
from .wording import ends, legend, series

#: Sentences of a verdict, beside its answer; what else there is to say stands further below.
MOST = 5
#: Heading of what is no finding of a bench's own.
RECOMMENDED = "What other benches recommend"


@dataclass(frozen=True)
class Findings:
    """Everything a report says; whoever prints it decides nothing.

    Attributes:
        results: the numbers behind it.
        answer: what came out, in a sentence, with what a reader must know before believing it.
        verdict: the most important other sentences, at most `MOST`.
        notes: all others.
        recommended: sentences on what other benches found best in like settings: no finding of this one.
        missing: sentences on what is not there.
        decisive: the budgets that the verdict rests on.
        compared_at: titles of these; of what the runs end at where nothing was evaluated yet.
        ends: how long the runs are.
        caution: on learning rates at equal budgets.
        legend: what the numbers of `tables` are, and which are certain.
        headlines: a table for each decisive budget: headline metrics alone, with their differences to the baseline.
        rivals: a table for each decisive budget: the same, their differences to random choice of as many.
        arms: what is compared.
        rates: the learning rate of each arm.
        tuning: what the rates gave that were tried; without rows where none was.
        tables: a table for each budget at which something was evaluated: all metrics.
        time_to_quality: what arms need to get where the baseline ends.
        costs: what selecting steps cost, of each arm that scores.
        cost_table: the same for people.
        step_times_table: what steps took in the runs, against their calibration.
        score_reliability: how far scores can be trusted, by arm and quantity.
        score_reliability_table: the same for people.
        used: what whole runs used.
        signs: of numbers that networks tell.
        power: the smallest differences that it could have shown.
        variance: how much of a headline's spread comes from training seed, guide and sampling noise.
        by_sign: a table for each decisive budget: headline metrics by these signs.
        guide: what the guides cost, in words.
        published: published figures beside ours; without rows unless the settings are the published ones.
        levels: losses by noise level; None where the least one is not known.
        level_table: the same for people.
    """

    results: Results
    answer: str
    verdict: tuple[str, ...]
    notes: tuple[str, ...]
    recommended: tuple[str, ...]
    missing: tuple[str, ...]
    decisive: tuple[str, ...]
    compared_at: tuple[str, ...]
    ends: str
    caution: str
    legend: str
    headlines: tuple[Table, ...]
    rivals: tuple[Table, ...]
    arms: Table
    rates: Table
    tuning: Table
    tables: tuple[Table, ...]
    time_to_quality: Table
    costs: tuple[SelectionCost, ...]
    cost_table: Table
    step_times_table: Table
    score_reliability: dict[str, dict[str, Estimate]]
    score_reliability_table: Table
    used: Table
    signs: Table
    by_sign: tuple[Table, ...]
    power: Table
    variance: Table
    guide: str
    published: Table
    levels: LevelCurves | None
    level_table: Table

    @property
    def sentences(self) -> tuple[str, ...]:
        """Answer, verdict and notes, in the order of importance."""
        return (self.answer, *self.verdict, *self.notes)


def findings(results: Results) -> Findings:
    """What a bench found, as far as it is finished. Reads no file and builds no network that it has built before."""
    config = results.config
    rests_on = decisive(results)
    costs = selection_costs(config, results.costs)
    times = step_times(results)
    answer, *said = verdict(results, _charged_costs(results, costs), times)
    trusted, levels = score_reliability(results), level_curves(results)
    return Findings(
        results=results,
        answer=answer,
        verdict=tuple(said[:MOST]),
        notes=tuple(said[MOST:]),
        recommended=tuple(cited(config)),
        missing=(*results.missing(), *not_named(results)),
        decisive=tuple(rests_on),
        compared_at=tuple(BUDGETS[budget].title for budget in rests_on or [config.final_budget]),
        ends=ends(config),
        caution=caution(config),
        legend=legend(config),
        headlines=tuple(headline_table(results, budget) for budget in rests_on),
        rivals=tuple(table for budget in rests_on if (table := rivals_table(results, budget))),
        arms=arms_table(results),
        rates=rates_table(config),
        tuning=tuning_table(config.task, results.tuned),
        tables=tuple(budget_table(results, budget) for budget in results.evaluated()),
        time_to_quality=time_to_quality_table(results),
        costs=tuple(costs),
        cost_table=cost_table(costs, config.task.costly_target),
        step_times_table=step_times_table(times),
        score_reliability=trusted,
        score_reliability_table=score_reliability_table(trusted),
        used=used_table(results),
        signs=signs_table(results),
        power=power_table(detectable(results, rests_on)),
        variance=variance_table(results),
        by_sign=tuple(table for budget in rests_on if (table := by_sign_table(results, budget))),
        guide=_guide(results),
        published=published_table(results),
        levels=levels,
        level_table=level_table(levels),
    )


def _charged_costs(results: Results, costs: list[SelectionCost]) -> list[SelectionCost]:
    """The costs by the clock of the budget that the verdict on them rests on: with the exact target, or without."""
    if charged(results) != "time_without_target":
        return costs
    return selection_costs(results.config, spared(results.costs))


def _guide(results: Results) -> str:
    """What training the guides took, charged and not charged."""
    trained = [run for run in results.guides if run.ledger]
    if len(trained) < len(results.guides):
        return "The guide is not trained yet." if len(results.guides) == 1 else "Not all guides are trained yet."
    seconds = sum(sum(run.ledger[-1]["seconds"].values()) for run in trained)
    steps = f"{results.guide.step:,} steps"
    text = (
        f"The guide took {seconds:.1f} s ({steps}), once for all runs. No arm is charged for it."
        if len(trained) == 1
        else f"The {len(trained)} guides took {seconds:.1f} s, once for all runs. Each took {steps}. No arm is charged "
        "for them. Runs were guided by each; what compares with a guide while training took the first."
    )
    uses = [a.name for a in results.config.arms if a.reference == "guide"]
    if uses and "guide" in results.costs and "uniform" in results.costs:
        spent = results.config.guide_iterations * sum(results.costs["guide"].values())
        share = spent / results.config.time(results.costs)
        text += (
            f" Charged, {'it' if len(trained) == 1 else 'one'} would add {share:.0%} of a whole "
            f"{results.config.baseline} run to every run that uses it. These are {series(uses)} while training, and "
            "every arm when sampled with autoguidance."
        )
    return text
