"""Has a change of the code moved a number? Digests of three small experiments, recorded and compared.

    python benchmarks/unchanged.py record before.json    # at the old commit
    python benchmarks/unchanged.py compare before.json   # at the new one, on the same machine

The experiments are a bench on the tree with every arm that fits, a bench on procedural images with four arms, and the
quick study. Their budgets come from made-up costs of steps, so that nothing depends on the machine's speed: equal time
is as repeatable as equal samples. What is digested: weights, averages, the optimiser's and the selection's state, the
ids of examples drawn and kept, metrics of every snapshot, and every cell that a verdict rests on. Another processor or
another version of torch gives other bits: record and compare on one machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ajest.bench.plan.config import BenchConfig, Costs
from ajest.bench.plan.presets import CPU_MINI, tree_paper
from ajest.bench.read.folder import read
from ajest.bench.run.bench import run_bench
from ajest.bench.run.calibration import calibrated_costs
from ajest.jobs.local import Local
from ajest.selection.catalogue import ARMS, arms_named
from ajest.storage import checkpoint, jsonl
from ajest.study.plan import ALWAYS, Stage
from ajest.study.presets import tree_quick as study_quick
from ajest.study.results import finalists, results_of
from ajest.study.run import run_guides, run_stage
from ajest.tasks.images.architecture import Architecture
from ajest.tasks.images.setup import image_task
from ajest.tasks.tree.task import TreeTask
from ajest.training.recipe import LearningRate, Recipe
from ajest.training.run_folder import read_status

WORKERS = 2
#: Parts of a checkpoint by the beginning of the names of their tensors.
PARTS = {"network/": "weights", "ema/": "averages", "adam/": "optimizer", "proxy/": "proxy", "selector/": "memory"}
COUNTS = "example_counts/"
#: What stands in the names of digests, and what once stood there.
RENAMED = {"cells at time_without_target": "cells at net"}


def tree() -> BenchConfig:
    """Every arm but those that score images at half size."""
    published = tree_paper()
    arms = tuple(name for name, arm in ARMS.items() if not arm.scoring.half)
    return replace(
        published,
        recipe=replace(published.recipe, learning_rate=LearningRate(decay=48), super_batch=512),
        arms=arms_named(arms),
        seeds=(0, 1),
        iterations=64,
        guide_iterations=32,
        strong_iterations=64,
        end="time",
        n_final=1024,
        n_curve=512,
        curve=(0.5, 1.0),
        calibration_rounds=1,
    )


def images() -> BenchConfig:
    """Procedural images and tiny networks; one arm remembers, one scores at half size."""
    task = image_task(
        ("shapes:256",), ("shapes:128",), resolution=16, sampler_steps=3, references=128, chunk=64,
        learner=Architecture(channels=8, multipliers=(1, 2), blocks=1, attention=(8,)),
        guide=Architecture(channels=4, multipliers=(1, 2), blocks=1, attention=()),
    )  # fmt: skip
    bench = CPU_MINI.bench(task)
    arms = CPU_MINI.arms(("baseline", "ajest", "half-resolution", "stale-id"))
    arms = tuple(replace(arm, normalise="running", strata=1) if arm.policy == "hard" else arm for arm in arms)
    return replace(
        bench, arms=arms, seeds=(0, 1), iterations=32, guide_iterations=16, n_final=200, n_curve=200, curve=(0.5, 1.0),
        calibration_rounds=1,
    )  # fmt: skip


def made_up_costs(benches: Iterable[BenchConfig]) -> Costs:
    """A price for every kind of step, in round numbers."""
    kinds = {kind for bench in benches for arm in (ARMS["baseline"], *bench.arms) for kind in arm.kinds()}
    prices = {"uniform": 1.0, "watch": 1.25, "random": 0.25, "select": 0.75, "recall": 0.5}
    costs = {kind.label: prices[kind.mode] for kind in kinds} | {"guide": 0.5}
    return {kind: {"update": price / 2, "target": price / 4, "draw": price / 4} for kind, price in costs.items()}


def without_timing(folder: Path, benches: Iterable[BenchConfig]) -> None:
    """Put made-up costs where those would be that are timed."""
    costs = made_up_costs(benches)
    checkpoint.write_sealed(folder / "calibration.json", {"costs": costs, "rounds": 0})
    assert calibrated_costs(folder) == costs


def bench(root: Path, config: BenchConfig) -> dict[str, str]:
    without_timing(root, [config])
    run_bench(root, config, Local(WORKERS), "cpu")
    return {**runs(root), **cells(root)}


def study(root: Path) -> dict[str, str]:
    """All stages of the quick study; its guides too."""
    recipe = Recipe(learning_rate=LearningRate(peak=0.01, decay=1 / 8, clock="share"))
    plan = replace(
        study_quick(), task=TreeTask(gain_sign="free"), recipe=recipe, guide_recipe=None, weight=3.0, headlines={},
        rates={}, guides=1,
    )  # fmt: skip
    launch = Local(WORKERS)
    stages: tuple[Stage, ...] = ("screening", "dials", "final")
    for stage in stages:
        arms = plan.known(ALWAYS[:2])
        if stage == "final":
            screened, dialled = (results_of(root, plan, before) for before in ("screening", "dials"))
            arms = finalists(screened, dialled, plan.finalists)
        benches = plan.stage(stage, arms)
        without_timing(root / stage / next(iter(benches)), benches.values())
        run_stage(root, plan, stage, benches, launch, "cpu")
    without_timing(root / "guides" / "chosen", plan.stage("guides").values())
    run_guides(root, plan, launch, "cpu")
    folders = sorted(path.parent for path in root.rglob("bench.json"))
    return {k: v for folder in folders for k, v in (runs(folder, root) | cells(folder, root)).items()}


def runs(root: Path, top: Path | None = None) -> dict[str, str]:
    """Digests of every run below a bench's folder, by folder and part."""
    found: dict[str, str] = {}
    for config in sorted(root.rglob("config.json")):
        run = config.parent
        name = str(run.relative_to(top or root))
        tensors = checkpoint.load(list(checkpoint.stems(run, "checkpoint").values())[-1]).tensors
        for prefix, part in PARTS.items():
            some = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            if some:
                found[f"{name}: {part}"] = digest(some)
        counts = {k.removeprefix(COUNTS): v for k, v in tensors.items() if k.startswith(COUNTS)}
        found[f"{name}: examples drawn and trained on"] = digest(counts)
        stored = {
            step: checkpoint.load(stem).tensors for step, stem in checkpoint.stems(run / "selection", "step").items()
        }
        for step, some in stored.items():
            found[f"{name}: kept at step {step}"] = digest({k: some[k] for k in ("id", "kept", "sigma")})
        last = read_status(run)["step"]  # others may be there because of measured seconds
        lines = (line for line in jsonl.read(run / "metrics.jsonl") if line["step"] == last)
        found[f"{name}: metrics"] = short([line["n"], line["weight"], line["metrics"]] for line in lines)
        guided = [[line["guide"], line["weight"], line["metrics"]] for line in jsonl.read(run / "guides.jsonl")]
        if guided:
            found[f"{name}: metrics by guide"] = short(guided)
    return found


