"""Draws without replacement from a softmax as exponential races, and the probability of being drawn.

A Gumbel top-k is a race: example i arrives at time E_i / exp(logit_i), E_i exponential, and the first k win.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .strata import Strata

_NEWTON_STEPS = 60
#: On a device, where to ask whether they are enough takes longer than they do. On a CPU nine tenths of a stratum are
#: found by logits of standard deviation 10 in 22.
_NEWTON_STEPS_UNASKED = 24


def race(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Logarithms of arrival times, shape of `logits`: the k smallest are k draws without replacement. float32 at least,
    because among few different times the first are a matter of place."""
    return arrivals(logits.shape, logits, generator).sub_(logits)


def arrivals(shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Logarithms of exponential times; less its logit, each is a time of `race`.

    Args:
        shape: of them.
        like: whose device they are on, and whose type they have, float32 at least.
        generator: random numbers, on that device.
    """
    # -log(1 - U) is exponential; its 24 random bits are ample, and several times as fast as exponential_ on a CPU.
    dtype = torch.promote_types(like.dtype, torch.float32)
    times = torch.empty(shape, dtype=dtype, device=like.device).uniform_(generator=generator)
    return times.neg_().add_(1).log_().neg_().log_()


def winners(times: Tensor, strata: Strata, count: int, generator: torch.Generator | None = None) -> Tensor:
    """The `count` examples that arrive first, in each stratum its share of them by size; who gets what does not come
    out even is left to chance. Indices of examples, shape (count,), int64.

    With a random offset u of each stratum, the j-th to arrive of its n, from 0, has the key (j + u) / n, and the least
    keys win.

    Args:
        times: in rows, see `race`.
        strata: of the examples.
        count: how many win.
        generator: random numbers, on the times' device.
    """
    if strata.index is None:
        return torch.topk(times[0], count, largest=False, sorted=False).indices
    # No stratum of n examples wins more than 1 + n (count + strata) / size, because each of the others wins no fewer
    # than its share less one.
    width = times.shape[1]
    most = min(width, 1 + width * (count + strata.count) // strata.size)
    first = torch.topk(strata.filled(times, torch.inf), most, largest=False).indices
    offset = torch.rand(strata.count, 1, generator=generator, device=times.device)
    place = torch.arange(most, device=times.device)
    keys = (place + offset) / strata.sizes
    if strata.missing is not None:
        keys.masked_fill_(place >= strata.sizes, torch.inf)
    won = torch.topk(keys.flatten(), count, largest=False, sorted=False).indices
    return strata.index.gather(1, first).flatten()[won]


def inclusion(races: Sequence[tuple[Tensor, float]], strata: Strata | None = None) -> Tensor:
    """Probability of each example to win one of successive races, shape of the logits, float64.

    The winners of a race of many are those that arrive before a nearly fixed time t, so example i wins with
    1 - exp(-t e^logit_i), and t follows from the expected number of winners (Rosen 1972, "Asymptotic theory for
    successive sampling", part II: exact as B grows). Who has won does not race again.

    Args:
        races: (logits, number of winners) of each race; logits of shape (B,), or in rows if there are strata.
        strata: races run within each stratum by itself, which wins its share of the number.
    """
    if strata is None:
        size = len(races[0][0])
        return inclusion([(logits[None], number) for logits, number in races], Strata(1, size))[0]
    hazard = torch.zeros_like(races[0][0], dtype=torch.float64)  # exp(-hazard): probability of not having won yet
    for logits, number in races:
        logits = logits.double()
        rate = strata.filled((logits - logits.amax(1, keepdim=True)).exp_(), 0)
        wanted = rate.new_full((strata.count, 1), number / strata.size) * strata.sizes
        hazard = hazard + _deadline(rate, (-hazard).exp(), wanted) * rate
    return -torch.expm1(-hazard)


def _deadline(rate: Tensor, left: Tensor, wanted: Tensor) -> Tensor:
    """The time t of each row at which sum left (1 - exp(-t rate)) is `wanted`, shape (rows, 1).

    The sum is concave in t, so Newton's steps from the left rise to the root and never beyond it. Where all must win,
    t grows without end and is cut off.
    """
    t, found = torch.zeros_like(wanted), torch.zeros((), dtype=torch.bool, device=wanted.device)
    asks = wanted.device.type == "cpu"
    for _ in range(_NEWTON_STEPS if asks else _NEWTON_STEPS_UNASKED):
        remaining = left * (-t * rate).exp_()
        reached = (left - remaining).sum(1, keepdim=True)
        slope = (remaining * rate).sum(1, keepdim=True)
        step = ((wanted - reached) / slope.clamp_min(1e-300)).clamp_(0, 1e250)
        t = torch.where(found, t, t + step)
        found = found | (step <= 1e-10 * t).all()
        if asks and found:
            break
    return t
