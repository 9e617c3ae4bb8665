"""The verb evaluate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes as Flat
from tyro.conf import Positional

from ajest.errors import UserError, check

from .asked import changed
from .console import Device, console, device_of, warn
from .options import Guiding, Judging, Numbers, Places, Sampling, Whole, Wholes, given, verb

LEAST_SAMPLES = 8  # neighbour metrics need a few


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
    """Measure snapshots of runs over guidance weights and EMA widths.

    Example: ajest evaluate runs/ajest --guide runs/guide --weights 1 2 3
             ajest evaluate runs/ajest --widths 0.01 0.05 --sampler-steps 16

    - What was measured before is not repeated.
    - Over several weights and widths, heat-maps are written into the run's folder.

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

    from ajest.bench.read.numbers import number
    from ajest.bench.run.evaluation import evaluate_snapshot
    from ajest.runtime.threads import configure_threads
    from ajest.tasks.base import Measurement
    from ajest.training.run_folder import load_snapshot, read_config

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
    beside = "" if guiding.cfg is None else f", classifier-free guidance with weight {guiding.cfg:g}"
    table = Table(title=f"{n:,} samples{beside}")
    for heading in ("run", "step", "width", "weight"):
        table.add_column(heading)
    metrics = [m for m in task.metrics if m.name != "mandala_16k"]
    for metric in metrics:
        table.add_column(metric.label, justify="right")
    drawn: list[Path] = []
    for run, judged in zip(runs, tasks, strict=True):
        config = read_config(run)
        latest = () if steps is not None else (int(load_snapshot(run, warn=warn).facts["step"]),)
        for step in latest if steps is None else steps:
            measured: list[dict[str, Any]] = []
            for width in config.recipe.ema_widths[:1] if widths is None else widths:
                for line in evaluate_snapshot(
                    run, step, weights, n, run / "truth", guidance, width, where, task=judged,
                    inexact=allow_inexact_ema, cfg=1.0 if guiding.cfg is None else guiding.cfg,
                ):  # fmt: skip
                    values = [
                        _with_interval(number(line["metrics"].get(m.name, math.nan), m), line, m) for m in metrics
                    ]
                    table.add_row(escape(str(run)), str(step), f"{width:g}", f"{line['weight']:g}", *values)
                    measured.append(line)
            drawn += _heatmaps(run, step, n, measured, [m for m in metrics if m.headline != "no"])
    reference = task.real_data_reference(Measurement(n, read_config(runs[0]).seed, runs[0] / "truth", where))
    table.add_section()
    real = [number(reference[m.name], m) if m.name in reference else "" for m in metrics]
    table.add_row("real examples", "", "", "", *real)
    console(220).print(table)
    for note in task.notes(n):
        print(note)
    for path in drawn:
        print(path)


def _with_interval(text: str, line: dict[str, Any], metric: Any) -> str:
    """The number, and its interval where the evaluation knows one."""
    from ajest.bench.read.numbers import number

    low, high = (line["metrics"].get(f"{metric.name}_{end}") for end in ("low", "high"))
    return text if low is None or high is None else f"{text} ({number(low, metric)} to {number(high, metric)})"


def _heatmaps(run: Path, step: int, n: int, lines: list[dict[str, Any]], metrics: list[Any]) -> list[Path]:
    """A figure of each metric over weights and widths, where there are several of both."""
    from ajest.bench.report.figures import encoded, heatmap
    from ajest.storage.checkpoint import write_atomic

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
        figure = heatmap(values, ("guidance weight", weights), ("EMA width", widths), metric)
        write_atomic(path, encoded(figure, "png").data)
        written.append(path)
    return written
