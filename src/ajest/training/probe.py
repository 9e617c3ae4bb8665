"""What a network's gradients say of a claim before any run (docs/method.md#probe).

Clean examples and noise levels meet crosswise, each pair under noise of its own. So inner products of gradients that
share a level, an example or nothing are unbiased estimates of how much of the gradient's variance lies between levels,
between examples, and of the square of its mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ajest.diffusion.batch import Batch, Source
from ajest.diffusion.denoising import LogNormal, objective, per_example_loss
from ajest.diffusion.noising.ingredients import Ingredients, IngredientSource, has_ingredients
from ajest.diffusion.noising.noising import Noising
from ajest.diffusion.noising.source import NoisedSource
from ajest.diffusion.optimal import LEVELS, range_of
from ajest.errors import check
from ajest.runtime.seeding import generator
from ajest.storage import jsonl

from .networks import load_network
from .run_folder import read_config

#: Examples and levels that meet in a block.
SIDE = 4
BLOCK = SIDE * SIDE
LEAST_BLOCKS = 8
_RESAMPLES = 1000
_SKETCH = 1 << 20  # numbers of a gradient that are kept
_MOST_LEVELS = 64  # of an example


@dataclass(frozen=True)
class Blocks:
    """What is kept of the gradients of blocks; all float64.

    Attributes:
        square: mean of |g|^2 in each block, shape (blocks,).
        length: mean of |g|, shape (blocks,).
        level: mean of g . g' of two examples at one level, shape (blocks,).
        example: mean of g . g' of one example at two levels, shape (blocks,).
        means: g . g' of the mean gradients of two blocks, shape (blocks, blocks).
        by_range: sums of |g|^2 within each range of noise levels, shape (blocks, ranges).
        in_range: gradients in it, of the same shape.
    """

    square: np.ndarray
    length: np.ndarray
    level: np.ndarray
    example: np.ndarray
    means: np.ndarray
    by_range: np.ndarray
    in_range: np.ndarray

    def moments(self, times: np.ndarray) -> Moments:
        """Estimates from blocks that count so many times each, shape (blocks,).

        The square of the mean is that of pairs of different blocks: of a block with itself it has noise.
        """
        total, itself = times.sum(), np.square(times)
        pairs = times @ self.means @ times - itself @ self.means.diagonal()
        counted = times @ self.in_range
        rms = np.sqrt(times @ self.by_range / np.maximum(counted, 1))
        return Moments(
            square=float(times @ self.square / total),
            mean=float(pairs / (total**2 - itself.sum())),
            level=float(times @ self.level / total),
            example=float(times @ self.example / total),
            length=float(times @ self.length / total),
            length_by_level=float(counted @ rms / counted.sum()),
        )


@dataclass(frozen=True)
class Moments:
    """Moments of the gradient g of one example at one noise level, summed over weights.

    Attributes:
        square: E|g|^2.
        mean: |E g|^2.
        level: E|E[g | level]|^2.
        example: E|E[g | clean example]|^2.
        length: E|g|.
        length_by_level: mean over noise levels of the root of E[|g|^2 | level].
    """

    square: float
    mean: float
    level: float
    example: float
    length: float
    length_by_level: float

    @property
    def variance(self) -> float:
        return self.square - self.mean

    @property
    def between_levels(self) -> float:
        """Share of the variance that strata of noise levels take away, 0 to 1: the share of the examples that they can
        save at the same variance."""
        return _share(self.level - self.mean, self.variance)

    @property
    def between_examples(self) -> float:
        """Share of the variance that more levels of the same examples leave, 0 to 1."""
        return _share(self.example - self.mean, self.variance)

    @property
    def saved_by_levels(self) -> float:
        """Share of the examples that can be saved at the same variance by drawing levels from the best density, p times
        the root of E[|g|^2 | level], weighted back."""
        return _share(self.square - self.length_by_level**2, self.variance)

    @property
    def saved_by_importance(self) -> float:
        """The same of examples, levels and noise drawn by the best density of all, p |g|, weighted back."""
        return _share(self.square - self.length**2, self.variance)

    @property
    def critical_batch(self) -> float:
        """The batch whose gradient has as much noise as signal, tr Cov / |E g|^2 (arXiv 1812.06162, equation 2.9)."""
        return self.variance / self.mean if self.mean > 0 else float("inf")

    def best_levels(self, cost: float) -> tuple[int, float]:
        """(noise levels of each example that give the least variance for the time, share of the time that they save).

        Args:
            cost: of drawing an example over that of a forward and backward pass of it.
        """
        between = self.between_examples

        def needed(k: int) -> float:
            return (between + (1 - between) / k) * (cost + k)

        best = min(range(1, _MOST_LEVELS + 1), key=needed)
        return best, 1 - needed(best) / needed(1)


def _share(part: float, whole: float) -> float:
    return min(max(part / whole, 0.0), 1.0) if whole > 0 else 0.0


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, from blocks drawn anew."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Probe:
    """What the gradients of a run's network say.

    Attributes:
        folder, step: the run and its snapshot.
        examples: gradients that were looked at.
        batch: examples that a step of the run trains on.
        draw_cost: what drawing an example cost the run, over a forward and backward pass of it.
        between_levels, between_examples: shares of the gradient's variance.
        levels, importance: shares of the examples that could be saved at most, see `Moments`.
        best_levels: noise levels of each example that save most time at `draw_cost`.
        several_levels: the share of the time that they save.
        critical_batch: see `Moments`; its end is infinite where the mean gradient cannot be told from 0.
    """

    folder: str
    step: int
    examples: int
    batch: int
    draw_cost: float
    between_levels: Estimate
    between_examples: Estimate
    levels: Estimate
    importance: Estimate
    best_levels: int
    several_levels: Estimate
    critical_batch: Estimate


def probe(
    folder: Path,
    examples: int = 1024,
    step: int | None = None,
    width: float | None = None,
    device: torch.device | str = "cpu",
    say: Callable[[int, int], None] = lambda done, total: None,
) -> Probe:
    """Look at gradients of a run's averaged network, on examples that are noised as its arm does it.

    Args:
        folder: of the run.
        examples: gradients to look at, rounded up to blocks of 16.
        step: of the snapshot; None is the latest.
        width: of the network's average; None is the first that was kept.
        device: where to compute.
        say: told how many of the blocks are done.

    Raises:
        UserError: too few examples, no snapshot, or a source that does not hand out what it noises.
    """
    config = read_config(folder)
    count = -(-examples // BLOCK)
    check(count >= LEAST_BLOCKS, f"a probe needs at least {LEAST_BLOCKS * BLOCK} examples, not {examples}")
    network, at = load_network(folder, step, width, device)
    source = config.task.source(device)
    batch = crossed(source, config.arm.noising, count, config.seed)
    noise = cast(IngredientSource, source).noise
    found = blocks_of(network.requires_grad_(True), noise, batch, say)
    cost = _draw_cost(folder)
    trained = config.arm.kept(config.recipe.super_batch)
    return summary(found, cost, folder=str(folder), step=at, examples=len(batch), batch=trained)


def crossed(source: Source, noising: Noising, blocks: int, seed: int = 0) -> Batch:
    """Noised examples in blocks of 16: four clean examples, each at the same four levels, every one with its own noise.

    Of an arm, that counts which concerns an example by itself: densities, weights, and targets. Strata, references,
    copies, pairings and contrasts join several examples and are left out.

    Raises:
        UserError: the source does not hand out what it noises.
    """
    check(
        has_ingredients(source),
        f"the task's source, {type(source).__name__}, noises its examples itself, so its levels cannot be crossed with "
        "its examples: give it the members of ajest.diffusion.noising.ingredients.IngredientSource",
    )
    plain = Noising(
        levels=noising.levels,
        same_objective=noising.same_objective,
        weight=noising.weight,
        target=noising.target,
        allocation=noising.allocation,
    )
    made = NoisedSource(cast(IngredientSource, _Crossed(cast(IngredientSource, source))), plain, blocks * BLOCK)
    return made.complete(made.draw(blocks * BLOCK, generator(seed, "probe")))


class _Crossed:
    """A source whose clean examples and noise levels meet crosswise within blocks."""

    def __init__(self, source: IngredientSource) -> None:
        self.source = source

    def __getattr__(self, name: str) -> object:
        return getattr(self.source, name)

    def ingredients(self, count: int, generator: torch.Generator, eps: torch.Generator | None = None) -> Ingredients:
        parts = self.source.ingredients(count, generator, eps)
        place = torch.arange(count, device=parts.normal.device)
        block = place - place % BLOCK
        example, level = block + place % BLOCK // SIDE, block + place % SIDE
        label = None if parts.label is None else parts.label[example]
        return Ingredients(parts.x0[example], parts.eps, parts.normal[level], parts.id[example], label)


def blocks_of(
    network: nn.Module, noise: LogNormal, batch: Batch, say: Callable[[int, int], None] = lambda done, total: None
) -> Blocks:
    """Gradients of the objective for each of the examples that `crossed` made, one backward pass each.

    Args:
        network: in evaluation mode, with weights that take gradients.
        noise: of the task, whose ranges of noise levels are equally likely.
        batch: examples in blocks.
        say: told how many of the blocks are done.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    keep = _sketcher(sum(p.numel() for p in parameters), parameters[0].device)

    def gradient(part: Batch) -> Tensor:
        minimised = objective(per_example_loss(network(part.x, part.sigma, part.label), part), part, network)
        found = torch.autograd.grad(minimised.sum(), parameters, allow_unused=True)
        flat = [p.new_zeros(p.numel()) if g is None else g.flatten() for p, g in zip(parameters, found, strict=True)]
        return keep(torch.cat(flat))

    place = torch.arange(BLOCK)
    one_level, one_example = (key[:, None] == key for key in (place % SIDE, place // SIDE))
    only_level, only_example = one_level & ~one_example, one_example & ~one_level
    found, means, parts = [], [], list(batch.split(BLOCK))
    for i, block in enumerate(parts):
        gradients = torch.stack([gradient(one) for one in block.split(1)])
        products = (gradients @ gradients.T).double().cpu()
        squares, ranges = products.diagonal(), range_of(noise, block.sigma)
        within = torch.zeros(LEVELS, dtype=torch.float64).index_add_(0, ranges, squares)
        shared = (products[only_level].mean(), products[only_example].mean())
        counts = torch.bincount(ranges, minlength=LEVELS).double()
        found.append((squares.mean(), squares.sqrt().mean(), *shared, within, counts))
        means.append(gradients.mean(0))
        say(i + 1, len(parts))
    square, length, level, example, by_range, in_range = (torch.stack(c).numpy() for c in zip(*found, strict=True))
    together = torch.stack(means)
    of_means = (together @ together.T).double().cpu().numpy()
    return Blocks(square, length, level, example, of_means, by_range, in_range)


def _sketcher(size: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Keeps a gradient as it is, or of a long one sums of its elements with random signs, whose inner products are
    those of the gradients on average, and within a thousandth of their lengths' product (Charikar et al. 2002)."""
    if size <= _SKETCH:
        return lambda gradient: gradient
    stream = generator(0, "probe", "sketch")
    place = torch.randint(_SKETCH, (size,), generator=stream).to(device)
    sign = (torch.randint(2, (size,), generator=stream) * 2.0 - 1).to(device)
    return lambda gradient: gradient.new_zeros(_SKETCH).index_add_(0, place, gradient * sign.to(gradient.dtype))


def summary(found: Blocks, draw_cost: float, **known: Any) -> Probe:
    """Estimates with percentile intervals over blocks; `known` are the other fields of `Probe`."""
    n = len(found.square)
    all_once = found.moments(np.ones(n))
    draws = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), _RESAMPLES)
    resampled = [found.moments(times.astype(float)) for times in draws]
    best, _ = all_once.best_levels(draw_cost)

    def estimate(of: Callable[[Moments], float]) -> Estimate:
        ends = np.quantile([of(moments) for moments in resampled], (0.025, 0.975), method="nearest")
        return Estimate(of(all_once), *map(float, ends))

    return Probe(
        draw_cost=draw_cost,
        between_levels=estimate(lambda m: m.between_levels),
        between_examples=estimate(lambda m: m.between_examples),
        levels=estimate(lambda m: m.saved_by_levels),
        importance=estimate(lambda m: m.saved_by_importance),
        best_levels=best,
        several_levels=estimate(lambda m: m.best_levels(draw_cost)[1]),
        critical_batch=estimate(lambda m: m.critical_batch),
        **known,
    )


def _draw_cost(folder: Path) -> float:
    """What drawing an example took in a run, over a forward and backward pass of one; 0 where its ledger is empty."""
    lines: Sequence[dict[str, Any]] = jsonl.read(folder / "ledger.jsonl")
    if not lines:
        return 0.0
    last = lines[-1]
    seconds = last["seconds"]
    passes = seconds.get("update", 0.0) / max(last["trained"], 1)
    return float(seconds.get("draw", 0.0) / max(last["drawn"], 1) / passes) if passes else 0.0
