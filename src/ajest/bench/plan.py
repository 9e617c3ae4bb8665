"""What a bench compares, and the budgets at which it compares them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..arms import ARMS, Arm
from ..config import check
from ..errors import UserError
from ..runs import RunConfig, Schedule
from ..tasks import AnyTask
from ..training import Recipe

Costs = dict[str, dict[str, float]]


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

    Attributes:
        task: what is learned.
        recipe: how.
        arms: from which examples.
        seeds: of the runs; arms of one seed share examples, weights and evaluation noise.
        iterations: steps of every run.
        guide_iterations: steps of the one guide that all runs share.
        guide_seed: its seed.
        weight: of autoguidance.
        n_final: samples at the readings that count.
        n_curve: samples at the points of learning curves and at secondary readings.
        curve: points of learning curves, as shares of the iterations.
        calibration_rounds: interleaved rounds of timing.
    """

    task: AnyTask
    recipe: Recipe
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    iterations: int
    guide_iterations: int
    guide_seed: int = 0
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
        check(min(self.n_final, self.n_curve) >= 256, "evaluations need at least 256 samples")
        for arm in self.arms:
            arm.kept(self.recipe.super_batch)

    @property
    def baseline(self) -> str:
        """The arm that the others are compared with: "baseline", or the first."""
        names = [a.name for a in self.arms]
        return "baseline" if "baseline" in names else names[0]

    def guide(self) -> RunConfig:
        return RunConfig(self.task, "guide", self.recipe, ARMS["baseline"], self.guide_seed, self.guide_iterations)

    def run(self, arm: Arm, seed: int) -> RunConfig:
        guide = "../../../guide" if arm.reference == "guide" else None
        return RunConfig(self.task, "learner", self.recipe, arm, seed, self.iterations, guide)

    def curve_steps(self) -> tuple[int, ...]:
        return tuple(sorted({max(1, round(share * self.iterations)) for share in self.curve}))

    def n_of(self, reading: str) -> int:
        return self.n_final if READINGS[reading].full else self.n_curve

    def trained_per_step(self, arm: Arm) -> int:
        """The fewest examples that a step of an arm trains on."""
        return self.recipe.super_batch if arm.policy == "uniform" else arm.kept(self.recipe.super_batch)

    def budgets(self, costs: Costs) -> dict[str, tuple[float, ...]]:
        """The budgets of each clock; the largest that is sure to be reached by all arms is the one that counts."""
        samples = self.iterations * min(self.trained_per_step(a) for a in self.arms)
        spared = {k: {p: s for p, s in phases.items() if p != "target"} for k, phases in costs.items()}
        times = [
            self.iterations * min(sum(c[kind].values()) for a in self.arms for kind in a.kinds())
            for c in (costs, spared)
        ]
        shares = (0.25, 0.5, 1.0)
        return {
            "steps": tuple(float(s) for s in self.curve_steps()),
            "samples": tuple(float(round(samples * s)) for s in shares),
            "calibrated": tuple(times[0] * s for s in shares),
            "net": tuple(times[1] * s for s in shares),
            # Measured time drifts, so how much of it all runs will reach is not known: a finer grid.
            "seconds": tuple(times[0] * k / 16 for k in range(4, 33)),
        }

    def schedule(self, costs: Costs) -> Schedule:
        shown = tuple(max(1, round(self.iterations * share)) for share in (1 / 32, 1 / 4, 1))
        return Schedule(self.budgets(costs), costs, selection_at=shown)


def run_folder(root: Path, arm: str, seed: int) -> Path:
    return root / "arms" / arm / f"seed-{seed}"
