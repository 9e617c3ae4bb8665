"""Verbs about data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional

from ajest.errors import UserError, check, listed

from .console import Device, console, device_of, warn
from .options import Share, Whole, Word, share_of, shown


def describe(
    spec: Positional[Annotated[tuple[str, ...], shown("SPEC [SPEC ...]")]],
    sheet: Path = Path("contact-sheet.png"),
    resolution: int = 64,
    validation: bool = False,
) -> None:
    """Print what a data set holds, and write a contact sheet of it.

    Example: ajest data describe train-1of4.zip train-2of4.zip

    Args:
        spec: a folder, .zip or .npz file, hf:NAME[:split], or shapes; several are one data set.
        sheet: file of the contact sheet.
        resolution: height and width of the images on it.
        validation: look at the validation part of a data set that has one.
    """
    from rich.markup import escape
    from rich.table import Table

    from ajest.storage.checkpoint import write_atomic
    from ajest.tasks.images import data
    from ajest.tasks.images.data.sizes import resolution_of
    from ajest.tasks.images.setup import LEAST_LEARNED
    from ajest.tasks.images.sheets import png

    check(resolution >= 1, f"the resolution of a contact sheet must be at least 1, not {resolution}")
    found = data.describe(spec, resolution, "val" if validation else "train")
    write_atomic(sheet, png(found.sheet))  # before anything is printed, which nobody may read to its end
    out = console(100)
    out.print(f"[bold]{found.total:,} images[/bold] ({'; '.join(dict.fromkeys(found.layouts))})")
    table = Table(box=None, pad_edge=False, show_header=False)
    sizes = [f"{w} x {h}: {n:,}" for (w, h), n in found.sizes.most_common(6)]
    if len(found.sizes) > 6:
        sizes.append(f"{len(found.sizes) - 6:,} other sizes")
    table.add_row("sizes", ", ".join(sizes))
    size = resolution_of(found.sizes)
    table.add_row("learned at", f"{size} x {size}, unless --resolution says otherwise")
    table.add_row("modes", ", ".join(f"{mode}: {n:,}" for mode, n in found.modes.most_common()))
    if found.classes:
        counts = list(found.classes.values())
        table.add_row("classes", f"{len(counts):,} of {counts[0]:,} to {counts[-1]:,} images")
        few = [
            listed([f"{found.names[k]}{'' if found.names[k] == k else f' ({k})'}: {n:,}"])
            for k, n in list(found.classes.items())[:5]
        ]
        if counts[0] < counts[-1]:
            table.add_row("rarest", escape(", ".join(few)))
    else:
        table.add_row("classes", "none: the network will be unconditional")
    table.add_row("bad files", f"{len(found.bad):,}")
    out.print(table)
    whole = sum(found.sizes.values())
    if whole < LEAST_LEARNED and not validation:
        out.print(f"{whole} images are too few for a bench: {LEAST_LEARNED} are the least")
    for note in found.notes:
        out.print(note, markup=False, highlight=False, soft_wrap=True)
    for name, why in list(found.bad.items())[:20]:
        out.print(listed([f"  {name}: {why}"]), markup=False, highlight=False)
    if len(found.bad) > 20:
        out.print(f"  and {len(found.bad) - 20:,} more")
    print(sheet)


def prepare(
    paths: Positional[Annotated[tuple[str, ...], shown("SPEC [SPEC ...] OUT")]],
    resolution: Whole = None,
    validation: bool = False,
    skip_bad: bool = False,
) -> None:
    """Pack a data set into one file, decoded, cropped and resized once.

    Example: ajest data prepare train-1of4.zip train-2of4.zip tiny.npz

    Args:
        paths: the data set (a folder, .zip or .npz file, hf:NAME[:split], or shapes; several are one data set), and
            last the file to write: OUT.npz, which is used in place; or OUT.zip, in EDM's form.
        resolution: height and width, a multiple of 8 from 16 to 256. Without it that of the images if all are square
            and of one such size, else 64.
        validation: the validation part of a data set that has one.
        skip_bad: go on without files that cannot be read.
    """
    from ajest.tasks.images import data
    from ajest.tasks.images.data.sizes import check_resolution, resolution_of, what_is_changed

    if len(paths) < 2:
        raise UserError("name the data set and the file to write: ajest data prepare SPEC OUT.npz")
    spec, out = paths[:-1], Path(paths[-1])
    if out.exists():  # where OUT was forgotten, the last path is a part of the data set
        raise UserError(f"{out} exists already: name the file to write last, or remove the old one")
    split: Literal["train", "val"] = "val" if validation else "train"
    sizes = data.sizes_of(spec, split)
    said = "" if resolution is not None else "; --resolution names another size"
    resolution = resolution_of(sizes) if resolution is None else resolution
    check_resolution(resolution)
    found = data.prepare(spec, out, resolution, split, skip_bad, warn)
    changed = what_is_changed(sizes, resolution, mend=said)
    if changed:
        warn(changed)
    print(f"{out}: {len(found):,} images of {len(found.classes) or 'no'} classes, {out.stat().st_size / 1e6:,.0f} MB")


def encode(
    paths: Positional[Annotated[tuple[str, ...], shown("SPEC [SPEC ...] OUT")]],
    autoencoder: Annotated[Path, shown("DIR")],
    resolution: Whole = None,
    validation: bool = False,
    skip_bad: bool = False,
    device: Device = "auto",
) -> None:
    """Encode a data set as latents of an autoencoder, to learn these.

    Example: ajest data encode pets.zip pets-latents --autoencoder sd-vae
             ajest bench images --data pets-latents

    - The same command goes on where it was stopped.

    Args:
        paths: the data set, as of prepare, and last the folder to write.
        autoencoder: folder of an AutoencoderKL of diffusers, with safetensors.
        resolution: height and width of the images; without it as of prepare.
        validation: the validation part of a data set that has one.
        skip_bad: go on without files that cannot be read.
        device: where to compute.
    """
    from ajest.tasks.images import data
    from ajest.tasks.images.data.latents import encode as encoded
    from ajest.tasks.images.data.sizes import check_resolution, resolution_of

    if len(paths) < 2:
        raise UserError("name the data set and the folder to write: ajest data encode SPEC OUT --autoencoder DIR")
    spec, out = paths[:-1], Path(paths[-1])
    if out.exists():  # where OUT was forgotten, the last path is a part of the data set
        raise UserError(f"{out} exists already: name the folder to write last, or remove the old one")
    split: Literal["train", "val"] = "val" if validation else "train"
    resolution = resolution_of(data.sizes_of(spec, split)) if resolution is None else resolution
    check_resolution(resolution)
    images = data.open_images(spec, resolution, split, skip_bad, warn=warn)
    found = encoded(images, autoencoder, out, device_of(device))
    space, size = found.space, sum(file.stat().st_size for file in out.iterdir())
    print(
        f"{out}: {len(images):,} latents of {space.channels} x {space.side} x {space.side}, standard deviation "
        f"{found.sigma_data:.3f}, {size / 1e6:,.0f} MB"
    )


def kept(
    run: Positional[Path],
    out: Positional[Path],
    arm: Word = None,
    top: Share = None,
) -> None:
    """Export how often each example was drawn and trained on: a keep-list in CSV.

    Example: ajest data kept runs/images-cpu-mini kept.csv
             ajest data kept runs/images-cpu-mini half.csv --arm hard --top 50%
             ajest bench images --keep-list half.csv

    Args:
        run: folder of a run, or of a bench, of which the runs of each arm are added up.
        out: the CSV file.
        arm: of a bench, this one alone.
        top: only this share of the examples, those that were trained on most often.
    """
    import torch

    from ajest.bench.read.kept import kept_of
    from ajest.storage import checkpoint

    found = kept_of(run, warn)
    if arm is not None or top is not None:
        found = found.of(arm)
    if top is not None:
        found = found.top(share_of(top, "--top"))
    checkpoint.write_atomic(out, found.as_csv())
    drawn, trained = torch.stack(list(found.by_arm.values())).sum((0, 2)).tolist()
    until = f", up to step {found.step:,}" if found.step else f" by {', '.join(found.by_arm)}"
    print(f"{out}: {len(found.names):,} examples, {drawn:,} drawn, {trained:,} trained on{until}")


def prune(
    run: Positional[Path],
    out: Positional[Path],
    by: Literal["clusters", "difficulty"],
    keep: Annotated[str, shown("X%")],
    prefer: Literal["hard", "easy"] = "hard",
    clusters: Annotated[int, shown("N")] = 64,
    device: Device = "auto",
) -> None:
    """Choose a part of a data set before training: a keep-list in CSV.

    Example: ajest data prune runs/pets half.csv --by clusters --keep 50%
             ajest data prune runs/pets hard.csv --by difficulty --keep 50%
             ajest bench images --keep-list half.csv

    Args:
        run: folder of a run that learns the data set; of a bench too, for clusters.
        out: the CSV file.
        by: clusters of coordinates or of 8 x 8 fields of images, of each of which a share is kept; or difficulty, the
            loss of the run's network in units of the mean at like noise levels.
        keep: the share that is kept.
        prefer: hard: the farthest from their cluster's centre, or of the highest losses; easy: the nearest, the lowest.
        clusters: how many there are.
        device: where losses are computed.
    """
    from ajest.bench.plan.config import BenchConfig
    from ajest.storage import checkpoint
    from ajest.storage.config_file import read_config_file
    from ajest.training.pruning import by_clusters, by_difficulty
    from ajest.training.run_folder import read_config

    share, bench = share_of(keep, "--keep"), run / "bench.json"
    check(share < 1, f"--keep {keep}: keep less than all, such as 50%")
    check(clusters >= 1, f"--clusters {clusters}: there must be at least 1")
    if by == "difficulty":
        found = by_difficulty(run, share, prefer, device_of(device))
    else:
        task = read_config_file(bench, BenchConfig).task if bench.exists() else read_config(run).task
        found = by_clusters(task, share, prefer, clusters)
    checkpoint.write_atomic(out, found.as_csv())
    print(f"{out}: {len(found.rows):,} of {len(found.names):,} examples")


DATA_VERBS: dict[str, Callable[..., Any]] = {
    "describe": describe,
    "prepare": prepare,
    "encode": encode,
    "kept": kept,
    "prune": prune,
}
