"""Keep-lists: files that name the examples that an arm learns from, as pruning before training decides them."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor

from ajest.diffusion.batch import RestrictableSource, Source
from ajest.errors import UserError, check, listed

MAX_BYTES = 384 << 20  # names of over a million examples


@dataclass(frozen=True)
class KeepList:
    """A file that names examples by their stable names, as `ajest data kept` writes them.

    Attributes:
        file: where it lies; may change from machine to machine.
        digest: of the names, whatever their order.
        count: how many they are.
    """

    file: str = field(compare=False)
    digest: str
    count: int

    def rows(self, names: Sequence[str]) -> Tensor:
        """The numbers of the examples, rising, int64, shape (count,).

        Args:
            names: of all examples by number, as `Task.example_names` gives them.

        Raises:
            UserError: the file cannot be read, holds other names than it did, or names that there are not.
        """
        wanted = _names_in(Path(self.file))
        check(
            _digest(wanted) == self.digest,
            f"{self.file} names other examples than when this arm was made: put the old list back, or name a new "
            "folder with --out",
        )
        places = {name: number for number, name in enumerate(names)}
        absent = sorted(name for name in wanted if name not in places)
        example = f", such as {listed(names[:1])}" if len(names) else ""
        check(
            not absent,
            f"{self.file} names {len(absent):,} of {self.count:,} examples that the data set does not hold "
            f"({listed(absent, 3)}): examples are named as `ajest data kept` writes them{example}",
        )
        return torch.tensor(sorted(places[name] for name in wanted), dtype=torch.int64)


def read_keep_list(path: Path) -> KeepList:
    """The keep-list of a CSV with a column `id`, or of a text with a name on each line.

    Raises:
        UserError: it cannot be read, names nothing, or names an example twice.
    """
    names = _names_in(path)
    return KeepList(str(path.resolve()), _digest(names), len(names))


def restricted(source: Source, keep_list: KeepList, names: Sequence[str]) -> Source:
    """The source, drawing from the examples of a keep-list alone; `id` numbers them as before.

    Args:
        source: of the task.
        keep_list: of the arm.
        names: of all examples by number.

    Raises:
        UserError: the source cannot leave out examples, or see `KeepList.rows`.
    """
    check(
        can_restrict(source) and len(names) > 0,
        f"{keep_list.file}: the task's source, {type(getattr(source, 'source', source)).__name__}, cannot leave out "
        "examples: a keep-list is for tasks with a data set, whose source has `restricted` and whose examples have "
        "names",
    )
    assert can_restrict(source)
    return source.restricted(keep_list.rows(names))


def can_restrict(source: Source) -> TypeGuard[RestrictableSource]:
    """Whether a source can leave out examples."""
    return hasattr(source, "restricted")


def _digest(names: Sequence[str]) -> str:
    return hashlib.blake2b("\n".join(sorted(names)).encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _names_in(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        check(len(data) <= MAX_BYTES, f"{path} is larger than {MAX_BYTES >> 20} MiB: name a list of examples")
        rows = [row for row in csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")) if row]
    except OSError as error:
        raise UserError(f"the keep-list {path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the keep-list {path} is no CSV in UTF-8: {error}") from error
    names = _column(path, rows)
    check(bool(names), f"the keep-list {path} is empty: name at least one example")
    if len(set(names)) < len(names):
        twice = [name for name, n in Counter(names).items() if n > 1]
        raise UserError(f"the keep-list {path} names examples twice: {listed(twice, 3)}")
    return names


def _column(path: Path, rows: list[list[str]]) -> list[str]:
    """The names in a table."""
    if rows and "id" in rows[0]:
        column = rows[0].index("id")
        return [row[column] for row in rows[1:] if len(row) > column]
    check(
        all(len(row) == 1 for row in rows),
        f"the keep-list {path} has no column `id`: head its columns, or write one name on each line",
    )
    return [row[0] for row in rows]
