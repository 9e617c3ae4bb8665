"""What a bench compares, and the budgets at which it compares them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..arms import ARMS, Arm
from ..config import check
from ..errors import UserError, listed
from ..folders import RunConfig
from ..runs import Schedule
from ..tasks import AnyTask
from ..training import Recipe

Costs = dict[str, dict[str, float]]

#: A run that ends by time may take so many times the baseline's steps.
MOST_STEPS = 100

STRONG_SEED = 10_000  # added to the guide's seed


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
    "flops": Reading("flops", "equal operations of the networks", True),
}

#: What all runs of a bench may end at, and the clock of each.
End = Literal["steps", "time", "net", "samples", "flops"]
END_CLOCKS: dict[End, str] = {
    "steps": "steps", "time": "calibrated", "net": "net", "samples": "samples", "flops": "flops",
}  # fmt: skip


@dataclass(frozen=True)
class BenchConfig:
    """Everything that decides a bench's numbers, apart from the machine's speed.

    Runs end after equal steps, as published; or when each has used what the baseline needs for its steps: calibrated
    time ("time"), the same without the exact target ("net"), network operations ("flops"), so that arms with cheap
    steps take more of them; or when each was trained on as many examples as the most frugal arm in these steps
    ("samples").

    Attributes:
        task: what is learned.
        recipe: how.
        arms: from which examples.
        seeds: of the runs; arms of one seed share examples, weights and evaluation noise.
        iterations: steps of every run, or of the baseline if runs end by something else.
        end: what all runs end at.
        only: compare at the end alone, nowhere on the way.
        guide_iterations: steps of the one guide that all runs share.
        guide_seed: its seed.
        guide_recipe: how it is trained, None for the recipe of the others.
        samples: examples that runs are trained on if they end by these; None: as many as the most frugal arm is trained
            on in the baseline's steps.
        strong_iterations: steps of the strong reference, for arms that use one: a network like the learners, trained
            by the baseline on examples of its own.
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
    end: End = "steps"
    only: bool = False
    guide_seed: int = 0
    guide_recipe: Recipe | None = None
    strong_iterations: int = 0
    samples: int | None = None
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
            raise UserError(f"seeds are named twice: {listed(repeated)}; each must be there once")
        check(self.iterations >= 32, f"a bench needs at least 32 iterations, not {self.iterations}")
        check(self.guide_iterations >= 1, f"the guide needs at least 1 iteration, not {self.guide_iterations}")
        check(
            self.strong_iterations >= 1 or all(a.reference != "strong" for a in self.arms),
            "an arm asks for a strong reference: strong_iterations must be at least 1",
        )
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
        return END_CLOCKS[self.end]

    @property
    def readings(self) -> dict[str, Reading]:
        """Where this bench compares."""
        if self.only:
            return {self.whole: READINGS[self.whole]}
        absent = {"steps", "flops"} - {self.whole}
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
        guide = f"../../../{arm.reference}" if arm.reference in ("guide", "strong") else None
        most = self.iterations * (1 if self.end == "steps" else MOST_STEPS)
        return RunConfig(self.task, "learner", self.recipe, arm, seed, most, guide)

    def strong(self) -> RunConfig:
        """The strong reference's run; its examples are none of the arms'."""
        seed = self.guide_seed + STRONG_SEED
        return RunConfig(self.task, "learner", self.recipe, ARMS["baseline"], seed, self.strong_iterations)

    def time(self, costs: Costs) -> float:
        """Calibrated seconds of a whole run of the baseline."""
        return self.iterations * _dearest(costs)

    def total(self, costs: Costs) -> float:
        """What a run has used up when it ends, by the clock of `end`."""
        if self.end == "time":
            return self.time(costs)
        if self.end == "net":
            return self.iterations * _dearest(spared(costs))
        if self.end == "flops":
            learner: Any = self.task.network("learner", 0)
            return float(self.iterations * self.recipe.super_batch * 3 * learner.flops())
        return float(self.iterations) if self.end == "steps" else self._samples()

    def _samples(self) -> float:
        """The examples at which arms are compared by samples."""
        if self.samples is not None:
            return float(self.samples)
        return float(self.iterations * min(self.trained_per_step(a) for a in self.arms))

    def curve_budgets(self, costs: Costs) -> tuple[str, tuple[float, ...]]:
        """(clock, budgets) at which learning curves have their points; none in time before the calibration."""
        if self.end != "steps":
            return self.whole, tuple(sorted(self.total(costs) * share for share in self.curve)) if costs else ()
        steps = {max(1, round(share * self.iterations)) for share in self.curve}
        return "steps", tuple(float(s) for s in sorted(steps))

    def n_of(self, reading: str) -> int:
        return self.n_final if READINGS[reading].full else self.n_curve

    def trained_per_step(self, arm: Arm) -> int:
        """The fewest examples that a step of an arm trains on."""
        return self.recipe.super_batch if arm.policy == "uniform" else arm.kept(self.recipe.super_batch)

    def budgets(self, costs: Costs) -> dict[str, tuple[float, ...]]:
        """The budgets of each clock; the largest that is sure to be reached by all arms is the one that counts."""
        clock, points = self.curve_budgets(costs)
        if self.only:
            return {clock: points}
        net, shares = spared(costs), (0.25, 0.5, 1.0)
        if self.end == "steps":
            samples = self._samples()
            times = [self.iterations * min(self._cheapest(a, c) for a in self.arms) for c in (costs, net)]
        else:
            whole = self.time(costs)
            # The step in which the time is over counts, so that a whole number of steps fits.
            samples = min(
                math.ceil(whole / max(_step(costs, k) for k in a.kinds()) - 1e-9) * self.trained_per_step(a)
                for a in self.arms
            )
            times = [whole, min(whole / _step(costs, k) * _step(net, k) for a in self.arms for k in a.kinds())]
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
        end = None if self.end == "steps" else (self.whole, self.total(costs))
        return Schedule(self.budgets(costs), costs, selection_at=shown, end=end)


def spared(costs: Costs) -> Costs:
    """Costs without the exact target."""
    return {k: {p: s for p, s in phases.items() if p != "target"} for k, phases in costs.items()}


def _dearest(costs: Costs) -> float:
    """Seconds of a uniform step, or of the dearest where there is none."""
    return _step(costs, "uniform") if "uniform" in costs else max(_step(costs, kind) for kind in costs)


def _step(costs: Costs, kind: str) -> float:
    return sum(costs[kind].values())


def run_folder(root: Path, arm: str, seed: int) -> Path:
    return root / "arms" / arm / f"seed-{seed}"
