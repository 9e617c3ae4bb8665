"""What a study compares: stages, each a few benches that end at different budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ajest.bench.plan.budgets import End
from ajest.bench.plan.config import BenchConfig, Costs
from ajest.bench.plan.tuning import Tuning
from ajest.errors import check
from ajest.selection.arm import Arm
from ajest.selection.catalogue import ARMS, KEEP, arms_named, random_at, variant_name
from ajest.tasks.base import Headline, Task
from ajest.training.recipe import Recipe

Stage = Literal["screening", "dials", "final", "guides"]
STAGES: tuple[Stage, ...] = ("screening", "dials", "final", "guides")

#: Benches of the stage "guides": weights are chosen on the first, the others judge them, the last with the guide's
#: training time taken off its runs.
GUIDE_BENCHES = ("chosen", "full", "charged")

#: What the runs of the stage "guides" keep to be guided by: snapshots at these shares, averages of these widths.
OWN_SHARES = (1 / 16, 1 / 8, 1 / 4, 1.0)
OWN_WIDTHS = (0.005, 0.1, 0.25)

#: Folder in which learning rates are found, before all stages.
TUNED = "tuned"

#: Arms that every final has, beside the finalists.
ALWAYS = ("baseline", "random", "early-ajest")


@dataclass(frozen=True)
class Grid:
    """Variants of one arm over two of its dials.

    Attributes:
        arm: whose variants.
        across, down: (dial, values) each.
    """

    arm: str
    across: tuple[str, tuple[float, ...]]
    down: tuple[str, tuple[float, ...]]

    def variants(self) -> tuple[Arm, ...]:
        """Row by row."""
        return tuple(self._variant(down, across) for down in self.down[1] for across in self.across[1])

    def name_of(self, down: float, across: float) -> str:
        """The name of a variant: after the dials that do not stand there anyway, so that grids share variants."""
        return self._variant(down, across).name

    def _variant(self, down: float, across: float) -> Arm:
        base = ARMS[self.arm]
        dials = {
            dial: value
            for dial, value in ((self.down[0], down), (self.across[0], across))
            if value != (base.keep if dial == "keep" else base.effective(dial))
        }
        return replace(base, name=variant_name(self.arm, dials), **dials)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Study:
    """Everything that decides a study's numbers, apart from the machine's speed.

    Attributes:
        task, recipe: what is learned, and how; the learning rate follows the share of the run, so that it is
            annealed for each budget.
        guide_recipe: how the guide is trained, None for the recipe of the others.
        rules: arms that are screened.
        grids: dials that are looked into.
        controls: arms that the grids are held against: random choice at their keep fractions.
        iterations: steps of the baseline; budgets are what it needs for them.
        guide_iterations, strong_iterations: steps of the guide and of the strong reference.
        screening_seeds, final_seeds: no seed is in both.
        screening_ends, grid_ends, final_ends: budgets.
        finalists: rules that go from the screening into the final.
        n: samples of an evaluation.
        weight: of autoguidance.
        guides: with so many the final and the stage "guides" measure, see `BenchConfig`; the others take the first.
        rates, tuned, at_edge, tuning: peak learning rates of arms, see `BenchConfig`.
        headlines: which metrics verdicts rest on, in place of the task's.
    """

    task: Task
    recipe: Recipe
    rules: tuple[Arm, ...]
    grids: tuple[Grid, ...]
    iterations: int
    guide_iterations: int
    strong_iterations: int
    screening_seeds: tuple[int, ...]
    final_seeds: tuple[int, ...]
    screening_ends: tuple[End, ...] = ("time", "time_without_target", "samples")
    grid_ends: tuple[End, ...] = ("time_without_target",)
    final_ends: tuple[End, ...] = ("time", "time_without_target", "samples", "flops")
    controls: tuple[Arm, ...] = ()
    finalists: int = 4
    n: int = 16384
    weight: float = 3.0
    guide_recipe: Recipe | None = None
    guides: int = 1
    rates: dict[str, float] = field(default_factory=dict)
    tuned: str = ""
    at_edge: tuple[str, ...] = ()
    tuning: Tuning | None = None
    headlines: dict[str, Headline] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shared = sorted(set(self.screening_seeds) & set(self.final_seeds))
        check(not shared, f"seeds that rules are chosen on must not be those they are judged on: {shared}")
        both = {*self.screening_seeds, *self.final_seeds} & set(() if self.tuning is None else self.tuning.seeds)
        check(not both, f"seeds that learning rates are tuned on must not be those of a stage: {sorted(both)}")
        check(self.finalists >= 1, "a final needs at least one finalist")

    def bench(
        self,
        arms: Sequence[Arm],
        seeds: Sequence[int],
        end: End,
        iterations: int | None = None,
        curve: tuple[float, ...] = (1.0,),
    ) -> BenchConfig:
        """Arms on seeds, compared at the end of their runs alone."""
        return BenchConfig(
            task=self.task,
            recipe=self.recipe,
            arms=tuple(arms),
            seeds=tuple(seeds),
            iterations=self.iterations if iterations is None else iterations,
            guide_iterations=self.guide_iterations,
            strong_iterations=self.strong_iterations,
            end=end,
            final_only=True,
            guide_recipe=self.guide_recipe,
            weight=self.weight,
            n_final=self.n,
            n_curve=self.n,
            curve=curve,
            samples=self.samples,
            calibration_rounds=64,
            rates={arm.name: self.rates[arm.name] for arm in arms if arm.name in self.rates},
            tuned=self.tuned,
            at_edge=self.at_edge,
            headlines=self.headlines,
        )

    @property
    def asked(self) -> Study:
        """As it was asked for, before learning rates were found."""
        return self if self.tuning is None else replace(self, rates={}, tuned="", at_edge=())

    def every_arm(self) -> tuple[Arm, ...]:
        """All arms that any stage has, finalists that are named by hand aside."""
        variants = [arm for grid in self.grids for arm in grid.variants()]
        named = [*self.known(ALWAYS), *self.rules, *self.controls, *variants]
        matches = [random_at(arm.keep) for arm in named if arm.policy != "uniform"]
        return tuple({arm.name: arm for arm in (*named, *matches)}.values())

    @property
    def samples(self) -> int:
        """Examples that all are trained on where these are equal: those that a kept fifth of the steps amounts to."""
        return round(KEEP * self.recipe.super_batch) * self.iterations

    def known(self, names: Sequence[str]) -> tuple[Arm, ...]:
        """Arms by name, variants of the grids too.

        Raises:
            UserError: an unknown name.
        """
        mine = {arm.name: arm for arm in (*self.rules, *(v for grid in self.grids for v in grid.variants()))}
        return tuple(mine[name] if name in mine else arms_named((name,))[0] for name in names)

    def folders(self, stage: Stage) -> tuple[str, ...]:
        """The folders of a stage's benches."""
        ends = {"screening": self.screening_ends, "dials": self.grid_ends, "final": self.final_ends}
        return ends.get(stage, GUIDE_BENCHES)

    def stage(self, name: Stage, finalists: Sequence[Arm] = ()) -> dict[str, BenchConfig]:
        """The benches of a stage by the name of their folder."""
        always = self.known(ALWAYS)
        if name == "screening":
            return {end: self.bench(self.rules, self.screening_seeds, end) for end in self.screening_ends}
        if name == "dials":
            variants = {arm.name: arm for grid in self.grids for arm in grid.variants()}  # grids may share their middle
            arms = (*always[:2], *self.controls, *variants.values())
            return {end: self.bench(arms, self.screening_seeds, end) for end in self.grid_ends}
        matches = [random_at(arm.keep) for arm in finalists if arm.name not in ALWAYS]
        arms = tuple({arm.name: arm for arm in (*always, *finalists, *matches)}.values())
        if name == "final":
            return {
                end: replace(self.bench(arms, self.final_seeds, end), guides=self.guides) for end in self.final_ends
            }
        widths = tuple(dict.fromkeys((*self.recipe.ema_widths, *OWN_WIDTHS)))
        recipe = replace(self.recipe, ema_widths=widths)
        seeds = {"chosen": self.screening_seeds, "full": self.final_seeds}
        benches = {name: self.bench(always[:1], s, "steps", curve=OWN_SHARES) for name, s in seeds.items()}
        # The guide that all stages share is trained as the study says, without these averages.
        return {
            name: replace(b, recipe=recipe, guide_recipe=self.guide_recipe or self.recipe, guides=self.guides)
            for name, b in benches.items()
        }

    def charged(self, costs: Costs) -> BenchConfig:
        """The baseline on the final's seeds, shorter by the time that the guide's training takes."""
        spent = self.guide_iterations * sum(costs["guide"].values()) / sum(costs["uniform"].values())
        steps = round(self.iterations - spent)
        check(
            steps >= 32,
            f"the guide's training takes as long as {spent:.0f} steps: nothing is left to charge it to",
        )
        return replace(self.bench(self.known(ALWAYS[:1]), self.final_seeds, "steps", steps), guides=self.guides)
