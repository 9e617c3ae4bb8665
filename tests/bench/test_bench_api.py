"""A bench from Python: in a temporary folder or one's own, with a task of this process, printed as tables."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from ajest.bench import Bench, compare
from ajest.bench.plan.presets import presets_of, tree_quick
from ajest.errors import UserError
from ajest.selection import ARMS
from ajest.storage.config import from_json, to_json
from ajest.tasks import registry
from ajest.tasks.tree.task import TreeTask
from ajest.training.run_folder import read_config
from conftest import small_recipe, small_task

SMALL = {
    "recipe": small_recipe(),
    "seeds": range(2),
    "iterations": 40,
    "guide_iterations": 8,
    "n_final": 512,
    "n_curve": 256,
    "curve": (0.5, 1.0),
    "calibration_rounds": 2,
}


@pytest.fixture(scope="module")
def found():
    return Bench(small_task(), arms=("baseline", ARMS["random"]), **SMALL).run(workers=0)


def test_what_comes_back_prints_as_tables_and_verdict(found):
    said = str(found)
    assert "At equal time" in said
    assert "loss" in said
    assert "Only 2 seeds stand behind this, a first look" in said
    assert all(sentence[:30] in said for sentence in found.verdict)
    cell = found.results.cell("calibrated", "random", "energy_distance", 1.0)
    assert set(cell.values) == {0, 1}
    assert (found.folder / "report.html").exists()
    assert all(path.suffix in (".png", ".webp") for path in found.figures)
    html = found._repr_html_()
    assert "<table>" in html
    assert "<li>" in html


def test_a_folder_of_ones_own_resumes_and_stays(tmp_path):
    bench = Bench(small_task(), arms=("baseline", "random"), **SMALL)
    first = bench.run(tmp_path / "mine", workers=0)
    ledger = tmp_path / "mine" / "arms" / "random" / "seed-1" / "ledger.jsonl"
    before = ledger.stat().st_mtime_ns
    again = bench.run(tmp_path / "mine", workers=0)
    assert ledger.stat().st_mtime_ns == before
    assert again.verdict == first.verdict
    other = Bench(small_task(), arms=("baseline",), **SMALL)
    with pytest.raises(UserError, match="name a new folder"):
        other.run(tmp_path / "mine", workers=0)


def test_a_task_of_this_process_alone_is_run_in_it(tmp_path):
    @dataclass(frozen=True)
    class Mine(TreeTask):
        name: str = "mine"

    task = Mine(hidden=16, guide_hidden=8, layers=2, sampler_steps=8)
    assert not registry.elsewhere(task)
    assert registry.elsewhere(small_task())
    root = tmp_path / "bench"
    found = Bench(task, arms=("baseline", "random"), **SMALL).run(root)
    assert "At equal time" in str(found)
    run = read_config(root / "arms" / "random" / "seed-0")
    assert run.task == task
    registry._memory.clear()
    with pytest.raises(UserError, match="lives in no file: make it again in Python"):
        from_json(type(run), to_json(run) | {"task": {"from": {"place": "", "class": "Gone", "digest": ""}}}, "x")


def test_what_cannot_be_is_one_clear_line():
    assert Bench("tree").config == tree_quick()
    assert presets_of("tree")[0] == "quick"
    with pytest.raises(UserError, match="unknown task 'forest'"):
        Bench("forest")
    with pytest.raises(UserError, match="unknown preset of tree 'slow'"):
        Bench("tree", "slow")
    with pytest.raises(UserError, match=r"unknown arm 'ajst'.*'ajest'"):
        Bench("tree", arms=("ajst",))


SCRIPT = """
from ajest.bench import Bench
from ajest.training.recipe import Recipe
{task}
found = Bench({name}, arms=("baseline",), seeds=(0,), recipe=Recipe(64), iterations=32, guide_iterations=8,
              n_final=200, n_curve=200, curve=(1.0,), calibration_rounds=1).run(workers=1)
print(found)
"""


def script(tmp_path, task, name):
    (tmp_path / "script.py").write_text(SCRIPT.format(task=task, name=name))
    return subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False
    )


def test_a_script_of_a_few_lines_needs_no_guard_against_its_workers(tmp_path):
    done = script(tmp_path, "", '"tree"')
    assert done.returncode == 0, done.stderr
    assert "`baseline` stands alone" in done.stdout


def test_a_script_with_a_task_of_its_own_and_no_guard_is_told_how_to_have_one(tmp_path):
    task = (Path(__file__).parents[2] / "examples" / "custom_task.py").read_text().split("if __name__")[0]
    done = script(tmp_path, task, "Ring()")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "script.py starts a bench whenever it is read" in last
    assert 'put the start under if __name__ == "__main__":' in last


def test_statistics_of_plain_arrays():
    mine, theirs = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.5]), [1.5, 2.4, 3.6, 4.5, 6.1]
    found = compare(mine.tolist(), theirs, better="lower")
    assert found.difference == pytest.approx(-0.52)
    assert found.outcome == "better"
