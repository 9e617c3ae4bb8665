"""Metrics of snapshots, kept beside their run and never computed twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ajest.bench.plan.config import BenchConfig, guide_folder
from ajest.errors import NotFinite
from ajest.runtime import compiling, distributed
from ajest.runtime.seeding import derived_seed
from ajest.storage import checkpoint, jsonl
from ajest.storage.config import to_json
from ajest.tasks.base import Evaluation, Guided, Measurement, Task
from ajest.training.networks import (
    Guidance,
    check_classifier_free,
    check_width,
    load_guide,
    load_network,
    sampled,
)
from ajest.training.run_folder import read_config, snapshots

from .reached import identity_of


def evaluate_snapshot(
    folder: Path,
    step: int,
    weights: Sequence[float],
    n: int,
    cache: Path,
    guidance: Guidance | None = None,
    width: float | None = None,
    device: torch.device | str = "cpu",
    keep_tensors: bool = False,
    task: Task | None = None,
    inexact: bool = False,
    noise: int = 0,
    cfg: float = 1.0,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Evaluate one snapshot of a run with each guidance weight; what is in metrics.jsonl already is read there.

    Args:
        folder: of the run.
        step: of the snapshot.
        weights: guidance weights; 1 is unguided.
        n: samples.
        cache: folder for what evaluations of a seed share.
        guidance: what guides; needed for a weight other than 1.
        width: EMA width; None is the first one kept.
        device: where to compute.
        keep_tensors: store samples and trajectories for figures.
        task: in place of the run's, with other places of its data, feature networks or settings of the sampler.
        noise: number of the sampling noise; 0 is the one that all arms of the run's seed share.
        cfg: weight of classifier-free guidance, beside all of these; 1 is none.
        inexact, say: of a width that was not kept, see `networks.check_width`. Samples that are NaN are said, too; they
            have no metrics.

    Returns:
        The lines of metrics.jsonl, one a weight.
    """
    config = read_config(folder)
    task = config.task if task is None else task
    plain, judges = _settings(config.task, task), list(task.judges(device))
    guided = None if guidance is None else identity_of(guidance.run, guidance.step)
    width = config.recipe.ema_widths[0] if width is None else width
    check_width(folder, step, width, inexact, say)
    if guidance is not None and guidance.width is not None and any(weight != 1 for weight in weights):
        at = max(snapshots(guidance.run), default=0) if guidance.step is None else guidance.step
        check_width(guidance.run, at, guidance.width, guidance.inexact, say)
        guidance = replace(guidance, inexact=True)  # it is said and allowed by now
    path = folder / "metrics.jsonl"
    known = {key(line): line for line in distributed.once(lambda: list(jsonl.read(path)))}
    how = {} if guidance is None else _settings(Guidance(guidance.run), guidance)
    interval = None if guidance is None else guidance.interval
    if cfg != 1:
        check_classifier_free(folder, task)
    lines = []
    main = guide = None
    for weight in weights:
        wanted: dict[str, Any] = {"step": step, "width": width, "weight": weight, "n": n}
        settings = plain | ({"guide": how} if how and weight != 1 else {})
        if cfg != 1:
            settings |= {"cfg": cfg if interval is None else [cfg, *interval]}
        wanted |= {"settings": settings} if settings else {}
        wanted |= {"judges": judges} if judges else {}
        wanted |= {"noise": noise} if noise else {}
        if weight != 1:
            wanted["guide"] = guided
        stem = folder / "samples" / f"step-{step:07d}-weight-{weight:g}-n-{n}"
        found = known.get(key(wanted))
        if found is not None and (not keep_tensors or checkpoint.exists(stem) or not found["metrics"]):
            lines.append(found)
            continue
        if main is None:
            network, _ = load_network(folder, step, width, device, inexact=True, say=lambda _: None)
            main = sampled(network, config, task)
        if guide is None and guidance is not None and weight != 1:
            guide, _ = load_guide(guidance, task, device, say=lambda _: None)
        rule = "autoguide" if guidance is None or weight == 1 else guidance.rule
        model = Guided(main, None if weight == 1 else guide, weight, interval, cfg, rule)
        seed = derived_seed(config.seed, "noise", noise) if noise else config.seed
        judge = partial(task.evaluate, model, Measurement(n, seed, cache, device, keep_tensors))
        before = compiling.so_far()
        result = measured(judge, f"{folder}, step {step}, weight {weight:g}", say)
        eager = (compiling.so_far() - before).eager_calls
        clocks = checkpoint.facts(snapshots(folder)[step])["clocks"]
        curve = {"by_level": {name: list(means) for name, means in result.by_level.items()}} if result.by_level else {}
        fell_back = {"eager_calls": eager} if eager else {}
        lines.append({**wanted, "clocks": clocks, "metrics": result.metrics, **curve, **fell_back})
        if distributed.rank() == 0:
            if keep_tensors and result.metrics:
                checkpoint.save(stem, result.tensors, wanted)
            jsonl.append(path, lines[-1])
    return lines


def each_guide(
    root: Path, config: BenchConfig, guides: int, folder: Path, step: int
) -> Iterator[tuple[Guidance, tuple[float, ...], float]]:
    """(a guide of a bench, the weights to evaluate with it, that of classifier-free guidance) of the first so many:
    what is unguided comes with the first alone, and without either. A run whose network answers twice guides itself.

    Args:
        root, config: the bench.
        guides: how many.
        folder, step: the snapshot that is guided.
    """
    own = read_config(folder).arm.updates.answers_twice
    for number in range(1, (1 if own else guides) + 1):
        guidance = Guidance(folder, step, head=True) if own else Guidance(guide_folder(root, number))
        plain = (1.0,) * (number == 1)
        if plain and config.cfg != 1:
            yield guidance, plain, 1.0
            plain = ()
        yield guidance, (*plain, config.weight), config.cfg


def measured(judge: Callable[[], Evaluation], what: str, say: Callable[[str], None]) -> Evaluation:
    """What `judge` finds. Samples that are NaN have no metrics, which is said of `what`: the others go on."""
    try:
        return judge()
    except NotFinite as error:
        say(f"{what}: {error}")
        return Evaluation({})


def _settings(old: Task | Guidance, new: Task | Guidance) -> dict[str, Any]:
    """Settings, as JSON, of which the new value is not the old one and which change what is measured."""
    changed = (f.name for f in fields(new) if f.compare and getattr(old, f.name) != getattr(new, f.name))
    return {name: to_json(getattr(new, name)) for name in changed if name != "step"}  # the guide's digest tells that


def key(line: dict[str, Any]) -> str:
    """What makes two evaluations the same one."""
    names = ("step", "width", "weight", "n", "guide", "settings", "judges", "noise")
    return json.dumps([line.get(k) for k in names], sort_keys=True)
