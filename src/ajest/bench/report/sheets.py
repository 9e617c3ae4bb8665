"""All figures of a bench, in named groups: the page embeds them, files of them stand beside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from ajest.bench.plan.config import run_folder
from ajest.bench.plan.readings import READINGS
from ajest.bench.read.results import Results, Run
from ajest.bench.read.verdict import decisive
from ajest.bench.read.wording import metric_name
from ajest.errors import Corrupt
from ajest.storage import checkpoint
from ajest.storage.checkpoint import write_atomic
from ajest.tasks.base import RunTensors

from . import figures

Captioned = tuple[str, Figure]

_LARGE = 200_000  # bytes beyond which a picture of pictures is not worth being without loss


@dataclass(frozen=True)
class Picture:
    """An encoded figure.

    Attributes:
        caption: for people.
        name: of its file, below the bench's folder.
        kind: "png" or "webp".
        data: the file's content.
    """

    caption: str
    name: str
    kind: str
    data: bytes

    @property
    def uri(self) -> str:
        """What stands in a page's `src`."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.data).decode()}"


def pictures(results: Results) -> dict[str, list[Picture]]:
    """All figures by group: "differences", "curves", "costs", "arms" side by side, and `gallery_of(arm)` of each."""
    groups = {
        "differences": _differences(results),
        "curves": _curves(results),
        "costs": _costs(results),
        "arms": _side_by_side(results),
        **{gallery_of(arm): _gallery(results, arm) for arm in results.arms},
    }
    return {
        group: [_encoded(group, i + 1, caption, figure) for i, (caption, figure) in enumerate(found)]
        for group, found in groups.items()
    }


def gallery_of(arm: str) -> str:
    """The group of an arm's own pictures."""
    return f"gallery-{arm}"


def write_pictures(root: Path, groups: Mapping[str, Sequence[Picture]]) -> None:
    """Each figure as the file that its name says."""
    for found in groups.values():
        for picture in found:
            write_atomic(root / picture.name, picture.data)


def _encoded(group: str, number: int, caption: str, figure: Figure) -> Picture:
    """PNG, or WebP where that saves a page from megabytes."""
    data, kind = figures.encoded(figure), "png"
    if len(data) > _LARGE:
        data, kind = figures.encoded(figure, "webp"), "webp"
    safe = "".join(c if c.isalnum() else "-" for c in group)
    return Picture(caption, f"figures/{safe}-{number}.{kind}", kind, data)


def _differences(results: Results) -> list[Captioned]:
    found = []
    for reading in decisive(results):
        figure = figures.differences(results, reading, results.headlines())
        if figure is not None:
            title = READINGS[reading].title
            found.append((f"At {title}: difference to {results.config.baseline}.", figure))
    return found


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


def _costs(results: Results) -> list[Captioned]:
    found = [("What one step of each kind costs.", figures.step_costs(results.costs))] if results.costs else []
    whole = figures.run_costs(results)
    return found if whole is None else [*found, ("What a whole run cost.", whole)]


def _gallery(results: Results, arm: str) -> list[tuple[str, Figure]]:
    """Pictures of the first finished seed of an arm."""
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
