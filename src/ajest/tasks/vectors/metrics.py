"""How near samples are to held-out vectors, both standardised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ajest.diffusion.batch import Batch
from ajest.diffusion.denoising import Denoiser, per_example_loss
from ajest.errors import check
from ajest.runtime.distributed import in_chunks
from ajest.runtime.seeding import generator
from ajest.tasks.base import Metric
from ajest.tasks.statistics import checked, prdc, squared_distances

DIRECTIONS = 128  # at least, of the sliced distance
_BYTES = 1 << 26  # of projections sorted at a time

_ENERGY = Metric(
    "energy_distance", "energy distance × 1000", "lower",
    "How far the samples are from held-out vectors: 0 for the same distribution, up to noise of both signs. It does "
    "not fall with the number of samples. It sees mass in wrong places, but hardly a few stray points.",
    headline="unguided", curve=True, scale=1000, perfect=0,
)  # fmt: skip
_OF_CLASSES = Metric(
    "class_energy_distance", "energy distance within classes × 1000", "lower",
    "The same of each class against held-out vectors of that class, mean over the classes' shares: it also sees "
    "samples that are good ones of another class.", scale=1000,
)  # fmt: skip
_NEAR = (
    Metric("sliced_wasserstein", "sliced Wasserstein distance", "lower",
           "Root mean squared distance along lines of all directions by which mass must be moved to make held-out "
           "vectors of samples. It falls with the number of samples."),
    Metric("precision", "precision", "higher",
           "Share of samples within the distance of a held-out vector at which its third neighbour lies. It does not "
           "see missing parts."),
    Metric("recall", "recall", "higher",
           "The same the other way round: share of held-out vectors among samples. It does not see bad samples."),
    Metric("density", "density", "higher",
           "How many held-out neighbourhoods, of five neighbours, hold a sample. Samples that crowd are above 1."),
    Metric("coverage", "coverage", "higher",
           "Share of held-out vectors with a sample among their five neighbours. The most robust of the four."),
)  # fmt: skip
_LOSSES = (
    Metric("loss", "loss", "lower",
           "Mean denoising loss on held-out vectors; the best possible one is not 0.", guided=False, curve=True),
    Metric("loss_low", "loss at little noise", "lower",
           "The same over the third of training noise that is least.", guided=False),
    Metric("loss_middle", "loss at middling noise", "lower", "The same over the middle third.", guided=False),
    Metric("loss_high", "loss at much noise", "lower", "The same over the highest third.", guided=False),
)  # fmt: skip

#: Of sets whose best denoiser is known.
EXCESS = Metric(
    "excess_loss", "excess loss", "lower",
    "How far the loss is above that of the best denoiser there is: the weighted square of the distance between the two "
    "answers. It has none of the noise that the targets have.", guided=False, curve=True,
)  # fmt: skip

#: Metrics whose expectation does not depend on the number of samples.
FREE_OF_N = ("energy_distance", "class_energy_distance", "precision", "density")


def metrics_of(classes: int, known: bool = False) -> tuple[Metric, ...]:
    """Metrics of a set with so many classes; `known` is whether its best denoiser is."""
    return (_ENERGY, *((_OF_CLASSES,) if classes else ()), *((EXCESS,) if known else ()), *_NEAR, *_LOSSES)


def energy_distance(x: Tensor | np.ndarray, y: Tensor | np.ndarray) -> float:
    """`2 E|X - Y| - E|X - X'| - E|Y - Y'|` (Székely and Rizzo 2013, J. Stat. Plan. Inference 143) without bias: X' and
    Y' are other rows (the U-statistic; Gretton et al. 2012, JMLR 13, lemma 6). It can be slightly negative.

    Args:
        x, y: shapes (n, d) and (m, d), at least two rows each. Distances are Euclidean, in float64.

    Raises:
        UserError: too few, of different widths, or not finite.
    """
    x, y = checked(x), checked(y)
    check(x.shape[1] == y.shape[1], f"vectors of {x.shape[1]} and {y.shape[1]} coordinates cannot be compared")
    n, m = len(x), len(y)
    centre = y.mean(0)  # distances by products lose digits far from the origin
    x, y = x - centre, y - centre
    cross = sum(float(part.sqrt().sum()) for part in squared_distances(x, y)) / (n * m)
    return 2 * cross - _among(x) / (n * (n - 1)) - _among(y) / (m * (m - 1))


def _among(x: Tensor) -> float:
    """Sum of the distances between all pairs of different rows, in both orders."""
    total, at = 0.0, 0
    for part in squared_distances(x, x):
        part.diagonal(at).zero_()  # of a row from itself, but for rounding
        total += float(part.sqrt().sum())
        at += len(part)
    return total


def sliced_wasserstein(x: Tensor | np.ndarray, y: Tensor | np.ndarray, directions: int = DIRECTIONS) -> float:
    """`(E_u W_2^2(u.X, u.Y))^(1/2)` over directions u (Bonneel et al. 2015, J. Math. Imaging Vision 51).

    Each W_2 is exact, by sorting; sets of different sizes are compared quantile by quantile. Directions come in
    orthogonal bases (Rowland et al. 2019, arXiv 1903.03784), so that a shift by s gives |s| / sqrt(d) exactly.

    Args:
        x, y: shapes (n, d) and (m, d).
        directions: at least so many, the same ones at each call.

    Raises:
        UserError: too few, of different widths, or not finite.
    """
    x, y = checked(x, 1), checked(y, 1)
    check(x.shape[1] == y.shape[1], f"vectors of {x.shape[1]} and {y.shape[1]} coordinates cannot be compared")
    n, m, d = len(x), len(y), x.shape[1]
    edges = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m) * n]).unique()  # in units of 1 / (n m)
    width = edges.diff(prepend=edges.new_zeros(1)).double() / (n * m)
    of_x, of_y = (edges - 1) // m, (edges - 1) // n
    stream, total, bases = generator(0, "vectors", "directions", d), 0.0, -(-directions // d)
    for _ in range(bases):
        normal = torch.randn(d, d, generator=stream, dtype=torch.float64)
        for lines in torch.linalg.qr(normal).Q.T.split(max(1, _BYTES // (8 * (n + m)))):
            gap = (x @ lines.T).sort(0).values[of_x] - (y @ lines.T).sort(0).values[of_y]
            total += float((gap.square() * width[:, None]).sum())
    return (total / (bases * d)) ** 0.5


def compared(x: Tensor, real: Tensor, label: Tensor | None = None, of_real: Tensor | None = None) -> dict[str, float]:
    """The metrics of samples (n, d) against real vectors (m, d), where both have labels also those within classes.

    Args:
        x, real: standardised.
        label, of_real: int64, shapes (n,) and (m,), or None.
    """
    near = prdc(real, x)
    values = {"energy_distance": energy_distance(x, real), "sliced_wasserstein": sliced_wasserstein(x, real)}
    values |= {name: getattr(near, name) for name in ("precision", "recall", "density", "coverage")}
    if label is not None and of_real is not None:
        values |= _within_classes(x, real, label, of_real)
    return values


def _within_classes(x: Tensor, real: Tensor, label: Tensor, of_real: Tensor) -> dict[str, float]:
    """Mean of the energy distances of classes, by their shares of the real vectors. Classes of fewer than two vectors
    of either kind are left out; empty where all are."""
    total, weight = 0.0, 0
    for key in of_real.unique().tolist():
        some, those = x[label == key], real[of_real == key]
        if min(len(some), len(those)) >= 2:
            total += len(those) * energy_distance(some, those)
            weight += len(those)
    return {"class_energy_distance": total / weight} if weight else {}


def losses_of(denoiser: Denoiser, batch: Batch, chunk: int, exact: Denoiser | None = None) -> dict[str, Tensor]:
    """Denoising losses of noised examples, and as "excess" how far each is above that of the `exact` denoiser on
    average, where that is known; float64, shape (n,) each."""

    @torch.no_grad()
    def of(part: slice) -> Tensor:
        some = batch[part]
        answer = denoiser(some.x, some.sigma, some.label)
        best = answer if exact is None else exact(some.x, some.sigma, some.label)
        return torch.stack([per_example_loss(answer, some), per_example_loss(answer, replace(some, target=best))], 1)

    found, excess = in_chunks(of, len(batch), chunk).double().T
    return {"loss": found} if exact is None else {"loss": found, "excess": excess}


def loss_metrics(losses: Mapping[str, Tensor], sigma: Tensor) -> dict[str, float]:
    """Mean losses, of all examples and of thirds by noise level, the least first; from what `losses_of` gives."""
    found = losses["loss"]
    values = {EXCESS.name: losses["excess"].mean().item()} if "excess" in losses else {}
    thirds = found[sigma.argsort()].tensor_split(3)
    names = ("loss_low", "loss_middle", "loss_high")
    return values | {"loss": found.mean().item()} | {k: v.mean().item() for k, v in zip(names, thirds, strict=True)}
