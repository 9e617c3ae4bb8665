"""A trained network as a folder for the Hugging Face hub: weights, config and a card with the verdict."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import safetensors.torch

from ajest import __version__
from ajest.bench.read.findings import Findings, findings
from ajest.bench.read.folder import read
from ajest.storage import jsonl
from ajest.storage.checkpoint import write_atomic
from ajest.storage.config_file import write_config
from ajest.storage.folders import new_folder
from ajest.tasks.base import Task
from ajest.training.networks import load_network
from ajest.training.run_folder import RunConfig, read_config

from .markdown import section
from .tables import MARKS

#: How the hub calls what is learned; other tasks have no word there.
_PIPELINES = {"images": "unconditional-image-generation"}


@dataclass(frozen=True)
class Exported:
    """The network of a card.

    Attributes:
        run: its folder.
        config: of the run.
        step: at which it was taken.
        width: of its EMA.
    """

    run: Path
    config: RunConfig
    step: int
    width: float


def export(
    run: Path, out: Path, step: int | None = None, width: float | None = None, inexact: bool = False
) -> Exported:
    """Write a run's averaged network as `model.safetensors`, `config.json` and `README.md`; `load_exported` reads it.

    Where data lie on this machine is left out.

    Args:
        run: folder of the run.
        out: folder to write, which must not exist yet or be empty. It is written as a whole or not at all.
        step, width, inexact: of the snapshot and the average, see `load_network`.

    Raises:
        UserError: there is something in `out`, or it cannot be written; or see `load_network`.
    """
    config = read_config(run)
    network, at = load_network(run, step, width, inexact=inexact)
    exported = Exported(run, config, at, config.recipe.ema_widths[0] if width is None else width)
    weights = {name: part.contiguous() for name, part in network.state_dict().items()}
    about = {"format": "pt", "step": str(at), "ema_width": f"{exported.width:g}", "ajest": __version__}
    with new_folder(out) as whole:
        write_atomic(whole / "model.safetensors", safetensors.torch.save(weights, about))
        write_config(whole / "config.json", replace(config, task=without_places(config.task), guide=None))
        write_atomic(whole / "README.md", card(exported, verdict_of(run)))
    return exported


def without_places(task: Task) -> Task:
    """The task, its data, embeddings and autoencoder named by their last names alone."""
    own = {f.name for f in fields(task)}
    named: dict[str, Any] = {
        n: tuple(map(_last, getattr(task, n))) for n in ("data", "validation", "embeddings") if n in own
    }
    named |= {n: _last(getattr(task, n)) for n in ("autoencoder",) if n in own}
    return replace(task, **named) if named else task


def _last(spec: str) -> str:
    return Path(spec).name if "/" in spec and not spec.startswith("hf:") else spec


def verdict_of(run: Path) -> Findings | None:
    """What the bench found that the run is part of; None where it is part of none."""
    folders = run.resolve().parents
    if len(folders) < 3 or folders[1].name != "arms" or not (folders[2] / "bench.json").exists():
        return None
    return findings(read(folders[2]))


def card(exported: Exported, found: Findings | None) -> str:
    """The model card: what was trained, how good it is, and what the bench found of the ways to train it."""
    config, task = exported.config, without_places(exported.config.task)
    measured = _measured(exported)
    arm = config.arm
    how = f"`{arm.name}`" + (f": {arm.summary}" if arm.summary else "")
    parts = [
        _front(exported, task, measured),
        f"# {task.name}, {arm.name}",
        f"A denoiser of {task.subject}. It was trained for {exported.step:,} steps of {config.recipe.super_batch:,} "
        f"drawn examples by {how}, with seed {config.seed}. The weights are an average of relative width "
        f"{exported.width:g}.",
        "```python\nfrom ajest.training.networks import load_exported\n\n"
        'denoiser, task = load_exported("FOLDER")  # denoiser(x, sigma, label) gives the clean x\n```',
    ]
    if measured:
        labels = {m.name: m for m in task.metrics}
        lines = [
            f"| {labels[name].label if name in labels else name} | {weight:g} | {value:.5g} |"
            for weight, name, value in measured
        ]
        parts += ["## This network", "\n".join(["| metric | guidance weight | value |", "| --- | --- | --- |", *lines])]
    if found is not None:
        parts += ["## The bench that it is part of", f"**{found.answer}**", "\n".join(f"- {s}" for s in found.verdict)]
        parts += [part for table in found.headlines for part in section(table, 3)]
        parts += [MARKS, found.caution]
    parts.append(f"Made with ajest {__version__}, an equal-budget test bench for training diffusion models.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _measured(exported: Exported) -> list[tuple[float, str, float]]:
    """(guidance weight, metric, value) of the network, as they were evaluated last."""
    lines = jsonl.read(exported.run / "metrics.jsonl")
    own = [line for line in lines if (line["step"], line["width"]) == (exported.step, exported.width)]
    last = {line["weight"]: line["metrics"] for line in own if not line.get("noise")}
    scale = {m.name: m.scale for m in exported.config.task.metrics}
    return [
        (w, name, value * scale.get(name, 1.0)) for w, found in sorted(last.items()) for name, value in found.items()
    ]


def _front(exported: Exported, task: Task, measured: list[tuple[float, str, float]]) -> str:
    """What the hub reads of a card: YAML, of which JSON is a part."""
    specs = getattr(task, "data", ())
    pipeline = _PIPELINES.get(task.name)
    facts: dict[str, Any] = {"library_name": "ajest", "tags": ["diffusion", "ajest", exported.config.arm.name]}
    if pipeline:
        facts["pipeline_tag"] = pipeline
    if known := [spec.removeprefix("hf:").partition(":")[0] for spec in specs if spec.startswith("hf:")]:
        facts["datasets"] = known
    if plain := [{"type": name, "value": value} for weight, name, value in measured if weight == 1]:
        about = {"type": pipeline or "other", "name": task.name}
        data = {"type": known[0] if known else "other", "name": task.subject}
        facts["model-index"] = [
            {"name": exported.config.arm.name, "results": [{"task": about, "dataset": data, "metrics": plain}]}
        ]
    return "\n".join(
        ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in facts.items()), "---"]
    )
