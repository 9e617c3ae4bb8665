"""Figures of a bench that every task has: learning curves and costs; `forest` draws differences and seeds."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from PIL import Image, ImageChops

from ajest.bench.plan.config import Costs
from ajest.bench.read.results import Results
from ajest.bench.read.statistics import COVERAGE, Outcome
from ajest.tasks.base import Metric
from ajest.training.ledger import PHASES

#: Colours that stay apart for most colour-blind readers (Okabe and Ito).
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#7F7F7F", "#BCBD22")
PHASE_COLOURS = dict(
    zip(PHASES, ("#56B4E9", "#9ecbe8", "#D55E00", "#E69F00", "#CC79A7", "#4a5a63", "#b9c3c9"), strict=True)
)
#: Of a difference.
OUTCOMES: dict[Outcome, str] = {
    "better": "#009E73", "worse": "#D55E00", "equivalent": "#0072B2", "undecided": "#7F7F7F",
}  # fmt: skip
MARKERS = "osD^vPX*<>"
#: What a figure of differences shows, for its caption.
WHISKERS = (
    f"Large dots: means; bars: {COVERAGE} intervals; small dots: seeds. Green: certainly better; orange: certainly "
    "worse; blue: equivalent; grey: undecided. An open dot is significant by itself but not certain. Its p fails the "
    "correction for the other comparisons, or seeds are missing or fewer than five."
)
_LARGE = 200_000  # bytes beyond which a figure of images is not worth being without loss
_MARGIN = 0.06  # inches of white around a figure
AXIS_NAMES = {"samples": "examples trained on", "calibrated": "seconds of training"}


@dataclass(frozen=True)
class Encoded:
    """A figure's file.

    Attributes:
        data: its content.
        kind: "png", or "webp" where that saves a page from megabytes.
    """

    data: bytes
    kind: str


def encoded(figure: Figure, kind: str = "", dpi: int = 110) -> Encoded:
    """Draw a figure once, cut off its white margins but for a few pixels, and encode it.

    Args:
        figure: drawn on white.
        kind: "png" or "webp"; without it PNG, or WebP where that would be large.
        dpi: pixels for an inch of the figure.
    """
    return encoded_image(rasterised(figure, dpi), kind, dpi)


def rasterised(figure: Figure, dpi: int = 110) -> Image.Image:
    """A figure drawn once."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")


def encoded_image(image: Image.Image, kind: str = "", dpi: int = 110) -> Encoded:
    """The file of a figure that is drawn; see `encoded`."""
    image = _trimmed(image, round(_MARGIN * dpi))
    if kind != "webp":
        data = _saved(image, "png", dpi=(dpi, dpi), compress_level=4)
        if kind == "png" or len(data) <= _LARGE:
            return Encoded(data, "png")
    return Encoded(_saved(image, "webp", quality=90, method=2), "webp")


def _trimmed(image: Image.Image, margin: int) -> Image.Image:
    """An image without what is white around it, but for a margin."""
    ink = ImageChops.invert(image).getbbox()
    if ink is None:
        return image
    left, top, right, bottom = ink
    width, height = image.size
    return image.crop(
        (max(0, left - margin), max(0, top - margin), min(width, right + margin), min(height, bottom + margin))
    )


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def heatmap(
    values: Sequence[Sequence[float]],
    across: tuple[str, Sequence[float]],
    down: tuple[str, Sequence[float]],
    metric: Metric,
    title: str = "",
    reach: Sequence[Sequence[float]] | None = None,
) -> Figure:
    """One metric over two dials, each with its name and values; the best cell framed, unknown ones (NaN) left empty.

    Args:
        values: of the metric, a row for each value of `down`; not all NaN.
        across, down: the dials.
        metric: what is shown.
        title: in place of the metric's name.
        reach: of each value, how far it may be off, in the same unit; unknown where NaN.
    """
    table = np.array(values, dtype=np.float64) * metric.scale
    either = np.full(table.shape, math.nan) if reach is None else np.array(reach, dtype=np.float64) * metric.scale
    columns, rows = across[1], down[1]
    figure = Figure(figsize=(1.6 + 0.85 * len(columns), 1.3 + 0.5 * len(rows)), layout="constrained")
    axis = figure.subplots()
    axis.imshow(table, cmap="viridis_r" if metric.better == "lower" else "viridis", aspect="auto")
    middle = (np.nanmin(table) + np.nanmax(table)) / 2
    for (row, column), value in np.ndenumerate(table):
        dark = (value > middle) == (metric.better == "lower")
        text = "-" if math.isnan(value) else f"{value:.4g}"
        text += "" if math.isnan(either[row, column]) else f"\n± {float(f'{either[row, column]:.2g}'):g}"
        axis.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if dark else "black")
    row, column = divmod(int(np.nanargmax(table * metric.sign)), len(columns))
    axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec="#D55E00", lw=2.5))
    axis.set_xticks(range(len(columns)), [f"{v:g}" for v in columns])
    axis.set_yticks(range(len(rows)), [f"{v:g}" for v in rows])
    axis.set_xlabel(across[0])
    axis.set_ylabel(down[0])
    axis.set_title(f"{title or metric.label} ({metric.better} is better)", fontsize=10, loc="left")
    return figure


