"""The command line: parse, call, print."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes as Flat
from tyro.conf import Positional

from . import interrupts
from .cli_data import DATA_VERBS
from .cli_options import (
    Computing,
    Data,
    Drawing,
    Folder,
    Judging,
    Launching,
    Networks,
    Number,
    Sampling,
    Training,
    Wholes,
    Word,
    Words,
    given,
    shown,
    verb,
)
from .cli_runs import evaluate, sample, status
from .cli_study import study
from .cli_tasks import (
    TaskName,
    TrainedNetwork,
    check_keep,
    launch_of,
    network_of,
    preset_of,
    recipe_of,
    recipes_of,
    sizes_of,
)
from .config import check
from .console import Device, complain, console, device_of, readable
from .errors import Corrupt, Elsewhere, UserError
from .launcher import half_set, place


@verb
def bench(
    task: Positional[TaskName],
    *,
    preset: Word = None,
    arms: Words = None,
    seeds: Wholes = None,
    keep: Number = None,
    weight: Number = None,
    data: Flat[Data],
    drawing: Flat[Drawing],
    networks: Flat[Networks],
    training: Flat[Training],
    computing: Flat[Computing],
    sampling: Flat[Sampling],
    judging: Flat[Judging],
    launching: Flat[Launching],
    track: Words = None,
    out: Folder = None,
    device: Device = "auto",
) -> None:
    """Compare arms at equal time and equal samples, and write a report.

    Trains a guide, then every arm on every seed; finished runs are not repeated, so the same command goes on
    where it was stopped.

    Example: ajest bench tree --arms baseline ajest random --seeds 0 1 2
             ajest bench images --data train.zip --validation val.zip
             ajest bench images --data pets.zip --network xxs --p-mean -0.8

    Args:
        task: what to learn.
        preset: of the tree "quick" (5 minutes on 2 cores) or "paper" (the published settings, up to 90 minutes); of
            images "cpu-mini" (an hour on 2 cores), "gpu-mini" or "paper". Without it the first of these.
        arms: which arms, see `ajest arms`; without it the preset's.
        seeds: which seeds; without it the preset's. Five are the least for a claim.
        keep: keep fraction of all arms that keep a part.
        weight: of autoguidance; without it the preset's.
        track: tell these of every run too: tensorboard, wandb, trackio.
        out: folder of the bench; without it runs/TASK-PRESET.
        device: where to compute.
    """
    from .bench.grid import run_bench
    from .bench.report import write_report
    from .trackers import checked

    preset = {"tree": "quick", "images": "cpu-mini"}[task] if preset is None else preset
    # A cluster's machines have what is asked of them, whatever this one has.
    local = launching.launch == "local"
    check(local or device == "auto", "--device is for this machine: a cluster's jobs take --gpus-per-run")
    where = device_of(device) if local else "cuda" if launching.gpus_per_run else "cpu"
    launch = launch_of(launching)
    asked = given(data, drawing, computing, sampling, judging) | sizes_of(networks)
    config, named = preset_of(task, preset, asked, where)
    recipe, guide_recipe = recipes_of(config.recipe, config.guide_recipe, training, networks)
    config = replace(
        config,
        arms=named(tuple(a.name for a in config.arms) if arms is None else arms, keep),
        seeds=config.seeds if seeds is None else seeds,
        iterations=config.iterations if training.iterations is None else training.iterations,
        weight=config.weight if weight is None else weight,
        recipe=recipe,
        guide_recipe=guide_recipe,
    )
    check_keep(config.arms, keep)
    root = Path("runs") / f"{task}-{preset}" if out is None else out
    run_bench(root, config, launch, where, checked(() if track is None else track))
    _print_verdict(write_report(root))
    print(f"\nReport: {root / 'report.html'}")


@verb
def train(
    task: Positional[TaskName],
    *,
    out: Path,
    preset: Word = None,
    network: Annotated[TrainedNetwork, shown("{learner,guide,strong,nano,mini,xxs,xs,s,m}")] = "learner",
    arm: str = "baseline",
    keep: Number = None,
    guide: Folder = None,
    seed: int = 0,
    scope: Annotated[Literal["global", "rank"] | None, shown("{global,rank}")] = None,
    data: Flat[Data],
    drawing: Flat[Drawing],
    training: Flat[Training],
    computing: Flat[Computing],
    track: Words = None,
    device: Device = "auto",
) -> None:
    """Train one network; the same command goes on where it was stopped.

    Several processes train one network together: torchrun --nproc-per-node=2 -m ajest train ...

    Example: ajest train tree --network guide --iterations 512 --out runs/guide
             ajest train tree --arm ajest --guide runs/guide --out runs/ajest
             ajest train images --data pets.zip --network xxs --out runs/pets

    Args:
        task: what to learn.
        out: folder of the run.
        preset: whose networks and recipe to take; without it "paper" for the tree, "cpu-mini" for images.
        network: the preset's network that is compared ("learner", as without it), the smaller one that guides it
            ("guide"), or a strong reference as large as the learner ("strong"); of images also a learner of this size,
            with the learning rate of its size. Networks of one seed learn from the same examples only where they are
            for the same.
        arm: from which examples to learn, see `ajest arms`.
        keep: keep fraction, for arms that keep a part.
        guide: run whose latest snapshot is the reference, for arms that need one: the guide, or any other run.
        seed: names all random numbers.
        scope: where several processes train together: choose from the whole super-batch ("global", the default) or each
            from its own part of it ("rank", as published).
        track: tell these of the run too: tensorboard, wandb, trackio.
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

    preset = {"tree": "paper", "images": "cpu-mini"}[task] if preset is None else preset
    role, size = network_of(network)
    plan, named = preset_of(task, preset, given(data, drawing, computing) | size, device_of(device))
    (chosen,) = named((arm,), keep)
    check_keep((chosen,), keep)
    needs = chosen.reference in ("guide", "strong")
    check(guide is None or needs, f"arm {arm!r} compares with no other run: leave out --guide")
    relative = None if guide is None else os.path.relpath(guide, out)
    own, steps = plan.recipe, plan.iterations
    if role == "guide":
        own, steps = (own if plan.guide_recipe is None else plan.guide_recipe), plan.guide_iterations
    steps = steps if training.iterations is None else training.iterations
    recipe = recipe_of(own, training, training.learning_rate)
    recipe = recipe if scope is None else replace(recipe, scope=scope)
    config = RunConfig(plan.task, role, recipe, chosen, seed, steps, relative)
    configure_threads()
    snapshots = tuple(float(steps * k // 16) for k in range(1, 17))
    claim = Claim(out, config, len(snapshots), len(snapshots))
    distributed.once(lambda: check_room(out, [claim], 1, sayer()))
    with board(f"training {out}", {arm: 1.0}) as lines:

        def progress(step: int, trainer: Trainer) -> None:
            lines.update((arm, "evaluating" if step == steps else "step", step, steps, f"{step:,}"))

        schedule = Schedule({"steps": snapshots}, trackers=checked(() if track is None else track))
        state = execute(out, config, schedule, device_of(device), progress, complain)
    if state == "diverged":
        raise UserError(read_status(out)["why"])
    print(f"{out}: {steps:,} steps done. Next: ajest evaluate {out}")


def report(folder: Positional[Path]) -> None:
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


def _together(words: list[str]) -> AbstractContextManager[None]:
    """The processes that torchrun started, if it did and the verb is one that several can do together."""
    if words not in (["train"], ["sample"], ["evaluate"]):
        if words in (["bench"], ["study"]) and place().world > 1:
            raise UserError(f"{' '.join(words)} shares its work out by itself: start it without torchrun")
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
