"""Running means in numbered cells of which only those that were seen are held."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

PRIOR = 1.0  # observations that what is known beforehand counts for
#: 2^64 over the golden ratio, as int64: it scatters numbers that lie side by side (Knuth, TAOCP 6.4).
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_LEAST = 64  # cells that there is room for from the start


class Cells:
    """Mean of what was seen in each of any number of cells; of m sightings after it, one counts 0.5^(m / half_life).

    A batch is as many sightings as it holds, in its order: it may be cut anywhere. What a step costs depends on the
    number of examples that it names and not on that of the cells. Memory and what is stored depend on the number of
    cells that were seen. An open hash table finds a cell's row; rows stand in the order of their first sighting, so
    equal sightings give equal rows.

    Args:
        half_life: sightings of a cell after which an earlier one in it counts half.
        device: where it lives.
    """

    def __init__(self, half_life: float, device: torch.device | str = "cpu") -> None:
        self._fade = 0.5 ** (1 / half_life)
        self._seen = 0
        self._cell = torch.zeros(_LEAST, dtype=torch.int64, device=device)  # of each row
        self._sums = torch.zeros(2, _LEAST, device=device)  # faded count and sum of each row
        self._slots = torch.full((2 * _LEAST,), -1, dtype=torch.int32, device=device)  # rows by hash, -1 where free

    def __len__(self) -> int:
        """How many cells were seen."""
        return self._seen

    def update(self, cell: Tensor, values: Tensor) -> None:
        """Take `values` seen in `cell` in, shape (n,) each, both on the table's device; cells are int64, from 0."""
        if not len(cell):
            return
        order = cell.argsort(stable=True)
        cells, group, sightings = torch.unique_consecutive(cell[order], return_inverse=True, return_counts=True)
        later = sightings.cumsum(0)[group] - 1 - torch.arange(len(cell), device=cell.device)  # in the same cell
        weight = self._fade ** later.to(self._sums.dtype)
        news = self._sums.new_zeros(2, len(cells))
        news.index_add_(1, group, torch.stack([weight, weight * values[order].to(weight.dtype)]))
        rows = self._rows(cells)
        self._sums[:, rows] = self._sums[:, rows] * self._fade ** sightings.to(weight.dtype) + news

    def shrunk(self, cell: Tensor, prior: Tensor) -> Tensor:
        """Mean of each named cell, drawn towards `prior` as if that had been seen once, shape (n,)."""
        _, row = self._seek(cell)
        count, total = self._sums[:, row] * (row >= 0)
        return (total + PRIOR * prior) / (count + PRIOR)

    def state(self) -> dict[str, Tensor]:
        """What was seen: the numbers of the cells, shape (n,), and their faded counts and sums, shape (2, n)."""
        return {"cells": self._cell[: self._seen], "sums": self._sums[:, : self._seen]}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self._seen = 0
        self._slots.fill_(-1)
        if len(state["cells"]):
            rows = self._rows(state["cells"].to(self._cell.device))
            self._sums[:, rows] = state["sums"].to(self._sums.device)

    def _rows(self, cells: Tensor) -> Tensor:
        """The row of each of these distinct cells; those that are new get the next ones, empty."""
        _, row = self._seek(cells)
        new = torch.nonzero(row < 0).flatten()
        if len(new):
            added = torch.arange(self._seen, self._seen + len(new), device=new.device)
            self._make_room(self._seen + len(new))
            self._cell[added], self._sums[:, added] = cells[new], 0.0
            self._seen += len(new)
            self._claim(added)
            row[new] = added.to(row.dtype)
        return row

    def _make_room(self, rows: int) -> None:
        if rows <= len(self._cell):
            return
        length = 1 << (rows - 1).bit_length()
        more = length - len(self._cell)
        self._cell = torch.cat([self._cell, self._cell.new_zeros(more)])
        self._sums = torch.cat([self._sums, self._sums.new_zeros(2, more)], 1)
        self._slots = self._slots.new_full((2 * length,), -1)
        self._claim(torch.arange(self._seen, device=self._cell.device))

    def _claim(self, rows: Tensor) -> None:
        """Give each of these rows a slot of its own."""
        while len(rows):
            slot, _ = self._seek(self._cell[rows])
            self._slots[slot] = rows.to(self._slots.dtype)  # of several that meet in a slot one gets it
            rows = rows[self._slots[slot] != rows]

    def _seek(self, cell: Tensor) -> tuple[Tensor, Tensor]:
        """(slot in which each cell is, or the free one where it would be; row that is there, -1 for none)."""
        bits = len(self._slots).bit_length() - 1
        mask = len(self._slots) - 1
        slot = (cell * _GOLDEN >> 64 - bits) & mask
        row = self._slots[slot]
        step = 0
        while True:
            # Another cell's slot is passed over, by one, two, three, ... which in the end leads to every slot.
            passed = torch.nonzero((row >= 0) & (self._cell[row] != cell)).flatten()
            if not len(passed):
                return slot, row
            step += 1
            slot[passed] = (slot[passed] + step) & mask
            row[passed] = self._slots[slot[passed]]
