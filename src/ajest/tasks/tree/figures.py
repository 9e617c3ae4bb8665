"""Figures of the tree and of what models make of it. Arrays in, matplotlib figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from torch import Tensor

from ajest.runtime.seeding import generator
from ajest.tasks.base import RunTensors

from .distribution import ORIGIN, TreeDistribution
from .metrics import DENSITY_SIGMA, GRID_SIDE, THRESHOLD, hits, mandala_cells
from .sheet import Extent, sheet, window

ON_TREE, OFF_TREE, DENSITY = "#1b4f72", "#e67e22", "#d9e4ea"
EXTENT = (-0.72, 1.52, -0.70, 1.54)
#: Twigs at the right end: outer branches, where models miss most.
ZOOM = (0.76, 1.31, 0.20, 0.75)


def of_run(label: str, run: RunTensors) -> list[tuple[str, Figure]]:
    """(caption, figure) of everything worth seeing of one run.

    Args:
        label: class of the tree.
        run: the tensors `samples` and `trajectories` of its evaluations.
    """
    names = {1.0: "without guidance", run.weight: f"autoguidance, w = {run.weight:g}"}
    present = {names[w]: run.last[w] for w in names if w in run.last}
    figures = []
    if present:
        n = len(next(iter(present.values()))["samples"])
        points = {k: v["samples"].numpy() for k, v in present.items()} | {"the truth": _truth(label, n)}
        figures.append(
            (f"{n:,} samples (blue: on the tree, orange: off it), above; outer branches enlarged, below.",
             samples(label, points))
        )  # fmt: skip
        figures.append(
            ("The mandala: cells by how often they were hit (darker: more); orange cells hold misses only.",
             mandalas(label, points))
        )  # fmt: skip
        paths = {k: v["trajectories"].numpy() for k, v in present.items()}
        figures.append(("Paths of the sampler from pure noise to its end points.", trajectories(label, paths)))
    if len(run.along) > 1:
        shown = sorted(run.along)[:: -(-len(run.along) // 4)]
        along = {f"step {step:,}": run.along[step]["samples"].numpy() for step in shown}
        figures.append(("The same start points along training, without guidance.", samples(label, along)))
    if run.selection_snapshots:
        arrays = [
            (f"step {step}", {k: v.numpy() for k, v in batch.items()})
            for step, batch in run.selection_snapshots.items()
        ]
        caption = "Kept examples among the drawn ones, in the plane (above) and in noise level (below)."
        figures.append((caption, selection(label, arrays)))
    return figures


def side_by_side(
    label: str, weight: float, stored: Mapping[str, Mapping[float, Mapping[str, Tensor]]]
) -> list[tuple[str, Figure]]:
    """Every arm from the same start points, unguided and guided; tensors `samples` by arm and guidance weight."""
    found = []
    for w, title in ((1.0, "without guidance"), (weight, f"with autoguidance, w = {weight:g}")):
        panels = {arm: parts[w]["samples"].numpy() for arm, parts in stored.items() if w in parts}
        if panels:
            found.append((f"Every arm from the same start points, {title}.", samples(label, panels)))
    return found


def samples(label: str, panels: Mapping[str, np.ndarray]) -> Figure:
    """Samples side by side above a zoom on outer branches, as in figure 1 of arXiv 2406.02507.

    Args:
        label: class of the tree.
        panels: samples of shape (n, 2) by title.
    """
    figure, axis = sheet(2, len(panels))
    for column, (title, x) in enumerate(panels.items()):
        on_tree = _on_tree(label, x)
        for above, extent, size in ((1, _extent(label), 0.35), (0, _zoom(label), 2.5)):
            view = window(axis, above, column, extent)
            view.area(_tree(label, extent), DENSITY)
            view.points(x[on_tree], size, ON_TREE)
            view.points(x[~on_tree], size * 1.6, OFF_TREE)
            if above:
                view.title(f"{title}\n{on_tree.mean():.1%} on the tree")
    return figure


def mandalas(label: str, panels: Mapping[str, np.ndarray]) -> Figure:
    """Heat-maps of the mandala metric: how often each cell was hit, and cells that hold misses only."""
    figure, axis = sheet(1, len(panels))
    side = GRID_SIDE / 2
    extent = (ORIGIN[0] - side, ORIGIN[0] + side, ORIGIN[1] - side, ORIGIN[1] + side)
    for column, (title, x) in enumerate(panels.items()):
        good, bad = mandala_cells(x, _on_tree(label, x))
        view, most = window(axis, 0, column, _extent(label)), max(1.0, float(np.log1p(good.max())))
        view.cells(np.where(good > 0, np.log1p(good), np.nan), extent, "YlGnBu", (-1, most))
        view.cells(np.where((bad > 0) & (good == 0), 1.0, np.nan), extent, ListedColormap([OFF_TREE]), (0, 1))
        share = float(np.count_nonzero(good) / max(int(np.count_nonzero(good + bad)), 1))
        view.title(f"{title}\nmandala {share:.3f}")
    return figure


def trajectories(label: str, panels: Mapping[str, np.ndarray]) -> Figure:
    """Sampling paths, arrays of shape (paths, steps + 1, 2) by title."""
    figure, axis = sheet(1, len(panels))
    for column, (title, paths) in enumerate(panels.items()):
        view = window(axis, 0, column, _extent(label))
        view.area(_tree(label, view.extent), DENSITY)
        view.lines(paths, ON_TREE)
        view.points(paths[:, -1], 9, OFF_TREE)
        view.title(title)
    return figure


def selection(label: str, snapshots: Sequence[tuple[str, Mapping[str, np.ndarray]]]) -> Figure:
    """Where the kept examples lie, in the plane and in sigma, compared with the drawn ones.

    Args:
        label: class of the tree.
        snapshots: (title, arrays x (n, 2), sigma (n,), kept (n,) bool) of a super-batch each.
    """
    figure = Figure(figsize=(3.4 * len(snapshots), 6.4), layout="constrained")
    axes = figure.subplots(2, len(snapshots), squeeze=False, height_ratios=(1.3, 1))
    for column, (title, batch) in enumerate(snapshots):
        x, sigma, kept = batch["x"], batch["sigma"], batch["kept"].astype(bool)
        plane, levels = axes[0, column], axes[1, column]
        _plane(plane, label, (-1.2, 2.1, -1.1, 2.2))
        plane.scatter(*x[~kept].T, s=1.5, c="#9aa5ac", linewidths=0, label="drawn, dropped")
        plane.scatter(*x[kept].T, s=2.5, c=OFF_TREE, linewidths=0, label="kept")
        plane.set_title(title, fontsize=11)
        bins = np.linspace(-7, 3, 41)
        grey = {"histtype": "stepfilled", "color": "#9aa5ac", "alpha": 0.6}
        levels.hist(np.log(sigma), bins, density=True, label="drawn", **grey)
        levels.hist(np.log(sigma[kept]), bins, density=True, histtype="step", color=OFF_TREE, lw=1.8, label="kept")
        levels.set_xlabel("ln sigma")
        levels.set_yticks([])
        levels.spines[["top", "right", "left"]].set_visible(False)
        if column == 0:
            levels.set_ylabel("share of examples")
            levels.legend(fontsize=9, frameon=False)
            plane.legend(fontsize=8, frameon=False, markerscale=3, loc="upper left")
    return figure


def _plane(axis: Axes, label: str, extent: Extent) -> None:
    axis.add_artist(PathPatch(_tree(label, extent), fc=DENSITY, ec="none", aa=False))
    axis.set_xlim(extent[:2])
    axis.set_ylim(extent[2:])
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_color("#c9d1d6")


def _on_tree(label: str, x: np.ndarray) -> np.ndarray:
    """Which samples (n, 2) lie on the tree; several figures show the same ones."""
    return _hits(label, np.ascontiguousarray(x, dtype=np.float32).tobytes())


@lru_cache(maxsize=64)
def _hits(label: str, points: bytes) -> np.ndarray:
    x = torch.frombuffer(bytearray(points), dtype=torch.float32).reshape(-1, 2)
    return hits(TreeDistribution(label), x).numpy()


@lru_cache(maxsize=4)
def _truth(label: str, n: int) -> np.ndarray:
    """Samples of the tree itself, shape (n, 2)."""
    numbers = generator(0, "figure", "truth")
    drawn = torch.rand(n, generator=numbers), torch.randn(n, 4, generator=numbers)
    return TreeDistribution(label).sample(*drawn, 0.0)[0].numpy()


@lru_cache(maxsize=16)
def _tree(label: str, extent: Extent) -> Path:
    """The outline of where the density is above the threshold, within a window."""
    x, y = np.linspace(*extent[:2], 220), np.linspace(*extent[2:], 220)
    grid_x, grid_y = np.meshgrid(x, y)
    points = torch.from_numpy(np.stack([grid_x.ravel(), grid_y.ravel()], 1))
    density = TreeDistribution(label).log_density(points, DENSITY_SIGMA).numpy().reshape(grid_x.shape)
    filled = Figure().subplots().contourf(x, y, density, levels=[THRESHOLD, np.inf], colors=[DENSITY])
    return filled.get_paths()[0]


def _extent(label: str) -> Extent:
    return _turned(EXTENT) if label == "B" else EXTENT


def _zoom(label: str) -> Extent:
    return _turned(ZOOM) if label == "B" else ZOOM


def _turned(extent: Extent) -> Extent:
    """The same window for class B, which grows the other way."""
    return -extent[1], -extent[0], -extent[3], -extent[2]
