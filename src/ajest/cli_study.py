"""The command that runs a study."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tyro

from .console import Device, console, device_of
from .errors import UserError, unknown


def study(
    task: tyro.conf.Positional[Literal["tree", "images"]],
    preset: str = "quick",
    stages: tuple[Literal["screening", "dials", "final", "guides"], ...] = ("screening", "dials", "final", "guides"),
    finalists: tuple[str, ...] = (),
    out: Path | None = None,
    workers: int | None = None,
    device: Device = "auto",
) -> None:
    """Screen many rules of selection on some seeds and judge the best of them on others.

    Everything resumes: the same command goes on where it was stopped. The page study.md is written again after each
    stage, from whatever is there.

    Example: ajest study tree --preset full --out runs/study-tree
             ajest study tree --preset full --stages final guides --finalists hard recall

    Args:
        task: what to learn.
        preset: "quick" (minutes) or "full" (hours).
        stages: which stages to run: "screening" tries all rules, "dials" looks into their dials, "final" judges the
            best on other seeds at equal time, samples and operations, "guides" compares guides of autoguidance.
        finalists: rules of the final, in place of those that the screening and the dials chose.
        out: folder of the study; without it runs/study-TASK-PRESET.
        workers: processes; without it one for each core.
        device: where to compute.
    """
    from .study.page import write_page
    from .study.plan import STUDIES
    from .study.results import finalists as chosen_by
    from .study.results import results_of
    from .study.run import run_guides, run_stage

    if preset not in STUDIES[task]:
        raise unknown(f"preset of a study of {task}", preset, STUDIES[task])
    plan, place = STUDIES[task][preset](), device_of(device)
    root = Path("runs") / f"study-{task}-{preset}" if out is None else out
    named, guides = plan.known(finalists), []
    for stage in stages:
        screened = results_of(root, "screening", plan.stage("screening"))
        dialled = results_of(root, "dials", plan.stage("dials"))
        arms = named or chosen_by(screened, dialled, plan.finalists)
        if stage == "final" and not arms:
            raise UserError(f"{root} has no screening to choose finalists from: run it first, or name them")
        if stage == "guides":
            guides = run_guides(root, plan, workers, place)
        else:
            run_stage(root, plan, stage, plan.stage(stage, arms), workers, place)
        said = write_page(root, plan, guides, arms)
    for sentence in said:
        console().print(f"- {sentence}", markup=False, highlight=False)
    print(f"\nStudy: {root / 'study.md'}")
