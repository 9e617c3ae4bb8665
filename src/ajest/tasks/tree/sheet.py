"""Square windows of the plane in rows and columns on one axes: an axes for each takes ten times as long to draw."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, Transform

#: (left, right, bottom, top) of a window of the plane.
Extent = tuple[float, float, float, float]

_SIDE, _GAP, _HEAD, _EDGE = 3.25, 0.13, 0.47, 0.06  # inches: a window, between two, for two lines above, around all
_FRAME = "#c9d1d6"


@dataclass(frozen=True)
class Window:
    """A square window of the plane; what is drawn in it is cut off at its frame.

    Attributes:
        axis: it is drawn on, in inches.
        left, bottom: its corner.
        extent: of the plane that it shows.
    """

    axis: Axes
    left: float
    bottom: float
    extent: Extent
    _frame: Rectangle = field(init=False)
    _place: Transform = field(init=False)

    def __post_init__(self) -> None:
        frame = Rectangle((self.left, self.bottom), _SIDE, _SIDE, fill=False, ec=_FRAME, lw=0.8, zorder=4)
        object.__setattr__(self, "_frame", self.axis.add_artist(frame))
        left, right, bottom, top = self.extent
        unit = Affine2D().translate(-left, -bottom).scale(_SIDE / (right - left), _SIDE / (top - bottom))
        object.__setattr__(self, "_place", unit.translate(self.left, self.bottom) + self.axis.transData)

    def _draw(self, artist: Artist) -> None:
        """Add an artist of the plane; the axes need not look for its limits."""
        artist.set_transform(self._place)
        self.axis.add_artist(artist)
        artist.set_clip_path(self._frame)

    def title(self, text: str) -> None:
        """Up to two lines above."""
        middle = self.left + _SIDE / 2
        self.axis.text(middle, self.bottom + _SIDE + 0.06, text, ha="center", va="bottom", fontsize=11)

    def points(self, x: np.ndarray, size: float, colour: str) -> None:
        """Points of shape (n, 2); those beyond the frame are left out.

        Args:
            x: the points.
            size: square of the diameter of each, in points of print.
            colour: of all.
        """
        left, right, bottom, top = self.extent
        inside = (x[:, 0] > left) & (x[:, 0] < right) & (x[:, 1] > bottom) & (x[:, 1] < top)
        self._draw(Line2D(*x[inside].T, ls="", marker="o", ms=size**0.5, mfc=colour, mec="none", zorder=3))

    def area(self, path: Path, colour: str) -> None:
        """A filled area of the plane."""
        self._draw(PathPatch(path, fc=colour, ec="none", aa=False, zorder=1))

    def lines(self, paths: np.ndarray, colour: str) -> None:
        """Thin lines through points, shape (lines, points, 2)."""
        self._draw(LineCollection(list(paths), colors=colour, linewidths=0.7, alpha=0.55, zorder=2))

    def cells(self, values: np.ndarray, extent: Extent, colours: str | Colormap, span: tuple[float, float]) -> None:
        """Values of shape (columns, rows) over a part of the plane; NaN is not drawn.

        Args:
            values: in the cells.
            extent: the part.
            colours: a colour map.
            span: values that have its first and its last colour.
        """
        image = AxesImage(self.axis, cmap=colours, origin="lower", extent=extent, interpolation="nearest")
        image.set_data(values.T)
        image.set_clim(*span)
        self._draw(image)


def sheet(rows: int, columns: int) -> tuple[Figure, Axes]:
    """A figure for so many windows, and its axes in inches from the lower left corner."""
    width = columns * (_SIDE + _GAP) - _GAP + 2 * _EDGE
    height = rows * (_SIDE + _GAP) - _GAP + _HEAD + 2 * _EDGE
    figure = Figure(figsize=(width, height))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    axis.set_autoscale_on(False)
    axis.set_xlim(0, width)
    axis.set_ylim(0, height)
    return figure, axis


def window(axis: Axes, above: int, column: int, extent: Extent) -> Window:
    """A window on a `sheet`, by the number of rows that lie below it and its column."""
    return Window(axis, _EDGE + column * (_SIDE + _GAP), _EDGE + above * (_SIDE + _GAP), extent)
