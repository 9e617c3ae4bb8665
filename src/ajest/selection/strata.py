"""Examples in strata of the noise level: groups of equally many (docs/method.md#stratified)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ajest.errors import UserError

LEAST_IN_STRATUM = 8  # examples: with fewer, a z-score says nothing


@dataclass(frozen=True)
class Strata:
    """Examples laid out in rows, a stratum a row, so that sums and races within strata are those along rows.

    Attributes:
        count: of strata.
        size: of all examples together.
        index: which example stands where, shape (strata, width), int64; None where one stratum has all in their order.
        missing: where a stratum that is one short of `width` has none, bool of that shape (the example named there is
            its last one once more); None where all are equally large.
    """

    count: int
    size: int
    index: Tensor | None = None
    missing: Tensor | None = None

    @property
    def sizes(self) -> Tensor | int:
        """Examples of each stratum, shape (strata, 1), int64; a number where all are equally large."""
        return self.size // self.count if self.missing is None else (~self.missing).sum(1, keepdim=True)

    @property
    def others(self) -> Tensor | int:
        """Examples that each shares its stratum with, at least 1, as `sizes` has them."""
        sizes = self.sizes
        return sizes - 1 + (sizes == 1)

    def of_each(self, device: torch.device) -> Tensor:
        """The stratum of each example, shape (n,), int64, from 0."""
        number = torch.arange(self.count, device=device)[:, None]
        return self.examples(number.expand(self.count, -(-self.size // self.count)))

    def rows(self, values: Tensor) -> Tensor:
        """Values of examples, shape (n,), as they stand in rows, shape (strata, width)."""
        if self.index is None:
            return values[None]
        return values.index_select(0, self.index.flatten()).view_as(self.index)

    def examples(self, rows: Tensor) -> Tensor:
        """Values in rows, shape (strata, width), by example, shape (n,)."""
        if self.index is None:
            return rows[0]
        # What stands where there is no example goes to a place that is cut off.
        places = self.index if self.missing is None else self.index.masked_fill(self.missing, self.size)
        return rows.new_empty(self.size + 1).scatter_(0, places.flatten(), rows.flatten())[: self.size]

    def filled(self, rows: Tensor, value: float) -> Tensor:
        """Values in rows with this one where there is no example."""
        return rows if self.missing is None else rows.masked_fill(self.missing, value)

    def std_and_mean(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Standard deviation and mean of each stratum, shape (strata, 1) each; a single example deviates by 0."""
        if self.missing is None:
            return torch.std_mean(rows, 1, correction=int(rows.shape[1] > 1), keepdim=True)
        mean = self.filled(rows, 0).sum(1, keepdim=True) / self.sizes
        squares = self.filled((rows - mean).square_(), 0).sum(1, keepdim=True)
        return (squares / self.others).sqrt_(), mean


def strata_by(sigma: Tensor, count: int) -> Strata:
    """Strata of equal size by noise level (a difference of one where `count` does not divide the number of examples),
    the lowest first.

    Args:
        sigma: noise level of each example, shape (n,).
        count: how many strata; one leaves the examples in their order.

    Raises:
        UserError: more strata than examples.
    """
    size = len(sigma)
    if not 1 <= count <= size:
        raise UserError(f"{size} examples cannot be cut into {count} strata: take at most {size}")
    if count == 1:
        return Strata(1, size)
    order = _order(sigma)
    if size % count == 0:
        return Strata(count, size, order.view(count, -1))
    # Stratum s has the places p with p * count // size = s.
    ends = (torch.arange(count + 1, device=sigma.device)[:, None] * size + count - 1) // count
    places, last = ends[:-1] + torch.arange(-(-size // count), device=sigma.device), ends[1:] - 1
    return Strata(count, size, order[torch.minimum(places, last)], places > last)


def strata_of(sigma: Tensor, count: int) -> Tensor:
    """The stratum of each example, shape (n,), int64, see `strata_by`."""
    return strata_by(sigma, count).of_each(sigma.device)


def _order(sigma: Tensor) -> Tensor:
    """Indices by noise level, equal ones in their order.

    On a CPU numpy sorts whole numbers with vector instructions, which torch does not, several times as fast. Positive
    numbers of floating point are in the order of their bits, so one whole number holds noise level and index.
    """
    if sigma.device.type != "cpu" or sigma.dtype != torch.float32:
        return sigma.argsort(stable=True)
    both = (sigma.view(torch.int32).long() << 32).add_(torch.arange(len(sigma)))
    both.numpy().sort()
    return both.bitwise_and_((1 << 32) - 1)
