"""The command that judges published claims."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ajest.errors import Corrupt, UserError, check, listed, unknown

from .console import Device, console, device_of, warn
from .options import Files, Folder, Whole, Words, flag, shown, verb

if TYPE_CHECKING:
    from ajest.claims.run import Piece
    from ajest.claims.store import Verdicts

ClaimEnd = Literal["time", "samples", "flops"]


@verb
def claims(
    *,
    only: Words = None,
    settings: Words = None,
    ends: Annotated[tuple[ClaimEnd, ...], shown("{time,samples,flops} [...]")] = ("time", "samples", "flops"),
    seeds: Whole = None,
    iterations: Whole = None,
    data: Words = None,
    validation: Words = None,
    join: Files = None,
    out: Folder = None,
    workers: Whole = None,
    device: Device = "auto",
) -> None:
    """Judge published claims of cheaper training at equal budgets.

    Example: ajest claims --only min-snr stratified --settings tree-x0 --ends time
             ajest claims --only selection --settings tree digits
             ajest claims --join mine yours/claims.json --out both

    - The same command goes on where it was stopped.
    - The page claims.md is written again after each bench, and claims.json.
    - Every arm has a learning rate of its own, found on other seeds first.
    - All of it takes a night on 2 cores: name claims, settings and ends.

    Args:
        only: claims, or groups of them: levels, draws, weights, coupling, targets, terms, selection, course,
            optimizer, guides; without it all. Claims of a group are arms of one bench: to add one later, begin another
            folder.
        settings: on what: tree (exact targets), tree-x0 (clean ones), mixture, digits, images; without it all but
            images, which need --data.
        ends: what is equal. Where all steps cost the same, equal operations are equal samples and not run twice.
        seeds: how many, from 400 on; without it 20 on the tree and 10 elsewhere.
        iterations: steps of the baseline, 32 or more; without it the setting's own.
        data: of the setting images: a folder, archive or what else `ajest data describe` reads, ten classes or more.
        validation: held-out examples of the same classes.
        join: claims.json of other folders, or these folders: nothing is run, and --out gets one page of all. --only,
            --settings and --ends choose from them.
        out: folder of all benches, or of the joined page; without it runs/claims.
        workers: processes; without it one for each core, or on CUDA for each card.
        device: where to compute.
    """
    from ajest.claims.catalogue import claims_named
    from ajest.claims.findings import judged
    from ajest.claims.page import write_page
    from ajest.claims.run import pieces, run_pieces
    from ajest.claims.settings import SETTINGS, with_data
    from ajest.claims.store import VERDICTS, Verdicts, joined, narrowed, read_verdicts
    from ajest.jobs.local import Local

    for name in settings or ():
        if name not in SETTINGS:
            raise unknown("setting", name, SETTINGS)
    if join is not None:
        sources = {(path if path.is_dir() else path.parent).resolve() for path in join}
        if out is None or out.resolve() in sources:
            raise UserError("--join writes one page of all: name a folder of its own for it with --out")
        told_to_run = {"seeds": seeds, "iterations": iterations, "data": data, "validation": validation}
        asked_too = [flag(name) for name, value in told_to_run.items() if value is not None]
        check(not asked_too, f"--join runs nothing: leave out {listed(asked_too)}")
        verdicts = joined(map(read_verdicts, join))
        _print(out, narrowed(verdicts, claims_named(only or ()), settings or tuple(SETTINGS), ends))
        return
    check(seeds is None or seeds >= 1, f"--seeds is how many: at least 1, not {seeds}")
    check(data is None or settings == ("images",), "--data is for --settings images alone: judge others without it")
    check(
        validation is None or data is not None, "--validation is what samples of --data are judged by: name that, too"
    )
    places = [SETTINGS[name] for name in SETTINGS if (name in settings if settings else name != "images")]
    if data is not None:
        places = [with_data(place, data, validation or ()) for place in places]
    asked = list(pieces(claims_named(only or ()), places, ends, seeds, iterations))
    check(bool(asked), "none of these claims has a meaning in these settings: name others")
    root = Path("runs") / "claims" if out is None else out
    command = _command(
        only=only, settings=settings, ends=ends, seeds=seeds, iterations=iterations, data=data, validation=validation
    )
    before: tuple[str, ...] = ()
    if (root / VERDICTS).exists():
        try:
            before = read_verdicts(root).commands
        except (UserError, Corrupt) as error:  # all else in it is written anew from the benches
            warn(f"{error}; the page will name this command alone")

    def so_far() -> Verdicts:
        return Verdicts(tuple(dict.fromkeys((*before, command))), judged(root))

    def told(piece: Piece, error: UserError | None) -> None:
        if error is not None:
            warn(f"{piece}: not made, the others go on: {error}")
            return
        console().print(f"{piece}: done", highlight=False)
        write_page(root, so_far())

    run_pieces(root, asked, Local(workers), device_of(device), told)
    _print(root, so_far())


def _print(root: Path, verdicts: Verdicts) -> None:
    from ajest.claims.page import write_page

    print(write_page(root, verdicts))
    print(f"\nPage: {root / 'claims.md'}")


def _command(**options: object) -> str:
    """What was asked for, as it is typed."""
    words = ["ajest", "claims"]
    for name, value in options.items():
        if value is not None and (name, value) != ("ends", ("time", "samples", "flops")):
            words += [flag(name), *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return shlex.join(words)
