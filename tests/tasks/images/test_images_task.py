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
from PIL import Image

from ajest.bench.plan.config import BenchConfig, run_folder
from ajest.bench.plan.presets import IMAGES
from ajest.bench.read.findings import findings
from ajest.bench.read.folder import read
from ajest.bench.report.drawing import draw
from ajest.bench.report.figures import heatmap
from ajest.bench.report.page import render, write_report
from ajest.bench.run.bench import run_bench
from ajest.bench.run.evaluation import evaluate_snapshot
from ajest.bench.run.reached import curve_points, reached
from ajest.cli.show import numbers
from ajest.errors import UserError
from ajest.selection.catalogue import arms_named
from ajest.storage import checkpoint, jsonl
from ajest.storage.config import differences, from_json, to_json
from ajest.tasks.base import Guided, Measurement, RunTensors
from ajest.tasks.images import extractors, figures, judging
from ajest.tasks.images.data import balanced, prepare
from ajest.tasks.images.extractors import Features, extract, extractor
from ajest.tasks.images.metrics import metrics_of
from ajest.tasks.images.quality import frechet_distance, moments
from ajest.tasks.images.sampler import Sampler
from ajest.tasks.images.setup import image_task
from ajest.training.networks import Guidance
from ajest.training.recipe import LearningRate, Recipe
from ajest.training.run import execute
from ajest.training.run_folder import RunConfig, claim_folder, read_config
from ajest.training.schedule import Schedule
from conftest import Here, painting, small_images, tiny_images

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
    stars = image_task(("shapes:1000",), ("shapes:128",), 16, ("star", "heart"), learner=small_images().learner)
    config = replace(small_bench().guide(), task=stars)
    execute(tmp_path / "guide", config, Schedule())
    with pytest.raises(UserError, match="it has not learned circle"):
        evaluate_snapshot(run_folder(root, "baseline", 0), 32, (2.0,), 64, root, Guidance(tmp_path / "guide"))


def test_real_data_of_fewer_images_says_only_what_does_not_depend_on_their_number():
    task = small_images()  # 128 validation images, 160 spare ones
    assert math.isfinite(task.real_data_reference(Measurement(100, 0, None))["fd_lite0"])
    assert set(task.real_data_reference(Measurement(500, 0, None))) == {"kid", "kid_low", "kid_high"}
    assert task.notes(500)[1].startswith("Real examples are 160 training images that are no references: too few")


def test_all_training_images_are_references_unless_fewer_are_asked_for():
    settings = {"learner": small_images().learner, "guide": small_images().guide}
    task = image_task(("shapes:300",), (), 16, **settings)
    network = extractor("lite0")
    images, labels = task.image_set("train").images, task.image_set("train").labels
    found = judging.references(task, network, "cpu")
    features = extract(images, network).features
    assert found.moments.n == len(found.near) == 300
    np.testing.assert_allclose(found.moments.mean, features.double().mean(0), rtol=1e-5, atol=1e-7)
    # Nothing is held out, so real images are compared with the others: as if these alone had been references.
    rows = task.stock.others("references", labels, 100)
    rest = np.setdiff1d(np.arange(300), rows)
    direct = frechet_distance(moments(features[rest]), moments(features[rows]))
    assert task.real_data_reference(Measurement(100, 0, None))["fd_lite0"] == pytest.approx(direct, rel=1e-4)
    assert task.notes(100)[:2] == (
        "Samples are compared with all 300 training images.",
        "Real examples are 100 training images, compared with the other 200.",
    )
    fewer = replace(task, references=96)
    assert judging.references(fewer, network, "cpu").moments.n == 96
    with pytest.raises(UserError, match="references must be at least 64, not 10"):
        replace(task, references=10)


