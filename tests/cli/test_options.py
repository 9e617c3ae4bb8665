"""Options of the command line: each reaches what it names, is checked, or is refused where it means nothing."""

import json
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest

import ajest.bench.report.page
import ajest.bench.run.bench
import ajest.cli.bench
import ajest.study.page
import ajest.study.run
import ajest.training.run
from ajest.bench.plan.presets import CPU_MINI
from ajest.cli import options as options
from ajest.cli.asked import _SETTINGS, changed, class_names
from ajest.diffusion.objectives import PARAMETRISATIONS
from ajest.diffusion.solvers import SolverKind
from ajest.errors import UserError
from ajest.integrations.diffusers.prediction import PREDICTED
from ajest.runtime.seeding import Drawing
from ajest.tasks.images.architecture import LEARNING_RATES, SIZES
from ajest.tasks.images.data.shapes import CLASSES
from ajest.tasks.images.data.sizes import RESOLUTIONS
from ajest.tasks.images.setup import image_task
from ajest.tasks.images.task import ImageTask
from ajest.tasks.tree.network import GainSign
from ajest.tasks.tree.task import TreeTask
from ajest.tasks.vectors.task import VectorsTask
from ajest.training.recipe import Course, LearningRate, NotFinite, Recipe

IMAGES = (
    "images", "--data", "shapes:256", "--classes", "all", "--resolution", "16", "--p-mean", "-0.8", "--p-std", "1.6",
    "--sigma-data", "0.4", "--label-dropout", "0.1", "--super-batch", "64", "--iterations", "40",
    "--learning-rate", "0.02", "--not-finite", "skip", "--precision", "float32", "--compiled", "False",
    "--drawing", "device", "--resident-bytes", "1000000",
)  # fmt: skip
JUDGED = (
    "--network", "xs", "--guide-network", "nano", "--sampler-steps", "5", "--sigma-min", "0.01", "--sigma-max", "50",
    "--chunk", "7", "--references", "64", "--extractors", "lite0", "--weight", "1.7",
)  # fmt: skip


@pytest.fixture
def benches(monkeypatch):
    """Configs that commands would run, which are not run."""
    found = []
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1 << 50))  # networks of any size find room
    monkeypatch.setattr(ajest.bench.run.bench, "run_bench", lambda root, config, *_: found.append(config))
    monkeypatch.setattr(ajest.bench.report.page, "write_report", lambda root: None)
    monkeypatch.setattr(ajest.cli.bench, "_print_verdict", lambda _: None)
    monkeypatch.setattr(ajest.study.run, "run_stage", lambda root, plan, stage, benches, *_: found.append(plan))
    monkeypatch.setattr(ajest.study.page, "write_page", lambda root, plan, command: SimpleNamespace(verdict=(command,)))

    def execute(out, config, *_):
        found.append(config)
        return "done"

    monkeypatch.setattr(ajest.training.run, "execute", execute)
    return found


def is_as_asked(task):
    assert (task.p_mean, task.p_std, task.sigma_data, task.label_dropout) == (-0.8, 1.6, 0.4, 0.1)
    assert (task.resolution, task.size, len(task.classes), task.compile) == (16, 256, 10, False)


def is_judged_as_asked(task):
    assert (task.sampler_steps, task.sigma_min, task.sigma_max, task.chunk, task.references) == (5, 0.01, 50, 7, 64)
    assert (task.learner, task.guide, task.extractors) == (SIZES["xs"], SIZES["nano"], ("lite0",))


def test_options_are_named_as_what_they_change():
    known = {f.name for kind in (ImageTask, TreeTask, VectorsTask, Recipe) for f in fields(kind)} | {
        "iterations",
        "guide_learning_rate",
        "course",
    }
    groups = (options.Drawing, options.Networks, options.Computing, options.Sampling, options.Judging, options.Training)
    for group in (*groups, options.Data):
        names = {_SETTINGS.get(f.name, f.name) for f in fields(group)} - {"skip_bad"}
        assert names <= known, group
    assert tuple(SIZES) == tuple(LEARNING_RATES)
    assert f"{{{','.join(SIZES)},diffusers:PATH}}" == get_args(options.Network)[-1].metavar
    assert get_args(options.Prediction) == PREDICTED
    assert (options.NotFinite, options.Course, options.GainSign) == (NotFinite, Course, GainSign)
    assert options.DrawingPlace == Drawing
    assert set(get_args(options.Predicted)) == PARAMETRISATIONS.keys()
    assert options.Solving == SolverKind


