"""All figures of a bench, each drawn once: the page embeds them, files of them stand beside it."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from ajest.bench.plan.budgets import BUDGETS
from ajest.bench.plan.config import run_folder
from ajest.bench.read.findings import Findings
from ajest.bench.read.results import Results, Run
from ajest.bench.read.wording import metric_name
from ajest.errors import Corrupt
from ajest.storage import checkpoint
from ajest.storage.checkpoint import write_atomic
from ajest.tasks.base import RunTensors

from . import figures
from .figures import WHISKERS, Encoded, encoded_image, rasterised
from .forest import bench_forest, strips
from .levels import loss_by_level

Captioned = tuple[str, Figure]


@dataclass(frozen=True)
class DrawnFigure:
    """A figure as a file.

    Attributes:
        caption: for people.
        name: of its file, below the bench's folder.
        content: what is in it.
    """

    caption: str
    name: str
    content: Encoded

    @property
    def uri(self) -> str:
        """What stands in a page's `src`."""
        return f"data:image/{self.content.kind};base64,{base64.b64encode(self.content.data).decode()}"


@dataclass(frozen=True)
class Figures:
    """What is drawn of a bench; a part that is empty is not shown.

    Attributes:
        lead: differences of arms to the baseline and to random choice, at the first budget that the verdict rests on.
        differences: the same at its other budgets.
        seeds: every seed's value of each headline metric.
        curves: learning curves.
        levels: losses by noise level.
        costs: of a step, and of a whole run.
        side_by_side: all arms from the same noise.
        galleries: what happened inside, by arm.
    """

    lead: tuple[DrawnFigure, ...] = ()
    differences: tuple[DrawnFigure, ...] = ()
    seeds: tuple[DrawnFigure, ...] = ()
    curves: tuple[DrawnFigure, ...] = ()
    levels: tuple[DrawnFigure, ...] = ()
    costs: tuple[DrawnFigure, ...] = ()
    side_by_side: tuple[DrawnFigure, ...] = ()
    galleries: Mapping[str, tuple[DrawnFigure, ...]] = field(default_factory=dict)

    def all(self) -> list[DrawnFigure]:
        """In the order of the page."""
        galleries = (figure for drawn in self.galleries.values() for figure in drawn)
        measured = [*self.lead, *self.differences, *self.seeds, *self.curves, *self.levels, *self.costs]
        return [*measured, *self.side_by_side, *galleries]


def draw(findings: Findings) -> Figures:
    """Every figure, from findings and from the tensors that the bench's folder keeps for that."""
    results = findings.results
    # Encoders let go of the interpreter: one figure is encoded while the next is drawn.
    with ThreadPoolExecutor(max_workers=1) as encoder:
        groups = {
            "lead": _begun(encoder, "lead", _differences(results, findings.decisive[:1])),
            "differences": _begun(encoder, "differences", _differences(results, findings.decisive[1:])),
            "seeds": _begun(encoder, "seeds", _seeds(findings)),
            "curves": _begun(encoder, "curves", _curves(results)),
            "levels": _begun(encoder, "levels", _levels(findings)),
            "costs": _begun(encoder, "costs", _costs(results)),
            "side_by_side": _begun(encoder, "arms", _side_by_side(results)),
        }
        galleries = {arm: _begun(encoder, f"gallery-{arm}", _gallery(results, arm)) for arm in results.arms}
        drawn = {name: _finished(begun) for name, begun in groups.items()}
        return Figures(**drawn, galleries={arm: _finished(begun) for arm, begun in galleries.items()})


def write_figures(root: Path, drawn: Figures) -> None:
    """Each figure as the file that its name says."""
    for figure in drawn.all():
        write_atomic(root / figure.name, figure.content.data)


#: (caption, name of the file without its ending, what is being encoded)
_Begun = tuple[str, str, "Future[Encoded]"]


def _begun(encoder: Executor, group: str, found: Sequence[Captioned]) -> list[_Begun]:
    safe = "".join(c if c.isalnum() else "-" for c in group)
    return [
        (caption, f"figures/{safe}-{i}", encoder.submit(encoded_image, rasterised(figure)))
        for i, (caption, figure) in enumerate(found, 1)
    ]


