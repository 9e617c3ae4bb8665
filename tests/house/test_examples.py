"""The examples of the repository, as their first lines say that they are run."""

import ast
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from ajest.bench.plan.presets import presets_of
from ajest.bench.read.folder import read
from ajest.diffusion import flow_times, sample_flow
from ajest.errors import UserError
from ajest.storage.config import from_json, to_json
from ajest.tasks import Task, from_spec
from ajest.tasks.vectors.task import VectorsTask
from ajest.training.networks import load_network
from forked import FORKED

EXAMPLES = Path(__file__).parents[2] / "examples"


def program(name, *words, cwd=None):
    done = FORKED.run([EXAMPLES / name, *words], cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_training_loop_of_ones_own():
    said = program("own_training_loop.py", "--steps", "24")
    assert "guided: samples lie" in said
    assert "4,920 of 24,576 examples trained on" in said


def test_descriptions_are_learned_and_guided_both_ways():
    said = program("captions.py", "--steps", "16").splitlines()
    assert [line.split(":")[0] for line in said] == ["alone", "classifier-free", "both"]
    assert len({line.split(":")[1] for line in said}) == 3


def test_shards_are_written_learned_and_pruned_and_the_bench_of_both_halves_is_planned(command, tmp_path, monkeypatch):
    """The bench itself would take minutes: it is planned, and what follows it is left out."""
    planned = []

    def run_bench(root, config, *_):
        planned.append(config)
        raise UserError("planned")

    def run(words, check):
        verb, *rest = words[3:]
        if verb not in ("report", "export"):
            done = command(verb, *rest)
            assert done.code == 0 or "planned" in done.err, done.err

    monkeypatch.setattr("ajest.bench.run.bench.run_bench", run_bench)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["pruned_shards.py", "--iterations", "32"])
    runpy.run_path(str(EXAMPLES / "pruned_shards.py"))
    (config,) = planned
    kept = {arm.name: arm.examples.count for arm in config.arms if arm.examples}
    assert kept == {"pruned-hard-half": 128, "pruned-random-half": 128}
    assert config.task.classes == ("0", "1")
    ids = {(tmp_path / "runs" / "shards" / f"{name}.csv").read_text() for name in ("hard-half", "random-half")}
    assert len(ids) == 2


def test_a_task_of_ones_own_is_benched_by_workers_and_by_the_command_line(command, tmp_path):
    """As a program with worker processes, which read the file anew, and then by the command line in the same folder."""
    words = ("--arms", "baseline", "random", "--seeds", "0", "1", "--iterations", "48", "--super-batch", "64")
    done = command("bench", f"{EXAMPLES / 'custom_task.py'}:Ring", *words, "--workers", "2", "--out", "ring")
    assert done.code == 0, done.err
    assert "distance from the ring" in done.out
    again = command("bench", f"{EXAMPLES / 'custom_task.py'}:Ring", *words, "--out", "ring")
    assert again.out == done.out
    assert read(tmp_path / "ring").config.task.name == "ring"


def test_the_network_of_the_page_on_vectors_is_benched_in_the_place_of_the_tasks_own(tmp_path):
    page = (EXAMPLES.parent / "docs" / "vectors.md").read_text()
    (tmp_path / "my_vectors.py").write_text(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1])
    task = from_spec(f"{tmp_path / 'my_vectors.py'}:make_task")
    assert isinstance(task, VectorsTask)
    assert from_json(Task, json.loads(json.dumps(to_json(task))), "here") == task
    assert presets_of(task.name) == ("quick", "full")
    batch = task.source("cpu").draw(20, torch.Generator().manual_seed(0))
    learner, guide = (task.network(role, 0) for role in ("learner", "guide"))
    assert learner(batch.x, batch.sigma, None).shape == (20, 2)
    assert sum(p.numel() for p in guide.parameters()) < sum(p.numel() for p in learner.parameters())


def test_a_task_of_ones_own_has_at_most_40_lines():
    lines = (EXAMPLES / "custom_task.py").read_text().splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 40


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.py")), ids=lambda path: path.name)
def test_every_example_says_how_it_is_run(path):
    first = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]
    assert path.relative_to(EXAMPLES.parent).as_posix() in first


def test_a_flow_of_ones_own_is_benched_and_sampled_along_its_time(command, tmp_path):
    words = ("--arms", "baseline", "random", "--seeds", "0", "--iterations", "48", "--super-batch", "64")
    done = command("bench", f"{EXAMPLES / 'flow_objective.py'}:make_task", *words, "--workers", "1", "--out", "flow")
    assert done.code == 0, done.err
    assert "random" in done.out
    network, _ = load_network(tmp_path / "flow" / "arms" / "baseline" / "seed-0")
    found = sample_flow(network.network, torch.randn(8, 2), flow_times(4))
    assert found.isfinite().all()
    lines = (EXAMPLES / "flow_objective.py").read_text().splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 50


@pytest.mark.parametrize("page", ["objectives", "conditions"])
def test_the_python_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where it may leave files
    text = (EXAMPLES.parent / "docs" / "how-to" / f"{page}.md").read_text()
    names: dict = {"__name__": f"page_{page}"}
    sys.modules[names["__name__"]] = ModuleType(names["__name__"])  # where its dataclasses look for themselves
    try:
        for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            exec(code, names)
    finally:
        del sys.modules[names["__name__"]]
    if page == "objectives":
        assert names["points"].shape == (64, 2)
        assert names["points"].isfinite().all()
    else:
        batch = names["source"].draw(64, torch.Generator().manual_seed(0))
        assert names["network"](batch.x, batch.sigma, batch.label).shape == (64, 2)