def cells(root: Path, top: Path | None = None) -> dict[str, str]:
    """One digest for every budget that does not go by measured seconds."""
    parts: dict[str, list[Any]] = {}
    for (budget, *where), cell in read(root).cells.items():
        if budget != "seconds":
            parts.setdefault(budget, []).append([*where, sorted(cell.values.items())])
    name = root.relative_to(top) if top else "bench"
    return {f"{name}: cells at {budget}": short(lines) for budget, lines in parts.items()}


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Of what tensors hold; their names may change."""
    return short(
        f"{tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()}"
        for tensor in tensors.values()
    )


def short(values: Iterable[Any]) -> str:
    return hashlib.sha256("\n".join(sorted(map(json.dumps, values))).encode()).hexdigest()[:12]


def _renamed(name: str) -> str:
    """The name of a digest, as it is now."""
    for now, once in RENAMED.items():
        name = now.join(name.rsplit(once, 1)) if name.endswith(once) else name
    return name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", nargs="+", choices=("tree", "images", "study"), default=("tree", "images", "study"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.only:
            root = Path(folder) / name
            found[name] = study(root) if name == "study" else bench(root, {"tree": tree, "images": images}[name]())
            print(f"{name}: {len(found[name])} digests")
    machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
    if asked.what == "record":
        asked.file.write_text(json.dumps({"machine": machine, "digests": found}, indent=0) + "\n")
        return
    before = json.loads(asked.file.read_text())
    if before["machine"] != machine:
        print(f"recorded elsewhere: {before['machine']} and not {machine}; bits may differ for that")
    moved = 0
    for name in asked.only:
        old, new = ({_renamed(k): v for k, v in digests.items()} for digests in (before["digests"][name], found[name]))
        different = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
        for key in different:
            print(f"{name}, {key}: {old.get(key, 'was not there')} -> {new.get(key, 'is not there')}")
        print(f"{name}: {len(old) - len([k for k in different if k in old])} of {len(old)} digests are the same")
        moved += len(different)
    sys.exit(bool(moved))


if __name__ == "__main__":
    main()
