import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ajest.bench.plan import operations
from ajest.bench.plan.budgets import BUDGETS
from ajest.bench.plan.config import run_folder
from ajest.bench.plan.operations import NetworkCosts
from ajest.bench.plan.presets import tree_quick
from ajest.bench.read import folder
from ajest.bench.read.cost import forward_passes, selection_costs
from ajest.bench.read.findings import findings
from ajest.bench.read.folder import read
from ajest.bench.read.published import beside_ours
from ajest.bench.read.time_to_quality import time_to_quality
from ajest.bench.report.drawing import Figures, draw
from ajest.bench.report.page import render, write_report
from ajest.bench.report.tables import html_prose
from ajest.bench.run import bench as running
from ajest.bench.run.bench import run_bench
from ajest.bench.run.reached import common_amounts, reached
from ajest.errors import UserError
from ajest.jobs.local import Local
from ajest.selection.catalogue import ARMS, arms_named
from ajest.storage import checkpoint, jsonl
from ajest.storage.config_file import write_config
from ajest.tasks.tree.task import TreeTask
from ajest.training.recipe import LearningRate
from ajest.training.run import execute
from ajest.training.run_folder import snapshots
from ajest.training.schedule import Schedule
from conftest import Here, painting, small_bench


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A whole small bench."""
    root = tmp_path_factory.mktemp("bench") / "small"
    run_bench(root, small_bench(), Local(2))
    with painting():
        write_report(root)
    return root


def test_every_arm_is_read_at_every_equal_budget(done):
    results, config = read(done), small_bench()
    assert results.missing() == []
    assert set(results.amounts) == set(config.budgets) == set(BUDGETS) - {"flops"}
    assert results.amounts["samples"] == 40 * 51
    assert results.amounts["steps"] == 40
    for budget in config.budgets:
        for arm in results.arms:
            for metric, weight in results.columns():
                cell = results.cell(budget, arm, metric.name, weight)
                assert cell is not None, (budget, arm, metric.name, weight)
                assert set(cell.values) == {0, 1}
                assert cell.n == config.n_of(budget)
                assert set(cell.against) == (set() if arm == "baseline" else {"baseline", "random"} - {arm})


def test_budgets_are_read_where_they_are_crossed(done):
    results = read(done)
    for (arm, seed), _ in results.runs.items():
        folder = run_folder(done, arm, seed)
        for clock, budget in results.amounts.items():
            step = reached(folder)[clock][budget]
            at = checkpoint.facts(snapshots(folder)[step])["clocks"]
            assert at[clock] >= budget * (1 - 1e-9)
            most_per_step = {"steps": 1, "samples": 256}.get(clock)
            if most_per_step:
                assert at[clock] < budget + most_per_step
    baseline = reached(run_folder(done, "baseline", 0))
    assert baseline["samples"][results.amounts["samples"]] == 8  # 2040 examples: the eighth step of 256


def test_calibrated_time_is_steps_times_the_cost_of_their_kind(done):
    costs = json.loads((done / "calibration.json").read_text())["costs"]
    line = jsonl.read(run_folder(done, "late-ajest", 1) / "ledger.jsonl")[-1]
    expected = sum(n * sum(costs[kind].values()) for kind, n in line["by_kind"].items())
    assert line["clocks"]["calibrated"] == pytest.approx(expected)
    assert line["clocks"]["time_without_target"] < line["clocks"]["calibrated"]
    for cost in selection_costs(small_bench(), costs):
        assert cost.example_ratio == pytest.approx(cost.step_ratio / 0.2)
        # The cost model (docs/method.md#cost): ((1 + r) / k + 3) / 3, r the guide's share of the learner's operations.
        r = (4 * 8 + 2 * 64) / (4 * 16 + 2 * 256)
        assert cost.model_ratio == pytest.approx(((1 + r) / 0.2 + 3) / 3)


def test_the_cost_model_counts_what_a_selecting_step_scores():
    costs = NetworkCosts(forward=1.0, guide=0.25, exact=0.5, sketch=1.0)
    expected = {
        "ajest": 1.25, "hard": 1, "learnable-strong": 2, "learnable-exact": 1.5, "learnable-draws": 2.5, "proxy": 0.25,
        "half-resolution": 0.25, "stale": 1 / 8, "recall": 0, "guide-hard": 0.25, "speed": 0,
    }  # fmt: skip
    assert {arm.name: forward_passes(arm, costs) for arm in arms_named(tuple(expected))} == expected


def test_a_stale_arm_costs_the_mean_of_its_steps():
    config = small_bench(arms=arms_named(("baseline", "stale")))
    select, recall = map(str, config.arms[1].kinds())
    costs = {"uniform": {"update": 1.0}, select: {"update": 0.2, "learner scoring": 0.8}, recall: {"update": 0.2}}
    (found,) = selection_costs(config, costs)
    assert found.step_ratio == pytest.approx(0.2 + 0.8 / 8)
    assert found.overhead_share == pytest.approx(0.1 / 0.3)


def test_the_report_is_one_page_and_says_who_won(done):
    page = (done / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 4 * 3 + 6
    assert 'src="http' not in page
    assert 'href="http' not in page
    found = findings(read(done))
    for sentence in found.sentences:
        assert html_prose(sentence) in page
    assert "Only 2 seeds" in page
    scored = found.score_reliability_table
    section = page.split("Reliability of scores</h3>")[1].split("</table>")[0].replace("&#39;", "'")
    assert scored
    assert all(f"<td>{value}</td>" in section for row in scored.texts() for value in row)
    assert all(f"<th>{head.value}</th>" in section for head in scored.heads)
    rows = (done / "results.csv").read_text().splitlines()
    assert rows[0].startswith("budget,amount,arm,metric")
    assert len(rows) > 4 * len(BUDGETS) * 10
    numbers = json.loads((done / "results.json").read_text())
    assert {e["state"] for e in numbers["ledgers"]} == {"done"}


#: What a report consists of.
OWN = {"report.html", "results.csv", "results.json", "results.md", "figures"}


def test_a_report_measures_nothing_reads_each_run_once_and_changes_nothing_but_itself(done, monkeypatch):
    walks, walk = [], folder.reached
    monkeypatch.setattr(folder, "reached", lambda run: walks.append(run) or walk(run))
    for name in ("evaluate", "real_data_reference", "prepare", "source"):
        monkeypatch.setattr(TreeTask, name, lambda *_, name=name: pytest.fail(f"a report calls {name}"))
    built, build = [], TreeTask.network
    monkeypatch.setattr(TreeTask, "network", lambda task, role, seed: built.append(role) or build(task, role, seed))
    operations._counted.cache_clear()

    def contents():
        return {p: p.read_bytes() for p in done.rglob("*") if p.is_file() and not {p.name, p.parent.name} & OWN}

    before = contents()
    found = write_report(done)
    assert contents() == before
    assert sorted(built) == ["guide", "learner"]
    assert len(walks) == len(set(walks)) == len(found.results.runs) + 1

    everything = {path: path.stat().st_mtime_ns for path in done.rglob("*")}
    again = findings(read(done))
    render(again, draw(again))
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*")} == everything
    assert again.sentences == found.sentences


def test_steps_of_an_arm_at_a_budget_stand_in_its_table(done):
    found = findings(read(done))
    table = next(t for t in found.tables if t.title.startswith("At equal steps"))
    assert [row[:2] for row in table.texts()[:-1]] == [[arm, "40"] for arm in found.results.arms]
    table = next(t for t in found.tables if t.title.startswith("At equal samples"))
    assert table.texts()[0][:2] == ["baseline", "8"]
    assert table.texts()[-1][0] == "real examples"
    assert float(table.texts()[-1][2])


def test_what_is_finished_is_not_done_again(done):
    before = {p: p.stat().st_mtime_ns for p in done.rglob("*") if p.suffix not in (".html", ".log") and p.is_file()}
    run_bench(done, small_bench(), Local(1))
    assert {p: p.stat().st_mtime_ns for p in before} == before


KILLABLE = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from conftest import Here, small_bench
from ajest.bench.run.bench import run_bench
from ajest.jobs.local import Local
if __name__ == "__main__":
    run_bench(Path({root!r}), small_bench(), Local(2))
"""


