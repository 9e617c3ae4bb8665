"""The verb bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes as Flat
from tyro.conf import Positional

from ajest.errors import check

from .asked import (
    TaskName,
    check_keep,
    keep_lists,
    launch_of,
    planned,
    recipes_of,
    sizes_of,
)
from .console import Device, console, device_of
from .options import (
    Computing,
    Data,
    Drawing,
    End,
    File,
    Files,
    Folder,
    Judging,
    Launching,
    Networks,
    Number,
    Sampling,
    Share,
    Tracking,
    Training,
    Whole,
    Wholes,
    Word,
    Words,
    given,
    load_rules,
    share_of,
    shown,
    verb,
)


@verb
def bench(
    task: Positional[TaskName],
    *,
    preset: Word = None,
    arms: Words = None,
    seeds: Wholes = None,
    until_certain: bool = False,
    max_seeds: Whole = None,
    keep: Number = None,
    keep_list: Files = None,
    rules: Files = None,
    weight: Number = None,
    cfg: Number = None,
    delta: Share = None,
    guides: Whole = None,
    noise_repeats: Whole = None,
    end: Annotated[End | None, shown("{steps,time,time_without_target,samples,flops}")] = None,
    tune: bool = False,
    rates: File = None,
    data: Flat[Data],
    drawing: Flat[Drawing],
    networks: Flat[Networks],
    training: Flat[Training],
    computing: Flat[Computing],
    sampling: Flat[Sampling],
    judging: Flat[Judging],
    launching: Flat[Launching],
    tracking: Flat[Tracking],
    out: Folder = None,
    device: Device = "auto",
) -> None:
    """Compare arms at equal time and equal samples, and write a report.

    Example: ajest bench tree --arms baseline ajest random --seeds 0 1 2
             ajest bench images --data train.zip --validation val.zip
             ajest bench vectors --data x.npy
             ajest bench my_task.py:make_task --rules my_rules.py

    - Trains the guides, then every arm on every seed.
    - Finished runs are not repeated: the same command goes on where it stopped.

    Args:
        task: what to learn: tree, images, vectors, or your own as path/to/file.py:NAME (see docs/extending.md).
        preset: of the tree "quick" (5 minutes on 2 cores), "full" (20 seeds, an hour) or "paper" (the published
            settings, up to 90 minutes); of images "cpu-mini" (an hour on 2 cores), "cpu-small" (16x16, ten
            classes, ten seeds, tuned rates), "gpu-mini" or "paper"; of others
            "quick" or "full". Without it the first.
        arms: which arms, see `ajest arms`; without it the preset's. random+muon is both at once, random-keep-0.1
            another keep fraction.
        seeds: which seeds; without it the preset's. Five are the least for a claim.
        until_certain: add seeds in stages until every comparison with the baseline is decided; with --max-seeds.
        max_seeds: seeds at the most.
        keep: keep fraction of all arms that keep a part.
        keep_list: for each of these files one more arm, which learns only the examples that the file names; see
            `ajest data kept`.
        rules: Python files that register policies, triggers or arms of one's own, see docs/extending.md.
        weight: of autoguidance; without it the preset's.
        cfg: weight of classifier-free guidance beside it, in all that is guided; with --label-dropout.
        delta: the difference within which arms count as equivalent, in per cent of the baseline's value, such as 5%;
            without it a quarter of what the baseline gains over the last half of its run.
        guides: train so many guides, and measure what is guided with each; without it as many as the preset says.
            With three or more, intervals and p of guided metrics carry the chance of the guide.
        noise_repeats: measure the end of each run of the baseline so often again with other sampling noise, which tells
            that apart from the chance of training; without it as often as the preset says.
        end: what is equal at the end of all runs; without it the preset's.
        tune: find each arm's learning rate first, on seeds of their own: as long again as the runs of 9 seeds and more.
        rates: take the learning rates that another bench found, from tuning.json in its folder.
        out: folder of the bench; without it runs/TASK-PRESET.
        device: where to compute.
    """
    from ajest.bench.plan.config import altered
    from ajest.bench.plan.tuning import Tuning
    from ajest.bench.read.verdict import is_decided
    from ajest.bench.report.page import write_report
    from ajest.bench.run.bench import run_bench
    from ajest.selection.catalogue import distinct, pruned

    # A cluster's machines have what is asked of them, whatever this one has.
    local = launching.launch == "local"
    check(local or device == "auto", "--device is for this machine: a cluster's jobs take --gpus-per-run")
    where = device_of(device) if local else "cuda" if launching.gpus_per_run else "cpu"
    launch = launch_of(launching)
    asked = given(data, drawing, computing, sampling, judging) | sizes_of(networks)
    load_rules(rules)
    plan = planned(task, preset, asked, where)
    config = plan.config
    recipe, guide_recipe = recipes_of(config.recipe, config.guide_recipe, training, networks)
    named: dict[str, Any] = {
        "seeds": seeds,
        "iterations": training.iterations,
        "weight": weight,
        "cfg": cfg,
        "delta": None if delta is None else share_of(delta, "--delta"),
        "guides": guides,
        "noise_repeats": noise_repeats,
        "end": end,
        "rates": None if training.learning_rate is None else {},  # one for all, the preset's too
    }
    names = tuple(a.name for a in config.arms) if arms is None else arms
    lists = keep_lists(() if keep_list is None else keep_list, config.task)
    check(rates is None or training.learning_rate is None, "--rates and --learning-rate both set rates: give one")
    check(rates is None or not tune, "--rates takes rates that --tune would find: give one")
    tuning = Tuning() if tune or (rates is not None and config.tuning is None) else config.tuning
    config = altered(
        config,
        arms=distinct((*plan.arms(names, keep), *map(pruned, lists))),
        recipe=recipe,
        guide_recipe=guide_recipe,
        tuning=tuning if tune or training.learning_rate is None else None,
        **{name: value for name, value in named.items() if value is not None},
    )
    check(until_certain == (max_seeds is not None), "--until-certain and --max-seeds N belong together: give both")
    if max_seeds is not None:
        config = config.until_certain(max_seeds)
    check_keep(config.arms, keep)
    root = Path("runs") / f"{config.task.name}-{plan.preset}" if out is None else out
    run_bench(root, config, launch, where, tracking.checked(), is_decided, rates)
    _print_verdict(write_report(root))
    print(f"\nReport: {root / 'report.html'}")


def _print_verdict(findings: Any) -> None:
    """Headline tables and the verdict, on stdout."""
    from ajest.bench.report.terminal import print_findings

    print_findings(console(), findings)
