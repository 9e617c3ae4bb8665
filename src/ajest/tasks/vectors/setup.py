"""From a data set to a task on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ajest.runtime.distributed import rank

from .builtin import DIGITS, is_keyword
from .data import Standard, classes_of, opened, split
from .task import VectorsTask

#: What is learned where no data are named.
USUAL = ("checkerboard",)


def vectors_task(
    data: tuple[str, ...],
    validation: tuple[str, ...] = (),
    warn: Callable[[str], None] = print,
    kind: type[VectorsTask] = VectorsTask,
    **settings: object,
) -> VectorsTask:
    """The task of a data set.

    Args:
        data: vectors to learn: files (.npy; .npz with an array `x` and maybe labels `y`; .csv and .parquet with maybe a
            column `label`), or names of built-in sets: two-moons, checkerboard, swiss-roll, mixture-Dd, digits.
        validation: held-out vectors of the same columns; without them a fifth of the data, at most 10,000, is held out.
        warn: told what was left out, taken for something or is constant.
        kind: of the task; another one than `VectorsTask` has a network of its own, for instance.
        settings: its other fields.

    Raises:
        UserError: the data cannot be read, are too few, or do not fit together.
    """
    found = opened(data)
    learned, held_out = split(found, opened(validation) if validation else None)
    standard, classes = Standard.of(learned.x), classes_of(learned, held_out)
    if tuple(data) == ("digits",):
        settings = {"image": DIGITS, **settings}
    constant = sum(scale == 0 for scale in standard.scale)
    said = [
        *dict.fromkeys((*learned.notes, *held_out.notes)),
        "" if validation else f"{len(held_out):,} of {len(found):,} vectors are held out to judge samples by",
        f"{constant} of {len(standard.scale)} coordinates are the same in all vectors" if constant else "",
    ]
    task = kind(
        data=tuple(map(_absolute, data)),
        validation=tuple(map(_absolute, validation)),
        digest=learned.digest,
        validation_digest=held_out.digest,
        size=len(learned),
        held_out=len(held_out),
        standard=standard,
        columns=learned.columns or tuple(f"x{i}" for i in range(len(standard.mean))),
        classes=classes,
        **settings,  # type: ignore[arg-type]
    )
    for line in filter(None, said if rank() == 0 else []):  # of several processes one speaks
        warn(line)
    return task


def _absolute(spec: str) -> str:
    """A path from anywhere; the name of a set stays as it is."""
    return spec if is_keyword(spec) else str(Path(spec).resolve())


def usual() -> VectorsTask:
    """The task where no data are named."""
    return vectors_task(USUAL)
