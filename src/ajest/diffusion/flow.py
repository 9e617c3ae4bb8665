"""Sampling along a flow's own time, z = (1 - t) x0 + t eps (rectified flow, arXiv 2209.03003)."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from ajest.errors import check

from .objectives import RectifiedFlow, SeenAs
from .objectives.adapters import RawNetwork


def flow_times(steps: int, shift: float = 1.0, first: float = 1.0) -> list[float]:
    """Times from `first` down to 0, uniform before they are shifted: t = a u / (1 + (a - 1) u) (arXiv 2403.03206,
    equation 23), which adds ln a to ln(sigma / sigma_data).

    Args:
        steps: of a sampler; there is one time more.
        shift: a; 1 leaves them uniform.
        first: the first time.

    Raises:
        UserError: fewer than one step, a shift that is not above 0, or a first time outside (0, 1].
    """
    check(steps >= 1, f"a flow needs at least 1 step, not {steps}")
    check(0 < shift < float("inf"), f"the shift of a flow's times must be above 0, not {shift}")
    check(0 < first <= 1, f"a flow's times lie in (0, 1], not at {first}")
    uniform = first / (shift - (shift - 1) * first)
    even = [uniform * (1 - i / steps) for i in range(steps + 1)]
    return [first, *(shift * u / (1 + (shift - 1) * u) for u in even[1:])]


@torch.no_grad()
def sample_flow(
    velocity: RawNetwork,
    start: Tensor,
    times: list[float],
    label: Tensor | None = None,
    *,
    heun: bool = True,
    watch: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Follow dz/dt = velocity(z, t, label) from noise to data, by Heun's method or Euler's.

    Euler's steps are those of DDIM (arXiv 2010.02502) at the levels r = t / (1 - t): exact where D does not change. The
    last step into 0 is Euler's.

    Args:
        velocity: a network of velocities eps - x0 in `RectifiedFlow()` time, called with times of shape (n,); any
            denoiser, guided or not, as `as_network(denoiser, "flow", RectifiedFlow())`.
        start: z at `times[0]`, shape (n, ...): noise where that is 1; of x at a noise level, `process.shown(x, sigma)`.
        times: falling from at most 1 to 0, as `flow_times` makes them. A denoiser has no time 1: no noise level is
            infinite.
        label: passed on.
        heun: average each slope with that at the step's end.
        watch: called with the step number and z before each step and at the end.

    Returns:
        z at time 0, divided by the standard deviation of the data where the process of a denoiser does so.

    Raises:
        UserError: times that do not fall within [0, 1] to 0; or a denoiser seen as a network of another kind.
    """
    falls = len(times) >= 2 and all(a > b for a, b in itertools.pairwise(times))
    check(falls and times[0] <= 1 and times[-1] == 0, "a flow's times must fall from at most 1 to 0, see flow_times")
    if isinstance(velocity, SeenAs):
        _check_flow(velocity)
    z = start
    for i, (now, nxt) in enumerate(itertools.pairwise(times)):
        if watch is not None:
            watch(i, z)
        slope = velocity(z, z.new_full((len(z),), now), label)
        euler = z + (nxt - now) * slope
        if heun and nxt > 0:
            there = velocity(euler, z.new_full((len(z),), nxt), label)
            z = z + (nxt - now) * 0.5 * (slope + there)
        else:
            z = euler
    if watch is not None:
        watch(len(times) - 1, z)
    return z


def _check_flow(seen: SeenAs) -> None:
    process = seen.process
    plain = isinstance(process, RectifiedFlow) and not process.towards_data and process.multiplier == 1
    check(
        plain and seen.parametrisation == "flow",
        f"a flow's sampler cannot take {seen.parametrisation!r} in {type(process).__name__}: see the denoiser as "
        'as_network(denoiser, "flow", RectifiedFlow())',
    )