def test_fewer_samples_than_classes_are_of_classes_spread_over_all():
    names = tuple(f"n{i:04d}" for i in range(1000))
    task = replace(small_images(), classes=names, names=names)
    real = np.repeat(np.arange(1000), 10)
    for n in (8, 250, 999, 1000, 1500):
        asked = np.bincount(task.sampler.labels(n), minlength=1000)
        judged = np.bincount(real[balanced(real, len(real), n)], minlength=1000)
        assert np.array_equal(asked, judged)  # samples and real images are of the same classes
        assert asked.sum() == n
        assert asked.max() - asked.min() <= 1
        gaps = np.diff(np.flatnonzero(asked), prepend=-1, append=1000)
        assert gaps.max() <= 2 * max(1, -(-1000 // n)) + 1
        assert torch.equal(task.sampler.labels(1500)[:n], task.sampler.labels(n))


def test_noise_of_a_sample_depends_on_its_number_alone_and_no_more_than_a_chunk_is_made(monkeypatch):
    task = replace(small_images(), chunk=8)
    whole = task.sampler.start(slice(0, 40), 3)
    assert torch.equal(torch.cat([task.sampler.start(slice(i, i + 5), 3) for i in range(0, 40, 5)]), whole)
    asked = []
    start = Sampler.start

    def watched(self, part, seed):
        asked.append(part.stop - part.start)
        return start(self, part, seed)

    monkeypatch.setattr(Sampler, "start", watched)
    network = task.network("learner", 0).eval()
    task.evaluate(Guided(network), Measurement(36, 0, None))
    assert asked == [8, 8, 8, 8, 4]


def test_a_class_whose_name_is_no_other_classes():
    keys, names = ("n01", "n02", "n03", "Mus", "mus"), ("crane", "Crane", "caf\u00e9", "mouse", "rat")
    task = replace(small_images(), classes=keys, names=names)
    for name, number in (("n01", 0), ("crane", 0), ("Crane", 1), ("cafe\u0301", 2), ("Mus", 3), ("mus", 4), ("RAT", 4)):
        assert task.class_number(name) == number
    with pytest.raises(UserError, match="'CRANE' stands for several classes: name one by its key, n01, n02"):
        task.class_number("CRANE")
    with pytest.raises(UserError, match="'MUS' stands for several classes"):
        task.class_number("MUS")
    twins = replace(task, names=("crane", "crane", "a", "b", "c"))
    with pytest.raises(UserError, match="'crane' stands for several classes: name one by its key, n01, n02"):
        twins.class_number("crane")


def test_the_five_best_guesses_say_nothing_among_five_classes():
    known = ("n01443537", "n02410509", "n03255030", "n04259630", "n04398044", "n07615774")
    for count, top in ((6, ["top1", "top5"]), (5, ["top1"]), (1, []), (0, [])):
        task = replace(small_images(), classes=known[:count], names=known[:count])
        assert [m.name for m in task.metrics if m.name.startswith("top")] == top


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


def test_other_images_than_a_run_was_made_with_are_refused():
    task = replace(small_images(), data=("shapes:250",))
    with pytest.raises(UserError, match="other images than this run was made with"):
        task.source("cpu")


def test_a_part_of_the_classes_can_be_learned(tmp_path):
    few = image_task(("shapes:1000",), ("shapes:100",), 16, classes=3, references=64)
    assert few.classes == ("circle", "heart", "ring")
    assert few.size == 300
    image_set = few.image_set("train")
    assert sorted(set(image_set.labels.tolist())) == [0, 1, 2]
    assert few.image_set("val").classes == few.classes
    named = image_task(("shapes:1000",), (), 16, classes=("Star", "moon"), references=64)
    assert named.classes == ("moon", "star")
    batch = named.source("cpu").draw(40, torch.Generator().manual_seed(0))
    assert set(batch.label.tolist()) == {0, 1}
    with pytest.raises(UserError, match="did you mean 'star'"):
        image_task(("shapes:1000",), (), 16, classes=("stra",))
    flat = tmp_path / "flat"
    flat.mkdir()
    for i in range(4):
        Image.new("RGB", (16, 16), (i, 0, 0)).save(flat / f"{i}.png")
    with pytest.raises(UserError, match="validation images have no classes"):
        image_task(("shapes:1000",), (str(flat),), 16)
    with pytest.raises(UserError, match="too few"):
        image_task(("shapes:1000",), (), 16, classes=1)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_samples_of_a_seed_and_class_do_not_depend_on_what_else_is_asked_for(tmp_path):
    task = small_images()
    network = task.network("learner", 0).eval()
    network.unet.out_gain.data.fill_(0.5)
    one = task.write_samples(network, tmp_path / "one", seeds=(3,), classes=("star",))
    many = task.write_samples(network, tmp_path / "many", seeds=(1, 3), classes=("heart", "star"))
    assert [p.name for p in one] == ["star-seed0003.png", "sheet.png"]
    assert [p.name for p in many] == [f"{c}-seed000{s}.png" for c in ("heart", "star") for s in (1, 3)] + ["sheet.png"]
    a, b = (pixels(p) for p in (one[0], many[3]))
    assert np.abs(a.astype(int) - b).max() <= 1
    assert pixels(many[-1]).shape == (2 * 19 - 3, 2 * 19 - 3, 3)
    free = task.write_samples(network, tmp_path / "free", n=5)
    assert len(free) == 6
    with pytest.raises(UserError, match="did you mean 'heart'"):
        task.write_samples(network, tmp_path, classes=("haert",))


def test_seeds_are_numbers_and_ranges():
    assert numbers("0-3, 7") == (0, 1, 2, 3, 7)
    assert numbers("") == ()
    for bad in ("x", "3-", "1.5"):
        with pytest.raises(UserError, match="0-31,40"):
            numbers(bad)


def test_metrics_name_what_they_are():
    names = [m.label for m in metrics_of(("lite0", "inception=x.pt", "dinov2"), 10)]
    assert names[:3] == ["FD-Lite0", "FID", "FD-DINOv2"]
    assert [m.name for m in metrics_of(("lite0",), 0)].count("top1") == 0
    headlines = [m.label for m in metrics_of(("dinov2", "lite0"), 10) if m.headline != "no"]
    assert headlines == ["FD-DINOv2"]


def test_real_images_are_chosen_from_all_classes_alike():
    labels = np.array([0] * 50 + [1] * 5 + [2] * 20)
    chosen = labels[balanced(labels, 75, 30)]
    assert np.bincount(chosen).tolist() == [13, 5, 12]
    assert len(set(balanced(None, 10, 4).tolist())) == 4
    assert len(balanced(labels, 75, 1000)) == 75
    # Not the first of each class, which in a film are the first scenes.
    assert balanced(np.zeros(1000, dtype=np.int64), 1000, 100).max() > 900


def test_presets_of_images_are_whole_benches():
    for name, dials in IMAGES.items():
        settings = {k: v for k, v in dials.settings(("shapes",)).items() if k not in ("references",)}
        config = dials.bench(image_task(("shapes:256",), **settings))
        assert config.end == "time"
        assert len(config.arms) >= 4
        assert from_json(BenchConfig, json.loads(json.dumps(to_json(config))), name) == config
    paper = IMAGES["paper"]
    arm = next(a for a in paper.arms() if a.name == "ajest")
    assert (arm.keep, arm.chunks, arm.within) == (0.2, 8, 128)
    assert (paper.rate, paper.guide_rate, paper.guide_iterations) == (0.012, 0.017, 5159)
    assert (paper.super_batch, paper.decay, paper.rampup, paper.weight) == (2048, 5463, 780_000, 2.2)


def test_heatmaps_frame_the_best_cell():
    metric = metrics_of(("lite0",), 0)[0]
    dials = ("weight", [1.0, 2.2]), ("width", [0.05, 0.1])
    reach = [[math.nan, 0.5], [math.nan, 1.25]]
    figure = heatmap([[3.0, 2.0], [math.nan, 4.0]], *dials, metric, reach=reach)
    (frame,) = figure.axes[0].patches
    assert (frame.get_x(), frame.get_y()) == (0.5, -0.5)
    assert [text.get_text() for text in figure.axes[0].texts] == ["3", "2\n± 0.5", "-", "4\n± 1.2"]


def test_paths_are_shown_with_the_contrast_of_images():
    sigmas = [80.0, 1.0, 0.0]
    paths = torch.stack([80 * torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8), torch.rand(2, 3, 8, 8)], 1)
    assert figures.trajectories(paths, sigmas, 0.5) is not None


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


def test_images_without_classes_are_learned_unconditionally(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(140):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / f"{i:03d}.png")
    settings = {"learner": small_images().learner, "guide": small_images().guide, "sampler_steps": 2}
    task = image_task((str(tmp_path),), (), 16, references=100, **settings)
    assert (task.classes, task.sampler.labels(4)) == ((), None)
    network = task.network("learner", 0).eval()
    found = task.evaluate(
        Guided(network, task.network("guide", 1).eval(), 2.0), Measurement(20, 0, tmp_path, keep_tensors=True)
    )
    assert {m.name for m in task.metrics} - {"loss"} <= set(found.metrics)
    assert "labels" not in found.tensors
    assert task.figures(RunTensors(2.0, {2.0: found.tensors}, {}, {}))
    assert math.isfinite(task.real_data_reference(Measurement(20, 0, tmp_path))["fd_lite0"])
    assert [p.name for p in task.write_samples(network, tmp_path / "s", n=2)] == [
        "seed0000.png",
        "seed0001.png",
        "sheet.png",
    ]
    with pytest.raises(UserError, match="has no classes"):
        task.write_samples(network, tmp_path / "s", classes=("star",))


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
