"""Numbers in words. Needs neither a bench nor torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ajest.tasks.base import Metric


def number(value: float, metric: Metric | None = None) -> str:
    """A number for people, in the metric's scale, with the digits that its size deserves; a dash for NaN."""
    value *= metric.scale if metric else 1
    if math.isnan(value):
        return "-"
    size = abs(value)
    if 0 < size < 1e-3:
        return f"{value:.2g}"
    digits = 4 if 0 < size < 0.1 else 3 if size < 10 else 2 if size < 100 else 1
    return f"{value:.{digits}f}"


def p_value(p: float) -> str:
    """A p value for people; NaN is one that could not be tested."""
    if math.isnan(p):
        return "not testable"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def interval(low: float, high: float, seeds: int, metric: Metric | None = None) -> str:
    """The interval of a difference, or why there is none.

    Args:
        low, high: its ends; NaN where it is not known.
        seeds: number of pairs it rests on.
        metric: what it is of.
    """
    if math.isnan(low):
        return f"no interval: {'one seed' if seeds == 1 else 'the same on every seed'}"
    return f"{number(low, metric)} to {number(high, metric)}"
