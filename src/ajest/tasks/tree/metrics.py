"""Quality of samples of the tree, measured against the exact distribution (docs/method.md#tree-metrics)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ajest.diffusion.batch import Batch
from ajest.diffusion.denoising import Denoiser, per_example_loss
from ajest.selection.normalisation import ranks
from ajest.selection.strata import strata_of

from .distribution import ORIGIN, PER_BRANCH, TreeDistribution

THRESHOLD = -2.12  # log-density above which a sample counts as on the tree
#: Noise level of that density: the sampler's last one. Exact samples then reach a classification of 0.9944.
DENSITY_SIGMA = 0.002
GRID_CELLS, GRID_SIDE = 101, 3.0
OUTER_DEPTH = 5
NOISE_LEVELS, RARE = 16, 0.1
DIRECTIONS = 64


def hits(distribution: TreeDistribution, x: Tensor) -> Tensor:
    """Which samples lie on the tree, bool of shape (n,)."""
    return distribution.log_density(x, DENSITY_SIGMA) >= THRESHOLD


def mandala_cells(x: np.ndarray, hit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(hits, misses) per cell of the grid around the tree's origin, counts of shape (101, 101) each.

    Args:
        x: samples, shape (n, 2).
        hit: which of them lie on the tree, bool of shape (n,).
    """
    cell = np.floor((x.astype(np.float64) - ORIGIN + GRID_SIDE / 2) / GRID_SIDE * GRID_CELLS)
    inside = ((cell >= 0) & (cell < GRID_CELLS)).all(1)
    flat = (cell[:, 0] * GRID_CELLS + cell[:, 1])[inside].astype(np.int64)
    shape = (GRID_CELLS, GRID_CELLS)
    counts = [np.bincount(flat[mask[inside]], minlength=GRID_CELLS**2).reshape(shape) for mask in (hit, ~hit)]
    return counts[0], counts[1]


def mandala(x: np.ndarray, hit: np.ndarray) -> float:
    """Cells with at least one hit over those plus cells with misses only. Falls as n grows: name n with it."""
    good, bad = mandala_cells(x, hit)
    occupied = np.count_nonzero(good + bad)
    return float(np.count_nonzero(good) / occupied) if occupied else 0.0


def energy_distance(x: np.ndarray, y: np.ndarray, directions: int = DIRECTIONS) -> float:
    """`2 E|X - Y| - E|X - X'| - E|Y - Y'|` between two samples in the plane, without bias, in float64.

    In the plane |v| is pi / 2 times the mean of |v . u| over directions u, so the distance is the mean of
    one-dimensional ones, each `2 int (F - G)^2` by sorting: O(n log n), and no difference of large numbers.
    Pairs of a point with itself are then taken out (the U-statistic): at n = 16,384 their 0 distances add 7e-5,
    more than a well-trained model's. The result can be slightly negative.

    Args:
        x, y: shapes (n, 2) and (m, 2).
        directions: evenly spaced ones over half a turn.
    """
    n, m = len(x), len(y)
    rank_x, rank_y = 2 * np.arange(n) - n + 1, 2 * np.arange(m) - m + 1
    angles = np.pi * (np.arange(directions) + 0.5) / directions
    total = 0.0
    for u in np.stack([np.cos(angles), np.sin(angles)], 1):
        points = np.concatenate([x.astype(np.float64) @ u, y.astype(np.float64) @ u])
        order = np.argsort(points, kind="stable")
        points, from_x = points[order], order < n
        gap = np.cumsum(np.where(from_x, 1 / n, -1 / m))[:-1]
        biased = 2 * float(np.sum(gap**2 * np.diff(points)))
        mean_xx = 2 * float(rank_x @ points[from_x]) / n**2
        mean_yy = 2 * float(rank_y @ points[~from_x]) / m**2
        total += biased - mean_xx / (n - 1) - mean_yy / (m - 1)
    return total / directions * np.pi / 2


def branch_shares(distribution: TreeDistribution, x: Tensor) -> np.ndarray:
    """Share of the samples' mass on each branch (posterior, so that its mean over exact samples is exact)."""
    parts = [distribution.responsibilities(p, DENSITY_SIGMA).sum(0) for p in x.split(16384)]
    return torch.stack(parts).double().sum(0).cpu().numpy() / len(x)


def branch_metrics(distribution: TreeDistribution, shares: np.ndarray) -> dict[str, float]:
    """Coverage from the shares of the mass: total-variation distances by branch and by depth, branches reached.

    `branch tv` is half the summed absolute difference to the true shares, `depth tv` the same after summing over
    the branches of a depth, `branches reached` the share of branches that hold at least half of their mass.
    """
    true = distribution.branch_mass
    gap = shares - true
    depth_gap = [gap[distribution.depth == k].sum() for k in np.unique(distribution.depth)]
    return {
        "branch_tv": float(0.5 * np.abs(gap).sum()),
        "depth_tv": float(0.5 * np.abs(depth_gap).sum()),
        "branches_reached": float((shares >= 0.5 * true).mean()),
    }


@torch.no_grad()
def answers(denoiser: Denoiser, batch: Batch, micro_batch: int) -> Tensor:
    """What a denoiser makes of noised examples, so many at a time."""
    return torch.cat([denoiser(p.x, p.sigma, p.label) for p in batch.split(micro_batch)])


def losses(distribution: TreeDistribution, estimate: Tensor, batch: Batch) -> dict[str, float]:
    """Errors of the score at noised examples, from a denoiser's answers.

    `loss` is the mean loss, `outer_loss` that of the examples from outer branches (components of depth >= 5),
    `rare_loss` that of rare places: the tenth of least density at each noise level. `rare_bias` is how much too long or
    too short the score is there on average, along the exact one and as a share of it, without its sign.
    """
    loss = per_example_loss(estimate, batch).double()
    depth = torch.as_tensor(distribution.depth, device=batch.id.device)[batch.id // PER_BRANCH]
    levels = strata_of(batch.sigma, min(NOISE_LEVELS, len(batch)))
    place, size = ranks(distribution.log_density(batch.x, batch.sigma), levels)
    rare = place < RARE * size
    assert batch.target is not None, "per_example_loss has seen to it"
    exact = (batch.target - batch.x)[rare].double()  # sigma^2 times the score
    length = ((estimate - batch.x)[rare] * exact).sum(1) / exact.square().sum(1)
    return {
        "loss": loss.mean().item(),
        "outer_loss": loss[depth >= OUTER_DEPTH].mean().item(),
        "rare_loss": loss[rare].mean().item(),
        "rare_bias": abs(length.mean().item() - 1),
    }
