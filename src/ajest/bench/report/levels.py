"""The figure of losses by noise level."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ajest.bench.read.by_level import LevelCurves

from .figures import COLOURS, MARKERS, clean


def loss_by_level(curves: LevelCurves, baseline: str) -> Figure:
    """On the left the least loss, with its bounds, and the baseline's; on the right the excess of every arm, with bands
    of one standard error. Some excess is above 0 and finite."""
    figure = Figure(figsize=(10.6, 3.9), layout="constrained")
    whole, excess = figure.subplots(1, 2)
    optimal = curves.optimal
    least = np.array(optimal.value)
    whole.plot(curves.sigma, least, color="#7F7F7F", lw=2.5, label="optimal" if optimal.exact else "optimal, estimated")
    whole.fill_between(curves.sigma, optimal.low, optimal.high, color="#7F7F7F", alpha=0.2, lw=0)
    arms = list(curves.excess)
    for i, arm in enumerate(arms):
        values, error = np.array(curves.excess[arm]), np.nan_to_num(np.array(curves.error[arm]))
        style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "ms": 4, "lw": 1.3}
        if arm == (baseline if baseline in arms else arms[0]):
            whole.plot(curves.sigma, least + values, label=arm, **style)
            seen = (least + values)[np.isfinite(least + values)]
            whole.set_ylim(0, 1.15 * float(seen.max()) if seen.size else 1.0)
        shown = np.where((values > 0) & np.isfinite(values), values, np.nan)
        excess.plot(curves.sigma, shown, label=arm, **style)
        excess.fill_between(curves.sigma, np.maximum(values - error, shown * 1e-3), values + error,
                            color=style["color"], alpha=0.13, lw=0)  # fmt: skip
    excess.set_yscale("log")
    for axis, title in ((whole, "loss"), (excess, "excess loss")):
        axis.set_xscale("log")
        axis.set_xlabel("noise level σ")
        axis.set_title(f"{title} by noise level", fontsize=11, loc="left")
        axis.legend(fontsize=8, frameon=False)
        clean(axis)
    return figure
