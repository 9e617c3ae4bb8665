"""Draws without replacement from a softmax as exponential races, and the probability of being drawn.

A Gumbel top-k is a race: example i arrives at time E_i / exp(logit_i), E_i exponential, and the first k win.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ajest.diffusion.denoising import at_least_float32

from .normalisation import sizes_of

_NEWTON_STEPS = 60
#: On a device, where to ask whether they are enough takes longer than they do. On a CPU nine tenths of a stratum are
#: found by logits of standard deviation 10 in 22.
_NEWTON_STEPS_UNASKED = 24


def race(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Logarithms of arrival times, shape of `logits`: the k smallest are k draws without replacement. float32 at least,
    because among few different times the first are a matter of place."""
    logits = at_least_float32(logits)
    # -log(1 - U) is exponential; its 24 random bits are ample, and several times as fast as exponential_ on a CPU.
    times = torch.empty_like(logits).uniform_(generator=generator)
    return times.neg_().add_(1).log_().neg_().log_().sub_(logits)


def inclusion(races: Sequence[tuple[Tensor, float]], stratum: Tensor | None = None) -> Tensor:
    """Probability of each example to win one of successive races, shape (B,), float64.

    The winners of a race of many are those that arrive before a nearly fixed time t, so example i wins with
    1 - exp(-t e^logit_i), and t follows from the expected number of winners (Rosen 1972, "Asymptotic theory for
    successive sampling", part II: exact as B grows). Who has won does not race again.

    Args:
        races: (logits of shape (B,), number of winners) of each race.
        stratum: races run within each stratum by itself, which wins its share of the number.
    """
    first = races[0][0]
    stratum = torch.zeros_like(first, dtype=torch.int64) if stratum is None else stratum
    sizes = sizes_of(stratum).double()
    hazard = torch.zeros_like(first, dtype=torch.float64)  # exp(-hazard): probability of not having won yet
    for logits, winners in races:
        wanted = sizes * (winners / len(first))
        top = torch.full_like(sizes, -torch.inf).scatter_reduce_(0, stratum, logits.double(), "amax")
        rate = (logits.double() - top[stratum]).exp_()
        hazard = hazard + _deadline(rate, (-hazard).exp(), wanted, stratum)[stratum] * rate
    return -torch.expm1(-hazard)


def _deadline(rate: Tensor, left: Tensor, wanted: Tensor, stratum: Tensor) -> Tensor:
    """The time t of each stratum at which sum left (1 - exp(-t rate)) is `wanted`.

    The sum is concave in t, so Newton's steps from the left rise to the root and never beyond it. Where all must win,
    t grows without end and is cut off.
    """
    zero = torch.zeros_like(wanted)
    t, found = zero, torch.zeros((), dtype=torch.bool, device=wanted.device)
    asks = wanted.device.type == "cpu"
    for _ in range(_NEWTON_STEPS if asks else _NEWTON_STEPS_UNASKED):
        remaining = left * (-t[stratum] * rate).exp()
        reached = zero.index_add(0, stratum, left - remaining)
        slope = zero.index_add(0, stratum, remaining * rate)
        step = ((wanted - reached) / slope.clamp_min(1e-300)).clamp_(0, 1e250)
        t = torch.where(found, t, t + step)
        found = found | (step <= 1e-10 * t).all()
        if asks and found:
            break
    return t
