"""The tables and the figure of docs/scaling.md, from scaling.py's measurements and the model of cluster.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cluster import FLOPS, IMAGE, KEEP, PARAMETERS, Cluster, on_cluster

GPUS = (8, 64, 512)
SUPER_BATCHES = (2048, 32768)
#: Examples of a whole training on ImageNet-64: 2^31, as EDM2 trains its XS.
IMAGENET = 2.0**31
BILLION = 1e9
#: What the paper's 7.85 s an iteration of 2,048 examples of XS on 2 GPUs come to (docs/method.md#published-images).
PUBLISHED_RATE = 2048 * 3 * FLOPS["xs"] / (2 * 7.85)
ARMS = ("baseline", "ajest")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))


def length(seconds: float) -> str:
    days = seconds / 86400
    return f"{days:,.1f} days" if days >= 1 else f"{seconds / 3600:.1f} h"


def checks(rows: Mapping[str, Sequence[Sequence[str]]]) -> str:
    """What was predicted and what was measured, by task."""
    heads = ["task", "arm", "processes", "predicted, ms", "measured, ms", "ratio"]
    return table(heads, [[name, *row] for name, part in rows.items() for row in part])


def steps() -> str:
    """Where the time of a step of XS goes."""
    rows = []
    for size in SUPER_BATCHES:
        for arm in ARMS:
            for gpus in GPUS:
                p = on_cluster(gpus, size, arm)
                parts = (p.compute, p.scoring, p.gradients, p.scores, p.drawing, p.waiting)
                shares = (f"{part / p.total:.0%}" for part in parts)
                rows.append([f"{size:,}", arm, str(gpus), f"{p.total * 1e3:.0f}", *shares])
    heads = ["super-batch", "arm", "GPUs", "ms a step"]
    return table([*heads, "update", "scoring", "gradients", "scores", "drawing", "waiting"], rows)


def trainings() -> str:
    """How long whole trainings take."""
    rows = []
    for size in SUPER_BATCHES:
        for gpus in GPUS:
            whole = [on_cluster(gpus, size, arm).total * IMAGENET / size for arm in ARMS]
            row = [f"{size:,}", str(gpus), *map(length, whole), f"{whole[1] / whole[0]:.2f}"]
            for own in (False, True):
                each = (on_cluster(gpus, size, arm, own_part=own, on_disk=True).total for arm in ARMS)
                row += [length(t * BILLION / size) for t in each]
            rows.append(row)
    heads = ["super-batch", "GPUs", "ImageNet-64: baseline", "AJEST", "AJEST / baseline"]
    heads += ["10^9 images, all draw all: baseline", "AJEST", "10^9 images, each its part: baseline", "AJEST"]
    return table(heads, rows)


def traffic() -> str:
    """What selection sends, and its share of a step."""
    rows = []
    for size in SUPER_BATCHES:
        for gpus in GPUS:
            both = [on_cluster(gpus, size, "ajest", own_part=own, on_disk=True) for own in (False, True)]
            sent = (f"{4 * size / 1024:,.0f} KiB", f"{KEEP * size * 8 * IMAGE / 2**20:,.0f} MiB")
            row = [f"{size:,}", str(gpus), *sent]
            row += [f"{p.scores / p.total:.2%}" for p in both]
            rows.append([*row, *(f"{p.drawing / p.total:.0%}" for p in both)])
    heads = ["super-batch", "GPUs", "scores", "kept examples", "time for scores", "for scores and kept examples"]
    return table([*heads, "drawing: all draw all", "each its part"], rows)


def rates() -> str:
    """The same step where GPUs reach another share of their peak."""
    rows = []
    for rate in (PUBLISHED_RATE, 200e12, 350e12, 500e12):
        for gpus in GPUS:
            a, b = (on_cluster(gpus, 2048, arm, Cluster(rate=rate)).total for arm in ARMS)
            rows.append([f"{rate / 1e12:.0f}", str(gpus), f"{a * 1e3:.0f}", f"{b * 1e3:.0f}", f"{b / a:.2f}"])
    return table(["TFLOP/s of a GPU", "GPUs", "baseline, ms", "AJEST, ms", "AJEST / baseline"], rows)


def facts() -> str:
    sizes = (f"{n.upper()}: {FLOPS[n] / 1e9:.1f} GFLOP a pass, {PARAMETERS[n] / 1e6:.1f} M parameters" for n in FLOPS)
    return "; ".join(sizes)


PARTS = {
    "compute": ("update", "#3b6ea8"),
    "scoring": ("scoring", "#7fb2dd"),
    "gradients": ("gradients, as far as they are waited for", "#e08a1e"),
    "scores": ("scores sent", "#b23a48"),
    "drawing": ("drawing, all by every process", "#6a994e"),
    "waiting": ("waiting for the slowest", "#bbbbbb"),
}


def figure(path: Path) -> None:
    """Shares of a step over the number of GPUs."""
    drawn = Figure(figsize=(10, 4.4), layout="constrained")
    counts = [8, 16, 32, 64, 128, 256, 512]
    axes = drawn.subplots(1, 2, sharey=True)
    for axis, size in zip(axes, SUPER_BATCHES, strict=True):
        for arm, shift in zip(ARMS, (-0.2, 0.2), strict=True):
            parts, places = [on_cluster(g, size, arm) for g in counts], np.arange(len(counts)) + shift
            whole, bottom = np.array([p.total for p in parts]), np.zeros(len(counts))
            for name, (label, colour) in PARTS.items():
                share = np.array([getattr(p, name) for p in parts]) / whole
                axis.bar(places, share, 0.36, bottom=bottom, color=colour, label=label if shift < 0 else None)
                bottom += share
            for place, seconds in zip(places, whole, strict=True):
                text = f"{seconds * 1e3:,.0f}"
                axis.text(place, 1.01, text, ha="center", va="bottom", fontsize=6.5, rotation=60)
        axis.set_xticks(range(len(counts)), [str(c) for c in counts])
        title = f"super-batch {size:,}: baseline left, AJEST right; above, ms a step"
        axis.set_title(title, fontsize=9, loc="left", pad=22)
        axis.set_xlabel("GPUs")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("share of a step")
    legend = axes[0].get_legend_handles_labels()
    drawn.legend(*legend, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    drawn.savefig(path, dpi=110)