def test_options_reach_a_bench(command, benches):
    own = ("--guide-learning-rate", "0.03", "--guides", "2", "--noise-repeats", "3")
    done = command("bench", *IMAGES, *JUDGED, *own, "--arms", "baseline", "hard-running")
    assert done.code == 0, done.err
    (config,) = benches
    is_as_asked(config.task)
    is_judged_as_asked(config.task)
    assert (config.weight, config.iterations, config.recipe.super_batch, config.recipe.not_finite) == (
        1.7,
        40,
        64,
        "skip",
    )
    assert (config.guides, config.noise_repeats) == (2, 3)
    assert config.recipe.learning_rate.peak == 0.02
    assert (config.task.resident_bytes, config.recipe.drawing) == (1_000_000, "device")
    guide = config.guide().recipe  # it draws as many, and stops as they do
    assert (guide.super_batch, guide.not_finite, guide.learning_rate.peak) == (64, "skip", 0.03)
    assert guide.drawing == "device"


def test_options_reach_a_study(command, benches):
    own = ("--guide-learning-rate", "0.03", "--guides", "2")
    done = command("study", *IMAGES, *JUDGED, "--stages", "screening", *own)
    assert done.code == 0, done.err
    (plan,) = benches
    is_as_asked(plan.task)
    is_judged_as_asked(plan.task)
    config = plan.stage("screening")["time"]
    assert (config.weight, config.iterations, config.recipe.super_batch) == (1.7, 40, 64)
    assert config.recipe.learning_rate.peak == 0.02
    assert config.guide().recipe.learning_rate.peak == 0.03
    assert [plan.stage(stage)[end].guides for stage, end in (("screening", "time"), ("final", "time"))] == [1, 2]
    assert "--network xs" in done.out  # a page's command gives that page


@pytest.mark.parametrize(
    ("words", "tuned"),
    [((), True), (("--learning-rate", "0.02"), False), (("--learning-rate", "0.02", "--tune"), True)],
)
def test_a_rate_that_is_named_is_not_tuned_by_the_preset(words, tuned, command, benches):
    done = command("bench", "images", "--preset", "cpu-small", "--data", "shapes:256", *words)
    assert done.code == 0, done.err
    assert (benches[0].tuning is not None) == tuned


@pytest.mark.parametrize(("verb", "more"), [("bench", ()), ("study", ("--stages", "screening")), ("train", ())])
def test_the_gains_sign_and_the_rates_course_reach_the_tree(verb, more, command, benches, refused):
    asked = ("--gain-sign", "negative", "--course", "linear", "--learning-rate", "0.05")
    done = command(verb, "tree", *asked, *more, "--out", "t")
    assert done.code == 0, done.err
    config = benches[0]
    assert config.task.network("guide", 0).scalars()["gain"] < 0
    assert config.recipe.learning_rate == LearningRate(0.05, 1, 0, "share", "linear")
    refused(verb, "images", "--data", "shapes:256", *asked[:2], "--out", "i", says="--gain-sign means nothing here")


def test_options_reach_a_run(command, benches):
    assert command("train", *IMAGES, "--network", "xxs", "--out", "r").code == 0
    assert command("train", *IMAGES[:5], "--network", "s", "--out", "r").code == 0
    assert command("train", *IMAGES[:5], "--network", "guide", "--learning-rate", "0.5", "--out", "r").code == 0
    asked, size, guide = benches
    is_as_asked(asked.task)
    recipe = asked.recipe
    assert (asked.iterations, recipe.super_batch, recipe.learning_rate.peak, recipe.not_finite) == (
        40,
        64,
        0.02,
        "skip",
    )
    assert (asked.role, asked.task.learner) == ("learner", SIZES["xxs"])
    assert (size.role, size.task.learner, size.recipe.learning_rate.peak) == (
        "learner",
        SIZES["s"],
        LEARNING_RATES["s"],
    )
    assert (guide.role, guide.task.guide, guide.recipe.learning_rate.peak) == ("guide", SIZES["nano"], 0.5)
    assert guide.iterations == CPU_MINI.guide_iterations


