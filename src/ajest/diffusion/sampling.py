"""Sampling from any denoiser (EDM, arXiv 2206.00364, equation 5 and algorithms 1 and 2)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ajest.errors import check

from .denoising import Denoiser

#: Where normal numbers come from: one stream for all examples, or one for each; None is torch's own.
Normals = torch.Generator | Sequence[torch.Generator] | None


def check_sampler(steps: int, sigma_max: float, sigma_min: float) -> None:
    """Raise a UserError unless these settings of a sampler can be."""
    check(steps >= 2, f"sampler_steps must be at least 2, not {steps}")
    check(
        0 < sigma_min < sigma_max < math.inf,
        f"sigma_min must lie above 0 and below sigma_max, not {sigma_min} with a sigma_max of {sigma_max}",
    )


def sigma_schedule(steps: int = 32, sigma_max: float = 80.0, sigma_min: float = 0.002, rho: float = 7.0) -> list[float]:
    """`steps` noise levels from `sigma_max` down to `sigma_min`, then 0 (EDM equation 5).

    Raises:
        ValueError: fewer than two steps, or levels that are not 0 < sigma_min < sigma_max.
    """
    if steps < 2 or not 0 < sigma_min < sigma_max:
        raise ValueError(
            f"a schedule needs at least 2 steps and 0 < sigma_min < sigma_max, "
            f"not steps={steps}, sigma_min={sigma_min}, sigma_max={sigma_max}"
        )
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(high + i / (steps - 1) * (low - high)) ** rho for i in range(steps)] + [0.0]


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    start: Tensor,
    sigmas: list[float],
    label: Tensor | None = None,
    *,
    churn: float = 0.0,
    churn_interval: tuple[float, float] = (0.0, math.inf),
    churn_noise: float = 1.0,
    generator: Normals = None,
    chunk: int | None = None,
    watch: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Follow the probability-flow ODE from `start` with Heun's method; with `churn` add noise on the way.

    Args:
        denoiser: any denoiser, guided or not; called without gradients, which one that differentiates for its score
            turns on for itself (`torch.enable_grad`).
        start: noisy examples at level `sigmas[0]`, shape (n, ...).
        sigmas: falling noise levels that end in 0, as `sigma_schedule` makes them.
        label: passed on to the denoiser.
        churn: S_churn of EDM algorithm 2; 0 is deterministic.
        churn_interval: churn only at these noise levels.
        churn_noise: S_noise of EDM algorithm 2.
        generator: for the churn noise; one for each example makes that of an example its own.
        chunk: solve for this many examples at a time, which bounds memory and keeps a CPU's caches warm.
        watch: called with the step number and the state before each step and at the end (no chunks then).

    Returns:
        The end points, shape and type of `start`.
    """
    if chunk is not None and watch is None and len(start) > chunk:
        labels = [None] * len(start) if label is None else label.split(chunk)
        own = isinstance(generator, Sequence)
        streams = [generator[i : i + chunk] if own else generator for i in range(0, len(start), chunk)]  # type: ignore
        parts = zip(start.split(chunk), labels, streams, strict=False)
        dials: dict[str, Any] = {"churn": churn, "churn_interval": churn_interval, "churn_noise": churn_noise}
        return torch.cat([sample(denoiser, x, sigmas, y, generator=g, **dials) for x, y, g in parts])

    gamma_max = min(churn / (len(sigmas) - 1), math.sqrt(2) - 1)
    x = start
    for i, (now, nxt) in enumerate(itertools.pairwise(sigmas)):
        if watch is not None:
            watch(i, x)
        if gamma_max > 0 and churn_interval[0] <= now <= churn_interval[1]:
            raised = now * (1 + gamma_max)
            x = x + math.sqrt(raised**2 - now**2) * churn_noise * _normal(x, generator)
            now = raised
        slope = (x - denoiser(x, x.new_full((len(x),), now), label)) / now
        euler = x + (nxt - now) * slope
        if nxt > 0:
            slope_there = (euler - denoiser(euler, x.new_full((len(x),), nxt), label)) / nxt
            x = x + (nxt - now) * 0.5 * (slope + slope_there)
        else:
            x = euler
    if watch is not None:
        watch(len(sigmas) - 1, x)
    return x


def _normal(x: Tensor, generator: Normals) -> Tensor:
    """Normal numbers of the shape, type and device of `x`, drawn where their generator is."""
    if isinstance(generator, Sequence):
        rows = (torch.randn(x.shape[1:], dtype=x.dtype, device=g.device, generator=g) for g in generator)
        return torch.stack(list(rows)).to(x.device)
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, dtype=x.dtype, device=device, generator=generator).to(x.device)
