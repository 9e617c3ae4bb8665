"""What is read from a bench's folder, one that is written by hand."""

import math
from pathlib import Path

import pytest
import torch

from ajest.bench.plan.config import run_folder
from ajest.bench.read.folder import read, read_bench
from ajest.errors import UserError
from ajest.selection.catalogue import arms_named
from ajest.storage import checkpoint, jsonl
from ajest.training.run_folder import claim_folder
from conftest import small_bench

CONFIG = small_bench(arms=arms_named(("baseline", "random")), seeds=(0, 1), iterations=40)
WIDTH = CONFIG.recipe.ema_widths[0]


def snapshot(folder, step, **reached):
    budgets = {clock: [float(budget)] for clock, budget in reached.items()}
    stem = folder / "snapshots" / f"snapshot-{step:07d}"
    checkpoint.save(stem, {"w": torch.ones(1)}, {"step": step, "reached": budgets, "clocks": {}})


def measured(folder, at, value, metric="loss", **changes):
    line = {"step": at, "width": WIDTH, "weight": 1.0, "n": 512, "clocks": {}, "metrics": {metric: value}}
    jsonl.append(folder / "metrics.jsonl", line | changes)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two arms on two seeds: the budget of 20 steps was reached by all, that of 40 by all but one."""
    claim_folder(tmp_path, CONFIG, "bench.json")
    checkpoint.write_sealed(tmp_path / "calibration.json", {"costs": {"uniform": {"update": 1.0}}, "threads": 1})
    monkeypatch.setattr(type(CONFIG.task), "real_data_reference", lambda *_: pytest.fail("a report measures nothing"))
    kept = {"judges": ["some weights"], "metrics": {"loss": 0.512}}
    checkpoint.write_sealed(tmp_path / "truth" / "real-data-reference-n512.json", kept)
    for arm in ("baseline", "random"):
        for seed in CONFIG.seeds:
            folder = run_folder(tmp_path, arm, seed)
            checkpoint.write_sealed(folder / "status.json", {"state": "done", "step": 40})
            snapshot(folder, 20, steps=20, samples=2040)
            snapshot(folder, 40, steps=40, calibrated=7)
            measured(folder, 20, 2.0 + seed)
            measured(folder, 40, 1.0 + seed)
    snapshot(tmp_path / "guide", 8, steps=8)
    return tmp_path


def values(root, budget, arm, metric="loss", weight=1.0):
    cell = read(root).cell(budget, arm, metric, weight)
    return None if cell is None else cell.values


def test_cells_are_the_values_at_the_snapshot_where_the_budget_was_crossed(root):
    results = read(root)
    assert results.amounts == {"calibrated": 7, "samples": 2040, "steps": 40}
    assert {r: values(root, r, "random") for r in results.amounts} == {
        "calibrated": {0: 1.0, 1: 2.0}, "samples": {0: 2.0, 1: 3.0}, "steps": {0: 1.0, 1: 2.0}
    }  # fmt: skip
    cell = results.cell("steps", "random", "loss", 1.0)
    assert (cell.budget, cell.arm, cell.metric, cell.weight, cell.n) == ("steps", "random", "loss", 1.0, 512)
    assert (cell.mean, cell.sd) == (1.5, pytest.approx(math.sqrt(0.5)))
    assert (cell.against["baseline"].seeds, cell.against["baseline"].difference) == (2, 0)
    assert results.costs == {"uniform": {"update": 1.0}}
    assert results.real_data_reference == {512: {"loss": 0.512}}
    assert results.root == root
    assert results.unfinished == 0
    assert results.arms == ["baseline", "random"]
    assert results.evaluated() == ["calibrated", "samples", "steps"]
    assert results.runs["random", 1].curve == (20, 40)
    assert {run.state for run in results.runs.values()} == {"done"}
    assert results.missing() == [f"{t}: not evaluated yet." for t in (
        "equal time as measured in the runs", "equal time without the exact target")]  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [{"width": 0.5}, {"n": 300}, {"settings": {"sampler_steps": 9}}, {"guide": "another"},
     {"metrics": {"unknown": 1.0}}, {"metrics": {"l2": math.nan}}, {"metrics": {"l2": math.inf}}, {"step": 30}],
)  # fmt: skip
def test_evaluations_of_something_else_are_not_taken(root, changes):
    measured(run_folder(root, "random", 0), 40, 5.0, "l2", **changes)
    assert values(root, "steps", "random", "l2") is None
    assert values(root, "steps", "random", "unknown") is None


def test_evaluations_by_other_weights_of_a_feature_network_are_left_out_until_all_are_judged_alike(root):
    """The ones that most runs were judged with last count."""
    for arm, seed in (("baseline", 0), ("random", 0), ("random", 1)):
        measured(run_folder(root, arm, seed), 40, 0.5, judges=["new"])
    assert values(root, "steps", "random") == {0: 0.5, 1: 0.5}
    assert values(root, "steps", "baseline") == {0: 0.5}
    assert values(root, "samples", "random") is None
    for arm in ("baseline", "random"):
        for seed in CONFIG.seeds:
            (run_folder(root, arm, seed) / "metrics.jsonl").unlink()
    assert read(root).cells == {}


def test_evaluations_with_the_benchs_own_guide_are_taken(root):
    own = str(checkpoint.facts(root / "guide" / "snapshots" / "snapshot-0000008")["sha256"])[:16]
    measured(run_folder(root, "random", 0), 40, 5.0, "mandala", weight=3.0, guide=own)
    assert values(root, "steps", "random", "mandala", 3.0) == {0: 5.0}
    assert values(root, "steps", "random", "mandala") is None


def test_a_reading_of_the_whole_run_that_not_all_reached_is_taken_from_the_curve(root):
    folder = run_folder(root, "baseline", 1)
    checkpoint.delete(folder / "snapshots" / "snapshot-0000040")
    assert read(root).amounts["steps"] == 20
    assert values(root, "steps", "random") is None  # those at 512 samples are no points of a curve
    for seed in CONFIG.seeds:
        measured(run_folder(root, "random", seed), 20, 7.0, n=256)
    cell = read(root).cell("steps", "random", "loss", 1.0)
    assert (cell.values, cell.n) == ({0: 7.0, 1: 7.0}, 256)


def test_runs_that_are_not_done_are_in_no_cell(root):
    for state in ("unfinished", "diverged"):
        folder = run_folder(root, "random", 1)
        checkpoint.write_sealed(folder / "status.json", {"state": state, "step": 12, "why": "so"})
        results = read(root)
        assert results.cell("steps", "random", "loss", 1.0).values == {0: 1.0}
        run = results.runs["random", 1]
        assert (run.state, run.step, run.why) == (state, 12, "so")
        assert results.unfinished == (state == "unfinished")
        assert results.lacking(results.cell("steps", "random", "loss", 1.0)) == [1]
        assert results.lacking(results.cell("steps", "baseline", "loss", 1.0)) == []


def test_a_run_without_a_status_is_as_far_as_its_ledger(root):
    folder = run_folder(root, "random", 1)
    (folder / "status.json").unlink()
    assert read(root).runs["random", 1].step == 0
    jsonl.append(folder / "ledger.jsonl", {"step": 16})
    jsonl.append(folder / "ledger.jsonl", {"step": 20}, {"step": 24})
    run = read(root).runs["random", 1]
    assert (run.state, run.step, run.why, [line["step"] for line in run.ledger]) == ("unfinished", 24, "", [16, 20, 24])
    guide = read(root).guide
    assert (guide.arm, guide.seed, guide.state, guide.step) == ("guide", CONFIG.guide_seed, "unfinished", 0)


def test_points_of_a_curve_are_those_of_its_size_and_weight(root):
    folder = run_folder(root, "random", 0)
    for changes in ({"n": 256}, {"n": 256, "weight": 3.0}):
        measured(folder, 20, 8.0 if "weight" in changes else 9.0, **changes)
    run = read(root).runs["random", 0]
    assert {i: line["metrics"]["loss"] for i, line in run.points(256, 1.0).items()} == {0: 9.0}
    assert {i: line["metrics"]["loss"] for i, line in run.points(256, 3.0).items()} == {0: 8.0}
    assert {i: line["metrics"]["loss"] for i, line in run.points(512, 1.0).items()} == {0: 2.0, 1: 1.0}


def test_columns_and_headlines_are_those_of_the_task(root):
    results = read(root)
    assert [(m.name, w) for m, w in results.headlines()] == [("energy_distance", 1.0), ("mandala", 3.0)]
    columns = [(m.name, w) for m, w in results.columns()]
    assert [c for c in columns if c[1] == 1.0] == [(m.name, 1.0) for m in CONFIG.task.metrics]
    assert ("loss", 3.0) not in columns
    assert ("mandala", 3.0) in columns
    assert len(columns) == sum(1 + m.guided for m in CONFIG.task.metrics)


def test_what_is_no_bench_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is not a bench: it has no bench.json"):
        read_bench(tmp_path)
    (tmp_path / "bench.json").write_text("{")
    with pytest.raises(UserError, match=r"bench\.json"):
        read(tmp_path)


def test_what_real_data_reach_is_left_out_where_it_was_not_measured_or_is_damaged(root):
    kept = root / "truth" / "real-data-reference-n512.json"
    kept.write_text(kept.read_text()[:-9])
    assert read(root).real_data_reference == {}
    kept.unlink()
    assert read(root).real_data_reference == {}


def test_each_file_is_read_once_and_none_is_written(root, monkeypatch):
    opened, really_read = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path) or really_read(path))
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    read(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    of_runs = [path for path in opened if "arms" in path.parts]
    assert len(of_runs) == len(set(of_runs)) >= 2 * 2 * (2 + 2)  # status, metrics and two snapshots each


def test_one_value_has_a_mean_and_no_spread(root):
    folder = run_folder(root, "random", 0)
    measured(folder, 40, 5.0, "l2")
    cell = read(root).cell("steps", "random", "l2", 1.0)
    assert cell.mean == 5
    assert math.isnan(cell.sd)
