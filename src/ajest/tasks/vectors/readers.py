"""Tables of numbers from .npy, .npz, .csv and .parquet. Sizes are checked before anything is read, and nothing is
unpickled."""

from __future__ import annotations

import csv
import math
import zipfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ajest.errors import UserError, check, listed

MAX_VALUES = 1 << 28  # numbers of a table, 2 GiB in float64
MAX_DIMENSIONS = 4096
_VALUES, _LABELS = ("x", "X", "data"), ("y", "labels", "label")
_LABEL = "label"  # the column of a .csv or .parquet


@dataclass(frozen=True)
class Table:
    """Rows of numbers as they stand in a file.

    Attributes:
        x: float64, shape (N, d).
        labels: key of each row's class, or None.
        columns: name of each column; () where they have none.
        notes: on what was left out or taken for something.
    """

    x: np.ndarray
    labels: list[str] | None = None
    columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read(path: Path) -> Table:
    """The table of a file, of finite numbers, at least one row and one column.

    Raises:
        UserError: there is no such file; its suffix is unknown; it is damaged, too large, or holds something else than
            a table of finite numbers.
    """
    reader = _READERS.get(path.suffix.lower())
    check(path.exists(), f"{path} does not exist")
    check(path.is_file(), f"{path} is a folder: name one file of vectors, {listed(_READERS)}")
    if reader is None:
        raise UserError(f"{path}: vectors are read from {listed(_READERS)}, not from {path.suffix or 'such files'}")
    try:
        found = reader(path)
    except UserError:
        raise
    except Exception as error:  # a damaged file raises anything: zlib.error, MemoryError, KeyError, ArrowInvalid
        raise UserError(f"{path} cannot be read as {path.suffix.lower()}: {_first_line(error)}") from error
    _check_finite(path, found)
    return found


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_table(what: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise unless an array of this shape and type is a table of numbers that can be kept."""
    kinds = {"O": "objects of Python, which are never loaded", "U": "text", "S": "text", "V": "records"}
    kind = kinds.get(dtype.kind, str(dtype))
    check(dtype.kind in "fiub", f"{what} holds {kind}: save it as a plain array of floats")
    if len(shape) != 2:
        mend = {0: "an array of rows is needed", 1: "reshape(-1, 1) makes each number a row"}
        rest = mend.get(len(shape), f"reshape(len(x), -1) makes rows of {math.prod(shape[1:]):,}")
        raise UserError(f"{what} has shape {shape}, and vectors have shape (N, d): {rest}")
    n, d = shape
    check(n > 0 and d > 0, f"{what} has shape {shape}: there are no numbers in it")
    _check_width(what, d)
    check(
        n * d <= MAX_VALUES,
        f"{what} holds {n:,} rows of {d:,}, more than the {MAX_VALUES:,} numbers that are kept in memory: take fewer",
    )


def _check_width(what: str, d: int) -> None:
    check(
        d <= MAX_DIMENSIONS,
        f"{what} has {d:,} columns, more than {MAX_DIMENSIONS:,}: keep the leading ones of a PCA, for instance",
    )


def _check_finite(path: Path, table: Table) -> None:
    bad = ~np.isfinite(table.x).all(1)
    if bad.any():
        row = int(bad.argmax())
        column = int((~np.isfinite(table.x[row])).argmax())
        name = table.columns[column] if table.columns else column
        raise UserError(
            f"{path}: {int(bad.sum()):,} of {len(bad):,} rows hold NaN or infinity, the first is row {row} in column "
            f"{listed([name])}: leave such rows out or fill them"
        )


def _header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype]:
    """(shape, type) of the array that a file in NumPy's format says it holds, of so many bytes in all."""
    version = np.lib.format.read_magic(file)
    one = version == (1, 0)
    shape, _, dtype = (np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0)(file)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > size:  # before anything counts on it
        raise ValueError("it says that it is larger than it is")
    return shape, dtype


def _npy(path: Path) -> Table:
    with path.open("rb") as file:
        _check_table(str(path), *_header(file, path.stat().st_size))
    return Table(np.load(path, allow_pickle=False).astype(np.float64))


def _npz(path: Path) -> Table:
    with zipfile.ZipFile(path) as archive:
        headers = {}
        for member in archive.infolist():
            with archive.open(member) as file:
                headers[member.filename.removesuffix(".npy")] = _header(file, member.file_size)
    labels = next((name for name in _LABELS if name in headers), None)
    name = _values_of(path, [k for k in headers if k != labels])
    _check_table(f"{path}: {name}", *headers[name])
    n = headers[name][0][0]
    if labels is not None:
        _check_labels(f"{path}: {labels}", n, *headers[labels])
    with np.load(path, allow_pickle=False) as content:
        x = content[name].astype(np.float64)
        keys = None if labels is None else content[labels].reshape(-1).astype(str).tolist()
    idle = sorted(headers.keys() - {name, labels})
    return Table(x, keys, notes=(f"{path}: arrays that are not used: {listed(idle)}",) if idle else ())


def _values_of(path: Path, names: Sequence[str]) -> str:
    """The array that holds the vectors."""
    told = [name for name in _VALUES if name in names] or list(names)
    check(bool(told), f"{path} holds no array of vectors: call it x")
    check(len(told) == 1, f"{path}: several arrays may be the vectors, {listed(told)}: call the right one x")
    return told[0]


def _check_labels(what: str, n: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
    mend = ": save argmax(1)" if len(shape) == 2 else ": save astype(int)" if dtype.kind == "f" else ""
    check(
        shape in ((n,), (n, 1)) and dtype.kind in "iubUS",
        f"{what} must be {n:,} whole numbers or names, one a row, not {dtype} of shape {shape}{mend}",
    )


def _csv(path: Path) -> Table:
    size = path.stat().st_size
    check(
        size <= 8 * MAX_VALUES,
        f"{path} is {size / 2**30:.1f} GiB of text, more than {8 * MAX_VALUES / 2**30:.0f}: take fewer rows",
    )
    with path.open(encoding="utf-8-sig", newline="") as file:
        return _rows(path, csv.reader(file))


def _rows(path: Path, lines: Any) -> Table:
    """The table of a csv reader."""
    filled = ((lines.line_num, cells) for cells in lines if any(cell.strip() for cell in cells))
    first = next(filled, None)
    if first is None:
        raise UserError(f"{path} is empty")
    names, notes = _names(path, first[1])
    width, at = len(first[1]), names.index(_LABEL) if _LABEL in names else None
    check(names.count(_LABEL) < 2, f"{path} has several columns {_LABEL}: one may be the labels")
    index = bool(names) and not names[0].strip() and width > 1
    if index:
        notes.append(f"{path}: the first column has no name and is left out as a number of the row")
    used = [i for i in range(width) if i != at and not (index and i == 0)]
    check(bool(used), f"{path} has no column beside the labels")
    _check_width(str(path), len(used))
    values, labels = array("d"), []
    for line, cells in filled if names else _again(first, filled):
        check(len(cells) == width, f"{path}, line {line}: {len(cells)} cells where the first line has {width}")
        try:
            values.extend([float(cells[i]) for i in used])
        except ValueError:
            raise _not_a_number(path, line, cells, used, names) from None
        if at is not None:
            labels.append(cells[at].strip())
    check(len(values) > 0, f"{path} holds no rows, only the names of columns")
    check(at is None or all(labels), f"{path}: some rows have no label: leave such rows or the column out")
    x = np.frombuffer(values).reshape(-1, len(used))
    return Table(
        x, None if at is None else labels, tuple(names[i].strip() for i in used) if names else (), tuple(notes)
    )


def _again(first: tuple[int, list[str]], rest: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    yield first
    yield from rest


def _names(path: Path, cells: list[str]) -> tuple[list[str], list[str]]:
    """(names of columns if the first line has them, what is to be said of it)."""
    numbers = sum(_is_number(cell) for cell in cells)
    counted = len(cells) > 1 and cells == [str(i) for i in range(len(cells))]  # as pandas names columns
    if numbers == len(cells) and not counted:
        return [], []
    return cells, [f"{path}: the first line, {listed(cells, 4)}, is taken for names of columns"] if numbers else []


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _not_a_number(path: Path, line: int, cells: list[str], used: list[int], names: list[str]) -> UserError:
    i = next(i for i in used if not _is_number(cells[i]))
    held = listed([repr(cells[i])]) if cells[i].strip() else "nothing"
    column = listed([names[i]]) if names else i
    apart = next((mark for mark in (";", "\t") if mark in cells[i]), None)
    mend = "leave the column out, make it numbers, or fill its gaps"
    if apart is not None:
        mend = f"columns must be separated by commas, not by {'tabs' if apart != ';' else 'semicolons'}"
    return UserError(f"{path}, line {line}: column {column} must hold numbers and holds {held}: {mend}")


def _parquet(path: Path) -> Table:
    try:
        from pyarrow import parquet, types
    except ImportError as error:
        raise UserError(f"{path}: parquet needs pyarrow ({error}): pip install 'ajest[parquet]'") from error
    file = parquet.ParquetFile(path)
    schema, n = file.schema_arrow, file.metadata.num_rows
    used = [name for name in schema.names if name not in (_LABEL, "__index_level_0__")]
    for name in used:
        kind = schema.field(name).type
        plain = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
        check(plain, f"{path}: column {listed([name])} must hold numbers and holds {kind}: leave it out")
    _check_table(str(path), (n, len(used)), np.dtype(np.float64))
    x = np.empty((n, len(used)))
    for i, name in enumerate(used):
        x[:, i] = file.read([name]).column(0).to_numpy().astype(np.float64)
    if _LABEL not in schema.names:
        return Table(x, None, tuple(used))
    labels = file.read([_LABEL]).column(0).to_pylist()
    whole = all(isinstance(label, (int, str)) for label in labels)
    check(whole, f"{path}: column {_LABEL} must hold whole numbers or names, one in each row")
    return Table(x, list(map(str, labels)), tuple(used))


_READERS: dict[str, Callable[[Path], Table]] = {".npy": _npy, ".npz": _npz, ".csv": _csv, ".parquet": _parquet}