def _finished(begun: Sequence[_Begun]) -> tuple[DrawnFigure, ...]:
    files = ((caption, name, content.result()) for caption, name, content in begun)
    return tuple(DrawnFigure(caption, f"{name}.{content.kind}", content) for caption, name, content in files)


def _differences(results: Results, budgets: Sequence[str]) -> list[Captioned]:
    found = []
    for budget in budgets:
        figure = bench_forest(results, budget)
        if figure is not None:
            caption = f"Differences at {BUDGETS[budget].title}; left of 0 an arm has less. {WHISKERS}"
            found.append((caption, figure))
    return found


def _seeds(findings: Findings) -> list[Captioned]:
    figure = strips(findings.results, findings.decisive)
    caption = (
        "Every seed is a dot, a bar is the mean; lines join what has the same seed. Where dots fall into groups, the "
        "mean describes none of them."
    )
    return [] if figure is None else [(caption, figure)]


def _curves(results: Results) -> list[Captioned]:
    columns = [*results.headlines()]
    columns += [c for c in results.columns() if c[0].curve and c not in columns]
    found = []
    for metric, weight in columns:
        for clock in ("samples", "calibrated"):
            figure = figures.learning_curve(results, metric, weight, clock)
            if figure is not None:
                found.append((metric_name(metric, weight), figure))
    return found


def _levels(findings: Findings) -> list[Captioned]:
    curves = findings.levels
    if curves is None or not any(0 < value < math.inf for values in curves.excess.values() for value in values):
        return []  # nor has a logarithmic axis anything to show
    caption = (
        "Left: the baseline's loss and the optimal one, which no denoiser can go below; grey: between what that lies, "
        "where it is estimated. Right: what each arm has above the optimal one; bands are one standard error."
    )
    return [(caption, loss_by_level(curves, findings.results.config.baseline))]


def _costs(results: Results) -> list[Captioned]:
    found = [("What one step of each kind costs.", figures.step_costs(results.costs))] if results.costs else []
    whole = figures.run_costs(results)
    return found if whole is None else [*found, ("What a whole run cost.", whole)]


def _gallery(results: Results, arm: str) -> list[tuple[str, Figure]]:
    """Of the first finished seed of an arm."""
    config = results.config
    for seed in config.seeds:
        run = results.runs[arm, seed]
        stored = _stored(results, run, run.step, config.n_final)
        history = {
            step: part[1.0]
            for step in run.curve
            if step is not None and (part := _stored(results, run, step, config.n_curve, (1.0,)))
        }
        selection_snapshots = {}
        for step, stem in checkpoint.stems(run_folder(results.root, arm, seed) / "selection", "step").items():
            try:
                selection_snapshots[step] = checkpoint.load(stem).tensors
            except Corrupt:
                continue
        if stored:
            return config.task.figures(RunTensors(config.weight, stored, selection_snapshots, history))
    return []


def _side_by_side(results: Results) -> list[tuple[str, Figure]]:
    """All arms of the first seed that all have finished."""
    config = results.config
    for seed in config.seeds:
        runs = [results.runs[arm, seed] for arm in results.arms]
        stored = {run.arm: _stored(results, run, run.step, config.n_final) for run in runs}
        if all(stored.values()):
            return config.task.side_by_side(config.weight, stored)
    return []


def _stored(
    results: Results, run: Run, step: int, n: int, weights: tuple[float, ...] | None = None
) -> dict[float, dict[str, Tensor]]:
    """Tensors of the evaluations of a snapshot by guidance weight, as far as they were kept."""
    found = {}
    for weight in weights or (1.0, results.config.weight):
        name = f"step-{step:07d}-weight-{weight:g}-n-{n}"
        try:
            found[weight] = checkpoint.load(run_folder(results.root, run.arm, run.seed) / "samples" / name).tensors
        except Corrupt:
            continue
    return found
