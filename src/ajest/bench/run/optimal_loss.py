"""The least loss that any denoiser can have on a bench's task: computed by a run, read by a report."""

from __future__ import annotations

from pathlib import Path

import torch

from ajest.bench.plan.config import BenchConfig
from ajest.diffusion.optimal import OptimalLoss
from ajest.errors import Corrupt
from ajest.storage import checkpoint
from ajest.storage.config import from_json, to_json
from ajest.tasks.base import Measurement


def measure_optimal_loss(root: Path, config: BenchConfig, device: torch.device | str = "cpu") -> None:
    """Compute the least loss by noise level and keep it in a bench's folder, unless it is there.

    Args:
        root: of the bench.
        config: of the bench.
        device: where to compute.
    """
    if _path(root).exists():
        return
    found = config.task.optimal_loss(Measurement(config.n_final, config.seeds[0], root / "truth", device))
    checkpoint.write_sealed(_path(root), {"optimal_loss": None if found is None else to_json(found)})


def optimal_loss(root: Path) -> OptimalLoss | None:
    """The least loss, as it was computed; None where it was not, or the task does not know it."""
    try:
        found = checkpoint.read_sealed(_path(root))["optimal_loss"]
    except Corrupt:
        return None
    return None if found is None else from_json(OptimalLoss, found, str(_path(root)))


def _path(root: Path) -> Path:
    return root / "truth" / "optimal-loss.json"
