"""What real data reach on the metrics of a bench: measured by a run, read by a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ajest.bench.plan.config import BenchConfig
from ajest.errors import Corrupt
from ajest.storage import checkpoint
from ajest.tasks.base import Measurement


def measure_real_data(root: Path, config: BenchConfig, n: int, device: torch.device | str = "cpu") -> None:
    """Measure n real examples and keep that in a bench's folder, unless they were judged by the same weights before.

    Args:
        root: of the bench.
        config: of the bench.
        n: real examples.
        device: where to compute.

    Raises:
        UserError: the data are not where they were.
    """
    task = config.task
    judges = list(task.judges(device))
    if _kept(root, n).get("judges") == judges:
        return
    metrics = task.real_data_reference(Measurement(n, config.seeds[0], root / "truth", device))
    checkpoint.write_sealed(_path(root, n), {"judges": judges, "metrics": metrics})


def real_data_reference(root: Path, n: int) -> dict[str, float] | None:
    """The metrics of n real examples, as they were measured; None where they were not, {} of a task that has none."""
    return _kept(root, n).get("metrics")


def _kept(root: Path, n: int) -> dict[str, Any]:
    try:
        return checkpoint.read_sealed(_path(root, n))
    except Corrupt:
        return {}


def _path(root: Path, n: int) -> Path:
    return root / "truth" / f"real-data-reference-n{n}.json"
