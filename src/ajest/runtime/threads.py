"""Cores, threads and memory of this process."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from math import inf
from pathlib import Path

import torch

from .launcher import place


def cores(root: Path = Path("/")) -> int:
    """How many cores this process may use: of those that it is bound to, as many as its control groups grant.

    Args:
        root: where `proc` and `sys` lie.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(bound, _quota(root))))


def _quota(root: Path) -> float:
    """Cores that control groups of either version grant: the least from the process's own group up to the top."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return inf
    granted = [inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        group = top / path.lstrip("/")  # in a container it may not be there: its own group is the top then
        granted += [_granted(part) for part in (group, *group.parents) if part.is_relative_to(top)]
    return min(granted)


def _granted(group: Path) -> float:
    """Cores that one control group grants."""
    with suppress(OSError, ValueError):  # "max" is no number
        quota, period = (group / "cpu.max").read_text().split()
        return float(quota) / float(period)
    with suppress(OSError, ValueError):
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return float(quota) / float(period) if float(quota) > 0 else inf
    return inf


def limited(threads: int) -> int:
    """So many threads, or fewer where OMP_NUM_THREADS says so."""
    wish = os.environ.get("OMP_NUM_THREADS", "")
    return min(threads, int(wish)) if wish.isdecimal() and int(wish) else threads


def configure_threads(threads: int | None = None) -> None:
    """Compute with this many threads (None: this process's share of the cores, or as many as OMP_NUM_THREADS says), and
    keep freed memory."""
    if threads is None:
        threads = limited(max(1, cores() // place().local_world))
    torch.set_num_threads(threads)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Let the C library keep the memory of freed tensors for the next ones; call it once, before training on a CPU.

    By default every large temporary is given back to the kernel and faulted in again, page by page: half of the time of
    a step on some machines. Up to 1 GiB stays with the process. Where there is no mallopt(3), which is beyond Linux
    with glibc, nothing is done.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        mmap_threshold, trim_threshold = -3, -1
        library.mallopt(mmap_threshold, 1 << 28)
        library.mallopt(trim_threshold, 1 << 30)
