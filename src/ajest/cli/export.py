"""The verb export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional

from .options import Number, Whole, verb


@verb
def export(
    run: Positional[Path],
    out: Positional[Path],
    *,
    width: Number = None,
    step: Whole = None,
    allow_inexact_ema: Annotated[bool, FlagCreatePairsOff] = False,
) -> None:
    """Write a run's network for others: weights, config and a model card.

    Example: ajest export runs/pets/arms/hard-running/seed-0 pets-hard

    Args:
        run: folder of the run; where it is part of a bench, the card holds the verdict.
        out: folder to write, which must not be there yet.
        width: EMA width; without it the first that was kept.
        step: of the snapshot; without it the latest.
        allow_inexact_ema: take a reconstructed width though it is more than 2 % off its averaging profile.
    """
    from ajest.bench.report.hub import export as written

    exported = written(run, out, step, width, allow_inexact_ema)
    print(f"{out}: step {exported.step:,}, EMA width {exported.width:g}; its card is {out / 'README.md'}")
