"""EDM's log-normal noise levels with their mean and spread tuned: the rival that any other density has to beat."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import cast

from ajest.bench.plan.config import BenchConfig
from ajest.bench.plan.tuning import Tuning
from ajest.bench.read.folder import read
from ajest.bench.read.results import Results
from ajest.diffusion.noising import Levels, Noising
from ajest.diffusion.noising.ingredients import IngredientSource
from ajest.selection.arm import Arm

#: Its name among the arms of a bench.
TUNED_LEVELS = "tuned-levels"
_SHIFTS, _SCALES = (-0.8, 0.0, 0.8), (0.7, 1.0, 1.4)
#: Grids at most, each around the best of the one before.
_MOST = 4


def tune_levels(folder: Path, base: BenchConfig, make: Callable[[Path, BenchConfig], None]) -> Arm | None:
    """The arm with the best levels: of a grid around the task's own, or of further ones, each around the best of the
    one before, until that is its own middle. None if any of this is not finished.

    Args:
        folder: of the first grid; further ones lie beside it.
        base: of the setting.
        make: makes a bench, unless it is there.
    """
    middle: Levels | None = None
    for number in range(1, _MOST + 1):
        where = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        bench = levels_bench(base, middle)
        make(where, bench)
        best = tuned_levels(where)
        if best is None or best.noising == bench.arms[len(bench.arms) // 2].noising:
            return best
        middle = best.noising.levels
    assert best is not None
    return replace(best, summary=f"{best.summary}, and lie at the edge of what was tried")


def levels_bench(base: BenchConfig, middle: Levels | None = None) -> BenchConfig:
    """The bench of a grid of means of ln r and of its standard deviations, on the seeds on which learning rates are
    found, at the recipe's rate.

    Args:
        base: of the setting.
        middle: of the grid; None is the task's own.
    """
    if middle is None:
        source = cast(IngredientSource, base.task.source("cpu"))
        middle = Levels("normal", source.noise.mean - math.log(source.sigma_data), source.noise.std)
    mean, std = middle.location, middle.scale
    grid = [Levels("normal", mean + shift * std, scale * std) for scale in _SCALES for shift in _SHIFTS]
    arms = [Arm(f"levels-{i + 1}", "uniform", noising=Noising(levels)) for i, levels in enumerate(grid)]
    return replace(base, arms=tuple(arms), seeds=Tuning().seeds, tuning=None, noise_repeats=0, guides=1)


def tuned_levels(folder: Path) -> Arm | None:
    """The arm with the levels that were best in a finished bench of `levels_bench`; None before that."""
    if not (folder / "bench.json").exists():
        return None
    results = read(folder)
    if results.unfinished:
        return None
    best = min(results.config.arms, key=lambda arm: _mean_rank(results, arm.name))
    return replace(best, name=TUNED_LEVELS, summary="log-normal levels whose mean and spread were found on other seeds")


def _mean_rank(results: Results, arm: str) -> float:
    """The mean over headlines of how many arms are better."""
    budget, ranks = results.config.final_budget, []
    for metric, weight in results.headlines():
        cells = {name: results.cell(budget, name, metric.name, weight) for name in results.arms}
        values = {name: metric.sign * cell.mean for name, cell in cells.items() if cell is not None}
        ranks.append(sum(value > values[arm] for value in values.values()) if arm in values else len(cells))
    return fmean(ranks)
