"""A simulation of a training step on many processes, and what it says of clusters of GPUs: the work of scaling.py."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ajest.tasks.images.architecture import SIZES

KEEP = 0.2
STEPS = 400  # simulated, of which the median is taken


@dataclass(frozen=True)
class Calibration:
    """What a simulation knows of a task on this machine.

    Attributes:
        phases: seconds of each phase, (fixed, an example), by one process alone.
        super_batch: of the recipe.
        slower: by number of processes, seconds of the probe over those of one process, process by process and round by
            round: how much they are in each other's way, and how unevenly.
        messages: seconds of sending all "scores", of averaging "gradients", and of comparing "times", by number of
            processes.
    """

    phases: dict[str, tuple[float, float]]
    super_batch: int
    slower: dict[int, np.ndarray]
    messages: dict[int, dict[str, float]]

    @staticmethod
    def of(measured: Mapping[str, Any]) -> Calibration:
        alone = statistics.median(t for row in measured["1"]["probe"] for t in row)
        counts = sorted(int(key) for key in measured if key.isdigit())
        return Calibration(
            {phase: tuple(line) for phase, line in measured["phases"].items()},
            measured["super_batch"],
            {p: np.array(measured[str(p)]["probe"]) / alone for p in counts},
            {p: measured[str(p)]["messages"] for p in counts},
        )


def step(known: Calibration, processes: int, arm: str, chance: np.random.Generator) -> float:
    """Seconds of one simulated step: every process goes at its own pace, and all wait at each message."""
    slower, sent = known.slower[processes], known.messages[processes]
    size = known.super_batch
    kept = max(1, round(KEEP * size)) if arm == "ajest" else size
    if processes == 1:
        sent = dict.fromkeys(sent, 0.0)

    def work(*phases: str, examples: float = 0) -> np.ndarray:
        """Seconds of each process for its part of the examples."""
        pace = slower[chance.integers(len(slower))]
        return pace * sum(fixed + each * examples / processes for fixed, each in (known.phases[p] for p in phases))

    clock = work("draw")
    if arm == "ajest":
        clock = clock + work("target", "reference scoring", examples=size)
        clock = np.full(processes, clock.max() + sent["scores"])
        clock = clock + work("learner scoring", examples=size)
        clock = np.full(processes, clock.max() + sent["scores"])
        clock = clock + work("select") + work("update", examples=kept)
    else:
        clock = clock + work("target", "update", examples=size)
    clock = np.full(processes, clock.max() + sent["gradients"])
    return float((clock + work("ema")).max() + sent["times"])


def predicted(known: Calibration, measured: Mapping[str, Any], counts: tuple[int, ...]) -> list[list[str]]:
    """Rows of the table of predictions: arm, processes, predicted, measured, their ratio."""
    chance = np.random.default_rng(0)
    rows = []
    for arm in ("baseline", "ajest"):
        for processes in counts:
            ours = statistics.median(step(known, processes, arm, chance) for _ in range(STEPS))
            theirs = measured[str(processes)]["steps"][arm]
            rows.append([arm, str(processes), f"{ours * 1e3:.1f}", f"{theirs * 1e3:.1f}", f"{ours / theirs:.2f}"])
    return rows


@dataclass(frozen=True)
class Cluster:
    """What is assumed of GPUs and their network; nothing of this was measured.

    Attributes:
        rate: network operations a second of a GPU that are reached, at many examples: a third of an H100's peak.
        least: seconds of a pass however few its examples: launches of kernels.
        near, far: bytes a second of an all-reduce within a machine and between machines, each GPU.
        latency: seconds of a message to start, times log2 of the number of GPUs.
        per_machine: GPUs.
        host: bytes a second at which all processes of a machine together gather images from memory.
        disk: bytes a second of random reads of a machine, where the data set does not fit into memory.
        draw: seconds an example to make its noise on the GPU.
        uneven: relative standard deviation of a GPU's pace.
    """

    rate: float = 350e12
    least: float = 0.006
    near: float = 300e9
    far: float = 40e9
    latency: float = 8e-6
    per_machine: int = 8
    host: float = 40e9
    disk: float = 5e9
    draw: float = 12288 * 12 / 2.0e12
    uneven: float = 0.02


IMAGE = 3 * 64 * 64  # bytes as uint8; as a noised example four times as many


@dataclass(frozen=True)
class Parts:
    """Seconds of the parts of a step on a cluster."""

    compute: float
    scoring: float
    gradients: float
    scores: float
    drawing: float
    waiting: float

    @property
    def total(self) -> float:
        return self.compute + self.scoring + self.gradients + self.scores + self.drawing + self.waiting


def on_cluster(
    gpus: int, size: int, arm: str, cluster: Cluster = Cluster(), own_part: bool = False, on_disk: bool = False
) -> Parts:
    """A step of XS with guide XXS at 64x64.

    Args:
        gpus: how many.
        size: of the super-batch.
        arm: "baseline" trains on all of it, "ajest" scores all and trains on a fifth.
        cluster: what is assumed.
        own_part: each process draws its own part alone, and kept examples move to where they are trained on; otherwise
            every process draws the whole super-batch, as the code does.
        on_disk: images come from the disk and not from memory.
    """
    learner, guide = (FLOPS[n] for n in ("xs", "xxs"))
    kept = round(KEEP * size) if arm == "ajest" else size

    def passes(flops: float, examples: float, times: int = 1) -> float:
        return max(cluster.least * times, math.ceil(examples / gpus) * flops * times / cluster.rate)

    compute = passes(learner, kept, 3)
    scoring = passes(learner, size) + passes(guide, size) if arm == "ajest" else 0.0
    bandwidth = cluster.near if gpus <= cluster.per_machine else cluster.far
    start = cluster.latency * math.log2(max(gpus, 2))
    # The all-reduce of gradients runs beside the backward pass, which is two thirds of the update.
    reduce = 2 * (gpus - 1) / gpus * 4 * PARAMETERS["xs"] / bandwidth + start
    gradients = max(0.0, reduce - 2 / 3 * compute)
    scores = 2 * (start + 4 * size / bandwidth) if arm == "ajest" else 0.0
    source = cluster.disk if on_disk else cluster.host
    machine = min(gpus, cluster.per_machine)
    drawn = size / gpus if own_part else size
    drawing = machine * drawn * IMAGE / source + drawn * cluster.draw
    if own_part and arm == "ajest":
        scores += start + kept / gpus * (1 - 1 / gpus) * 8 * IMAGE / bandwidth  # noised example and its target
    waiting = cluster.uneven * math.sqrt(2 * math.log(max(gpus, 2))) * (compute + scoring)
    return Parts(compute, scoring, gradients, scores, drawing, waiting)


def _of(name: str) -> tuple[float, int]:
    network = SIZES[name].denoiser(64, 1000)
    return float(network.flops()), sum(p.numel() for p in network.parameters())


FLOPS, PARAMETERS = ({n: _of(n)[k] for n in ("xs", "xxs")} for k in range(2))