def test_the_trees_options_reach_its_bench(command, benches):
    levels = ("--p-mean", "-2", "--p-std", "1", "--sigma-data", "0.6", "--sigma-min", "0.01", "--sigma-max", "4")
    assert command("bench", "tree", *levels, "--sampler-steps", "9", "--learning-rate", "0.05").code == 0
    (config,) = benches
    task = config.task
    assert (task.p_mean, task.p_std, task.sigma_data) == (-2, 1, 0.6)
    assert (task.sigma_min, task.sigma_max, task.sampler_steps) == (0.01, 4, 9)
    assert config.recipe.learning_rate.peak == 0.05
    assert config.guide().recipe.learning_rate.peak == 0.04  # the guide keeps its own


def test_what_is_checked_is_what_is_asked_for(command, refused, benches):
    """Against the super-batch that is asked for, not the preset's, and its own arms, not the preset's."""
    data = ("images", "--data", "shapes:256", "--classes", "all")
    assert command("train", *data, "--arm", "hard", "--super-batch", "128", "--out", "r").code == 0
    assert command("train", *data, "--super-batch", "4", "--out", "r").code == 0
    assert command("bench", *data, "--arms", "baseline", "hard", "--super-batch", "128").code == 0
    assert [c.recipe.super_batch for c in benches] == [128, 4, 128]
    refused("train", *data, "--arm", "hard", "--super-batch", "64", "--out", "r", says="64 examples are too few")
    refused("train", *data, "--arm", "ajest", "--guide", "g", "--super-batch", "4", "--out", "r", says="1 kept")
    refused("bench", *data, "--super-batch", "4", says="1 kept examples are fewer")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--super-batch", "0"), "super_batch must be at least 1, not 0"),
        (("--iterations", "0"), "at least (1|32).*not 0"),
        (("--learning-rate", "0"), "learning rate must be above 0"),
        (("--learning-rate", "nan"), "learning rate must be above 0"),
        (("--p-std", "0"), "p_std must be above 0"),
        (("--p-mean", "inf"), "p_mean must be a number"),
        (("--sigma-data", "-1"), "sigma_data must be above 0"),
        (("--keep", "0"), "keep fraction"),
    ],
)
@pytest.mark.parametrize("verb", [("bench", "tree"), ("train", "tree", "--arm", "random", "--out", "r")])
def test_values_are_checked(refused, benches, verb, words, says):
    refused(*verb, *words, says=says)
    assert not benches


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("bench", "tree", "--sampler-steps", "1"), "sampler_steps must be at least 2"),
        (("bench", "tree", "--sigma-min", "0"), "sigma_min must lie above 0"),
        (("bench", "tree", "--sigma-max", "0.001"), "below sigma_max"),
        (("bench", "tree", "--weight", "1"), "guidance weight of 1"),
        (("bench", "tree", "--weight", "nan"), "weight must be a number"),
        (("bench", "tree", "--guide-learning-rate", "0"), "learning rate"),
        (("bench", "tree", "--workers", "0"), "workers must be at least 1"),
        (("bench", "tree", "--launch", "slurm", "--gpus-per-run", "-1"), "gpus_per_run must be at least 0"),
        (("bench", "tree", "--launch", "slurm", "--gpu-kind", "a100"), "--gpu-kind a100 needs --gpus-per-run 1"),
        (("bench", "tree", "--launch", "slurm", "--max-parallel", "0"), "max_parallel must be at least 1"),
        (("bench", "tree", "--launch", "slurm", "--hours", "0"), "hours must be positive"),
        (("bench", "tree", "--hours", "0"), "--hours is for a cluster"),
        (("bench", "tree", "--launch", "slurm", "--workers", "2"), "--max-parallel"),
        (("bench", "tree", "--launch", "slurm", "--device", "cpu"), "--gpus-per-run"),
        (("study", "tree", "--stages", "screening", "--finalists", "hard"), "add it to --stages"),
        (("bench", "tree", "--arms", "baseline", "--keep", "0.5"), "trains on every example: leave out --keep"),
        (("train", "tree", "--keep", "0.5", "--out", "r"), "trains on every example: leave out --keep"),
        (("train", "tree", "--guide", "g", "--out", "r"), "compares with no other run: leave out --guide"),
        (("study", "tree", "--workers", "0"), "workers must be at least 1"),
        (("study", "tree", "--iterations", "0"), "at least 32 iterations"),
        (("status", ".", "--watch", "-1"), "--watch -1"),
        (("bench", "images", "--resolution", "0"), "multiple of 8 from 16 to 256, such as 16"),
        (("bench", "images", "--resolution", "63"), "such as 64"),
        (("bench", "images", "--resolution", "512"), "such as 256"),
        (("bench", "images", "--data", "shapes:400", "--chunk", "0"), "chunk must be at least 1"),
        (("bench", "images", "--data", "shapes:400", "--label-dropout", "1"), "label_dropout must lie in"),
        (("bench", "images", "--data", "shapes:256", "--classes", "0"), "take 1 to 10, or all"),
        (("bench", "images", "--data", "shapes:256", "--classes", "11"), "take 1 to 10, or all"),
        (("bench", "images", "--data", "shapes:256", "--classes", ","), "names no class"),
    ],
)
def test_what_cannot_be_is_refused(refused, benches, words, says):
    refused(*words, says=says)
    assert not benches


