"""What the benches say of each claim: decided once, from their results alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ajest.bench.plan.budgets import End
from ajest.bench.read.folder import read
from ajest.bench.read.results import Cell, Results
from ajest.bench.read.statistics import Comparison, corrected, paired
from ajest.storage.checkpoint import read_sealed
from ajest.storage.config import from_json
from ajest.study.guides import GuideGain, GuidesResults, read_guides
from ajest.tasks.base import Metric
from ajest.training.probe import Estimate, Probe

from .catalogue import CLAIMS, GROUPS, Claim
from .run import PROBE
from .settings import SETTINGS, Setting

ENDS: tuple[End, ...] = ("time", "samples", "flops")

#: What is left of a claim somewhere: some of its arms better and none worse, the other way round, both, all within
#: delta, nothing certain, or not all runs made.
Left = Literal["better", "worse", "mixed", "equivalent", "undecided", "unfinished"]


@dataclass(frozen=True)
class Test:
    """An arm of a claim on one headline metric.

    Attributes:
        arm: its name.
        metric, weight: what is compared.
        baseline: against the tuned baseline, corrected over all arms and headlines of the bench.
        gaps: that difference by seed.
        controls: against each control, corrected over the claim's arms, controls and headlines.
    """

    __test__ = False  # no test of pytest

    arm: str
    metric: Metric
    weight: float
    baseline: Comparison
    gaps: tuple[float, ...]
    controls: Mapping[str, Comparison]


@dataclass(frozen=True)
class Judged:
    """A claim at one budget of one setting.

    Attributes:
        claim, setting, end: which.
        tests: its arms on the headlines.
        finished: whether all runs are made, diverged ones aside.
        untuned: arms whose rate was not found within the grid.
        bound: what it could save at most by the baseline's gradients, a share; None where they say nothing of it.
        null: the bench's arm that changes nothing, on the headlines; see `Setting.null`.
    """

    claim: Claim
    setting: Setting
    end: End
    tests: tuple[Test, ...]
    finished: bool
    untuned: tuple[str, ...]
    bound: Estimate | None = None
    null: tuple[Test, ...] = ()

    @property
    def left(self) -> Left:
        """What is left of the claim here."""
        if not self.finished or not self.tests:
            return "unfinished"
        outcomes = {test.baseline.outcome for test in self.tests}
        if {"better", "worse"} <= outcomes:
            return "mixed"
        if "better" in outcomes:
            return "better"
        if "worse" in outcomes:
            return "worse"
        return "equivalent" if outcomes == {"equivalent"} else "undecided"


def judged(root: Path) -> tuple[Judged, ...]:
    """Every claim wherever the folder has a bench of it, finished or not, in the order of catalogue and settings."""
    found = list[Judged]()
    for setting in SETTINGS.values():
        for group in GROUPS:
            for end in ENDS:
                folder = root / setting.name / f"{group}-{end}"
                if group == "guides":
                    found += _of_guides(read_guides(folder / "guides"), setting, end)
                if (folder / "bench.json").exists():
                    path = folder / PROBE
                    probed = from_json(Probe, read_sealed(path), str(path)) if path.exists() else None
                    found += _of_bench(read(folder), probed, setting, end)
    return in_order(found)


def in_order(found: Iterable[Judged]) -> tuple[Judged, ...]:
    """In that of the catalogue, then of the settings and of the budgets."""
    claims, settings = list(CLAIMS), list(SETTINGS)
    return tuple(
        sorted(
            found,
            key=lambda one: (claims.index(one.claim.name), settings.index(one.setting.name), ENDS.index(one.end)),
        )
    )


def leading(found: Sequence[Judged]) -> End:
    """The budget that leads wherever there is room for one: time, unless nothing is judged at that."""
    ends = [one.end for one in found]
    return ends[0] if ends and "time" not in ends else "time"


def _of_bench(results: Results, probed: Probe | None, setting: Setting, end: End) -> Iterable[Judged]:
    null = _tests(results, (setting.null,))
    for claim in CLAIMS.values():
        known = {arm.name for arm in claim.all_arms() if setting.has(arm)}
        if claim.group != "guides" and known <= set(results.arms) and setting.judges(claim):
            runs = [run for (arm, _), run in results.runs.items() if arm in (*claim.arms, *claim.controls, "baseline")]
            yield Judged(
                claim=claim,
                setting=setting,
                end=end,
                tests=_tests(results, claim.arms, claim.controls),
                finished=all(run.state != "unfinished" for run in runs),
                untuned=tuple(arm for arm in claim.arms if arm in results.config.untuned),
                bound=getattr(probed, claim.bound) if probed is not None and claim.bound else None,
                null=null,
            )


def _of_guides(guides: GuidesResults, setting: Setting, end: End) -> Iterable[Judged]:
    """Guides of the baseline against none, each at the weight that was best on other seeds. All runs are made, or
    there are no gains yet."""
    known = {(gain.guide, gain.metric.name): gain for gain in guides.gains}
    family = corrected([gain.gain for gain in guides.gains])
    against = dict(zip(known, family, strict=True))
    for claim in CLAIMS.values():
        tests = [
            Test(gain.guide, gain.metric, gain.weight, against[key], _gaps(gain), _held(gain, others))
            for key, gain in known.items()
            for others in [{n: known[n, key[1]] for n in claim.controls if (n, key[1]) in known}]
            if claim.group == "guides" and gain.guide in claim.arms
        ]
        if tests:
            yield Judged(claim, setting, end, _corrected(tests), True, ())


def _gaps(gain: GuideGain) -> tuple[float, ...]:
    """Guided minus unguided by seed, means over guides."""
    return tuple(
        float(np.mean(gain.values[seed]) - np.mean(gain.unguided[seed]))
        for seed in gain.values
        if seed in gain.unguided
    )


def _held(gain: GuideGain, controls: Mapping[str, GuideGain]) -> dict[str, Comparison]:
    """A guide against those that are its controls, on one metric."""
    seeds, sign = tuple(gain.unguided), gain.metric.sign
    found = {name: paired(gain.values, other.values, sign, seeds) for name, other in controls.items()}
    return {name: comparison for name, comparison in found.items() if comparison is not None}


def _tests(results: Results, arms: Sequence[str], named: Sequence[str] = ()) -> tuple[Test, ...]:
    """Arms against the baseline and the controls that are named."""
    budget, tests = results.config.final_budget, list[Test]()
    for metric, weight in results.headlines():
        for arm in arms:
            cell = results.cell(budget, arm, metric.name, weight)
            other = results.cell(budget, results.config.baseline, metric.name, weight)
            if cell is None or other is None or results.config.baseline not in cell.against:
                continue
            controls = {name: results.cell(budget, name, metric.name, weight) for name in named}
            against = {name: _paired(results, metric, cell, control) for name, control in controls.items() if control}
            found = {name: comparison for name, comparison in against.items() if comparison is not None}
            gaps = tuple(cell.gaps(other).values())
            tests.append(Test(arm, metric, weight, cell.against[results.config.baseline], gaps, found))
    return _corrected(tests)


def _paired(results: Results, metric: Metric, cell: Cell, other: Cell) -> Comparison | None:
    allowed = results.margins.get((cell.budget, cell.metric, cell.weight))
    return paired(cell.measured, other.measured, metric.sign, results.config.seeds, allowed)


def _corrected(tests: Sequence[Test]) -> tuple[Test, ...]:
    """The tests with their comparisons with controls as one family."""
    family = corrected([found for test in tests for found in test.controls.values()])
    following = iter(family)
    return tuple(replace(test, controls={name: next(following) for name in test.controls}) for test in tests)
