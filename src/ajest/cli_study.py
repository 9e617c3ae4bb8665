"""The command that runs a study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import tyro

from .cli_tasks import TaskName, images_of
from .console import Device, console, device_of
from .errors import UserError, unknown


def study(
    task: tyro.conf.Positional[TaskName],
    preset: str = "quick",
    data: tuple[str, ...] = (),
    validation: tuple[str, ...] = (),
    classes: str = "",
    stages: tuple[Literal["screening", "dials", "final", "guides"], ...] = ("screening", "dials", "final", "guides"),
    finalists: tuple[str, ...] = (),
    final_ends: tuple[Literal["time", "net", "samples", "flops", "steps"], ...] = (),
    out: Path | None = None,
    workers: int | None = None,
    device: Device = "auto",
) -> None:
    """Screen many rules of selection on some seeds and judge the best of them on others.

    Everything resumes: the same command goes on where it was stopped. The page study.md is written again after each
    stage, from whatever is there.

    Example: ajest study tree --preset full --out runs/study-tree
             ajest study tree --preset full --stages final --finalists hard recall --final-ends net
             ajest study images --data train.zip --validation val.zip --preset full

    Args:
        task: what to learn.
        preset: "quick" (minutes) or "full" (hours).
        data: pictures to learn, see `ajest bench --help`; likewise validation and classes.
        validation: held-out pictures of the same classes.
        classes: learn these alone.
        stages: which stages to run: "screening" tries all rules, "dials" looks into their dials, "final" judges the
            best on other seeds at equal time, samples and operations, "guides" compares guides of autoguidance.
        finalists: rules of the final, in place of those that the screening and the dials chose.
        final_ends: what is equal in the final, in place of the preset's.
        out: folder of the study; without it runs/study-TASK-PRESET.
        workers: processes; without it one for each core.
        device: where to compute.
    """
    from .bench.launch import Local
    from .study.page import write_page
    from .study.presets import IMAGES, PRESETS, TREE
    from .study.results import finalists as chosen_by
    from .study.results import results_of
    from .study.run import run_guides, run_stage

    if preset not in PRESETS[task]:
        raise unknown(f"preset of a study of {task}", preset, PRESETS[task])
    if task == "tree":
        if data or validation or classes:
            raise UserError("the tree makes its own examples: --data and what belongs to it are for images")
        plan = TREE[preset]()
    else:
        plan = IMAGES[preset](images_of("cpu-mini", data, validation, classes=classes, device=device_of(device)))
    if final_ends:
        plan = replace(plan, final_ends=final_ends)
    place = device_of(device)
    root = Path("runs") / f"study-{task}-{preset}" if out is None else out
    named = plan.known(finalists)
    chosen = {"--finalists": finalists, "--final-ends": final_ends}
    command = " ".join([f"ajest study {task} --preset {preset}", *(w for k, v in chosen.items() if v for w in (k, *v))])
    for stage in stages:
        arms = named
        if stage == "final" and not named:
            screened, dialled = (results_of(root, plan, before) for before in ("screening", "dials"))
            arms = chosen_by(screened, dialled, plan.finalists)
        if stage == "final" and not arms:
            raise UserError(f"{root} has no screening to choose finalists from: run it first, or name them")
        if stage == "guides":
            run_guides(root, plan, Local(workers), place)
        else:
            run_stage(root, plan, stage, plan.stage(stage, arms), Local(workers), place)
        said = write_page(root, plan, command)
    for sentence in said:
        console().print(f"- {sentence}", markup=False, highlight=False)
    print(f"\nStudy: {root / 'study.md'}")
