"""What a step of each kind costs: all kinds timed in turns, so that a machine's drift hits all alike."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from ..arms import ARMS
from ..checkpoint import read_sealed, write_sealed
from ..runs import make_trainer
from ..training import Trainer
from .plan import BenchConfig, Costs, run_folder

WARMUP_ROUNDS = 4


def calibrate(root: Path, config: BenchConfig, device: torch.device | str = "cpu") -> Costs:
    """Median seconds of each phase of each kind of step, and of the "guide"'s; kept in calibration.json and not
    measured again."""
    known = calibrated_costs(root)
    if known:
        return known
    costs = measure(root, config, device)
    threads = torch.get_num_threads()
    write_sealed(root / "calibration.json", {"costs": costs, "rounds": config.calibration_rounds, "threads": threads})
    return costs


def calibrated_costs(root: Path) -> Costs:
    """What `calibrate` found, {} before that."""
    path = root / "calibration.json"
    return read_sealed(path)["costs"] if path.exists() else {}


def calibrated_threads(root: Path) -> int | None:
    """Threads that a bench was timed with, None before that."""
    path = root / "calibration.json"
    return int(read_sealed(path)["threads"]) if path.exists() else None


def measure(root: Path, config: BenchConfig, device: torch.device | str = "cpu") -> Costs:
    """`calibrate` without its file. Among the kinds is always the "uniform" step, which others are held against."""
    trainers: dict[str, Trainer] = {}
    for arm in (ARMS["baseline"], *config.arms):
        for kind in arm.kinds():
            if kind not in trainers:
                folder = run_folder(root, arm.name, config.seeds[0])
                trainers[kind] = make_trainer(folder, config.run(arm, config.seeds[0]), device)
                if kind.startswith("recall"):  # looking up in an empty memory takes less time
                    trainers[kind].step(arm.kinds()[0])
    trainers["guide"] = make_trainer(root / "guide", config.guide(), device)
    times: dict[str, dict[str, list[float]]] = {kind: defaultdict(list) for kind in trainers}
    for turn in range(WARMUP_ROUNDS + config.calibration_rounds):
        for kind, trainer in trainers.items():
            step = trainer.step(None if kind == "guide" else kind)
            if turn >= WARMUP_ROUNDS:
                for phase, seconds in step.seconds.items():
                    times[kind][phase].append(seconds)
    return {kind: {p: float(np.median(v)) for p, v in phases.items()} for kind, phases in times.items()}