@pytest.mark.parametrize(
    "words",
    [
        ("bench", "images", "--data"),
        ("bench", "images", "--data", "shapes:256", "--classes", ""),
        ("bench", "images", "--extractors"),
        ("bench", "images", "--validation"),
        ("bench", "tree", "--arms"),
        ("bench", "tree", "--seeds"),
        ("bench", "tree", "--preset", ""),
        ("bench", "tree", "--track"),
        ("bench", "tree", "--launch", "slurm", "--partition", ""),
        ("train", "images", "--out", "r", "--data"),
        ("train", "tree", "--out", "r", "--arm", ""),
        ("study", "tree", "--stages"),
        ("study", "tree", "--finalists"),
        ("study", "tree", "--final-ends"),
        ("sample", "r", "--out", "s", "--seeds", ""),
        ("sample", "r", "--out", "s", "--classes", ""),
        ("evaluate", "r", "--steps"),
        ("evaluate", "r", "--widths"),
        ("evaluate", "r", "--weights"),
        ("evaluate", "r", "--data"),
    ],
)
def test_an_option_without_a_value_is_not_the_default(refused, benches, words):
    name = [word for word in words if word.startswith("--")][-1]
    refused(*words, says=f"{name} names nothing")
    assert not benches


TREELESS = {
    "--data": "x", "--validation": "x", "--classes": "2", "--resolution": "64", "--flip": None, "--skip-bad": None,
    "--label-dropout": "0.1", "--precision": "float32", "--compiled": "True",
}  # fmt: skip
TREELESS_BENCH = TREELESS | {
    "--network": "xs", "--guide-network": "xs", "--chunk": "9", "--extractors": "lite0", "--references": "99",
    "--imagenet": "x.json",
}  # fmt: skip


@pytest.mark.parametrize("verb", ["bench", "study", "train"])
def test_the_tree_takes_no_option_that_it_would_ignore(refused, benches, verb):
    words = ("train", "tree", "--out", "r") if verb == "train" else (verb, "tree")
    for name, value in (TREELESS if verb == "train" else TREELESS_BENCH).items():
        refused(*words, name, *([] if value is None else [value]), says=f"{name} is for images: .* because")
    assert not benches


def test_what_belongs_to_a_guide_needs_one(refused):
    for words in (
        ("--interval", "0.1", "2"),
        ("--guide-width", "0.1"),
        ("--guide-step", "3"),
        ("--unconditional-guide",),
    ):
        refused("sample", "r", "--out", "s", *words, says=f"{words[0]} needs a guide")
        refused("evaluate", "r", *words, says=f"{words[0]} needs a guide")


def test_class_names_may_hold_commas():
    assert class_names('star, "black, white",moon') == ("star", "black, white", "moon")


