"""From a data set to a task on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..config import check
from .data import classes_wanted, of_classes, open_images
from .task import ImageTask

LEAST_HELD_OUT = 16


def image_task(
    data: tuple[str, ...],
    validation: tuple[str, ...] = (),
    resolution: int = 64,
    classes: int | tuple[str, ...] | None = None,
    skip_bad: bool = False,
    complain: Callable[[str], None] = print,
    **settings: object,
) -> ImageTask:
    """The task of a data set.

    Args:
        data: training pictures, as `open_images` reads them.
        validation: held-out pictures of the same classes.
        resolution: height and width to bring pictures to.
        classes: learn these alone, named or keyed; or so many, spread over the list of classes; None learns all.
        skip_bad: go on without files that cannot be read.
        complain: told about those.
        settings: other fields of `ImageTask`.

    Raises:
        UserError: the data cannot be read; too few pictures.
    """
    known = open_images(data, resolution, "train", skip_bad, complain=complain)
    train = known.only(classes_wanted(known, classes))
    if not known.classes:
        complain(f"{' '.join(data)}: no classes, so the network is unconditional")
    references = min(int(str(settings.pop("references", 5000))), len(train) // 2)
    check(
        references >= 64,
        f"{' '.join(data)} holds {len(train)} pictures to learn: too few to judge samples by; 128 are the least",
    )
    held_out = open_images(validation, resolution, "val", skip_bad, complain=complain) if validation else None
    if held_out is not None:
        held_out, notes = of_classes(held_out, known.classes, train.classes)
        for note in notes:
            complain(note)
        check(
            held_out.digest != train.digest,
            f"{' '.join(validation)} holds the training pictures themselves: name others for --validation, or none",
        )
        check(
            len(held_out) >= LEAST_HELD_OUT,
            f"{' '.join(validation)} holds {len(held_out)} pictures of these classes: {LEAST_HELD_OUT} are the least",
        )
    return ImageTask(
        data=tuple(_absolute(s) for s in data),
        validation=tuple(_absolute(s) for s in validation),
        digest=train.digest,
        validation_digest="" if held_out is None else held_out.digest,
        size=len(train),
        classes=train.classes,
        names=train.names,
        resolution=resolution,
        references=references,
        **settings,  # type: ignore[arg-type]
    )


def _absolute(spec: str) -> str:
    """A path from anywhere; what is no path stays as it is."""
    procedural = spec.partition(":")[0] in ("shapes", "hf")
    return spec if procedural or not Path(spec).exists() else str(Path(spec).resolve())
