"""Verbs that work on trained runs: sample, evaluate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes as Flat
from tyro.conf import Positional

from .cli_options import (
    Guiding,
    Judging,
    Number,
    Numbers,
    Places,
    Sampling,
    Whole,
    Wholes,
    Word,
    given,
    shown,
    verb,
)
from .cli_tasks import changed, class_names
from .config import check
from .console import Device, complain, console, device_of
from .errors import UserError

LEAST_SAMPLES = 8  # neighbour metrics need a few


@verb
def sample(
    run: Positional[Path],
    *,
    out: Path,
    n: Whole = None,
    classes: Word = None,
    seeds: Annotated[str | None, shown("0-31,40")] = None,
    width: Number = None,
    step: Whole = None,
    weight: Number = None,
    allow_inexact_ema: bool = False,
    guiding: Flat[Guiding],
    sampling: Flat[Sampling],
    device: Device = "auto",
) -> None:
    """Sample from a trained run, guided if a guide is named.

    Example: ajest sample runs/ajest --guide runs/guide --weight 3 --out samples
             ajest sample runs/pets --classes cat,dog --seeds 0-31 --out samples
             ajest sample runs/pets --guide runs/pets --unconditional-guide --out s

    Args:
        run: folder of the run.
        out: folder for the samples and a picture or sheet of them.
        n: how many; without it the task's usual number. Of pictures not together with seeds.
        classes: of pictures, by name or key, with commas between them (in double quotes if they hold commas); each is
            drawn with every seed.
        seeds: of the start noise, such as 0-31 or 3,7: one a picture. The tree takes one for all points.
        width: EMA width; without it the first that was kept. Another is reconstructed from the snapshots, and how far
            it is off is said.
        step: of the snapshot; without it the latest.
        weight: of the guidance; 1 is none. Without it the task's usual one.
        allow_inexact_ema: take a reconstructed width though it is more than 2 % off its averaging profile.
        device: where to compute.
    """
    from .denoising import Denoiser
    from .folders import load_guide, load_network, read_config
    from .guidance import autoguide
    from .threads import configure_threads

    configure_threads()
    where = device_of(device)
    task = changed(read_config(run).task, given(sampling))
    wanted = () if seeds is None else numbers(seeds)
    check(n is None or not wanted or task.name == "tree", "--n and --seeds both say how many pictures: name one")
    guidance = guiding.chosen(allow_inexact_ema)
    check(weight is None or guidance is not None, "--weight needs a guide: name its run with --guide")
    network, at = load_network(run, step, width, where, inexact=allow_inexact_ema)
    denoiser: Denoiser = network
    said = f"step {at:,}"
    if guidance is not None:
        weight = task.guidance if weight is None else weight
        check(math.isfinite(weight), f"--weight must be a number, not {weight}")
        guide, guide_at = load_guide(guidance, task, where)
        itself = (run.resolve(), at, width) == (guidance.run.resolve(), guide_at, guidance.width)
        check(
            not itself or guidance.unconditional,
            f"{run} would guide itself, which changes nothing: name another --guide-step, --guide-width or "
            "--unconditional-guide",
        )
        denoiser = autoguide(denoiser, guide, weight, guidance.interval)
        said += f", guided by {guidance.run} at step {guide_at:,} with weight {weight:g}"
    names = () if classes is None else class_names(classes)
    paths = task.write_samples(denoiser, out, n, wanted, names, where)
    if len(paths) > 3:
        print(f"{len(paths) - 1:,} pictures in {out}")
        paths = paths[-1:]
    for path in paths:
        print(f"{path} ({said})")


def status(folder: Positional[Path], watch: float = 0.0) -> None:
    """Show where the runs of a bench or study stand, while it is at work or after.

    Example: ajest status runs/tree-quick --watch 5

    Args:
        folder: of the bench or study.
        watch: look again every so many seconds until all have ended; 0 looks once.
    """
    import time

    from rich.live import Live

    from .bench.status import look

    check(0 <= watch < math.inf, f"--watch {watch:g}: seconds between looks, or 0 to look once")
    out = console()
    table, ended = look(folder)
    if not watch:
        out.print(table)
        return
    with Live(table, console=out, auto_refresh=False) as live:
        while not ended:
            time.sleep(watch)
            table, ended = look(folder)
            live.update(table, refresh=True)


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers from text such as "0-31,40".

    Raises:
        UserError: the text is something else.
    """
    found: list[int] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        low, dash, high = part.partition("-")
        if not low.isdigit() or (dash and not high.isdigit()):
            raise UserError(f"{text!r}: seeds are whole numbers and ranges, such as 0-31,40")
        if dash and int(high) < int(low):
            raise UserError(f"{text!r}: the range {part} is empty: write the smaller number first")
        found += range(int(low), int(high or low) + 1)
    return tuple(dict.fromkeys(found))


