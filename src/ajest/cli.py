"""The command line: parse, call, print."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from .errors import Corrupt, UserError, unknown

if TYPE_CHECKING:
    from rich.console import Console

TaskName = Literal["tree"]
Device = Literal["auto", "cpu", "cuda"]


def bench(
    task: tyro.conf.Positional[TaskName],
    preset: str = "quick",
    arms: tuple[str, ...] | None = None,
    seeds: tuple[int, ...] | None = None,
    keep: float | None = None,
    iterations: int | None = None,
    workers: int | None = None,
    out: Path | None = None,
    device: Device = "auto",
) -> None:
    """Compare arms at equal time and equal samples, and write a report.

    Trains a guide, then every arm on every seed; finished runs are not repeated, so the same command goes on
    where it was stopped.

    Example: ajest bench tree --preset quick --arms baseline ajest random --seeds 0 1 2

    Args:
        task: what to learn.
        preset: "quick" (5 minutes on 2 cores) or "paper" (the published settings, up to 90 minutes).
        arms: which arms, see `ajest arms`; without it the preset's.
        seeds: which seeds; without it the preset's. Five are the least for a claim.
        keep: keep fraction of all arms that keep a part.
        iterations: steps of every run, in place of the preset's.
        workers: runs at the same time; without it one for each core.
        out: folder of the bench; without it runs/TASK-PRESET.
        device: where to compute.
    """
    from .arms import arms_named
    from .bench.grid import run_bench
    from .bench.report import write_report
    from .presets import PRESETS

    if preset not in PRESETS[task]:
        raise unknown(f"preset of {task}", preset, PRESETS[task])
    config = PRESETS[task][preset]()
    names = tuple(a.name for a in config.arms) if arms is None else arms
    config = replace(
        config,
        arms=arms_named(names, keep),
        seeds=config.seeds if seeds is None else seeds,
        iterations=config.iterations if iterations is None else iterations,
    )
    root = Path("runs") / f"{task}-{preset}" if out is None else out
    run_bench(root, config, workers, _device(device))
    _print_verdict(write_report(root))
    print(f"\nReport: {root / 'report.html'}")


def train(
    task: tyro.conf.Positional[TaskName],
    out: Path,
    arm: str = "baseline",
    network: Literal["learner", "guide"] = "learner",
    seed: int = 0,
    iterations: int = 4096,
    super_batch: int = 4096,
    keep: float | None = None,
    guide: Path | None = None,
    device: Device = "auto",
) -> None:
    """Train one network; the same command goes on where it was stopped.

    Example: ajest train tree --network guide --iterations 512 --out runs/guide
             ajest train tree --arm ajest --guide runs/guide --out runs/ajest

    Args:
        task: what to learn.
        out: folder of the run.
        arm: from which examples to learn, see `ajest arms`.
        network: the network that is compared, or the smaller one that guides it.
        seed: names all random numbers.
        iterations: steps.
        super_batch: examples drawn for a step.
        keep: keep fraction, for arms that keep a part.
        guide: run whose latest snapshot is the reference, for arms that need one: the guide, or any other run.
        device: where to compute.
    """
    from .arms import arms_named
    from .bench.grid import settle
    from .bench.progress import board
    from .runs import RunConfig, Schedule, execute, read_status
    from .tasks import TASKS
    from .training import Recipe, Trainer

    (chosen,) = arms_named((arm,), keep)
    relative = None if guide is None else os.path.relpath(guide, out)
    recipe = Recipe(super_batch=super_batch)
    config = RunConfig(TASKS[task](), network, recipe, chosen, seed, iterations, relative)
    settle()
    with board(f"training {out}", {arm: 1.0}) as lines:

        def progress(step: int, trainer: Trainer) -> None:
            lines.update((arm, "evaluating" if step == iterations else "step", step, iterations, f"{step:,}"))

        snapshots = tuple(float(iterations * k // 16) for k in range(1, 17))
        state = execute(out, config, Schedule({"steps": snapshots}), _device(device), progress, _complain)
    if state == "diverged":
        raise UserError(read_status(out)["why"])
    print(f"{out}: {iterations:,} steps done. Next: ajest evaluate {out}")


def sample(
    run: tyro.conf.Positional[Path],
    out: Path,
    n: int = 16384,
    guide: Path | None = None,
    weight: float = 1.0,
    interval: tuple[float, float] | None = None,
    width: float | None = None,
    guide_width: float | None = None,
    step: int | None = None,
    seed: int = 0,
    device: Device = "auto",
) -> None:
    """Sample from a trained run, with autoguidance if a guide and a weight are given.

    Example: ajest sample runs/ajest --guide runs/guide --weight 3 --out samples

    Args:
        run: folder of the run.
        out: folder for the samples and a picture.
        n: how many.
        guide: folder of the guide's run.
        weight: of autoguidance; 1 is none.
        interval: guide only between these two noise levels.
        width: EMA width; one that was not kept is reconstructed from the snapshots.
        guide_width: the same of the guide.
        step: of the snapshot; without it the latest.
        seed: of the start noise.
        device: where to compute.
    """
    from .bench.grid import settle
    from .denoising import Denoiser
    from .guidance import autoguide
    from .runs import load_network, read_config

    settle()
    where = _device(device)
    task = read_config(run).task
    network, at = load_network(run, step, width, where)
    denoiser: Denoiser = network
    if weight != 1:
        if guide is None:
            raise UserError(f"a weight of {weight:g} needs a guide: name its run with --guide")
        denoiser = autoguide(denoiser, load_network(guide, None, guide_width, where)[0], weight, interval)
    for path in task.write_samples(denoiser, n, seed, out, where):
        print(f"{path} (step {at:,})")


def evaluate(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    n: int = 16384,
    guide: Path | None = None,
    weights: tuple[float, ...] | None = None,
    widths: tuple[float, ...] | None = None,
    steps: tuple[int, ...] | None = None,
    device: Device = "auto",
) -> None:
    """Measure snapshots of runs over guidance weights and EMA widths; what was measured before is not repeated.

    Example: ajest evaluate runs/ajest --guide runs/guide --weights 1 2 3 --widths 0.01 0.05

    Args:
        runs: folders of runs.
        n: samples.
        guide: folder of the guide's run.
        weights: of autoguidance; without it 1, and 3 if a guide is given.
        widths: EMA widths; without it the first that was kept.
        steps: of the snapshots; without it the latest.
        device: where to compute.
    """
    from rich.table import Table

    from .bench.evaluation import evaluate_snapshot
    from .bench.grid import settle
    from .bench.verdict import number
    from .runs import load_snapshot, read_config

    if not runs:
        raise UserError("name at least one run's folder")
    weights = ((1.0,) if guide is None else (1.0, 3.0)) if weights is None else weights
    if guide is None and any(w != 1 for w in weights):
        raise UserError("weights other than 1 need a guide: name its run with --guide")
    settle()
    table = Table(title=f"{n:,} samples")
    for heading in ("run", "step", "width", "weight"):
        table.add_column(heading)
    metrics = [m for m in read_config(runs[0]).task.metrics if m.name != "mandala_16k"]
    for metric in metrics:
        table.add_column(metric.label, justify="right")
    for run in runs:
        config = read_config(run)
        for step in steps or (int(load_snapshot(run, complain=_complain).facts["step"]),):
            for width in widths or config.recipe.ema_widths[:1]:
                for line in evaluate_snapshot(run, step, weights, n, run / "truth", guide, width, _device(device)):
                    values = [number(line["metrics"].get(m.name, math.nan), m) for m in metrics]
                    table.add_row(str(run), str(step), f"{width:g}", f"{line['weight']:g}", *values)
    _console(200).print(table)


def report(folder: tyro.conf.Positional[Path]) -> None:
    """Write the report of a bench again, from whatever is in its folder.

    Example: ajest report runs/tree-quick

    Args:
        folder: of the bench; it may be half-finished.
    """
    from .bench.grid import settle
    from .bench.report import write_report

    settle(1)  # many small operations: threads only get into each other's way
    _print_verdict(write_report(folder))
    print(f"\nReport: {folder / 'report.html'}")


def arms() -> None:
    """List the arms: the ways of choosing training examples.

    Example: ajest arms
    """
    from rich.table import Table

    from .arms import ARMS

    table = Table(box=None, pad_edge=False)
    for heading in ("arm", "keeps", "reference", "what it does"):
        table.add_column(heading)
    for arm in ARMS.values():
        table.add_row(arm.name, f"{arm.keep:.0%}", arm.reference, arm.summary)
    _console().print(table)


VERBS: dict[str, Callable[..., Any]] = {
    "bench": bench,
    "train": train,
    "sample": sample,
    "evaluate": evaluate,
    "report": report,
    "arms": arms,
}


def main() -> None:
    """Entry point. Exit code 2 for the user's mistakes, 1 for ours, 130 for Ctrl-C."""
    if sys.argv[1:] == ["--version"]:
        from . import __version__

        print(f"ajest {__version__}")
        return
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        tyro.extras.subcommand_cli_from_dict(
            VERBS, prog="ajest", description="An equal-budget test bench for training diffusion models."
        )
    except (UserError, Corrupt) as error:
        print(f"ajest: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("\najest: stopped. What is done is kept: start the same command again to go on.", file=sys.stderr)
        raise SystemExit(130) from None


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _device(name: Device) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here: use --device cpu")
    return name


def _complain(text: str) -> None:
    print(f"ajest: {text}", file=sys.stderr)


def _console(width: int = 150) -> Console:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=width)


def _print_verdict(results: Any) -> None:
    """The headline table and the verdict, on stdout."""
    from .bench.table import verdict_tables
    from .bench.verdict import verdict

    console = _console()
    for table in verdict_tables(results):
        console.print(table)
    for sentence in [*results.missing(), *verdict(results)]:
        console.print(f"- {sentence}", markup=False, highlight=False)
