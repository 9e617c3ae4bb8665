"""How often do four verdicts err when seeds are added until all is decided, and what does adding them save?

    python benchmarks/sequential.py --benches 20000

Made-up benches of 3 arms and 2 headlines against one baseline, looked at as `ajest bench --until-certain` does, and
once, at the most seeds, with the same rule. Differences are normal, long-tailed (t of 4 degrees), or of two groups (one
seed in four lies three standard deviations off). A false alarm is a bench in which any verdict that it ends with is
false; "at any look" counts those too that a later look takes back. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ajest.bench.plan.looks import planned_looks
from ajest.bench.read.sequential import look_levels
from ajest.bench.read.statistics import ALPHA

ARMS, HEADLINES = 3, 2

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def two_groups(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal, with one in four three standard deviations off, shifted to mean 0 and scaled to spread 1."""
    values = rng.normal(size=shape) + 3 * (rng.random(shape) < 1 / 4)
    return np.asarray((values - 3 / 4) / np.sqrt(1 + 9 * 3 / 16))


SHAPES: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "long-tailed": lambda rng, shape: rng.standard_t(4, size=shape) / np.sqrt(2),
    "two groups": two_groups,
}


@dataclass(frozen=True)
class Ends:
    """What made-up benches end with.

    Attributes:
        better, worse, equivalent: by (bench, comparison).
        ever_differs, ever_equivalent: the same of any look.
        seeds: of each bench.
    """

    better: np.ndarray
    worse: np.ndarray
    equivalent: np.ndarray
    ever_differs: np.ndarray
    ever_equivalent: np.ndarray
    seeds: np.ndarray


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's corrected p along the last axis."""
    order = np.argsort(p, -1)
    steps = np.take_along_axis(p, order, -1) * np.arange(p.shape[-1], 0, -1)
    found = np.empty_like(p)
    np.put_along_axis(found, order, np.minimum(1, np.maximum.accumulate(steps, -1)), -1)
    return found


def ends(
    effects: Sequence[float], delta: float, looks: tuple[int, ...], benches: int, draw: Draw, seed: int = 0
) -> Ends:
    """Made-up benches that stop where all comparisons are decided.

    Args:
        effects: true differences, one a comparison, in standard deviations of paired differences.
        delta: within which they are equivalent; 0 for none.
        looks: numbers of seeds.
        benches: how many.
        draw: of values with mean 0 and spread 1: of arms and their baseline.
        seed: of the simulation.
    """
    rng, levels = np.random.default_rng(seed), look_levels(looks)
    baseline = draw(rng, (benches, HEADLINES, looks[-1]))
    arms = draw(rng, (benches, len(effects), looks[-1]))
    gaps = np.array(effects)[:, None] + (arms - np.tile(baseline, (1, len(effects) // HEADLINES, 1))) / np.sqrt(2)
    shape = (benches, len(effects))
    better, worse, equivalent, ever_differs, ever_equivalent = (np.zeros(shape, bool) for _ in range(5))
    open_, seeds = np.ones(benches, bool), np.full(benches, looks[-1])
    for n in looks:
        mean, error = gaps[..., :n].mean(-1), gaps[..., :n].std(-1, ddof=1) / np.sqrt(n)
        differs = holm(levels.two_sided(2 * special.stdtr(n - 1, -np.abs(mean) / error))) < ALPHA
        above = special.stdtr(n - 1, (np.abs(mean) - delta) / error)
        reach = special.stdtrit(n - 1, 1 - levels.level(ALPHA) / 2) * error
        within = (holm(levels.one_sided(above)) < ALPHA) & (np.abs(mean) + reach < delta) & ~differs
        for kept, found in ((better, differs & (mean > 0)), (worse, differs & (mean < 0)), (equivalent, within)):
            kept[open_] = found[open_]
        ever_differs |= differs
        ever_equivalent |= within
        ending = open_ & (differs | within).all(-1)
        seeds[ending] = n
        open_ &= ~ending
    return Ends(better, worse, equivalent, ever_differs, ever_equivalent, seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benches", type=int, default=20_000)
    parser.add_argument("--most", type=int, default=20)
    asked = parser.parse_args()
    plan = planned_looks(5, asked.most)
    comparisons, delta = ARMS * HEADLINES, 0.5
    worlds: dict[str, tuple[list[float], float, Sequence[str]]] = {
        "no difference": ([0.0] * comparisons, delta, tuple(SHAPES)),
        "differences of delta": ([delta, -delta] * ARMS, delta, tuple(SHAPES)),
        "differences of four times delta": ([4 * delta, -4 * delta] * ARMS, delta, ["normal"]),
        "differences of twice delta": ([2 * delta, -2 * delta] * ARMS, delta, ["normal"]),
        "no difference, delta is 2": ([0.0] * comparisons, 2.0, ["normal"]),
        "differences of delta, delta is 2": ([2.0, -2.0] * ARMS, 2.0, tuple(SHAPES)),
    }
    print(
        f"Looks at {', '.join(map(str, plan))} seeds against one at {asked.most}; {asked.benches:,} benches; delta is "
        f"{delta:g} standard deviations of paired differences unless said.\n"
    )
    print("| truth | shape | looks | false alarms | at any look | decided rightly | mean seeds |")
    print("|---|---|---|---|---|---|---|")
    for world, (effects, within, shapes) in worlds.items():
        for shape in shapes:
            for looks in (plan, plan[-1:]):
                found = ends(effects, within, looks, asked.benches, SHAPES[shape])
                true = np.array(effects)
                false = (found.better & (true <= 0)) | (found.worse & (true >= 0))
                false |= found.equivalent & (np.abs(true) >= within)
                ever = (found.ever_differs & (true == 0)) | (found.ever_equivalent & (np.abs(true) >= within))
                right = np.where(true == 0, found.equivalent, found.better & (true > 0) | found.worse & (true < 0))
                print(
                    f"| {world} | {shape} | {len(looks)} | {false.any(-1).mean():.2%} | {ever.any(-1).mean():.2%} | "
                    f"{right.mean():.0%} | {found.seeds.mean():.1f} |"
                )


if __name__ == "__main__":
    main()