def packed(path, sides, count=160):
    """An .npz of images of one size: (height, width)."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *sides, 3), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(count) % 10, classes=[f"pet{i}" for i in range(10)])
    return str(path)


@pytest.mark.parametrize(
    ("sides", "resolution", "says"),
    [
        ((32, 32), 32, ""),
        ((16, 16), 16, ""),
        ((96, 96), 96, "images are learned at their own 96 x 96, 2.2 times the work of 64 x 64; --resolution"),
        ((28, 28), 64, "160 of 160 images are resized to 64 x 64 (all are 28 x 28); --resolution names another"),
        ((32, 48), 64, "160 of 160 images are resized to 64 x 64, 160 of them cropped"),
    ],
)
def test_the_resolution_is_that_of_the_images(tmp_path, sides, resolution, says):
    said: list[str] = []
    task = image_task((packed(tmp_path / "d.npz", sides),), warn=said.append)
    assert task.resolution == resolution
    assert task.source("cpu")._pixels.images.shape[2:] == (resolution, resolution)
    assert len(said) == bool(says)
    assert not says or said[0].startswith(says)


def test_packing_keeps_the_resolution_of_the_images(command, refused, tmp_path):
    packed(tmp_path / "d.npz", (32, 32), 20)
    done = command("data", "prepare", "d.npz", "own.npz")
    assert (done.code, done.err) == (0, "")
    done = command("data", "prepare", "d.npz", "other.npz", "--resolution", "16")
    assert done.err == "ajest: 20 of 20 images are resized to 16 x 16 (all are 32 x 32)\n"
    found = [np.load(tmp_path / name)["images"].shape for name in ("own.npz", "other.npz")]
    assert found == [(20, 32, 32, 3), (20, 16, 16, 3)]
    refused("data", "prepare", "d.npz", "third.npz", "--resolution", "0", says="multiple of 8 from 16 to 256")
    refused("data", "describe", "d.npz", "--resolution", "0", says="at least 1, not 0")
    assert "32 x 32, unless --resolution says otherwise" in command("data", "describe", "d.npz").out


def test_what_is_cropped_or_resized_is_counted(tmp_path):
    specs = packed(tmp_path / "a.npz", (32, 32), 150), packed(tmp_path / "b.npz", (32, 40), 20)
    said: list[str] = []
    assert image_task(specs, (packed(tmp_path / "v.npz", (48, 48), 30),), 32, warn=said.append).resolution == 32
    assert said == [
        "20 of 170 images are resized to 32 x 32, 20 of them cropped to a square first",
        "30 of 30 validation images are resized to 32 x 32 (all are 48 x 48)",
    ]


def test_classes_that_a_preset_leaves_out_are_said(command, refused, benches, tmp_path):
    packed(tmp_path / "d.npz", (16, 16), 400)
    done = command("train", "images", "--data", "d.npz", "--out", "r")
    assert done.err == (
        "ajest: learning 4 of 10 classes, 160 of 400 images: pet0, pet2, pet5, pet7; --classes all learns all\n"
    )
    assert command("train", "images", "--data", "d.npz", "--classes", "all", "--out", "r").err == ""
    assert command("train", "images", "--data", "d.npz", "--classes", "5", "--out", "r").err == ""
    assert [len(config.task.classes) for config in benches] == [4, 10, 5]
    packed(tmp_path / "few.npz", (16, 16), 200)
    says = r"holds 80 images to learn \(4 of 10 classes, 80 of 200 images: .*--classes all"
    refused("train", "images", "--data", "few.npz", "--out", "r", says=says)


def test_a_learning_rate_and_a_task_are_checked_where_they_are_made():
    with pytest.raises(UserError, match="learning rate must be above 0"):
        LearningRate(peak=-1)
    assert {16, 32, 64, 96, 256} <= set(RESOLUTIONS)
    for name in SIZES:  # every network learns every resolution
        network = replace(SIZES[name], channels=8).build(24, 2)
        assert network is not None


def test_a_file_may_say_which_classes_of_imagenet_are_meant(command, refused, benches, tmp_path):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({name: 100 + i for i, name in enumerate(CLASSES)}))
    assert command("bench", *IMAGES, "--imagenet", str(path), "--out", "r").code == 0
    task = benches[-1].task
    assert task.imagenet == tuple(range(100, 110))
    assert {"top1", "top5"} <= {m.name for m in task.metrics}
    assert changed(replace(task, imagenet=()), {"imagenet": path}) == task
    path.write_text("{}")
    refused("bench", *IMAGES, "--imagenet", str(path), says="does not say which class of ImageNet is meant by circle")