def learning_curve(results: Results, metric: Metric, weight: float, clock: str) -> Figure | None:
    """One metric against examples trained on or time; mean over seeds, the band is one standard error."""
    figure = Figure(figsize=(5.6, 3.9))
    axis = figure.add_axes((0.15, 0.15, 0.83, 0.75))  # room for all labels; what is left over is cut off
    drawn = False
    for i, arm in enumerate(results.arms):
        points = _curve(results, arm, metric.name, metric.scale, weight, clock)
        if not points:
            continue
        drawn = True
        at, mean, error = np.array(points).T
        colour = COLOURS[i % len(COLOURS)]
        axis.plot(at, mean, marker=MARKERS[i % len(MARKERS)], ms=4, lw=1.5, color=colour, label=arm)
        axis.fill_between(at, mean - error, mean + error, color=colour, alpha=0.13, lw=0)
    if not drawn:
        return None
    axis.set_xscale("log")
    if metric.better == "lower" and axis.get_ylim()[0] > 0:
        axis.set_yscale("log")
        axis.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axis.yaxis.set_minor_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.xaxis.set_major_formatter(FuncFormatter(_short))
    narrow = axis.get_xlim()[1] < 30 * axis.get_xlim()[0]
    axis.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axis.xaxis.set_minor_formatter(FuncFormatter(_short) if narrow else NullFormatter())
    if clock in results.amounts:
        axis.axvline(results.amounts[clock], color="#888", lw=0.9, ls=":")
    axis.set_xlabel(AXIS_NAMES[clock])
    axis.set_title(_title(metric, weight), fontsize=11, loc="left")
    axis.legend(fontsize=8, frameon=False)
    clean(axis)
    return figure


def _curve(
    results: Results, arm: str, metric: str, scale: float, weight: float, clock: str
) -> list[tuple[float, float, float]]:
    """(clock, mean, standard error) at the points of the curve that all seeds of the arm have which did not diverge."""
    config = results.config
    by_place: dict[int, list[tuple[float, float]]] = {}
    for run in (results.runs[arm, seed] for seed in config.seeds):
        points_of = {} if run.state == "diverged" else run.points(config.n_curve, weight)
        for i, line in points_of.items():
            if clock in line["clocks"] and math.isfinite(line["metrics"].get(metric, math.nan)):
                by_place.setdefault(i, []).append((line["clocks"][clock], line["metrics"][metric] * scale))
    most = max((len(v) for v in by_place.values()), default=0)
    points = []
    for _, values in sorted(by_place.items()):
        if len(values) == most:
            at, value = np.array(values).T
            error = value.std(ddof=1) / math.sqrt(len(value)) if len(value) > 1 else 0.0
            points.append((float(at.mean()), float(value.mean()), float(error)))
    return points


def step_costs(costs: Costs) -> Figure:
    """Stacked bars: what one step of each kind costs, by phase."""
    return _bars({kind: {p: 1e3 * s for p, s in phases.items()} for kind, phases in costs.items()}, "ms for a step")


def run_costs(results: Results) -> Figure | None:
    """Stacked bars: measured seconds of a whole run of each arm by phase, mean over its finished seeds."""
    bars = {}
    for arm in results.arms:
        ledgers = [r.ledger[-1]["seconds"] for (a, _), r in results.runs.items() if a == arm and r.state == "done"]
        if ledgers:
            bars[arm] = {p: float(np.mean([s.get(p, 0.0) for s in ledgers])) for p in PHASES}
    if not bars:
        return None
    guide, name = results.guide.ledger, "the guide, once" if len(results.guides) == 1 else "a guide, once"
    return _bars(bars | ({name: guide[-1]["seconds"]} if guide else {}), "seconds for a run, as measured")


def _bars(bars: dict[str, dict[str, float]], unit: str) -> Figure:
    figure = Figure(figsize=(5.8, 0.42 * len(bars) + 1.7), layout="constrained")
    axis = figure.subplots()
    names = list(bars)
    left = np.zeros(len(names))
    for phase in PHASES:
        width = np.array([bars[name].get(phase, 0.0) for name in names])
        if width.any():
            axis.barh(names, width, left=left, height=0.68, color=PHASE_COLOURS[phase], label=phase)
            left += width
    for i, total in enumerate(left):
        axis.text(total, i, f" {total:.3g}", va="center", fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, left.max() * 1.12)
    axis.set_xlabel(unit)
    figure.legend(loc="outside upper left", ncols=4, fontsize=8, frameon=False)
    clean(axis)
    return figure


def _title(metric: Metric, weight: float) -> str:
    return metric.label if weight == 1 else f"{metric.label}, autoguidance w = {weight:g}"


def _short(value: float, _: object) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def clean(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(which="both", labelsize=9)
