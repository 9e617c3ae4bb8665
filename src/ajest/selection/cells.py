"""Running means in numbered cells of which only those that were seen are held."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

PRIOR = 1.0  # observations that what is known beforehand counts for
#: 2^64 over the golden ratio, as int64: it scatters numbers that lie side by side (Knuth, TAOCP 6.4).
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_LEAST = 64  # cells that there is room for from the start
_SLOTS = 4  # of the hash table for each cell that there is room for: with fewer, look-ups meet other cells more often


class Cells:
    """Mean of what was seen in each of any number of cells; of m sightings after it, one counts 0.5^(m / half_life).

    A batch is as many sightings as it holds, in its order: it may be cut anywhere. What a step costs depends on the
    number of examples that it names and not on that of the cells. Memory and what is stored depend on the number of
    cells that were seen. An open hash table finds a cell's row; rows stand in the order of their first sighting, so
    equal sightings give equal rows. Row 0 is no cell's: it stands for all that were not seen.

    Args:
        half_life: sightings of a cell after which an earlier one in it counts half.
        device: where it lives.
    """

    def __init__(self, half_life: float, device: torch.device | str = "cpu") -> None:
        self._fade = 0.5 ** (1 / half_life)
        self._rows = 1
        self._cell = torch.full((_LEAST,), -1, dtype=torch.int64, device=device)  # of each row
        self._sums = torch.zeros(_LEAST, 2, device=device)  # faded count and sum of each row
        self._slots = torch.zeros(_SLOTS * _LEAST, dtype=torch.int32, device=device)  # rows by hash, 0 where free

    def __len__(self) -> int:
        """How many cells were seen."""
        return self._rows - 1

    def update(self, cell: Tensor, values: Tensor) -> None:
        """Take `values` seen in `cell` in, shape (n,) each, both on the table's device; cells are int64, from 0."""
        if not len(cell):
            return
        cells, order = cell.sort(stable=True)
        cells, group, sightings = torch.unique_consecutive(cells, return_inverse=True, return_counts=True)
        last = (sightings.cumsum(0) - 1).index_select(0, group)
        later = last - torch.arange(len(cell), device=cell.device)  # sightings in the same cell
        weight = self._fade ** later.to(self._sums.dtype)
        seen = torch.stack([weight, weight * values.index_select(0, order).to(weight.dtype)], 1)
        row = self._row_of(cells)
        faded = self._sums.index_select(0, row).mul_((self._fade ** sightings.to(weight.dtype))[:, None])
        news = torch.zeros_like(faded).index_add_(0, group, seen)
        self._sums.index_copy_(0, row.long(), faded.add_(news))

    def shrunk(self, cell: Tensor, prior: Tensor) -> Tensor:
        """Mean of each named cell, drawn towards `prior` as if that had been seen once, shape (n,)."""
        count, total = self._sums.index_select(0, self._seek(cell)[1]).unbind(1)
        return torch.add(total, prior, alpha=PRIOR).div_(count + PRIOR)

    def state(self) -> dict[str, Tensor]:
        """What was seen: the numbers of the cells, shape (n,), and their faded counts and sums, shape (2, n)."""
        return {"cells": self._cell[1 : self._rows], "sums": self._sums[1 : self._rows].T.contiguous()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self._rows = 1
        self._slots.zero_()
        if len(state["cells"]):
            row = self._row_of(state["cells"].to(self._cell.device))
            self._sums[row] = state["sums"].to(self._sums.device).T

    def _row_of(self, cells: Tensor) -> Tensor:
        """The row of each of these distinct cells; those that are new get the next ones, empty."""
        slot, row = self._seek(cells)
        new = torch.nonzero(row == 0).flatten()
        if not len(new):
            return row
        added = torch.arange(self._rows, self._rows + len(new), device=new.device)
        fits = self._rows + len(new) <= len(self._cell)
        if not fits:
            self._make_room(self._rows + len(new))
        self._cell[added], self._sums[added] = cells[new], 0.0
        self._rows += len(new)
        self._claim(added, slot[new] if fits else None)
        row[new] = added.to(row.dtype)
        return row

    def _make_room(self, rows: int) -> None:
        length = 1 << (rows - 1).bit_length()
        more = length - len(self._cell)
        self._cell = torch.cat([self._cell, self._cell.new_zeros(more)])
        self._sums = torch.cat([self._sums, self._sums.new_zeros(more, 2)])
        self._slots = self._slots.new_zeros(_SLOTS * length)
        self._claim(torch.arange(1, self._rows, device=self._cell.device))

    def _claim(self, rows: Tensor, slot: Tensor | None = None) -> None:
        """Give each of these rows a slot of its own, if need be another than the free one where it would be."""
        while len(rows):
            slot = self._seek(self._cell[rows])[0] if slot is None else slot
            self._slots[slot] = rows.to(self._slots.dtype)  # of several that meet in a slot one gets it
            rows, slot = rows[self._slots[slot] != rows], None

    def _seek(self, cell: Tensor) -> tuple[Tensor, Tensor]:
        """(slot in which each cell is, or the free one where it would be; row that is there, 0 for none)."""
        bits = len(self._slots).bit_length() - 1
        mask = len(self._slots) - 1
        slot = (cell * _GOLDEN).bitwise_right_shift_(64 - bits).bitwise_and_(mask)
        row = self._slots.index_select(0, slot)
        passed, step = torch.nonzero(self._is_another(row, cell)).flatten(), 0
        while len(passed):
            # Another cell's slot is passed over, by one, two, three, ... which in the end leads to every slot.
            step += 1
            further = (slot[passed] + step).bitwise_and_(mask)
            found = self._slots[further]
            slot[passed], row[passed] = further, found
            passed = passed[self._is_another(found, cell[passed])]
        return slot, row

    def _is_another(self, row: Tensor, cell: Tensor) -> Tensor:
        """Where a row is that of another cell than this."""
        return (self._cell.index_select(0, row) != cell).logical_and_(row)
