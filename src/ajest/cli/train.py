"""The verb train."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes as Flat
from tyro.conf import Positional

from ajest.errors import UserError, check

from .asked import (
    TaskName,
    check_keep,
    keep_lists,
    network_of,
    planned,
    recipe_of,
)
from .console import Device, device_of, warn
from .options import (
    Computing,
    Data,
    Drawing,
    File,
    Files,
    Folder,
    Number,
    Predicts,
    Tracking,
    Training,
    Word,
    flag,
    given,
    load_rules,
    shown,
    verb,
)


@verb
def train(
    task: Positional[TaskName],
    *,
    out: Path,
    preset: Word = None,
    network: Annotated[str, shown("{learner,guide,strong,nano,mini,xxs,xs,s,m,diffusers:PATH}")] = "learner",
    prediction: Predicts = None,
    arm: str = "baseline",
    recipe: Annotated[Literal["best"] | None, shown("{best}")] = None,
    keep: Number = None,
    keep_list: File = None,
    rules: Files = None,
    guide: Folder = None,
    begin: Folder = None,
    seed: int = 0,
    scope: Annotated[Literal["global", "rank"] | None, shown("{global,rank}")] = None,
    data: Flat[Data],
    drawing: Flat[Drawing],
    training: Flat[Training],
    computing: Flat[Computing],
    tracking: Flat[Tracking],
    device: Device = "auto",
) -> None:
    """Train one network.

    Example: ajest train tree --network guide --iterations 512 --out runs/guide
             ajest train tree --arm ajest --guide runs/guide --out runs/ajest
             ajest train images --data pets.zip --network xxs --out runs/pets
             ajest train tree --recipe best --out runs/best
             ajest train tree --arm wsd --begin runs/constant --out runs/wsd
             torchrun --nproc-per-node=2 -m ajest train tree --out runs/two

    - The same command goes on where it was stopped.
    - Processes that torchrun starts train one network together.

    Args:
        task: what to learn: tree, images, vectors, or your own as path/to/file.py:NAME (see docs/extending.md).
        out: folder of the run.
        preset: whose networks and recipe to take; without it "paper" for the tree, "cpu-mini" for images.
        network: the preset's network that is compared ("learner", as without it), the smaller one that guides it
            ("guide"), or a strong reference as large as the learner ("strong"); of images also a learner of this size,
            or a model of diffusers, with the learning rate of its kind. Networks of one seed learn from the same
            examples only where they are for the same.
        prediction: what a model of diffusers predicts; without it what scheduler_config.json beside it says.
        arm: how to train, see `ajest arms`; random+muon is both at once.
        recipe: "best" takes preset, arm, learning rate and number of steps from what the trials support for this task.
        keep: keep fraction, for arms that keep a part.
        keep_list: learn only the examples that this file names, see `ajest data kept`.
        rules: Python files that register policies, triggers or arms of one's own, see docs/extending.md.
        guide: run whose latest snapshot is the reference, for arms that need one: the guide, or any other run.
        begin: run whose last checkpoint this one goes on from, in a folder of its own: one of the same settings, whose
            rate has not fallen where this one's has not. So every budget of the arm wsd comes from one constant run.
        seed: names all random numbers.
        scope: where several processes train together: choose from the whole super-batch ("global", the default) or each
            from its own part of it ("rank", as published).
        device: where to compute.
    """
    from ajest.bench.plan.recipes import best_recipe
    from ajest.bench.run.disk import Claim, check_room
    from ajest.jobs.pool import sayer
    from ajest.jobs.progress import board
    from ajest.runtime import distributed
    from ajest.runtime.threads import configure_threads
    from ajest.training.begin import begin as begin_at
    from ajest.training.run import execute
    from ajest.training.run_folder import RunConfig, read_status
    from ajest.training.schedule import Schedule
    from ajest.training.trainer import Trainer

    role, size = network_of(network)
    size |= {} if prediction is None else {"prediction": prediction}
    load_rules(rules)
    supported = None
    if recipe is not None:
        check(preset is None and arm == "baseline", "--recipe best names preset and arm: leave out --preset and --arm")
        check(role == "learner", "--recipe best is for the learner: leave out --network guide or strong")
        supported = best_recipe(task)
        preset, arm = supported.preset, supported.arm
    found = planned(task, preset, given(data, drawing, computing) | size, device_of(device), whole=True)
    plan, (chosen,) = found.config, found.arms((arm,), keep)
    check_keep((chosen,), keep)
    needs = chosen.reference in ("guide", "strong")
    check(guide is None or needs, f"arm {arm!r} compares with no other run: leave out --guide")
    if keep_list is not None:
        chosen = replace(chosen, examples=keep_lists((keep_list,), plan.task)[0])
    relative = None if guide is None else os.path.relpath(guide, out)
    own, steps = plan.recipe, plan.iterations if supported is None else supported.steps
    if role == "guide":
        own, steps = (own if plan.guide_recipe is None else plan.guide_recipe), plan.guide_iterations
    steps = steps if training.iterations is None else training.iterations
    rate = supported.rate if supported is not None and training.learning_rate is None else training.learning_rate
    how = recipe_of(own, training, rate)
    how = how if scope is None else replace(how, scope=scope)
    config = RunConfig(plan.task, role, how, chosen, seed, steps, relative)
    if supported is not None:
        print(
            f"{out}: {arm} at a rate of {how.learning_rate.peak:g}, with the networks of {preset}: {supported.source}"
        )
        judged = {"iterations": supported.steps, "learning_rate": supported.rate, "super_batch": own.super_batch}
        asked = (
            given(data, drawing, training, computing) | size | {"keep": keep, "keep_list": keep_list, "scope": scope}
        )
        others = [flag(name) for name, value in asked.items() if value not in (None, judged.get(name))]
        if others:
            print(f"{out}: not as that page judged it, by {', '.join(others)}: what it says may not hold here")
    configure_threads()
    snapshots = tuple(float(steps * k // 16) for k in range(1, 17))
    claim = Claim(out, config, len(snapshots), len(snapshots))
    distributed.once(lambda: check_room(out, [claim], 1, sayer()))
    if begin is not None:
        other, again = begin, (out / "config.json").exists()
        at = distributed.once(lambda: begin_at(out, config, other, warn))
        print(f"{out}: has begun before, at step {at:,}" if again else f"{out}: begins at step {at:,} of {other}")
    with board(f"training {out}", {arm: 1.0}) as lines:

        def progress(step: int, trainer: Trainer) -> None:
            lines.update((arm, "evaluating" if step == steps else "step", step, steps, f"{step:,}"))

        schedule = Schedule({"steps": snapshots}, tracking=tracking.checked())
        state = execute(out, config, schedule, device_of(device), progress, warn)
    if state == "diverged":
        raise UserError(read_status(out)["why"])
    print(f"{out}: {steps:,} steps done. Next: ajest evaluate {out}")
