"""What an arm remembers of noise levels, where these follow the learner's losses (docs/method.md#allocation)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ajest.diffusion.batch import Batch, Source
from ajest.diffusion.noising import NoisedSource
from ajest.diffusion.noising.allocations import BINS, Seen, bin_of
from ajest.runtime import distributed

from .memory import Levels

#: Weights below this say nothing of the error behind a loss.
_LEAST_WEIGHT = 1e-30


class SeenLevels:
    """Running errors at each noise level, by which a source draws its levels anew every so many steps.

    Nothing waits for the device: losses are added up where they are.

    Args:
        source: that noises as the arm says, whose allocation learns.
    """

    def __init__(self, source: Source) -> None:
        assert isinstance(source, NoisedSource)
        assert source.noising.allocation is not None
        self._source, self._allocation = source, source.noising.allocation
        self._seen, self._used, self._earlier = (Levels(source.source.device, BINS) for _ in range(3))

    def learn(self, step: int, trained: Batch, losses: Tensor) -> None:
        """Take in finite losses of what was trained on at a step, from 0, shape (n,)."""
        x = (trained.sigma.double() / self._source.source.sigma_data).log()
        self._seen.update(bin_of(x), losses / trained.weight.clamp_min(_LEAST_WEIGHT))
        done = step + 1
        if done >= self._allocation.warmup and done % self._allocation.every == 0:
            self._earlier.sums.copy_(self._used.sums)
            self._used.sums.copy_(distributed.of_first(self._seen.sums))
            self._source.allocate(self._looked())

    def _looked(self) -> Seen:
        return Seen(*self._used.means(), self._earlier.means()[0])

    def state(self) -> dict[str, Tensor]:
        return {"seen": self._seen.sums, "used": self._used.sums, "earlier": self._earlier.sums}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        for name, levels in (("seen", self._seen), ("used", self._used), ("earlier", self._earlier)):
            levels.sums.copy_(state[name])
        self._source.allocate(self._looked() if bool(self._used.sums.any()) else None)
