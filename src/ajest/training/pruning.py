"""Pruning before training: a part of a data set, by clusters of its examples or by how hard a trained network finds
them (docs/method.md#offline)."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from ajest.diffusion.batch import Source
from ajest.diffusion.noising.ingredients import has_ingredients
from ajest.errors import check
from ajest.runtime.seeding import generator
from ajest.selection.keep_list import can_restrict
from ajest.selection.scoring import score
from ajest.tasks.base import Task

from .networks import load_network
from .run_folder import read_config

Prefer = Literal["hard", "easy"]
PREFER: tuple[Prefer, ...] = get_args(Prefer)

FIELDS = 8  # images are clustered by the means of 8 x 8 fields
DRAWS = 8  # of each example at least, by which its difficulty is known
LEVELS = 16  # equally likely ranges of the noise level, within which losses are compared
_CHUNK = 1024
_ROUNDS = 100  # of k-means at most


@dataclass(frozen=True)
class Part:
    """What is kept of a data set.

    Attributes:
        names: of all examples by number.
        score: of each, float64, shape (N,): the distance to its cluster's centre, or its difficulty.
        cluster: of each, int64, shape (N,).
        rows: numbers of those that are kept, rising.
    """

    names: Sequence[str]
    score: Tensor
    cluster: Tensor
    rows: Tensor

    def as_csv(self) -> str:
        """A keep-list: a line for each example that is kept, which begins with its name."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["id", "cluster", "score"])
        for row in self.rows.tolist():
            writer.writerow([self.names[row], int(self.cluster[row]), f"{self.score[row]:.6g}"])
        return text.getvalue()


def by_clusters(task: Task, keep: float, prefer: Prefer, clusters: int = 64, seed: int = 0) -> Part:
    """A share of each cluster of a task's examples: those farthest from its centre, or those nearest (arXiv
    2206.14486). Clusters are those of k-means on coordinates, or on the means of fields of images.

    Args:
        task: whose examples.
        keep: the share that is kept.
        prefer: "hard" keeps the farthest, "easy" the nearest.
        clusters: how many there are.
        seed: of the first centres.

    Raises:
        UserError: fewer examples than clusters, or a task without a data set.
    """
    names, features = task.example_names(), clean_features(task)
    check(clusters <= len(features), f"{clusters} clusters are more than there are examples, {len(features):,}")
    centres, cluster = kmeans(features, clusters, generator(seed, "clusters"))
    return _kept(names, (features - centres[cluster]).norm(dim=1), cluster, keep, prefer)


def by_difficulty(run: Path, keep: float, prefer: Prefer, device: torch.device | str = "cpu") -> Part:
    """The examples of highest or lowest loss under the averaged network of a run. A loss counts in units of the mean
    at like noise levels; each example is noised at least `DRAWS` times.

    Args:
        run: its folder.
        keep: the share that is kept.
        prefer: "hard" keeps the highest losses, "easy" the lowest.
        device: where losses are computed.

    Raises:
        UserError: the run has no snapshot, or learns a task without a data set.
    """
    task, (network, _) = read_config(run).task, load_network(run, device=device)
    names, ids, sigmas, losses = task.example_names(), list[Tensor](), list[Tensor](), list[Tensor]()

    def measure(part: Source, count: int, stream: torch.Generator) -> Tensor:
        batch = part.complete(part.draw(count, stream))
        losses.append(score(network, batch).cpu().double())
        ids.append(batch.id.cpu())
        sigmas.append(batch.sigma.cpu())
        return ids[-1]

    _until_seen(task, device, DRAWS, measure)
    found = relative_losses(torch.cat(ids), torch.cat(sigmas), torch.cat(losses), len(names))
    return _kept(names, found, torch.zeros(len(names), dtype=torch.int64), keep, prefer)


def relative_losses(ids: Tensor, sigma: Tensor, losses: Tensor, n: int) -> Tensor:
    """The mean loss of each of n examples in units of the mean at like noise levels, float64, shape (n,).

    Args:
        ids: which example was noised, int64, shape (m,); each of them once at least.
        sigma, losses: at which level, and its loss, shape (m,).
        n: how many examples there are.
    """
    stratum = sigma.argsort().argsort() * LEVELS // len(sigma)
    usual = torch.zeros(LEVELS, dtype=torch.float64).index_add_(0, stratum, losses.double())
    relative = losses.double() / (usual / stratum.bincount(minlength=LEVELS))[stratum]
    return torch.zeros(n, dtype=torch.float64).index_add_(0, ids, relative) / ids.bincount(minlength=n)


