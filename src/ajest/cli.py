"""The command line: parse, call, print."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import tyro

from . import interrupts
from .cli_data import DATA_VERBS
from .cli_runs import evaluate, sample, status
from .cli_study import study
from .cli_tasks import Precision, TaskName, launch_of, preset_of
from .console import Device, complain, console, device_of, readable
from .errors import Corrupt, Elsewhere, UserError
from .launcher import half_set, place

NotFiniteChoice = Literal["stop", "skip", "zero"]  # `training.NotFinite`, which takes torch to import


def bench(
    task: tyro.conf.Positional[TaskName],
    preset: str = "",
    data: tuple[str, ...] = (),
    validation: tuple[str, ...] = (),
    arms: tuple[str, ...] | None = None,
    seeds: tuple[int, ...] | None = None,
    keep: float | None = None,
    iterations: int | None = None,
    extractors: tuple[str, ...] = (),
    classes: str = "",
    flip: bool = False,
    skip_bad: bool = False,
    precision: Precision | None = None,
    compiled: bool | None = None,
    not_finite: NotFiniteChoice | None = None,
    track: tuple[str, ...] = (),
    launch: Literal["local", "slurm"] = "local",
    workers: int | None = None,
    partition: str = "",
    gpus_per_run: int | None = None,
    max_parallel: int | None = None,
    hours: float | None = None,
    out: Path | None = None,
    device: Device = "auto",
) -> None:
    """Compare arms at equal time and equal samples, and write a report.

    Trains a guide, then every arm on every seed; finished runs are not repeated, so the same command goes on
    where it was stopped.

    Example: ajest bench tree --preset quick --arms baseline ajest random --seeds 0 1 2
             ajest bench images --data train.zip --validation val.zip --preset cpu-mini

    Args:
        task: what to learn.
        preset: of the tree "quick" (5 minutes on 2 cores) or "paper" (the published settings, up to 90 minutes); of
            images "cpu-mini" (an hour on 2 cores), "gpu-mini" or "paper". Without it the first of these.
        data: pictures to learn: a folder, .zip or .npz file, hf:NAME[:split], or shapes (the default); several are
            one data set. See `ajest data describe`.
        validation: held-out pictures of the same classes.
        arms: which arms, see `ajest arms`; without it the preset's.
        seeds: which seeds; without it the preset's. Five are the least for a claim.
        keep: keep fraction of all arms that keep a part.
        iterations: steps of every run (on images of the baseline; the others get as much time), in place of the
            preset's.
        extractors: feature networks that pictures are judged by, each NAME or NAME=PATH: lite0, inception, dinov2.
        classes: learn these alone: names or keys with commas between them, or how many; "all" for all. Without it
            cpu-mini learns four, the others all.
        flip: mirror every second picture.
        skip_bad: go on without pictures that cannot be read.
        precision: in which networks of images compute, in place of the preset's (which is float32 on processors that
            are slow with bfloat16); weights stay in float32.
        compiled: whether torch.compile makes networks of images faster, in place of the preset's choice.
        not_finite: where a loss or gradient is not finite, "stop" the run, "skip" the step, or put "zero" in the place
            of such gradients; without it the preset's choice. The report counts them.
        track: tell these of every run too: tensorboard, wandb, trackio.
        launch: make runs on this machine, or hand them to a Slurm cluster.
        workers: runs at the same time on this machine; without it one for each core.
        partition: of the cluster.
        gpus_per_run: of each of the cluster's jobs.
        max_parallel: jobs of the cluster at the same time; without it 20.
        hours: that a job of the cluster may take before it goes on in another; without it 24.
        out: folder of the bench; without it runs/TASK-PRESET.
        device: where to compute.
    """
    from .bench.grid import run_bench
    from .bench.report import write_report
    from .trackers import checked

    preset = preset or ("quick" if task == "tree" else "cpu-mini")
    # A cluster's machines have what is asked of them, whatever this one has.
    place = device_of(device) if launch == "local" else "cuda" if gpus_per_run else "cpu"
    config, named = preset_of(
        task, preset, data, validation, extractors, classes, flip, skip_bad, precision, compiled, place
    )
    names = tuple(a.name for a in config.arms) if arms is None else arms
    config = replace(
        config,
        arms=named(names, keep),
        seeds=config.seeds if seeds is None else seeds,
        iterations=config.iterations if iterations is None else iterations,
        recipe=replace(config.recipe, not_finite=not_finite or config.recipe.not_finite),
    )
    root = Path("runs") / f"{task}-{preset}" if out is None else out
    cluster = {"gpus_per_run": gpus_per_run, "max_parallel": max_parallel, "hours": hours}
    run_bench(root, config, launch_of(launch, workers, partition, cluster), place, checked(track))
    _print_verdict(write_report(root))
    print(f"\nReport: {root / 'report.html'}")


def train(
    task: tyro.conf.Positional[TaskName],
    out: Path,
    preset: str = "",
    data: tuple[str, ...] = (),
    validation: tuple[str, ...] = (),
    arm: str = "baseline",
    network: Literal["learner", "guide", "strong"] = "learner",
    seed: int = 0,
    iterations: int | None = None,
    super_batch: int | None = None,
    keep: float | None = None,
    guide: Path | None = None,
    scope: Literal["global", "rank"] | None = None,
    not_finite: NotFiniteChoice | None = None,
    track: tuple[str, ...] = (),
    classes: str = "",
    flip: bool = False,
    skip_bad: bool = False,
    precision: Precision | None = None,
    compiled: bool | None = None,
    device: Device = "auto",
) -> None:
    """Train one network; the same command goes on where it was stopped.

    Several processes train one network together: torchrun --nproc-per-node=2 -m ajest train ...

    Example: ajest train tree --network guide --iterations 512 --out runs/guide
             ajest train tree --arm ajest --guide runs/guide --out runs/ajest
             ajest train images --data pets.zip --out runs/pets

    Args:
        task: what to learn.
        out: folder of the run.
        preset: whose networks and recipe to take; without it "paper" for the tree, "cpu-mini" for images.
        data: pictures to learn, see `ajest bench --help`.
        validation: held-out pictures of the same classes.
        arm: from which examples to learn, see `ajest arms`.
        network: the network that is compared ("learner"), the smaller one that guides it, or a strong reference as
            large as the learner. Networks of one seed learn from the same examples only where this is the same.
        seed: names all random numbers.
        iterations: steps, in place of the preset's.
        super_batch: examples drawn for a step, in place of the preset's.
        keep: keep fraction, for arms that keep a part.
        guide: run whose latest snapshot is the reference, for arms that need one: the guide, or any other run.
        scope: where several processes train together: choose from the whole super-batch ("global", the default) or each
            from its own part of it ("rank", as published).
        not_finite: where a loss or gradient is not finite, "stop" the run, "skip" the step, or put "zero" in the place
            of such gradients; without it the preset's choice. Each is counted.
        track: tell these of the run too: tensorboard, wandb, trackio.
        classes: learn these alone, see `ajest bench --help`.
        flip: mirror every second picture.
        skip_bad: go on without pictures that cannot be read.
        precision: in which networks of images compute, in place of the preset's (which is float32 on processors that
            are slow with bfloat16); weights stay in float32.
        compiled: whether torch.compile makes networks of images faster, in place of the preset's choice.
        device: where to compute.
    """
    from . import distributed
    from .bench.disk import Claim, check_room
    from .bench.pool import sayer
    from .bench.progress import board
    from .folders import RunConfig, read_status
    from .runs import Schedule, execute
    from .threads import configure_threads
    from .trackers import checked
    from .training import Trainer

    preset = preset or ("paper" if task == "tree" else "cpu-mini")
    plan, named = preset_of(
        task, preset, data, validation, (), classes, flip, skip_bad, precision, compiled, device_of(device)
    )
    (chosen,) = named((arm,), keep)
    relative = None if guide is None else os.path.relpath(guide, out)
    model = plan.guide() if network == "guide" else plan.run(chosen, seed)
    steps = iterations or (plan.guide_iterations if network == "guide" else plan.iterations)
    recipe = model.recipe
    recipe = replace(
        recipe,
        super_batch=super_batch or recipe.super_batch,
        scope=scope or recipe.scope,
        not_finite=not_finite or recipe.not_finite,
    )
    config = RunConfig(plan.task, network, recipe, chosen, seed, steps, relative)
    configure_threads()
    snapshots = tuple(float(steps * k // 16) for k in range(1, 17))
    claim = Claim(out, config, len(snapshots), len(snapshots))
    distributed.once(lambda: check_room(out, [claim], 1, sayer()))
    with board(f"training {out}", {arm: 1.0}) as lines:

        def progress(step: int, trainer: Trainer) -> None:
            lines.update((arm, "evaluating" if step == steps else "step", step, steps, f"{step:,}"))

        schedule = Schedule({"steps": snapshots}, trackers=checked(track))
        state = execute(out, config, schedule, device_of(device), progress, complain)
    if state == "diverged":
        raise UserError(read_status(out)["why"])
    print(f"{out}: {steps:,} steps done. Next: ajest evaluate {out}")


def report(folder: tyro.conf.Positional[Path]) -> None:
    """Write the report of a bench again, from whatever is in its folder.

    Example: ajest report runs/tree-quick

    Args:
        folder: of the bench; it may be half-finished.
    """
    from .bench.report import write_report
    from .threads import configure_threads

    configure_threads(1)  # many small operations: threads only get into each other's way
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
    console().print(table)


VERBS: dict[str, Callable[..., Any]] = {
    "bench": bench,
    "train": train,
    "sample": sample,
    "evaluate": evaluate,
    "report": report,
    "status": status,
    "study": study,
    "arms": arms,
}


def main() -> None:
    """Entry point. Exit code 2 for the user's mistakes, 1 for ours, 130 for Ctrl-C, 141 where nobody reads on."""
    with readable():
        _main()


