"""The verb export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional

from .options import Number, Whole, shown, verb


@verb
def export(
    run: Positional[Path],
    out: Positional[Annotated[Path, shown("FOLDER")]],
    *,
    to: Annotated[Literal["ajest", "diffusers"], shown("{ajest,diffusers}")] = "ajest",
    width: Number = None,
    step: Whole = None,
    allow_inexact_ema: Annotated[bool, FlagCreatePairsOff] = False,
) -> None:
    """Write a run's network for others, with a model card; or for diffusers.

    Example: ajest export runs/pets/arms/hard-running/seed-0 pets-hard
             ajest export runs/pets --to diffusers pets-unet

    Args:
        run: folder of the run; where it is part of a bench, the card holds the verdict.
        out: folder to write, which must not be there yet.
        to: which form; "diffusers" is for models of diffusers (`--network diffusers:PATH`), and read by
            `from_pretrained`.
        width: EMA width; without it the first that was kept.
        step: of the snapshot; without it the latest.
        allow_inexact_ema: take a reconstructed width though it is more than 2 % off its averaging profile.
    """
    if to == "diffusers":
        from ajest.integrations.diffusers import export as for_diffusers
        from ajest.training.networks import load_network

        network, at = load_network(run, step, width, inexact=allow_inexact_ema)
        folders = for_diffusers(network, out)
        print(f"{out}: step {at:,}, in {' and '.join(folder.name for folder in folders)}")
        return
    from ajest.bench.report.hub import export as written

    exported = written(run, out, step, width, allow_inexact_ema)
    print(f"{out}: step {exported.step:,}, EMA width {exported.width:g}; its card is {out / 'README.md'}")