def test_a_bench_whose_parent_is_killed_can_be_started_again_at_once(done, tmp_path):
    root, script = tmp_path / "killed", tmp_path / "bench.py"
    script.write_text(KILLABLE.format(tests=str(Path(__file__).parents[1]), root=str(root)))
    process = subprocess.Popen([sys.executable, str(script)])
    deadline = time.monotonic() + 120
    while len(list(root.glob("arms/*/*/ledger.jsonl"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    time.sleep(1.0)
    run_bench(root, small_bench(), Local(2))
    ours, theirs = read(root), read(done)
    assert ours.missing() == []
    # Time differs between the two; what was learned by a given step does not.
    for budget in ("steps", "samples"):
        for arm in ours.arms:
            values = [r.cell(budget, arm, "loss", 1.0).values for r in (ours, theirs)]
            assert values[0] == values[1]


def test_a_bench_goes_on_with_the_threads_it_was_timed_with(done, tmp_path, monkeypatch):
    copy, used = tmp_path / "copy", []
    shutil.copytree(done, copy)
    path = copy / "threads.json"
    checkpoint.write_sealed(path, checkpoint.read_sealed(path) | {"threads": 3})
    monkeypatch.setattr(running, "configure_threads", used.append)
    monkeypatch.setattr(Local, "work", lambda self, do, jobs, device, threads, *_: used.append(threads))
    run_bench(copy, small_bench(), Local(1))
    assert set(used) == {3}


def test_time_to_quality_is_read_off_the_curves(done):
    found = {(q.arm, q.metric.name): q for q in time_to_quality(read(done))}
    assert set(found) == {(a.name, m) for a in small_bench().arms for m in ("energy_distance", "mandala")}
    assert all(q.seeds == 2 for q in found.values())
    assert found["baseline", "mandala"].reached >= 1


def test_a_lone_arm_has_a_page_and_no_verdict(done):
    results = read(done)
    alone = replace(results.config, arms=results.config.arms[:1], seeds=(0,))
    runs = {where: run for where, run in results.runs.items() if where == ("baseline", 0)}
    lone = replace(results, config=alone, runs=runs)
    found = findings(lone)
    assert "stands alone" in found.answer
    assert "stands alone" in render(found, Figures())
    assert draw(found).lead == draw(found).differences == ()


def test_another_bench_is_refused(done):
    with pytest.raises(UserError, match="iterations: 40 -> 50"):
        run_bench(done, small_bench(iterations=50))
    fewer = small_bench(arms=arms_named(("baseline", "random"), keep=0.5))
    with pytest.raises(UserError, match="arms"):
        run_bench(done, fewer)


def test_half_finished_benches_report_what_is_missing(done, tmp_path):
    half = tmp_path / "half"
    shutil.copytree(done, half)
    shutil.rmtree(half / "arms" / "ajest" / "seed-1")
    shutil.rmtree(half / "arms" / "random")
    missing = " ".join(write_report(half).missing)
    assert "ajest, seed 1: its training is not finished (step 0)" in missing
    assert "random, seed 0" in missing
    assert "What is missing" in (half / "report.html").read_text()
    shutil.rmtree(half / "arms")
    (half / "calibration.json").unlink()
    assert "no verdict yet" in write_report(half).answer
    with pytest.raises(UserError, match="not a bench"):
        write_report(tmp_path)


def test_a_folder_with_somebodys_files_is_left_alone(tmp_path):
    """A report would replace theirs, and a folder of images would learn our figures."""
    config = small_bench(seeds=(0,))
    run = config.run(config.arms[0], 0)
    for name, begin in (
        ("bench", lambda at: run_bench(at, config, Local(1))),
        ("run", lambda at: execute(at, run, Schedule())),
    ):
        folder = tmp_path / name
        (folder / "cats").mkdir(parents=True)
        (folder / "report.html").write_text("mine")
        with pytest.raises(UserError, match=r"holds other things \(cats, report.html\).*name a new or empty folder"):
            begin(folder)
        assert (folder / "report.html").read_text() == "mine"
        assert {p.name for p in folder.glob("[!.]*")} == {"cats", "report.html"}


def test_a_run_that_diverges_is_reported_and_the_others_go_on(tmp_path):
    root = tmp_path / "diverging"
    config = small_bench(seeds=(0,), n_curve=256, n_final=256, calibration_rounds=1)
    folder = run_folder(root, "ajest", 0)
    write_config(folder / "config.json", config.run(config.arms[1], 0))
    diverged = {"state": "diverged", "step": 30, "why": "the loss is not finite <b>"}
    checkpoint.write_sealed(folder / "status.json", diverged)
    run_bench(root, config, Here())
    found = write_report(root)
    results = found.results
    assert any("ajest, seed 0: stopped at step 30" in s for s in found.missing)
    assert results.cell("steps", "ajest", "mandala", 1.0) is None
    assert results.cell("steps", "baseline", "mandala", 1.0) is not None
    page = (root / "report.html").read_text()
    assert "not finite &lt;b&gt;" in page
    assert "<b>. It is left out" not in page


def test_a_guide_that_diverges_ends_the_bench_with_a_reason(tmp_path):
    wild = replace(small_bench().recipe, learning_rate=LearningRate(peak=1e30))
    with pytest.raises(UserError, match=r"the guide: at step .*: the loss or its gradient is not finite"):
        run_bench(tmp_path / "wild", small_bench(recipe=wild))


def test_a_damaged_snapshot_costs_only_its_reading(done, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(done, copy)
    folder = run_folder(copy, "baseline", 0)
    (folder / "metrics.jsonl").unlink()
    path = folder / "snapshots" / "snapshot-0000040.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    run_bench(copy, small_bench(), Here())
    results = read(copy)
    assert set(results.cell("steps", "baseline", "loss", 1.0).values) == {1}
    assert set(results.cell("samples", "baseline", "loss", 1.0).values) == {0, 1}


def test_common_budgets_are_those_of_the_slowest(done, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(done, copy)
    folder = run_folder(copy, "random", 1)
    for step, stem in snapshots(folder).items():
        if step > 20:
            checkpoint.delete(stem)
    assert common_amounts(copy, small_bench())["steps"] == 20


def test_the_published_figures_stand_only_beside_the_published_settings(done):
    assert beside_ours(read(done)) == []
    assert beside_ours(replace(read(done), config=tree_quick())) == []


def test_benches_check_themselves():
    with pytest.raises(UserError, match="seeds are named twice: 1"):
        small_bench(seeds=(1, 2, 1))
    with pytest.raises(UserError, match="at least one seed"):
        small_bench(seeds=())
    with pytest.raises(UserError, match="at least 32"):
        small_bench(iterations=3)
    with pytest.raises(UserError, match="chunks"):
        small_bench(recipe=replace(small_bench().recipe, super_batch=64))
    with pytest.raises(UserError, match="workers"):
        run_bench("nowhere", small_bench(), Local(0))


def test_names_from_arms_never_reach_the_page_unescaped(done):
    evil = replace(ARMS["baseline"], summary="<script>alert(1)</script>")
    results = read(done)
    config = replace(results.config, arms=(evil, *results.config.arms[1:]))
    page = render(findings(replace(results, config=config)), Figures())
    assert "<script>" not in page


@pytest.mark.parametrize(
    ("end", "final_only"), [("time", True), ("flops", True), ("samples", False), ("time_without_target", False)]
)
def test_benches_that_end_by_any_clock_are_read_at_their_end(end, final_only, tmp_path):
    config = small_bench(
        arms=arms_named(("baseline", "random")), seeds=(0,), end=end, final_only=final_only, n_final=400, n_curve=256,
        curve=(1.0,), calibration_rounds=1, iterations=32,
    )  # fmt: skip
    run_bench(tmp_path, config, Here())
    results = read(tmp_path)
    budgets = set(config.budgets) - {"seconds"}  # how far measured time drifts nobody knows
    assert budgets <= set(results.amounts) <= set(config.budgets)
    for arm in results.arms:
        for budget in budgets:
            assert set(results.cell(budget, arm, "loss", 1.0).values) == {0}
        assert results.cell(config.final_budget, arm, "loss", 1.0).n == 400


def test_a_folder_of_somebodys_is_refused_before_anything_in_it_is_touched(tmp_path):
    weights = tmp_path / "sd-vae" / "diffusion_pytorch_model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"x")
    os.utime(weights, (time.time() - 1e6, time.time() - 1e6))
    with pytest.raises(UserError, match=r"holds other things \(sd-vae\) and no bench\.json"):
        run_bench(tmp_path, small_bench(), Here())
    assert weights.exists()
