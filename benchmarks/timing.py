"""Timing in turns, so that a machine's drift hits all contestants alike, and the tables that say what it found."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable

import torch

#: What was timed and its yardstick, ours, the yardstick's, their ratio.
Row = tuple[str, str, str, str]


def timed(contestants: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each, timed in turns after two warm-up rounds."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 2):
        for name, work in contestants.items():
            start = time.perf_counter()
            work()
            settle(device)
            if turn >= 2:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in times.items()}


def settle(device: str) -> None:
    """Wait until the device has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


def matrix_product(dtype: torch.dtype, device: str, side: int) -> tuple[Callable[[], object], float]:
    """(a large dense matrix product, its floating-point operations): the rate that a machine can reach."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return lambda: a @ b, 2.0 * side**3


def machine(device: str) -> str:
    """The machine and what runs on it."""
    card = f", {torch.cuda.get_device_name()}" if device == "cuda" else ""
    cores = f"{os.cpu_count()} cores, {platform.machine()}{card}"
    return f"{cores}; Python {platform.python_version()}, torch {torch.__version__}"


def print_tables(parts: Iterable[Callable[[str, int], list[Row]]], device: str, rounds: int) -> None:
    """The machine, then the rows of each part as soon as they are known."""
    print(f"{machine(device)}\n")
    print("| what; yardstick | ours | yardstick | ratio |\n|---|---|---|---|", flush=True)
    for part in parts:
        for row in part(device, rounds):
            print("| " + " | ".join(row) + " |", flush=True)