def clean_features(task: Task) -> Tensor:
    """What a task's clean examples are clustered by, by number, float64, shape (N, d)."""
    features: list[tuple[Tensor, Tensor]] = []

    def take(part: Source, count: int, stream: torch.Generator) -> Tensor:
        check(has_ingredients(part), "clusters are made of clean examples: the task's source must hand out ingredients")
        assert has_ingredients(part)
        found = part.ingredients(count, stream)
        x = found.x0
        if x.ndim == 4 and min(x.shape[2:]) > FIELDS:
            x = torch.nn.functional.adaptive_avg_pool2d(x, FIELDS)
        features.append((found.id, x.flatten(1).double()))
        return found.id

    _until_seen(task, "cpu", 1, take)
    table = torch.zeros(len(task.example_names()), features[0][1].shape[1], dtype=torch.float64)
    for ids, values in features:
        table[ids] = values
    return table


def kmeans(x: Tensor, clusters: int, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """(centres, shape (k, d); the nearest of each row, int64, shape (N,)): Lloyd's iteration from centres that were
    drawn far apart (k-means++: Arthur and Vassilvitskii 2007).

    Args:
        x: rows, float64, shape (N, d).
        clusters: k.
        stream: of the first centres.
    """
    first = torch.randint(len(x), (1,), generator=stream)
    centres, least = x[first], (x - x[first]).square().sum(1)
    for _ in range(clusters - 1):
        apart = least if bool(least.sum() > 0) else torch.ones_like(least)  # fewer different rows than clusters
        row = x[_drawn(apart, stream)][None]
        centres, least = torch.cat([centres, row]), torch.minimum(least, (x - row).square().sum(1))
    nearest = torch.full((len(x),), -1)
    for _ in range(_ROUNDS):
        before, nearest = nearest, torch.cat([torch.cdist(part, centres).argmin(1) for part in x.split(_CHUNK)])
        if torch.equal(before, nearest):
            break
        count = nearest.bincount(minlength=clusters)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, nearest, x)
        centres = torch.where(count > 0, sums / count.clamp_min(1), centres)
    return centres, nearest


def _drawn(weight: Tensor, stream: torch.Generator) -> int:
    """A row in proportion to weights, of which there may be more than torch.multinomial takes."""
    up_to = weight.cumsum(0)
    at = torch.rand((), generator=stream, dtype=torch.float64) * up_to[-1]
    return min(int(torch.searchsorted(up_to, at, right=True)), len(weight) - 1)


def _kept(names: Sequence[str], values: Tensor, cluster: Tensor, keep: float, prefer: Prefer) -> Part:
    """A share of each cluster, by value; of equals the first ones."""
    rows = []
    for one in cluster.unique().tolist():
        mine = (cluster == one).nonzero()[:, 0]
        order = values[mine].argsort(descending=prefer == "hard", stable=True)
        rows.append(mine[order[: max(1, round(keep * len(mine)))]])
    return Part(names, values, cluster, torch.cat(rows).sort().values)


def _until_seen(
    task: Task, device: torch.device | str, times: int, take: Callable[[Source, int, torch.Generator], Tensor]
) -> None:
    """Draw from a task until each example was drawn so often: sources draw with replacement, and hand out none by its
    number.

    Args:
        task: whose source.
        device: of the source.
        times: how often.
        take: draws so many from the source and tells their numbers.

    Raises:
        UserError: the source cannot leave out examples, or these have no names.
    """
    source, n = task.source(device), len(task.example_names())
    check(
        can_restrict(source) and n > 0,
        f"the task {task.name} has no data set that could be pruned: its source draws new examples for ever",
    )
    assert can_restrict(source)
    seen, number = torch.zeros(n, dtype=torch.int64), 0
    while bool((seen < times).any()):
        left = (seen < times).nonzero()[:, 0]
        part = source.restricted(left)
        for count in [_CHUNK] * (len(left) // _CHUNK) + [len(left) % _CHUNK]:
            if count:
                number += 1
                seen += take(part, count, generator(0, "prune", number)).cpu().bincount(minlength=n)
