"""A whole bench of images in small: its runs, its evaluations, its report."""

import csv
import html
import json
import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from ajest.bench.plan.config import BenchConfig, run_folder
from ajest.bench.read.findings import findings
from ajest.bench.read.folder import read
from ajest.bench.report.drawing import draw
from ajest.bench.report.page import render, write_report
from ajest.bench.run.bench import run_bench
from ajest.bench.run.evaluation import evaluate_snapshot
from ajest.bench.run.reached import curve_points, reached
from ajest.errors import UserError
from ajest.selection.catalogue import arms_named
from ajest.storage import checkpoint, jsonl
from ajest.storage.config import differences, from_json, to_json
from ajest.tasks.base import Measurement
from ajest.tasks.images import extractors
from ajest.tasks.images.data import prepare
from ajest.tasks.images.extractors import Features
from ajest.tasks.images.setup import image_task
from ajest.training.networks import Guidance
from ajest.training.recipe import LearningRate, Recipe
from ajest.training.run import execute
from ajest.training.run_folder import RunConfig, claim_folder, read_config
from ajest.training.schedule import Schedule
from conftest import Here, painting, tiny_images

pytestmark = pytest.mark.usefixtures("small_judge")


def small_bench(**changes):
    config = BenchConfig(
        task=tiny_images(),
        recipe=Recipe(32, LearningRate(0.02, 0), ema_widths=(0.1, 0.05), micro_batch=16, not_finite="zero"),
        arms=arms_named(("baseline", "ajest", "random"), chunks=3),
        seeds=(0, 1),
        iterations=32,
        guide_iterations=8,
        end="time",
        weight=2.0,
        n_final=200,
        n_curve=200,
        curve=(1.0,),
        calibration_rounds=3,
    )
    return replace(config, **changes)


@pytest.fixture(scope="module")
def done(tmp_path_factory, small_judge):
    root = tmp_path_factory.mktemp("images") / "bench"
    run_bench(root, small_bench(), Here())
    return root, write_report(root).results


HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 191 }}", "$x^{", "\\frac{%s")


def test_names_of_classes_reach_neither_the_page_nor_the_figures_as_anything_but_text(done):
    results = done[1]
    names = (*HOSTILE, *results.config.task.names)[: len(results.config.task.names)]
    task = replace(results.config.task, names=names, classes=names)
    arms = (replace(results.config.arms[0], summary=" ".join(HOSTILE)), *results.config.arms[1:])
    found = findings(replace(results, config=replace(results.config, task=task, arms=arms)))
    with painting():
        page = render(found, draw(found))
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "{{ 7 * 191 }}" in page  # and not what it makes
    assert "&lt;script&gt;" in page


def test_runs_end_at_equal_time_and_are_read_there(done):
    root, results = done
    config, whole = results.config, results.config.time(results.costs)
    assert whole == pytest.approx(32 * sum(results.costs["uniform"].values()))
    assert list(config.budgets) == ["calibrated", "samples", "seconds"]
    assert results.amounts["calibrated"] == pytest.approx(whole)
    for (arm, seed), run in results.runs.items():
        assert run.state == "done"
        clock = run.ledger[-1]["clocks"]["calibrated"]
        step = max(sum(results.costs[k.label].values()) for a in config.arms if a.name == arm for k in a.kinds())
        assert whole * (1 - 1e-9) <= clock < whole + step * (1 + 1e-9)
        folder = run_folder(root, arm, seed)
        assert run.curve == curve_points(reached(folder), config, results.costs)
        assert run.curve[-1] == run.step
    assert all(results.runs["baseline", s].step == 32 for s in (0, 1))
    assert results.runs["random", 0].step > 32
    fewest = min(r.ledger[-1]["trained"] for r in results.runs.values())
    assert 0.8 * fewest <= results.amounts["samples"] <= fewest
    for arm in results.arms:
        for metric, weight in results.columns():
            for budget in ("calibrated", "samples"):
                assert len(results.cell(budget, arm, metric.name, weight).values) == 2, (arm, metric.name)


def test_the_report_of_a_bench_on_images(done):
    root, results = done
    page = (root / "report.html").read_text()
    found = findings(results)
    said = " ".join(found.sentences)
    assert "FD-Lite0" in said
    assert "Only 2 seeds stand behind this" in found.answer
    assert "After the whole run, autoguidance may" in said
    for text in ("256 images of 16 x 16, 10 classes", "unguided, and below it guided", "along training",
                 "kept ones of highest score", "Paths of the sampler"):  # fmt: skip
        assert text in page, text
    assert "exact target" not in page
    for note in results.config.task.notes(200):
        assert html.escape(note) in page
        assert note in (root / "results.md").read_text()
    assert "compared with 96 of the 256 training images" in results.config.task.notes(200)[0]
    assert "tree" not in re.sub(r'base64,[^"]*', "", page)  # in an image's letters any word may stand
    assert math.isfinite(results.real_data_reference[200]["kid"])
    markdown = (root / "results.md").read_text()
    assert "of baseline, and for the others as much time" in markdown
    headlines = [(m.name, w) for m, w in results.headlines()]
    assert headlines == [("fd_lite0", 1.0), ("fd_lite0", 2.0)]


def test_evaluations_judge_every_metric_and_are_not_repeated(done):
    root, _ = done
    run = run_folder(root, "baseline", 0)
    lines = evaluate_snapshot(run, 32, (1.0, 2.0), 64, root, Guidance(root / "guide"), 0.05)
    names = {m.name for m in read_config(run).task.metrics}
    assert names <= set(lines[0]["metrics"])
    assert names - {"loss"} <= set(lines[1]["metrics"])
    assert "loss" not in lines[1]["metrics"]
    assert lines[0]["metrics"]["kid_low"] < lines[0]["metrics"]["kid"] < lines[0]["metrics"]["kid_high"]
    before = (run / "metrics.jsonl").read_text()
    assert evaluate_snapshot(run, 32, (1.0, 2.0), 64, root, Guidance(root / "guide"), 0.05) == lines
    assert (run / "metrics.jsonl").read_text() == before
    reconstructed = evaluate_snapshot(run, 32, (1.0,), 64, root, None, 0.08, inexact=True)
    assert reconstructed[0]["metrics"]["loss"] == pytest.approx(lines[0]["metrics"]["loss"], rel=0.3)


def test_samples_that_are_nan_have_no_metrics_and_stop_nothing(done):
    root, _ = done
    said = []
    run, guide = run_folder(root, "baseline", 0), Guidance(root / "guide")
    for _ in range(2):  # the second time it is known
        lines = evaluate_snapshot(run, 32, (1e38, 1.0), 64, root, guide, keep_tensors=True, say=said.append)
        assert lines[0]["metrics"] == {}
        assert lines[1]["metrics"]
    assert len(said) == 1
    assert "step 32, weight 1e+38: images are NaN" in said[0]


def test_another_guide_is_another_evaluation_and_never_enters_the_report(done, tmp_path):
    root, results = done
    run, other = run_folder(root, "baseline", 0), tmp_path / "guide"
    execute(other, replace(small_bench().guide(), seed=5), Schedule())
    (own,) = evaluate_snapshot(run, 32, (2.0,), 200, root, Guidance(root / "guide"))
    (foreign,) = evaluate_snapshot(run, 32, (2.0,), 200, root, Guidance(other))
    assert own["guide"] != foreign["guide"]
    assert own["metrics"]["fd_lite0"] != foreign["metrics"]["fd_lite0"]
    cell = read(root).cell("calibrated", "baseline", "fd_lite0", 2.0)
    assert cell.values == results.cell("calibrated", "baseline", "fd_lite0", 2.0).values
    assert cell.values[0] == own["metrics"]["fd_lite0"]


def test_a_guide_that_lacks_classes_is_refused(done, tmp_path):
    root, _ = done
    stars = image_task(("shapes:1000",), ("shapes:128",), 16, ("star", "heart"), learner=tiny_images().learner)
    config = replace(small_bench().guide(), task=stars, iterations=1)
    execute(tmp_path / "guide", config, Schedule())
    with pytest.raises(UserError, match="it has not learned circle"):
        evaluate_snapshot(run_folder(root, "baseline", 0), 32, (2.0,), 64, root, Guidance(tmp_path / "guide"))


def test_a_report_without_its_data_has_no_row_of_real_examples_and_all_the_rest(done, tmp_path, monkeypatch):
    monkeypatch.setenv("AJEST_CACHE", str(tmp_path / "cache"))
    root, results = done
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    for path in (copy / "truth").glob("real-data-reference-*.json"):
        path.unlink()
    settings = json.loads((copy / "bench.json").read_text())
    settings["task"]["data"] = settings["task"]["validation"] = [str(tmp_path / "gone.zip")]
    (copy / "bench.json").write_text(json.dumps(settings))
    again = write_report(copy).results
    assert again.real_data_reference == {}
    assert again.cells.keys() == results.cells.keys()


def test_data_may_move_between_one_start_and_the_next(tmp_path):
    prepare(("shapes:200",), tmp_path / "a.npz", 16)
    shutil.copy(tmp_path / "a.npz", tmp_path / "b.npz")
    for name in "ab":
        task = image_task((str(tmp_path / f"{name}.npz"),), resolution=16)
        claim_folder(tmp_path / "run", small_bench(task=task).guide())
    assert read_config(tmp_path / "run").task.data == (str(tmp_path / "b.npz"),)


def test_seeds_share_noise_and_classes_and_moments_hold_images(done):
    root, results = done
    steps = checkpoint.stems(run_folder(root, "ajest", 0) / "selection", "step")
    stored = checkpoint.load(steps[1]).tensors
    assert stored["target"].shape == stored["x"].shape == (32, 3, 16, 16)
    assert int(stored["kept"].sum()) == 6
    task = results.config.task
    assert torch.equal(task.sampler.start(slice(0, 8), 3), task.sampler.start(slice(0, 20), 3)[:8])
    assert not torch.equal(task.sampler.start(slice(0, 8), 3), task.sampler.start(slice(0, 8), 4))
    assert sorted(task.sampler.labels(20).tolist()) == sorted([*range(10)] * 2)


def test_configs_of_both_tasks_come_back_from_json(done):
    root, results = done
    run = read_config(run_folder(root, "ajest", 0))
    assert from_json(RunConfig, json.loads(json.dumps(to_json(run))), "x") == run
    assert isinstance(run.task, type(results.config.task))
    moved = replace(run, task=replace(run.task, data=("/elsewhere",)))
    assert differences(run, moved) == []
    value = to_json(run)
    value["task"]["name"] = "sculptures"
    with pytest.raises(UserError, match=r"x: unknown task 'sculptures': .* known are images, tree"):
        from_json(RunConfig, value, "x")


def test_tallies_are_exported_with_stable_ids(done, tmp_path):
    from ajest.cli.data import kept

    root, results = done
    kept(run_folder(root, "ajest", 0), tmp_path / "kept.csv")
    with (tmp_path / "kept.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["id"] for r in rows] == results.config.task.example_names()
    last = results.runs["ajest", 0].ledger[-1]
    assert sum(int(r["drawn"]) for r in rows) == last["drawn"]
    assert sum(int(r["trained"]) for r in rows) == last["trained"]


def colours(path, device):
    """A feature network of three weights: mean colours times these."""
    weights = np.loadtxt(path)
    scale = torch.from_numpy(weights).float()
    return lambda images: Features(images.float().mean((2, 3)) * scale), f"colours {weights.tolist()}"


def test_other_weights_under_the_same_path_give_new_numbers(done, tmp_path, monkeypatch):
    root, _ = done
    monkeypatch.setitem(extractors.NAMES, "colours", extractors.Name("fd_x", "FD-X", "colours", 3, False, colours))
    path, run = tmp_path / "weights.txt", run_folder(root, "baseline", 0)
    task = replace(read_config(run).task, extractors=(f"colours={path}",))

    def measured():
        (line,) = evaluate_snapshot(run, 32, (1.0,), 64, root, task=task)
        return line

    path.write_text("1 1 1")
    first = measured()
    assert measured() == first
    reference = task.real_data_reference(Measurement(100, 0, root))
    path.write_text("2 2 2.0")
    second = measured()
    assert second["metrics"]["fd_x"] == pytest.approx(4 * first["metrics"]["fd_x"], rel=1e-4)
    assert task.real_data_reference(Measurement(100, 0, root))["fd_x"] == pytest.approx(4 * reference["fd_x"], rel=1e-4)
    path.write_text("1 1 1")
    before = (run / "metrics.jsonl").read_text()
    assert measured() == first
    assert (run / "metrics.jsonl").read_text() == before
    assert all(line["judges"][0].startswith("lite0") for line in read(root).runs["baseline", 0].lines)


def test_a_report_never_mixes_evaluations_by_different_weights(done, tmp_path):
    root, results = done
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    path = run_folder(copy, "random", 1) / "metrics.jsonl"
    lines = jsonl.read(path)
    path.unlink()
    for line in lines:
        jsonl.append(path, {**line, "judges": ["of yesterday"]})
    again = read(copy)
    where = "calibrated", "random", "fd_lite0", 1.0
    assert set(results.cell(*where).values) == {0, 1}
    assert set(again.cell(*where).values) == {0}
    for line in lines:  # judged anew, as the bench does it when it is started again
        jsonl.append(path, line)
    assert read(copy).cell(*where).values == results.cell(*where).values
