"""What a bench compares, and the budgets at which it compares them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..arms import ARMS, Arm
from ..config import check
from ..errors import UserError
from ..runs import RunConfig, Schedule
from ..tasks import AnyTask
from ..training import Recipe

Costs = dict[str, dict[str, float]]

#: A run that ends by time may take so many times the baseline's steps.
MOST_STEPS = 100


@dataclass(frozen=True)
class Reading:
    """A budget at which arms are compared.

    Attributes:
        clock: the clock that is equal.
        title: for people.
        full: whether samples number `n_final` (else `n_curve`).
    """

    clock: str
    title: str
    full: bool


#: In the order of the report. "calibrated" is the one a verdict on time rests on: measured seconds of runs that
#: share a machine drift, interleaved timing does not.
READINGS: dict[str, Reading] = {
    "calibrated": Reading("calibrated", "equal time", True),
    "samples": Reading("samples", "equal samples", True),
    "steps": Reading("steps", "equal steps (the whole run)", True),
    "seconds": Reading("seconds", "equal time as measured in the runs", False),
    "net": Reading("net", "equal time without the exact target", False),
}


@dataclass(frozen=True)
class BenchConfig:
    """Everything that decides a bench's numbers, apart from the machine's speed.

    Runs end after equal steps, as published; or ("time") when each has used the calibrated time that the baseline
    needs for its steps, so that arms with cheap steps take more of them.

    Attributes:
        task: what is learned.
        recipe: how.
        arms: from which examples.
        seeds: of the runs; arms of one seed share examples, weights and evaluation noise.
        iterations: steps of every run, or of the baseline if runs end by time.
        end: what all runs end at: equal "steps" or equal "time".
        guide_iterations: steps of the one guide that all runs share.
        guide_seed: its seed.
        guide_recipe: how it is trained, None for the recipe of the others.
        weight: of autoguidance.
        n_final: samples at the readings that count.
        n_curve: samples at the points of learning curves and at secondary readings.
        curve: points of learning curves, as shares of the run.
        calibration_rounds: interleaved rounds of timing.
    """

    task: AnyTask
    recipe: Recipe
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    iterations: int
    guide_iterations: int
    end: Literal["steps", "time"] = "steps"
    guide_seed: int = 0
    guide_recipe: Recipe | None = None
    weight: float = 3.0
    n_final: int = 16384
    n_curve: int = 16384
    curve: tuple[float, ...] = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)
    calibration_rounds: int = 24

    def __post_init__(self) -> None:
        check(len(self.arms) >= 1, "a bench needs at least one arm")
        check(len(self.seeds) >= 1, "a bench needs at least one seed")
        if len(set(self.seeds)) != len(self.seeds):
            repeated = sorted({s for s in self.seeds if self.seeds.count(s) > 1})
            raise UserError(f"seeds are named twice: {', '.join(map(str, repeated))}; each must be there once")
        check(self.iterations >= 32, f"a bench needs at least 32 iterations, not {self.iterations}")
        check(self.guide_iterations >= 1, f"the guide needs at least 1 iteration, not {self.guide_iterations}")
        check(min(self.n_final, self.n_curve) >= 200, "evaluations need at least 200 samples")
        for arm in self.arms:
            arm.kept(self.recipe.super_batch)

    @property
    def baseline(self) -> str:
        """The arm that the others are compared with: "baseline", or the first."""
        names = [a.name for a in self.arms]
        return "baseline" if "baseline" in names else names[0]

    @property
    def whole(self) -> str:
        """The reading at the end of every run."""
        return "steps" if self.end == "steps" else "calibrated"

    @property
    def readings(self) -> dict[str, Reading]:
        """Where this bench compares."""
        absent = set() if self.end == "steps" else {"steps"}
        if not self.task.costly_target:
            absent.add("net")
        return {name: reading for name, reading in READINGS.items() if name not in absent}

    def guide(self) -> RunConfig:
        return RunConfig(
            self.task,
            "guide",
            self.guide_recipe or self.recipe,
            ARMS["baseline"],
            self.guide_seed,
            self.guide_iterations,
        )

    def run(self, arm: Arm, seed: int) -> RunConfig:
        guide = "../../../guide" if arm.reference == "guide" else None
        most = self.iterations * (1 if self.end == "steps" else MOST_STEPS)
        return RunConfig(self.task, "learner", self.recipe, arm, seed, most, guide)

    def time(self, costs: Costs) -> float:
        """Calibrated seconds of a whole run of the baseline."""
        steps = {kind: sum(phases.values()) for kind, phases in costs.items()}
        return self.iterations * steps.get("uniform", max(steps.values()))

    def curve_budgets(self, costs: Costs) -> tuple[str, tuple[float, ...]]:
        """(clock, budgets) at which learning curves have their points; none in time before the calibration."""
        if self.end == "time":
            return "calibrated", tuple(sorted(self.time(costs) * share for share in self.curve)) if costs else ()
        steps = {max(1, round(share * self.iterations)) for share in self.curve}
        return "steps", tuple(float(s) for s in sorted(steps))

    def n_of(self, reading: str) -> int:
        return self.n_final if READINGS[reading].full else self.n_curve

    def trained_per_step(self, arm: Arm) -> int:
        """The fewest examples that a step of an arm trains on."""
        return self.recipe.super_batch if arm.policy == "uniform" else arm.kept(self.recipe.super_batch)

    def budgets(self, costs: Costs) -> dict[str, tuple[float, ...]]:
        """The budgets of each clock; the largest that is sure to be reached by all arms is the one that counts."""
        spared = {k: {p: s for p, s in phases.items() if p != "target"} for k, phases in costs.items()}
        shares = (0.25, 0.5, 1.0)
        if self.end == "steps":
            samples = float(self.iterations * min(self.trained_per_step(a) for a in self.arms))
            times = [self.iterations * min(self._cheapest(a, c) for a in self.arms) for c in (costs, spared)]
        else:
            whole = self.time(costs)
            # The step in which the time is over counts, so that a whole number of steps fits.
            samples = min(
                math.ceil(whole / max(_step(costs, k) for k in a.kinds()) - 1e-9) * self.trained_per_step(a)
                for a in self.arms
            )
            times = [whole, min(whole / _step(costs, k) * _step(spared, k) for a in self.arms for k in a.kinds())]
        clock, points = self.curve_budgets(costs)
        budgets = {
            "samples": tuple(float(round(samples * s)) for s in shares),
            "calibrated": tuple(times[0] * s for s in shares),
            # Measured time drifts, so how much of it all runs will reach is not known: a finer grid.
            "seconds": tuple(times[0] * k / 16 for k in range(4, 33)),
        }
        if self.task.costly_target:
            budgets["net"] = tuple(times[1] * s for s in shares)
        budgets[clock] = tuple(sorted({*budgets.get(clock, ()), *points}))
        return budgets

    def _cheapest(self, arm: Arm, costs: Costs) -> float:
        return min(_step(costs, kind) for kind in arm.kinds())

    def schedule(self, costs: Costs) -> Schedule:
        """When a run writes what, and when it ends."""
        shown = tuple(max(1, round(self.iterations * share)) for share in (1 / 32, 1 / 4, 1))
        end = None if self.end == "steps" else ("calibrated", self.time(costs))
        return Schedule(self.budgets(costs), costs, selection_at=shown, end=end)


def _step(costs: Costs, kind: str) -> float:
    return sum(costs[kind].values())


def run_folder(root: Path, arm: str, seed: int) -> Path:
    return root / "arms" / arm / f"seed-{seed}"
