import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ajest.bench.plan.config import BenchConfig
from ajest.bench.plan.presets import IMAGES
from ajest.bench.report.figures import heatmap
from ajest.cli.show import numbers
from ajest.errors import UserError
from ajest.storage.config import from_json, to_json
from ajest.tasks.base import Guided, Measurement, RunTensors
from ajest.tasks.images import figures, judging
from ajest.tasks.images.data import balanced
from ajest.tasks.images.extractors import extract, extractor
from ajest.tasks.images.metrics import metrics_of
from ajest.tasks.images.quality import frechet_distance, moments
from ajest.tasks.images.sampler import Sampler
from ajest.tasks.images.setup import image_task
from conftest import small_images

pytestmark = pytest.mark.usefixtures("small_judge")


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
