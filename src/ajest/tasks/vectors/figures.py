"""Figures of vectors and of what models make of them. Arrays in, matplotlib figures out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ajest.tasks.base import RunTensors, Tensors

from .data import Standard

SAMPLES, REAL, KEPT = "#1b4f72", "#b4bec4", "#e67e22"
ALONE = "#5f6b72"  # held-out vectors in an axis of their own
COORDINATES = 4  # whose pairs are shown
_COLUMNS, _IMAGES = 12, 36
_SIDE = 2.9


@dataclass(frozen=True)
class View:
    """How standardised vectors are shown: in the user's coordinates.

    Attributes:
        standard: of those coordinates.
        columns: names of the coordinates, d of them.
        image: height and width where a vector is a grey image, or ().
    """

    standard: Standard
    columns: tuple[str, ...]
    image: tuple[int, ...] = ()

    @property
    def leading(self) -> list[int]:
        """The first coordinates that are no constants."""
        return [i for i, scale in enumerate(self.standard.scale) if scale][:COORDINATES] or [0]


def of_run(view: View, run: RunTensors) -> list[tuple[str, Figure]]:
    """(caption, figure) of everything worth seeing of one run.

    Args:
        view: how to show it.
        run: the tensors `samples`, `real` and `trajectories` of its evaluations.
    """
    names = {1.0: "without guidance", run.weight: f"autoguidance, w = {run.weight:g}"}
    present = {names[w]: run.last[w] for w in names if w in run.last}
    found = []
    if present:
        real = next(iter(present.values()))["real"].numpy()
        panels = {title: stored["samples"].numpy() for title, stored in present.items()}
        found.append((_caption(view, next(iter(panels.values())), real), samples(view, panels, real)))
        if len(view.columns) > 1 and not view.image:
            paths = {title: stored["trajectories"].numpy() for title, stored in present.items()}
            caption = f"Paths of the sampler from pure noise to its end points (orange), in {_plane(view)}."
            found.append((caption, trajectories(view, paths, real)))
    if len(run.along) > 1:
        shown = sorted(run.along)[:: -(-len(run.along) // 4)]
        along = {f"step {step:,}": run.along[step]["samples"].numpy() for step in shown}
        figure = samples(view, along, run.along[shown[-1]]["real"].numpy())
        found.append(("The same start points along training, without guidance.", figure))
    if run.selection_snapshots:
        caption = f"Kept examples among the drawn ones, in {_plane(view)} (above) and in noise level (below)."
        found.append((caption, selection(view, run.selection_snapshots)))
    return found


def side_by_side(view: View, weight: float, arms: Mapping[str, Mapping[float, Tensors]]) -> list[tuple[str, Figure]]:
    """Every arm from the same start points, unguided and guided; tensors by arm and guidance weight."""
    found = []
    for w, title in ((1.0, "without guidance"), (weight, f"with autoguidance, w = {weight:g}")):
        stored = {arm: parts[w] for arm, parts in arms.items() if w in parts}
        if stored:
            real = next(iter(stored.values()))["real"].numpy()
            panels = {arm: tensors["samples"].numpy() for arm, tensors in stored.items()}
            found.append((f"Every arm from the same start points, {title}.", samples(view, panels, real)))
    return found


def samples(view: View, panels: Mapping[str, np.ndarray], real: np.ndarray) -> Figure:
    """Samples beside held-out vectors: as images, as points of the plane, as histograms of a line, or where there are
    more coordinates, as points of pairs of the leading ones.

    Args:
        view: how to show them.
        panels: standardised samples of shape (n, d) by title.
        real: held-out vectors, standardised, shape (m, d).
    """
    if view.image:
        return _images(view, {**panels, "held-out vectors": real})
    shown = {title: view.standard.undo(x) for title, x in panels.items()}
    truth, leading = view.standard.undo(real), view.leading
    if len(leading) == 1:
        return _histograms(view, shown, truth)
    if len(view.columns) == 2:
        return _planes(view, shown, truth)
    pairs, rows = list(combinations(leading, 2)), {"held-out vectors": truth, **shown}
    figure = Figure(figsize=(_SIDE * len(pairs), _SIDE * len(rows) + 0.3), layout="constrained")
    axes = figure.subplots(len(rows), len(pairs), squeeze=False)
    for row, (title, x) in enumerate(rows.items()):
        for axis, (i, j) in zip(axes[row], pairs, strict=True):
            axis.scatter(
                x[:, i], x[:, j], s=_size(len(x)), c=ALONE if row == 0 else SAMPLES, linewidths=0, rasterized=True
            )
            _frame(axis, truth[:, [i, j]])
            axis.set_xlabel(view.columns[i], fontsize=8, parse_math=False)
            axis.set_ylabel(view.columns[j], fontsize=8, parse_math=False)
        axes[row, 0].set_title(title, fontsize=11, loc="left", parse_math=False)
    return figure


def trajectories(view: View, panels: Mapping[str, np.ndarray], real: np.ndarray) -> Figure:
    """Sampling paths, standardised arrays of shape (paths, steps + 1, d) by title, above held-out vectors."""
    i, j = _two(view)
    truth = view.standard.undo(real)
    figure = Figure(figsize=(_SIDE * len(panels), _SIDE + 0.3), layout="constrained")
    for axis, (title, paths) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        shown = view.standard.undo(paths)[..., [i, j]]
        axis.scatter(truth[:, i], truth[:, j], s=_size(len(truth)), c=REAL, linewidths=0, rasterized=True)
        for path in shown:
            axis.plot(*path.T, color=SAMPLES, lw=0.7, alpha=0.55)
        axis.scatter(*shown[:, -1].T, s=9, c=KEPT, zorder=3, linewidths=0)
        axis.set_title(title, fontsize=11, parse_math=False)
        _frame(axis, truth[:, [i, j]], 0.5)
    return figure


def selection(view: View, moments: Mapping[int, Tensors]) -> Figure:
    """Where the kept examples lie, in the leading coordinates (or the only one and sigma) and in sigma, compared with
    the drawn ones.

    Args:
        view: how to show them.
        moments: tensors x (n, d), sigma (n,), kept (n,) bool of a super-batch each, by step.
    """
    i, j = _two(view)
    figure = Figure(figsize=(_SIDE * len(moments), 5.6), layout="constrained")
    axes = figure.subplots(2, len(moments), squeeze=False, height_ratios=(1.3, 1))
    for column, (step, batch) in enumerate(sorted(moments.items())):
        sigma, kept = batch["sigma"].numpy(), batch["kept"].numpy().astype(bool)
        x = view.standard.undo(batch["x"].numpy())[:, [i, j]]
        if i == j:
            x[:, 1] = np.log(sigma[: len(x)])
        plane, levels = axes[0, column], axes[1, column]
        some = kept[: len(x)]
        plane.scatter(*x[~some].T, s=2.5, c=REAL, linewidths=0, label="drawn, dropped", rasterized=True)
        plane.scatter(*x[some].T, s=2.5, c=KEPT, linewidths=0, label="kept", rasterized=True)
        plane.set_title(f"step {step:,}", fontsize=11)
        _frame(plane, np.quantile(x, (0.03, 0.97), axis=0), 0.2)
        logs = np.log(sigma)
        bins = np.linspace(logs.min(), logs.max(), 26)
        levels.hist(logs, bins, density=True, color=REAL, alpha=0.7, label="drawn")
        if kept.any():
            levels.hist(logs[kept], bins, density=True, histtype="step", color=KEPT, lw=1.8, label="kept")
        levels.set_xlabel("ln sigma")
        levels.set_yticks([])
        levels.spines[["top", "right", "left"]].set_visible(False)
        plane.set_xlabel(view.columns[i], fontsize=8, parse_math=False)
        if column == 0:
            plane.set_ylabel("ln sigma" if i == j else view.columns[j], fontsize=8, parse_math=False)
            levels.set_ylabel("share of examples")
            levels.legend(fontsize=9, frameon=False)
            plane.legend(fontsize=8, frameon=False, markerscale=3, loc="upper left")
    return figure


def _caption(view: View, x: np.ndarray, real: np.ndarray) -> str:
    if view.image:
        return f"{min(_IMAGES, len(x))} samples from the same start points, and held-out vectors below them."
    what = f"{len(x):,} samples (blue)"
    if len(view.leading) == 1:
        return f"{len(real):,} held-out vectors (grey) and {what}."
    where = "" if len(view.columns) == 2 else ", in pairs of the leading coordinates"
    return f"{len(real):,} held-out vectors (grey) and {what}{where}."


def _plane(view: View) -> str:
    i, j = _two(view)
    if i == j:
        return f"the coordinate {view.columns[i]} and noise level"
    return "the plane" if len(view.columns) == 2 else f"the coordinates {view.columns[i]} and {view.columns[j]}"


def _two(view: View) -> tuple[int, int]:
    """Two coordinates: the leading ones, or the only one twice."""
    leading = view.leading
    if view.image:  # those of the middle say more than those of an edge
        middle = view.image[0] // 2 * view.image[1] + view.image[1] // 2
        return middle, middle + 1
    return leading[0], leading[min(1, len(leading) - 1)]


def _planes(view: View, panels: Mapping[str, np.ndarray], truth: np.ndarray) -> Figure:
    shown = {"held-out vectors": truth, **panels}
    figure = Figure(figsize=(_SIDE * len(shown), _SIDE + 0.3), layout="constrained")
    for axis, (title, x) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        colour = ALONE if x is truth else SAMPLES
        axis.scatter(*x.T, s=_size(len(x)), c=colour, linewidths=0, rasterized=True)
        axis.set_title(title, fontsize=11, parse_math=False)
        _frame(axis, truth)
        if axis.get_subplotspec().is_first_col():
            axis.set_xlabel(view.columns[0], fontsize=8, parse_math=False)
            axis.set_ylabel(view.columns[1], fontsize=8, parse_math=False)
    return figure


def _histograms(view: View, panels: Mapping[str, np.ndarray], truth: np.ndarray) -> Figure:
    (i,) = view.leading
    figure = Figure(figsize=(1.3 * _SIDE * len(panels), _SIDE), layout="constrained")
    low, high = np.quantile(truth[:, i], (0.001, 0.999))
    room = (high - low) * 0.1 or 1.0
    bins = np.linspace(low - room, high + room, 61)
    for axis, (title, x) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        axis.hist(truth[:, i], bins, density=True, color=REAL, label="held-out vectors")
        if ((x[:, i] >= bins[0]) & (x[:, i] <= bins[-1])).any():
            axis.hist(x[:, i], bins, density=True, histtype="step", color=SAMPLES, lw=1.8, label="samples")
        axis.set_title(title, fontsize=11, parse_math=False)
        axis.set_xlabel(view.columns[i], parse_math=False)
        axis.set_yticks([])
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.legend(fontsize=8, frameon=False)
    return figure


def _images(view: View, panels: Mapping[str, np.ndarray]) -> Figure:
    figure = Figure(figsize=(7.4, 2.2 * len(panels)), layout="constrained")
    for axis, (title, x) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels.items(), strict=True):
        axis.imshow(sheet(view, x[:_IMAGES], _COLUMNS), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(title, fontsize=10, loc="left", parse_math=False)
        axis.set_axis_off()
    return figure


def sheet(view: View, x: np.ndarray, columns: int) -> np.ndarray:
    """Standardised vectors that are images, in rows of `columns` with gaps, shape (H, W), ink from 0 to 1: over the
    range of mean plus and minus a standard deviation of all pixels, from 0 on where no mean is below."""
    h, w = view.image
    mean, scale = np.array(view.standard.mean), np.array(view.standard.scale)
    low = 0.0 if mean.min() >= 0 else float((mean - scale).min())
    high = float((mean + scale).max())
    ink = np.clip((view.standard.undo(x) - low) / (high - low or 1.0), 0, 1).reshape(-1, h, w)
    rows = -(-len(ink) // columns)
    tiles = np.zeros((rows * columns, h + 1, w + 1))
    tiles[: len(ink), :h, :w] = ink
    return tiles.reshape(rows, columns, h + 1, w + 1).swapaxes(1, 2).reshape(rows * (h + 1), columns * (w + 1))


def _size(n: int) -> float:
    """Area of a point, so that many do not run together."""
    return float(np.clip(6000 / n, 0.7, 6))


def _frame(axis: Axes, truth: np.ndarray, room: float = 0.12) -> None:
    """The window of most of the real points, whatever lies outside."""
    low, high = truth.min(0), truth.max(0)
    more = np.where(high > low, (high - low) * room, 1.0)
    axis.set_xlim(low[0] - more[0], high[0] + more[0])
    axis.set_ylim(low[1] - more[1], high[1] + more[1])
    axis.tick_params(labelsize=7)
    for spine in axis.spines.values():
        spine.set_color("#c9d1d6")
