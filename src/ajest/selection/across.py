"""Selection in a loop of one's own with several processes: scores are gathered, and all agree on one choice."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import accumulate

import torch
from torch import Tensor

from ajest.errors import check
from ajest.runtime import distributed

from .registry import select
from .scoring import Scores


@dataclass(frozen=True)
class SharedChoice:
    """What all processes together train on.

    Attributes:
        kept: indices into the super-batch, which is the parts of all processes one after another, shape (count,).
        lengths: examples of each process's part.
    """

    kept: Tensor
    lengths: tuple[int, ...]

    def take(self, own: Tensor) -> Tensor:
        """This process's part of what is kept, shape (count / processes, ...), of a tensor with a row for each example
        of its part of the super-batch. Processes give each other what they keep, so that all train on equally many.

        All call it in the same order.
        """
        check(
            len(own) == self.lengths[distributed.rank()],
            f"{len(own)} rows are not those of the {self.lengths[distributed.rank()]} examples that were scored",
        )
        if len(self.lengths) == 1:
            return own[self.kept]
        ends = torch.tensor(list(accumulate(self.lengths)), device=self.kept.device)
        owner = torch.bucketize(self.kept, ends, right=True)
        mine = self.kept[owner == distributed.rank()] - (ends[distributed.rank()] - len(own))
        rows, _ = distributed.gather_all(own[mine])
        found = torch.empty_like(rows)
        found[owner.argsort(stable=True)] = rows  # they come by process
        return found[distributed.rank_slice(len(self.kept))]


def select_across(
    scores: Scores,
    count: int,
    name: str = "jest",
    generator: torch.Generator | None = None,
    **dials: object,
) -> SharedChoice:
    """Choose `count` of the examples that all processes have scored, as one process with all of them would; see
    `select`, which it is where there is one process.

    Args:
        scores: of this process's part of the super-batch, on its device.
        count: how many to keep, of all processes together: a multiple of their number.
        name: of the policy.
        generator: random numbers, on the scores' device. The first process's count.
        dials: of the policy.

    Raises:
        UserError: the count cannot be shared out evenly, or see `select`.
    """
    world = distributed.world()
    check(count % world == 0, f"{count} examples cannot be shared out evenly to {world} processes: keep a multiple")
    own = {f.name: getattr(scores, f.name) for f in fields(scores)}
    gathered = {key: distributed.gather_all(part) for key, part in own.items() if part is not None}
    lengths = next(iter(gathered.values()))[1]
    kept = select(Scores(**{key: rows for key, (rows, _) in gathered.items()}), count, name, generator, **dials)
    return SharedChoice(distributed.of_first(kept), tuple(lengths))