def _main() -> None:
    if sys.argv[1:] == ["--version"]:
        from . import __version__

        print(f"ajest {__version__}")
        return
    interrupts.listen()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged files, which are named by what is read
    try:
        with _together(sys.argv[1:2]):
            if sys.argv[1:2] == ["data"]:
                about = "Look into data sets of pictures, and pack them."
                tyro.extras.subcommand_cli_from_dict(
                    DATA_VERBS, prog="ajest data", description=about, args=sys.argv[2:]
                )
            else:
                about = "An equal-budget test bench for training diffusion models. About data sets: ajest data --help"
                tyro.extras.subcommand_cli_from_dict(VERBS, prog="ajest", description=about)
    except Elsewhere:
        raise SystemExit(2) from None
    except (UserError, Corrupt) as error:
        print(f"ajest: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("\najest: stopped. What is done is kept: start the same command again to go on.", file=sys.stderr)
        raise SystemExit(130) from None


def _together(verb: list[str]) -> AbstractContextManager[None]:
    """The processes that torchrun started, if it did and the verb is one that several can do together."""
    if verb not in (["train"], ["sample"], ["evaluate"]):
        if verb in (["bench"], ["study"]) and place().world > 1:
            raise UserError(f"{' '.join(verb)} shares its work out by itself: start it without torchrun")
        return nullcontext()
    if half_set():
        complain(half_set())
    if place().world == 1:
        return nullcontext()
    from .distributed import joined

    return joined()


def _print_verdict(results: Any) -> None:
    """The headline table and the verdict, on stdout."""
    from .bench.table import verdict_tables
    from .bench.verdict import verdict

    out = console()
    for table in verdict_tables(results):
        out.print(table)
    for sentence in [*results.missing(), *verdict(results)]:
        out.print(f"- {sentence}", markup=False, highlight=False)
