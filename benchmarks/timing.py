"""Timing in turns, so that a machine's drift hits all contestants alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def timed(contestants: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each, timed in turns after two warm-up rounds."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 2):
        for name, work in contestants.items():
            start = time.perf_counter()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn >= 2:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in times.items()}


def matrix_product(dtype: torch.dtype, device: str, side: int) -> tuple[Callable[[], object], float]:
    """(a large dense matrix product, its floating-point operations): the rate that a machine can reach."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return lambda: a @ b, 2.0 * side**3
