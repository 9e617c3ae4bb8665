"""The verb sample."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes as Flat
from tyro.conf import Positional

from ajest.errors import check

from .asked import changed, class_names
from .console import Device, device_of
from .options import Guiding, Number, Sampling, Whole, Word, given, shown, verb
from .show import numbers


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
             ajest sample runs/pets --cfg 2 --out samples

    Args:
        run: folder of the run.
        out: folder for the samples and an image or sheet of them.
        n: how many; without it the task's usual number. Of images not together with seeds.
        classes: of images, by name or key, with commas between them (in double quotes if they hold commas); each is
            drawn with every seed.
        seeds: of the start noise, such as 0-31 or 3,7: one an image. The tree takes one for all points.
        width: EMA width; without it the first that was kept. Another is reconstructed from the snapshots, and how far
            it is off is said.
        step: of the snapshot; without it the latest.
        weight: of the guidance; 1 is none. Without it the task's usual one.
        allow_inexact_ema: take a reconstructed width though it is more than 2 % off its averaging profile.
        device: where to compute.
    """
    from ajest.runtime.threads import configure_threads
    from ajest.tasks.base import Guided
    from ajest.training.networks import check_classifier_free, load_guide, load_network, sampled
    from ajest.training.run_folder import read_config

    configure_threads()
    where = device_of(device)
    config = read_config(run)
    task = changed(config.task, given(sampling))
    wanted = () if seeds is None else numbers(seeds)
    check(n is None or not wanted or task.name != "images", "--n and --seeds both say how many images: name one")
    guidance = guiding.chosen(allow_inexact_ema)
    check(weight is None or guidance is not None, "--weight needs a guide: name its run with --guide")
    network, at = load_network(run, step, width, where, inexact=allow_inexact_ema)
    model = Guided(sampled(network, config, task), cfg=1.0 if guiding.cfg is None else guiding.cfg)
    said = f"step {at:,}"
    if guidance is not None:
        weight = task.guidance if weight is None else weight
        check(math.isfinite(weight), f"--weight must be a number, not {weight}")
        guide, guide_at = load_guide(guidance, task, where)
        mine, its = (config.recipe.ema_widths[0] if w is None else w for w in (width, guidance.width))
        itself = (run.resolve(), at, mine) == (guidance.run.resolve(), guide_at, its)
        check(
            not itself or guidance.asked_otherwise,
            f"{run} would guide itself, which changes nothing: name another --guide-step, --guide-width, "
            "--guide-noisier or --unconditional-guide",
        )
        model = replace(model, guide=guide, weight=weight, interval=guidance.interval, rule=guidance.rule)
        said += f", guided by {guidance.run} at step {guide_at:,} with weight {weight:g}"
    if model.cfg != 1:
        check_classifier_free(run, task)
        said += f", classifier-free guidance with weight {model.cfg:g}"
    names = () if classes is None else class_names(classes)
    paths = task.write_samples(model.denoiser, out, n, wanted, names, where)
    if len(paths) > 3:
        print(f"{len(paths) - 1:,} images in {out}")
        paths = paths[-1:]
    for path in paths:
        print(f"{path} ({said})")
