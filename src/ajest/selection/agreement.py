"""Several processes of one run: the first decides, and now and then all see whether they still agree.

Scores are gathered bit for bit, so all processes read the same. What they make of them need not be the same: sums on
CUDA are added up in any order, and cards of two kinds round logarithms differently. So what is decided by scores
comes from the first process. What the others remember is a copy that may differ in rounding and decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ajest.errors import PeerError, UserError, listed
from ajest.runtime import distributed

from .triggers import TriggerState

#: Steps from one comparison to the next.
EVERY = 64

#: Relative difference in what is remembered that rounding is far from; examples and trigger have to be the same.
ROUNDING = 1e-3


def chosen_by_first(kept: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The first process's choice, in all of them: (indices, importance weights or None), shape (n,) each."""
    if distributed.world() == 1:
        return kept, weight
    parts = [kept.double()] if weight is None else [kept.double(), weight.double()]
    first = distributed.of_first(torch.stack(parts))
    return first[0].to(kept.dtype), None if weight is None else first[1].to(weight.dtype)


def compared_by_first(means: tuple[float, float] | None) -> tuple[float, float] | None:
    """The mean losses that the first process compares, in all of them; None where none are finite."""
    if distributed.world() == 1:
        return means
    here = torch.tensor((math.nan, math.nan) if means is None else means, dtype=torch.float64)
    learner, reference = distributed.of_first(here).tolist()
    return None if math.isnan(learner) else (learner, reference)


def agreement_due(step: int) -> bool:
    """Whether there are several processes, and this step, from 0, is one on which they compare (`EVERY`)."""
    return distributed.world() > 1 and step % EVERY == 0


def check_agreement(
    step: int, drawn: Tensor, kept: Tensor, trigger: TriggerState, memory: Mapping[str, Tensor]
) -> None:
    """See whether all processes drew and kept the same examples, stand at the same place of their trigger and remember
    the same of scores. All learn it alike.

    Args:
        step: its number, from 0.
        drawn, kept: ids of the examples of all processes together, shape (n,) each.
        trigger: where it stands.
        memory: what is remembered of scores, by name.

    Raises:
        UserError: they do not; names the step, the processes and in what.
    """
    fired_at = -1 if trigger.fired_at is None else trigger.fired_at
    stand = torch.tensor([trigger.on, fired_at, trigger.observations, trigger.advantage], dtype=torch.float64)
    sizes = [drawn.new_zeros((), dtype=torch.float64)]  # of nothing, where nothing is remembered
    # Counts are kept on the CPU, beside averages on the device.
    sizes += [tensor.abs().sum(dtype=torch.float64).to(drawn.device) for tensor in memory.values()]
    views = [
        ("the examples drawn", _digest(drawn), 0.0),
        ("the examples kept", _digest(kept), 0.0),
        ("the trigger", stand.to(drawn.device), 0.0),
        ("what is remembered of scores", torch.stack(sizes), ROUNDING),
    ]
    mine = torch.cat([view for _, view, _ in views]).cpu()
    everyone = distributed.gather(mine[None], distributed.world())
    for (what, _, tolerance), found in zip(views, everyone.split([len(view) for _, view, _ in views], 1), strict=True):
        same = torch.isclose(found, found[0], rtol=tolerance, atol=0.0, equal_nan=True).all(1)
        if not same.all():
            raise _disagreement(step, what, torch.nonzero(~same).flatten().tolist())


def _disagreement(step: int, what: str, others: list[int]) -> UserError:
    who = f"process {others[0]} does" if len(others) == 1 else f"processes {listed(others)} do"
    said = (
        f"at step {step + 1} {who} not agree with process 0 on {what}: give all processes the same data, versions and "
        "kind of machine, and start the same command again to go on from the last checkpoint"
    )
    return PeerError(said) if distributed.rank() else UserError(said)


def _digest(ids: Tensor) -> Tensor:
    """A number that changes with any of these ids and with their order, shape (1,), float64."""
    places = torch.arange(1, len(ids) + 1, device=ids.device)
    return (((ids + 1) * places).sum(0, keepdim=True) & ((1 << 52) - 1)).double()
