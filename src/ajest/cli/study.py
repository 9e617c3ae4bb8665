"""The command that runs a study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes as Flat
from tyro.conf import Positional

from ajest.errors import UserError, check, unknown

from .asked import TaskName, changed, dials_of, images_of, recipes_of, sizes_of
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
    Networks,
    Number,
    Sampling,
    Training,
    Whole,
    Word,
    Words,
    given,
    load_rules,
    shown,
    typed,
    verb,
)

if TYPE_CHECKING:
    from ajest.study.plan import Study

Stage = Literal["screening", "dials", "final", "guides"]  # these stand in modules that take torch to import


@verb
def study(
    task: Positional[TaskName],
    *,
    preset: Word = None,
    stages: Annotated[tuple[Stage, ...], shown("{screening,dials,final,guides} [...]")] = (
        "screening",
        "dials",
        "final",
        "guides",
    ),
    finalists: Words = None,
    final_ends: Annotated[tuple[End, ...] | None, shown("{time,time_without_target,samples,flops,steps} [...]")] = None,
    weight: Number = None,
    guides: Whole = None,
    tune: bool = False,
    rates: File = None,
    rules: Files = None,
    data: Flat[Data],
    drawing: Flat[Drawing],
    networks: Flat[Networks],
    training: Flat[Training],
    computing: Flat[Computing],
    sampling: Flat[Sampling],
    judging: Flat[Judging],
    out: Folder = None,
    workers: Whole = None,
    device: Device = "auto",
) -> None:
    """Screen many rules of selection on some seeds, judge the best on others.

    Example: ajest study tree --preset full --out runs/study-tree
             ajest study tree --stages final --finalists hard --final-ends flops
             ajest study images --data train.zip --validation val.zip

    - The same command goes on where it was stopped.
    - The page study.md is written again after each stage.

    Args:
        task: what to learn: tree or images.
        preset: "quick" (minutes, as without it) or "full" (hours).
        stages: which stages to run, all without it: "screening" tries all rules, "dials" looks into their dials,
            "final" judges the best on other seeds at equal time, samples and operations, "guides" compares guides of
            autoguidance.
        finalists: rules of the final, in place of those that the screening and the dials chose.
        final_ends: what is equal in the final, in place of the preset's.
        weight: of autoguidance; without it the preset's.
        guides: measure what is guided in the final with so many guides; without it as many as the preset says.
        tune: find the learning rates of all arms first; those share one that train on as many examples in like steps.
            The preset "full" of the tree does so without being asked, unless --learning-rate names one for all.
        rates: take the learning rates that another study found, from tuned/tuning.json in its folder.
        rules: Python files that register policies, triggers or arms of one's own, see docs/extending.md.
        out: folder of the study; without it runs/study-TASK-PRESET.
        workers: processes; without it one for each core, or on CUDA for each card.
        device: where to compute.
    """
    from ajest.bench.plan.tuning import Tuning
    from ajest.jobs.local import Local
    from ajest.study.page import write_page
    from ajest.study.results import finalists as chosen_by
    from ajest.study.results import results_of
    from ajest.study.run import run_guides, run_stage, tune_study

    preset = "quick" if preset is None else preset
    check(finalists is None or "final" in stages, "--finalists are rules of the stage final: add it to --stages")
    launch, place = Local(workers), device_of(device)
    asked = given(data, drawing, computing, sampling, judging) | sizes_of(networks)
    load_rules(rules)
    plan = _preset_of(task, preset, asked, place)
    recipe, guide_recipe = recipes_of(plan.recipe, plan.guide_recipe, training, networks)
    check(rates is None or training.learning_rate is None, "--rates and --learning-rate both set rates: give one")
    check(rates is None or not tune, "--rates takes rates that --tune would find: give one")
    tune = tune or (rates is not None and plan.tuning is None)
    plan = replace(
        plan,
        recipe=recipe,
        guide_recipe=guide_recipe,
        iterations=plan.iterations if training.iterations is None else training.iterations,
        weight=plan.weight if weight is None else weight,
        guides=plan.guides if guides is None else guides,
        final_ends=plan.final_ends if final_ends is None else final_ends,
        rates={} if training.learning_rate is not None else plan.rates,
        tuning=Tuning(shared=True) if tune else plan.tuning if training.learning_rate is None else None,
    )
    root = Path("runs") / f"study-{task}-{preset}" if out is None else out
    named = plan.known(() if finalists is None else finalists)
    groups = (data, drawing, networks, training, computing, sampling, judging)
    asked_for = typed(
        *groups,
        finalists=finalists,
        final_ends=final_ends,
        weight=weight,
        guides=guides,
        rates=rates,
        rules=rules or None,
    )
    asked_for += " --tune" * tune
    command = " ".join(f"ajest study {task} --preset {preset} {asked_for}".split())
    said: tuple[str, ...] = ()
    plan = tune_study(root, plan, launch, place, rates)
    for stage in stages:
        arms = named
        if stage == "final" and not named:
            screened, dialled = (results_of(root, plan, before) for before in ("screening", "dials"))
            arms = chosen_by(screened, dialled, plan.finalists)
        if stage == "final" and not arms:
            raise UserError(f"{root} has no screening to choose finalists from: run it first, or name them")
        if stage == "guides":
            run_guides(root, plan, launch, place)
        else:
            run_stage(root, plan, stage, plan.stage(stage, arms), launch, place)
        said = write_page(root, plan, command).verdict
    for sentence in said:
        console().print(f"- {sentence}", markup=False, highlight=False)
    print(f"\nStudy: {root / 'study.md'}")


def _preset_of(task: TaskName, preset: str, asked: dict[str, Any], device: str) -> Study:
    """The study of a preset with other settings of its task, named as options."""
    from ajest.bench.plan.presets import CPU_MINI
    from ajest.study.presets import IMAGES, PRESETS, TREE

    if task not in PRESETS:
        raise UserError(f"there is no study of {task}: only of {' and '.join(PRESETS)}; `ajest bench` judges any task")
    if preset not in PRESETS[task]:
        raise unknown(f"preset of a study of {task}", preset, PRESETS[task])
    if task == "tree":
        plan = TREE[preset]()
        return replace(plan, task=changed(plan.task, asked))
    dials = dials_of(CPU_MINI, asked)
    return IMAGES[preset](images_of(dials, asked, device), dials)
