"""A table of findings as a value; how it looks is decided where it is printed (`bench.report.tables`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

#: What a cell is: a difference that is decided, a judgement, a head that a verdict rests on, words, or an aside.
Tone = Literal["", "better", "worse", "equivalent", "agree", "differ", "headline", "text", "aside"]


@dataclass(frozen=True)
class TableCell:
    """A cell of a table.

    Attributes:
        value: what it says.
        detail: what stands below or behind that, smaller.
        tone: what kind of cell it is.
        tooltip: more of it, where a page can show that.
    """

    value: str
    detail: str = ""
    tone: Tone = ""
    tooltip: str = ""


#: A cell, or its text where that is all.
Entry = str | TableCell


@dataclass(frozen=True)
class Table:
    """Heads above rows of cells; the first of each row names it. A table without rows is false.

    Attributes:
        title: one line.
        heads: of the columns.
        rows: as long as the heads, each.
        notes: sentences for below the table.
    """

    title: str
    heads: tuple[TableCell, ...]
    rows: tuple[tuple[TableCell, ...], ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        title: str,
        heads: Iterable[Entry],
        rows: Iterable[Iterable[Entry]],
        notes: Iterable[str] = (),
    ) -> Table:
        """A table of cells, each given as such or as its text."""
        return cls(title, _cells(heads), tuple(_cells(row) for row in rows), tuple(notes))

    def __len__(self) -> int:
        return len(self.rows)

    def turned(self, corner: str) -> Table:
        """Rows as columns, with other words in the corner."""
        first, *others = zip(self.heads, *self.rows, strict=True)
        return Table(self.title, (TableCell(corner), *first[1:]), tuple(others), self.notes)

    def texts(self) -> list[list[str]]:
        """What the cells say, row by row, without the heads."""
        return [[cell.value for cell in row] for row in self.rows]


def _cells(row: Iterable[Entry]) -> tuple[TableCell, ...]:
    return tuple(TableCell(cell) if isinstance(cell, str) else cell for cell in row)
