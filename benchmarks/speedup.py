"""How many times sooner an arm is as good as the baseline at the end: from benches of the same arms and seeds, each of
another length.

    python benchmarks/speedup.py random+muon runs/short runs/middle runs/long

Each bench ends its runs at equal time, with a learning rate whose whole course fits into it. So a bench is one point of
an arm's curve of quality over time. The baseline's quality in the longest bench is looked for on the arm's curve, in
log time between two points. Intervals are of a bootstrap over seeds, which all benches share.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RESAMPLED = 4000


@dataclass(frozen=True)
class Curve:
    """One headline of one arm over the lengths of its runs.

    Attributes:
        seconds: of training, rising, shape (k,).
        values: of each length and seed, shape (k, seeds).
    """

    seconds: np.ndarray
    values: np.ndarray

    def reaches(self, quality: float, sign: int, seeds: np.ndarray) -> float:
        """Seconds at which the mean over some seeds is first as good; infinity where it never is, and the shortest
        length where it is from the beginning."""
        means = sign * self.values[:, seeds].mean(1)
        good = np.flatnonzero(means >= sign * quality)
        if not len(good):
            return float("inf")
        k = int(good[0])
        if k == 0:
            return float(self.seconds[0])
        share = (sign * quality - means[k - 1]) / (means[k] - means[k - 1])
        low, high = np.log(self.seconds[k - 1 : k + 1])
        return float(np.exp(low + share * (high - low)))


def curves(folders: Sequence[Path], arm: str) -> dict[tuple[str, float], Curve]:
    """The curves of an arm, by metric and weight of guidance."""
    found: dict[tuple[str, float], list[tuple[float, Mapping[str, float]]]] = {}
    for folder in folders:
        results = json.loads((folder / "results.json").read_text())
        for row in results["values"]:
            if (row["budget"], row["arm"]) == ("calibrated", arm):
                seconds = results["amounts"]["calibrated"]
                found.setdefault((row["metric"], row["guidance_weight"]), []).append((seconds, row["by_seed"]))
    shaped = {}
    for where, points in found.items():
        points.sort(key=lambda point: point[0])
        seeds = list(points[0][1])
        values = np.array([[by_seed[seed] for seed in seeds] for _, by_seed in points])
        shaped[where] = Curve(np.array([seconds for seconds, _ in points]), values)
    return shaped


def speed_up(arm: Curve, baseline: Curve, sign: int) -> tuple[float, float, float]:
    """(times as fast, and its 95 % interval): the longest length over the time that the arm needs."""
    rng, count = np.random.default_rng(0), len(arm.values[0])

    def once(seeds: np.ndarray) -> float:
        quality = baseline.values[-1, seeds].mean()
        return float(baseline.seconds[-1] / arm.reaches(quality, sign, seeds))

    found = np.array([once(rng.integers(0, count, count)) for _ in range(RESAMPLED)])
    low, high = np.quantile(found, (0.025, 0.975))
    return once(np.arange(count)), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("arm")
    parser.add_argument("folders", nargs="+", type=Path)
    options = parser.parse_args()
    first: dict[str, Any] = json.loads((options.folders[0] / "results.json").read_text())
    against = {row["metric"]: row["against"] for row in first["values"] if row["arm"] == options.arm}
    mine, base = (curves(options.folders, arm) for arm in (options.arm, first["baseline"]))
    lengths = next(iter(mine.values())).seconds
    heads = [f"{options.arm}: {seconds:.1f} s" for seconds in lengths]
    print(f"| metric | baseline: {lengths[-1]:.1f} s | {' | '.join(heads)} | times as fast (95 %) |")
    print(f"|---|{'--:|' * (len(heads) + 2)}")
    for (metric, weight), curve in mine.items():
        name = metric if weight == 1 else f"guided {metric}"
        times, low, high = speed_up(curve, base[metric, weight], against[metric][first["baseline"]]["sign"])
        at_least = "at least " if times >= lengths[-1] / lengths[0] else ""
        said = f"{at_least}{times:.2g} ({low:.2g} to {high:.2g})" if times else "not as good in this time"
        means = [f"{value:.4g}" for value in (base[metric, weight].values[-1].mean(), *curve.values.mean(1))]
        print(f"| {name} | {' | '.join(means)} | {said} |")


if __name__ == "__main__":
    main()
