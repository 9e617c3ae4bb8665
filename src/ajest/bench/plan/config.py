"""What a bench compares, and the budgets at which it compares them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ajest.diffusion.ema import SPANNING
from ajest.errors import UserError, check, listed
from ajest.selection.arm import Arm
from ajest.selection.catalogue import ARMS
from ajest.selection.kinds import StepKind
from ajest.storage.config import from_json, to_json
from ajest.tasks.base import Headline, Metric, Task
from ajest.training.recipe import Recipe
from ajest.training.run_folder import RunConfig
from ajest.training.schedule import Schedule

from .budgets import BUDGETS, END_CLOCKS, Budget, End
from .looks import LEAST_SEEDS, more_seeds, planned_looks
from .operations import step_flops
from .tuning import Tuning

#: Seconds of a step by the label of its kind, or "guide", and by phase.
Costs = dict[str, dict[str, float]]


#: A run that does not end by steps may take so many times the baseline's: more than the cheapest arm ever needs.
MOST_STEPS = 10_000


#: Budgets of measured time, in units of the calibrated time that all runs are sure to take. How far it drifts from that
#: is not known before, so there are several.
DRIFTS = tuple(2 ** (k / 4) for k in range(-8, 5))


@dataclass(frozen=True)
class BenchConfig:
    """Everything that decides a bench's numbers, apart from the machine's speed.

    Runs end after equal steps, as published; or when each has used what the baseline's own steps need: calibrated
    time ("time"), the same without the exact target ("time_without_target"), network operations ("flops"), so that
    arms with cheap steps take more of them; or when each was trained on as many examples as the most frugal arm in
    these steps ("samples"). Of a baseline whose steps differ in kind, the dearest kind counts.

    Attributes:
        task: what is learned.
        recipe: how.
        arms: from which examples.
        seeds: of the runs; arms of one seed share examples, weights and evaluation noise.
        iterations: steps of every run, or of the baseline if runs end by something else.
        end: what all runs end at.
        final_only: compare at the end alone, nowhere on the way.
        guide_iterations: steps of each guide.
        guide_seed: of the first guide, and of the strong reference; the next guides have the seeds that follow. A run
            of such a seed draws other examples than any of these.
        guide_recipe: how guides are trained, None for the recipe of the others.
        guides: how many there are. All runs share them: at the budgets that count every run is measured with each,
            elsewhere with the first, which is also what arms compare with that train against a guide.
        samples: examples that runs are trained on if they end by these; None: as many as the most frugal arm is trained
            on in the baseline's steps.
        strong_iterations: steps of the strong reference, for arms that use one: a network like the learners, trained
            by the baseline on examples of its own.
        weight: of autoguidance.
        cfg: weight of classifier-free guidance beside it, in all that is guided; 1 is none.
        n_final: samples at the budgets that count.
        n_curve: samples at the points of learning curves and at secondary budgets.
        curve: points of learning curves, as shares of the run.
        calibration_rounds: interleaved rounds of timing.
        delta: the difference that counts as equivalent, as a share of the baseline's value; None: a fraction of what
            the baseline gains over the last half of its run, see `bench.read.margins`.
        noise_repeats: how often the end of each run of the baseline is measured again, with other sampling noise.
        looks: numbers of seeds at which it is asked whether all is decided; seeds are added until it is. Without
            any the seeds are all there are.
        minutes: seeds are added only while they are likely to be made within so many of the bench's beginning.
        rates: peak learning rates of arms by their names, in place of the recipe's.
        tuned: how these were found, in words, if they were found for these settings; "" if they were not.
        at_edge: arms whose rate is the last of those that were tried, or that have none.
        tuning: how to find them before the runs begin; None takes them as they are.
        headlines: which metrics the verdict rests on, by name, in place of the task's.
    """

    task: Task
    recipe: Recipe
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    iterations: int
    guide_iterations: int
    end: End = "steps"
    final_only: bool = False
    guide_seed: int = 0
    guide_recipe: Recipe | None = None
    strong_iterations: int = 0
    samples: int | None = None
    weight: float = 3.0
    cfg: float = 1.0
    n_final: int = 16384
    n_curve: int = 16384
    curve: tuple[float, ...] = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)
    calibration_rounds: int = 24
    delta: float | None = None
    guides: int = 1
    noise_repeats: int = 0
    looks: tuple[int, ...] = ()
    minutes: float | None = None
    rates: dict[str, float] = field(default_factory=dict)
    tuned: str = ""
    at_edge: tuple[str, ...] = ()
    tuning: Tuning | None = None
    headlines: dict[str, Headline] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(len(self.arms) >= 1, "a bench needs at least one arm")
        check(len(self.seeds) >= 1, "a bench needs at least one seed")
        if len(set(self.seeds)) != len(self.seeds):
            repeated = sorted({s for s in self.seeds if self.seeds.count(s) > 1})
            raise UserError(f"seeds are named twice: {listed(repeated)}; each must be there once")
        check(self.iterations >= 32, f"a bench needs at least 32 iterations, not {self.iterations}")
        check(self.guide_iterations >= 1, f"the guide needs at least 1 iteration, not {self.guide_iterations}")
        check(self.guides >= 1, f"a bench needs at least 1 guide, not {self.guides}")
        check(self.noise_repeats >= 0, f"noise_repeats must be at least 0, not {self.noise_repeats}")
        check(
            self.strong_iterations >= 1 or all(a.reference != "strong" for a in self.arms),
            "an arm asks for a strong reference: strong_iterations must be at least 1",
        )
        both = sorted(set(self.seeds) & set(() if self.tuning is None else self.tuning.seeds))
        check(not both, f"seeds that learning rates are tuned on must not be those that are reported: {listed(both)}")
        named = {*self.headlines, self.tuned_by} if self.tuning else {*self.headlines}
        unheard = sorted(named - {m.name for m in self.task.metrics})
        check(not unheard, f"headlines that the task {self.task.name} does not measure: {listed(unheard)}")
        check(math.isfinite(self.weight), f"the guidance weight must be a number, not {self.weight}")
        check(self.weight != 1, "a guidance weight of 1 is no guidance: take another one")
        check(math.isfinite(self.cfg), f"the weight of classifier-free guidance must be a number, not {self.cfg}")
        check(
            self.cfg == 1 or (self.task.conditional and self.task.label_dropout > 0),
            f"--cfg asks networks without labels, which those of {self.task.subject} do not learn to answer: it needs "
            "labels, and --label-dropout 0.1",
        )
        check(min(self.n_final, self.n_curve) >= 200, "evaluations need at least 200 samples")
        check(
            self.delta is None or 0 < self.delta < math.inf,
            f"delta is a share of the baseline's value, such as 0.05, not {self.delta}",
        )
        check(self.minutes is None or self.minutes > 0, f"a bench needs minutes above 0, not {self.minutes}")
        check(
            self.looks == tuple(sorted({n for n in self.looks if n >= LEAST_SEEDS})),
            f"looks are rising numbers of {LEAST_SEEDS} or more seeds, not {self.looks}",
        )
        for arm in self.arms:
            self.run(arm, self.seeds[0])  # refuses what cannot be run

    def __reduce__(self) -> tuple[Any, ...]:
        """By its JSON: a task or a rule may stand in a file of the user's, which a worker has yet to read."""
        return _restored, (to_json(self),)

    @property
    def baseline(self) -> str:
        """The arm that the others are compared with: "baseline", or the first."""
        names = [a.name for a in self.arms]
        return "baseline" if "baseline" in names else names[0]

    def until_certain(self, most: int, minutes: float | None = None) -> BenchConfig:
        """This bench with seeds added until every comparison with the baseline is decided.

        Args:
            most: seeds at the most.
            minutes: of the whole bench, within which seeds are added.

        Raises:
            UserError: there are as many already.
        """
        looks = planned_looks(len(self.seeds), most)
        return replace(self, looks=looks, minutes=minutes).with_seeds(looks[0])

    def with_seeds(self, count: int) -> BenchConfig:
        """This bench with so many seeds: the first of its own, then the next whole numbers."""
        taken = {*Tuning.seeds, *(() if self.tuning is None else self.tuning.seeds)}
        return replace(self, seeds=more_seeds(self.seeds, count, taken))

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The task's, with the headlines of this bench."""
        if not self.headlines:
            return self.task.metrics
        return tuple(replace(m, headline=self.headlines.get(m.name, "no")) for m in self.task.metrics)

    @property
    def tuned_by(self) -> str:
        """Name of the metric by which learning rates are found."""
        return (self.tuning.metric if self.tuning else "") or self.task.tuned_by

    @property
    def untuned(self) -> tuple[str, ...]:
        """Names of the arms whose learning rate was not tuned for these settings, or not found within the grid."""
        found = {*self.rates} - {*self.at_edge} if self.tuned else set()
        return tuple(arm.name for arm in self.arms if arm.name not in found)

    @property
    def final_budget(self) -> str:
        """The budget that is equal at the end of every run."""
        return END_CLOCKS[self.end]

    @property
    def budgets(self) -> dict[str, Budget]:
        """Where this bench compares. Where learning rates fall to zero, what is read before the end of a run is of a
        network that is not finished: then the end alone counts."""
        absent = {"steps", "flops"} if self.task.costly_target else {"steps", "flops", "time_without_target"}
        rates = (self.recipe.of(arm).learning_rate for arm in self.arms)
        ends_alone = self.final_only or any(rate.ends_low for rate in rates)
        wanted = {self.final_budget} if ends_alone else (BUDGETS.keys() - absent) | {self.final_budget}
        return {name: budget for name, budget in BUDGETS.items() if name in wanted}

    def guide(self, number: int = 1) -> RunConfig:
        """A guide's run, counted from 1; it keeps averages from which any width of a guide can be had."""
        recipe = self.guide_recipe or self.recipe
        recipe = replace(recipe, ema_widths=tuple(dict.fromkeys((*recipe.ema_widths, *SPANNING))))
        seed = self.guide_seed + number - 1
        return RunConfig(self.task, "guide", recipe, ARMS["baseline"], seed, self.guide_iterations)

    def guide_schedule(self) -> Schedule:
        """A snapshot at each quarter of a guide's run, as `SPANNING` asks for."""
        return Schedule({"steps": tuple(self.guide_iterations * k / 4 for k in range(1, 5))})

    def recipe_of(self, arm: Arm) -> Recipe:
        """How an arm is trained: the recipe, with its own peak rate if it has one, and with the average that is judged
        as the first; what else the arm itself changes of a recipe is not in it (`Recipe.of`)."""
        recipe, width = self.recipe, arm.updates.ema
        if width is not None:
            recipe = replace(recipe, ema_widths=tuple(dict.fromkeys((width, *recipe.ema_widths))))
        if arm.name not in self.rates:
            return recipe
        return replace(recipe, learning_rate=replace(recipe.learning_rate, peak=self.rates[arm.name]))

    def run(self, arm: Arm, seed: int) -> RunConfig:
        guide = f"../../../{arm.reference}" if arm.reference in ("guide", "strong") else None
        most = self.iterations * (1 if self.end == "steps" else MOST_STEPS)
        return RunConfig(self.task, "learner", self.recipe_of(arm), arm, seed, most, guide)

    def strong(self) -> RunConfig:
        """The strong reference's run; its examples are none of the arms'."""
        return RunConfig(self.task, "strong", self.recipe, ARMS["baseline"], self.guide_seed, self.strong_iterations)

    def time(self, costs: Costs) -> float:
        """Calibrated seconds of a whole run of the baseline."""
        return self._baseline_total("calibrated", costs)

    def total(self, costs: Costs) -> float:
        """What a run has used up when it ends, by the clock of `end`."""
        if self.end != "samples":
            return self._baseline_total(self.final_budget, costs)
        fewest = min(min(self._per_step("samples", arm, costs).values()) for arm in self.arms)
        return float(self.iterations * fewest if self.samples is None else self.samples)

    def _baseline_total(self, clock: str, costs: Costs) -> float:
        """What the baseline's steps add to a clock."""
        arm = next(a for a in self.arms if a.name == self.baseline)
        return self.iterations * _own_step(arm, self._per_step(clock, arm, costs))

    def _per_step(self, clock: str, arm: Arm, costs: Costs) -> dict[StepKind, float]:
        """What each kind of step of an arm adds to a clock."""
        if clock == "flops":
            return step_flops(self.task, self.recipe, arm)
        if clock == "steps":
            return dict.fromkeys(arm.kinds(), 1.0)
        if clock == "samples":
            whole, kept = self.recipe.super_batch, arm.kept(self.recipe.super_batch)
            return {kind: float(whole if kind.trains_on_all else kept) for kind in arm.kinds()}
        priced = spared(costs) if clock == "time_without_target" else costs
        return {kind: sum(priced[kind.label].values()) for kind in arm.kinds()}

    def _sure(self, clock: str, costs: Costs) -> float:
        """What every run has used up of a clock when it ends, whatever kinds of step it takes.

        Steps that use up the whole use up at least the whole times the least ratio of the two clocks; and there are at
        least as many as if all were of the dearest kind, the last of them in full.
        """
        total, least = self.total(costs), []
        for arm in self.arms:
            spent, added = self._per_step(self.final_budget, arm, costs), self._per_step(clock, arm, costs)
            steps = math.ceil(total / max(spent.values()) - 1e-9)
            by_ratio = min(total / spent[kind] * added[kind] for kind in spent)
            least.append(max(steps * min(added.values()), by_ratio))
        return min(least)

    def curve_amounts(self, costs: Costs) -> tuple[str, tuple[float, ...]]:
        """(clock, amounts) at which learning curves have their points; none in time before the calibration."""
        if self.end != "steps":
            return self.final_budget, tuple(sorted(self.total(costs) * share for share in self.curve)) if costs else ()
        steps = {max(1, round(share * self.iterations)) for share in self.curve}
        return "steps", tuple(float(s) for s in sorted(steps))

    def counts(self, budget: str) -> bool:
        """Whether a budget is evaluated with `n_final` samples and with every guide."""
        return BUDGETS[budget].full or budget == self.final_budget

    def n_of(self, budget: str) -> int:
        """Samples of an evaluation at a budget."""
        return self.n_final if self.counts(budget) else self.n_curve

    def guides_of(self, budget: str) -> int:
        """With so many guides, from the first on, runs are measured at a budget."""
        return self.guides if self.counts(budget) else 1

    def headline_weights(self) -> tuple[float, ...]:
        """The guidance weights at which the task has headlines."""
        return tuple(sorted({w for metric in self.metrics for w in metric.headline_weights(self.weight)}))

    def amounts(self, costs: Costs) -> dict[str, tuple[float, ...]]:
        """The amounts of each budget at which runs are read: what all are sure to reach, and points of the curve."""
        clock, points = self.curve_amounts(costs)
        amounts = {clock: tuple(sorted({*points, self.total(costs)}))}
        for other in self.budgets.keys() - {clock, "seconds"}:
            sure = self._sure(other, costs)
            amounts[other] = (float(math.floor(sure + 1e-9)) if other == "samples" else sure,)
        if "seconds" in self.budgets:
            amounts["seconds"] = tuple(self._sure("calibrated", costs) * drift for drift in DRIFTS)
        return amounts

    def schedule(self, costs: Costs) -> Schedule:
        """When a run writes what, and when it ends."""
        shown = tuple(max(1, round(self.iterations * share)) for share in (1 / 32, 1 / 4, 1))
        end = None if self.end == "steps" else (self.final_budget, self.total(costs))
        return Schedule(self.amounts(costs), costs, selection_at=shown, end=end)