@verb
def evaluate(
    runs: Positional[tuple[Path, ...]],
    *,
    n: Whole = None,
    widths: Numbers = None,
    steps: Wholes = None,
    weights: Numbers = None,
    allow_inexact_ema: bool = False,
    guiding: Flat[Guiding],
    sampling: Flat[Sampling],
    judging: Flat[Judging],
    places: Flat[Places],
    device: Device = "auto",
) -> None:
    """Measure snapshots of runs over guidance weights and EMA widths; what was measured before is not repeated.

    Over several weights and widths, a heat-map of each headline metric is written into the run's folder.

    Example: ajest evaluate runs/ajest --guide runs/guide --weights 1 2 3
             ajest evaluate runs/ajest --widths 0.01 0.05 --sampler-steps 16

    Args:
        runs: folders of runs.
        n: samples; without it the task's usual number.
        widths: EMA widths; without it the first that was kept. Others are reconstructed from the snapshots, and how far
            they are off is said.
        steps: of the snapshots; without it the latest.
        weights: of the guidance; without it 1, and the task's usual one if a guide is given.
        allow_inexact_ema: take reconstructed widths though they are more than 2 % off their averaging profile.
        device: where to compute.
    """
    from rich.markup import escape
    from rich.table import Table

    from .bench.evaluation import evaluate_snapshot
    from .bench.wording import number
    from .folders import load_snapshot, read_config
    from .threads import configure_threads

    if not runs:
        raise UserError("name at least one run's folder")
    tasks = [changed(read_config(run).task, given(sampling, judging, places)) for run in runs]
    task = tasks[0]
    n = task.samples if n is None else n
    if n < LEAST_SAMPLES:
        raise UserError(f"an evaluation needs at least {LEAST_SAMPLES} samples, not {n}")
    if weights is None:
        weights = (1.0,) if guiding.guide is None else (1.0, task.guidance)
    if guiding.guide is None and any(w != 1 for w in weights):
        raise UserError("weights other than 1 need a guide: name its run with --guide")
    check(all(map(math.isfinite, weights)), "--weights must be numbers")
    guidance = guiding.chosen(allow_inexact_ema)
    configure_threads()
    where = device_of(device)
    table = Table(title=f"{n:,} samples")
    for heading in ("run", "step", "width", "weight"):
        table.add_column(heading)
    metrics = [m for m in task.metrics if m.name != "mandala_16k"]
    for metric in metrics:
        table.add_column(metric.label, justify="right")
    drawn: list[Path] = []
    for run, judged in zip(runs, tasks, strict=True):
        config = read_config(run)
        latest = () if steps is not None else (int(load_snapshot(run, complain=complain).facts["step"]),)
        for step in latest if steps is None else steps:
            measured: list[dict[str, Any]] = []
            for width in config.recipe.ema_widths[:1] if widths is None else widths:
                for line in evaluate_snapshot(
                    run, step, weights, n, run / "truth", guidance, width, where, task=judged, inexact=allow_inexact_ema
                ):
                    values = [
                        _with_interval(number(line["metrics"].get(m.name, math.nan), m), line, m) for m in metrics
                    ]
                    table.add_row(escape(str(run)), str(step), f"{width:g}", f"{line['weight']:g}", *values)
                    measured.append(line)
            drawn += _heatmaps(run, step, n, measured, [m for m in metrics if m.headline != "no"])
    floor = task.floor(n, read_config(runs[0]).seed, runs[0] / "truth", where)
    table.add_section()
    real = [number(floor[m.name], m) if m.name in floor else "" for m in metrics]
    table.add_row("real examples", "", "", "", *real)
    console(220).print(table)
    for note in task.notes(n):
        print(note)
    for path in drawn:
        print(path)


def _with_interval(text: str, line: dict[str, Any], metric: Any) -> str:
    """The number, and its interval where the evaluation knows one."""
    from .bench.wording import number

    low, high = (line["metrics"].get(f"{metric.name}_{end}") for end in ("low", "high"))
    return text if low is None or high is None else f"{text} ({number(low, metric)} to {number(high, metric)})"


def _heatmaps(run: Path, step: int, n: int, lines: list[dict[str, Any]], metrics: list[Any]) -> list[Path]:
    """A picture of each metric over weights and widths, where there are several of both."""
    from .bench.figures import encoded, heatmap
    from .checkpoint import write_atomic

    weights, widths = sorted({line["weight"] for line in lines}), sorted({line["width"] for line in lines})
    if min(len(weights), len(widths)) < 2:
        return []
    written = []
    for metric in metrics:
        values = [
            [
                next(
                    (x["metrics"].get(metric.name, math.nan) for x in lines if (x["width"], x["weight"]) == (b, w)),
                    math.nan,
                )
                for w in weights
            ]
            for b in widths
        ]
        path = run / f"heatmap-{metric.name}-step-{step}-n-{n}.png"
        write_atomic(path, encoded(heatmap(values, ("guidance weight", weights), ("EMA width", widths), metric)))
        written.append(path)
    return written
