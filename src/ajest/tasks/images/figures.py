"""Figures of images: galleries, training histories, what was kept, paths of the sampler."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ajest.storage.checkpoint import write_atomic
from ajest.tasks.base import RunTensors

from .sheets import GAP, mosaic, png
from .source import to_uint8

COLUMNS = 12  # images side by side
KEPT, DROPPED = "#0072B2", "#8a949c"
_MOMENT_COLUMNS = 7
_TIMES = 10
_NAME_BYTES = 100  # of the class in a file's name


def of_run(
    names: tuple[str, ...],
    sigmas: list[float],
    sigma_data: float,
    run: RunTensors,
) -> list[tuple[str, Figure]]:
    """(caption, figure) of everything worth seeing of one run.

    Args:
        names: of the classes.
        sigmas: of the sampler.
        sigma_data: standard deviation of the data.
        run: the tensors `samples`, `labels` and `trajectories` of its evaluations.
    """
    stored = run.last
    titles = {1.0: "without guidance", run.weight: f"autoguidance, w = {run.weight:g}"}
    found = []
    rows = {title: stored[w]["samples"] for w, title in titles.items() if w in stored}
    if rows:
        labels = next(iter(stored.values())).get("labels")
        caption = "Samples from the same noise and classes, without and with autoguidance."
        found.append((caption, _rows(rows, _named(names, labels), lines=2)))
    if run.along:
        along = {f"step {step:,}": part["samples"] for step, part in sorted(run.along.items())}
        found.append(("The same noise along training, without guidance.", _rows(along, [])))
    if run.selection_snapshots:
        caption = (
            "Drawn images at several moments, each with the noise it was seen with: the kept ones of highest score "
            "(blue), and dropped ones from all over the range (grey). Below each: noise level and score."
        )
        found.append((caption, selection(run.selection_snapshots)))
    for w, title in titles.items():
        if w in stored and "trajectories" in stored[w]:
            caption = f"Paths of the sampler from noise to image, {title}."
            found.append((caption, trajectories(stored[w]["trajectories"], sigmas, sigma_data)))
    return found


def side_by_side(
    names: tuple[str, ...], weight: float, stored: Mapping[str, Mapping[float, Mapping[str, Tensor]]]
) -> list[tuple[str, Figure]]:
    """All arms from the same noise and classes, unguided above guided.

    Args:
        names: of the classes.
        weight: of autoguidance.
        stored: tensors `samples` and `labels` by arm and guidance weight.
    """
    rows, labels = {}, None
    for arm, by_weight in stored.items():
        for w in (1.0, weight):
            if w in by_weight:
                rows[arm if w == 1 else f"{arm}, w = {weight:g}"] = by_weight[w]["samples"]
                labels = by_weight[w].get("labels", labels)
    if not rows:
        return []
    return [
        (
            "Every arm from the same noise and classes: unguided, and below it guided.",
            _rows(rows, _named(names, labels)),
        )
    ]


def _rows(rows: Mapping[str, Tensor], heads: Sequence[str], lines: int = 1) -> Figure:
    """A named row of images each (or `lines` rows), class names above the columns of single rows."""
    side = 0.72
    figure = Figure(figsize=(1.3 + COLUMNS * side, len(rows) * lines * (side + 0.04) + 0.45), layout="constrained")
    axes = np.atleast_1d(figure.subplots(len(rows), 1))
    for i, (axis, (title, images)) in enumerate(zip(axes, rows.items(), strict=True)):
        shown = images[: COLUMNS * lines]
        axis.imshow(mosaic(shown.numpy(), COLUMNS), interpolation="nearest")
        axis.set_ylabel(title.replace(", ", "\n"), rotation=0, ha="right", va="center", fontsize=8, parse_math=False)
        _bare(axis)
        if i == 0 and heads and lines == 1:
            width = images.shape[-1]
            for column, head in enumerate(heads[: min(COLUMNS, len(shown))]):
                place = column * (width + GAP) + width / 2, -4
                axis.text(*place, head, ha="center", va="bottom", fontsize=6.5, parse_math=False)
    return figure


def _named(names: tuple[str, ...], labels: Tensor | None) -> list[str]:
    if labels is None or not names:
        return []
    shown = [names[i] for i in labels.tolist()]
    return [name if len(name) <= 13 else name[:12] + "…" for name in shown]


def selection(snapshots: Mapping[int, Mapping[str, Tensor]]) -> Figure:
    """At each moment the kept images of highest score and dropped ones, clean above noised."""
    most = max((int(part["kept"][: len(part["x"])].sum()) for part in snapshots.values()), default=0)
    width = min(_MOMENT_COLUMNS, max(1, most))
    columns = 2 * width
    figure = Figure(figsize=(1.0 + columns * 0.72, len(snapshots) * 2.05 + 0.1), layout="constrained")
    axes = figure.subplots(2 * len(snapshots), columns, squeeze=False)
    for row, (step, part) in enumerate(sorted(snapshots.items())):
        score = part["learner"] if "learner" in part else -part["reference"]
        if "learner" in part and "reference" in part:
            score = part["learner"] - part["reference"]
        kept = part["kept"][: len(part["x"])]
        score = score[: len(part["x"])]
        order = score.argsort(descending=True)
        top = [i for i in order.tolist() if kept[i]][:width]
        rest = [i for i in order.tolist() if not kept[i]]
        # From the whole range of scores of the dropped ones, not from one end of it.
        rest = [rest[k] for k in np.linspace(0, len(rest) - 1, min(width, len(rest))).round().astype(int)]
        for axis in axes[2 * row : 2 * row + 2].ravel():
            _bare(axis)
            axis.spines[:].set_visible(False)
        for offset, chosen, colour in ((0, top, KEPT), (width, rest, DROPPED)):
            for column, i in enumerate(chosen):
                clean, noised = axes[2 * row, offset + column], axes[2 * row + 1, offset + column]
                clean.imshow(_colours(part["target"][i]).permute(1, 2, 0).numpy(), interpolation="nearest")
                noised.imshow(_colours(part["x"][i]).permute(1, 2, 0).numpy(), interpolation="nearest")
                noised.set_xlabel(f"σ {part['sigma'][i]:.2f}\n{score[i]:+.3f}", fontsize=7)
                for axis in (clean, noised):
                    axis.spines[:].set_visible(True)
                    axis.spines[:].set_color(colour)
                    axis.spines[:].set_linewidth(1.6)
        axes[2 * row, 0].set_ylabel(f"step {step:,}", fontsize=8)
    return figure


def _colours(x: Tensor) -> Tensor:
    """uint8 images of three channels: images as they are, and of latents the first three channels, from -2 to 2."""
    channels = x.shape[-3]
    if channels == 3:
        return to_uint8(x)
    three = x.narrow(-3, 0, 3) if channels > 3 else x.narrow(-3, 0, 1).expand(*x.shape[:-3], 3, *x.shape[-2:])
    return to_uint8(three if channels == 1 else three / 2)


def trajectories(paths: Tensor, sigmas: list[float], sigma_data: float) -> Figure:
    """States of the sampler (n, times, 3, h, w), each scaled to the contrast of an image."""
    levels = torch.tensor(sigmas)
    times = torch.linspace(0, len(sigmas) - 1, min(_TIMES, len(sigmas))).round().long()
    scale = sigma_data * torch.rsqrt(levels[times] ** 2 + sigma_data**2)
    shown = _colours(paths[:, times] * scale[:, None, None, None])
    n = len(shown)
    figure = Figure(figsize=(1.0 + len(times) * 0.72, n * 0.75 + 0.35), layout="constrained")
    axis = figure.subplots()
    axis.imshow(mosaic(shown.flatten(0, 1).numpy(), len(times)), interpolation="nearest")
    _bare(axis)
    width = paths.shape[-1]
    for column, level in enumerate(levels[times].tolist()):
        axis.text(column * (width + GAP) + width / 2, -4, f"σ {level:.3g}", ha="center", va="bottom", fontsize=7)
    return figure


def file_names(classes: Sequence[str]) -> list[str]:
    """What files of each class begin with: letters and digits of its name, cut to what file systems take. Where that
    says nothing, or the same of two classes, the class's number follows."""
    plain = [_plain(name) for name in classes]
    counts = Counter(plain)
    numbered = [f"{name or 'class'}-{i}" for i, name in enumerate(plain)]
    found = [name if name and counts[name] == 1 else other for name, other in zip(plain, numbered, strict=True)]
    return found if len(set(found)) == len(found) else numbered


def _plain(name: str) -> str:
    text = "".join(c if c.isalnum() else "-" for c in unicodedata.normalize("NFC", name).lower()).strip("-")
    return text.encode()[:_NAME_BYTES].decode(errors="ignore")


def write_images(images: Tensor, captions: Sequence[tuple[str, int]], columns: int, out: Path) -> list[Path]:
    """A PNG for each image, named by class and seed, and `sheet.png` of all; returns the files, the sheet last.

    Args:
        images: uint8, shape (n, 3, h, w), or (n, 1, h, w) in grey.
        captions: (class, as in `file_names`, "" for none; seed) of each.
        columns: of the sheet.
        out: folder.
    """
    written = []
    for image, (name, seed) in zip(images, captions, strict=True):
        path = out / f"{name + '-' if name else ''}seed{seed:04d}.png"
        write_atomic(path, png(mosaic(image.numpy()[None], 1)))
        written.append(path)
    write_atomic(out / "sheet.png", png(mosaic(images.numpy(), columns)))
    return [*written, out / "sheet.png"]


def _bare(axis: Axes) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_color("#c9d1d6")