def altered(config: BenchConfig, **settings: Any) -> BenchConfig:
    """A bench with other settings.

    Learning rates of arms stay as the best guess there is, but count as tuned only where the task, the recipe, the
    budget and the arm are those that they were tuned for, and no seed is one of those that they were found on; a
    recipe of another peak is meant for all arms. Seeds that are named are all that are wanted: none are added to them.

    Args:
        config: of a preset, for instance.
        settings: its fields by name.
    """
    new = replace(config, **settings)
    if new.recipe.learning_rate.peak != config.recipe.learning_rate.peak and "rates" not in settings:
        new = replace(new, rates={})
    if "seeds" in settings:
        new = replace(new, looks=settings.get("looks", ()), minutes=settings.get("minutes"))
    names = ("task", "recipe", "iterations", "end", "samples")
    alike = all(getattr(config, name) == getattr(new, name) for name in names)
    known = {arm.name: arm for arm in config.arms}
    other = {arm.name for arm in new.arms if arm.name in known and arm != known[arm.name]}
    rates = {name: rate for name, rate in new.rates.items() if name not in other}
    return replace(new, rates=rates, tuned=new.tuned if alike and not {*new.seeds} & {*Tuning.seeds} else "")


def _restored(value: Any) -> BenchConfig:
    return from_json(BenchConfig, value, "a job")


def spared(costs: Costs) -> Costs:
    """Costs without the exact target."""
    return {k: {p: s for p, s in phases.items() if p != "target"} for k, phases in costs.items()}


def _own_step(arm: Arm, by_kind: Mapping[StepKind, float]) -> float:
    """What a step of an arm uses up: the mean where it scores on every n-th step, the dearest where it changes
    between selecting and not, at a time that nobody knows before."""
    first, *others = (by_kind[kind] for kind in arm.kinds())
    if arm.memory is not None and arm.memory.every:
        recalled, *others = others
        first = recalled + (first - recalled) / arm.memory.every
    return max(first, *others) if others else first


def run_folder(root: Path, arm: str, seed: int) -> Path:
    return root / "arms" / arm / f"seed-{seed}"


def guide_folder(root: Path, number: int = 1) -> Path:
    """Of a guide's run, counted from 1."""
    return root / ("guide" if number == 1 else f"guide-{number}")
