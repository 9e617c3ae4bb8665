"""What an arm remembers of noise levels, where these follow the learner's losses (docs/method.md#allocation)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ajest.diffusion.batch import Batch, Source
from ajest.diffusion.noising import NoisedSource
from ajest.diffusion.noising.allocations import BINS, Seen, bin_of
from ajest.runtime import distributed

from .memory import Levels

#: Weights below this say nothing of the error behind a loss.
_LEAST_WEIGHT = 1e-30


class SeenLevels:
    """Errors at each noise level, by which a source draws its levels anew at every look. What was seen before a look
    counts half as much at the next: looks are shares of the run, so a short run looks as often as a long one.

    Nothing waits for the device: losses are added up where they are.

    Args:
        source: that noises as the arm says, whose allocation learns.
    """

    def __init__(self, source: Source) -> None:
        assert isinstance(source, NoisedSource)
        assert source.noising.allocation is not None
        self._source, self._allocation = source, source.noising.allocation
        device = source.source.device
        self._seen, self._used, self._earlier = (Levels(device, BINS, half_life=math.inf) for _ in range(3))
        self._looks = 0

    def learn(self, progress: float, trained: Batch, losses: Tensor) -> None:
        """Take in finite losses of what was trained on at a step, shape (n,), before which so large a share of the run
        was done."""
        x = (trained.sigma.double() / self._source.source.sigma_data).log()
        self._seen.update(bin_of(x), losses / trained.weight.clamp_min(_LEAST_WEIGHT))
        allocation = self._allocation
        if progress >= allocation.warmup + self._looks * allocation.every:
            # At most one look a step: where steps are fewer than looks, those that were missed are not made up for.
            self._looks = math.floor((progress - allocation.warmup) / allocation.every) + 1
            self._earlier.sums.copy_(self._used.sums)
            self._used.sums.copy_(distributed.of_first(self._seen.sums))
            self._seen.sums.mul_(0.5)
            self._source.allocate(self._looked())

    def _looked(self) -> Seen:
        return Seen(*self._used.means(), self._earlier.means()[0])

    def state(self) -> dict[str, Tensor]:
        sums = {"seen": self._seen.sums, "used": self._used.sums, "earlier": self._earlier.sums}
        return sums | {"looks": torch.tensor(self._looks)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        for name, levels in (("seen", self._seen), ("used", self._used), ("earlier", self._earlier)):
            levels.sums.copy_(state[name])
        self._looks = int(state["looks"])
        self._source.allocate(self._looked() if bool(self._used.sums.any()) else None)
