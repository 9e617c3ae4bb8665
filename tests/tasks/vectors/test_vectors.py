"""Vectors as a task: what is learned, how it is judged, what is written, a bench on it."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from ajest.bench.plan.config import BenchConfig
from ajest.bench.read.folder import read
from ajest.bench.run.bench import run_bench
from ajest.diffusion.denoising import LogNormal, per_example_loss
from ajest.errors import NotFinite, UserError
from ajest.selection.catalogue import ARMS, arms_named
from ajest.storage.config import differences, from_json, to_json
from ajest.tasks import Guided, Measurement, RunTensors, Task, registry
from ajest.tasks.sources import TensorSource, normals
from ajest.tasks.vectors import figures, metrics
from ajest.tasks.vectors.builtin import mixture_of
from ajest.tasks.vectors.data import Part, Standard
from ajest.tasks.vectors.network import VectorDenoiser
from ajest.tasks.vectors.setup import vectors_task
from ajest.tasks.vectors.task import VectorsTask
from ajest.training.recipe import LearningRate, Recipe
from ajest.training.run import execute
from ajest.training.run_folder import RunConfig, read_status
from ajest.training.schedule import Schedule
from conftest import Here


def quiet(text):
    """Say nothing."""


def small(*data, **settings):
    sizes = {"hidden": 16, "guide_hidden": 8, "blocks": 1, "sampler_steps": 8}
    return vectors_task(data or ("two-moons:1000",), warn=quiet, **{**sizes, **settings})


@pytest.fixture
def labelled(tmp_path):
    """A file of three classes of different shares in three coordinates, one of them constant."""
    rng = np.random.default_rng(0)
    y = rng.choice([2, 5, 11], 600, p=[0.5, 0.3, 0.2])
    x = np.stack([1e6 + y + 0.1 * rng.normal(size=600), 0.01 * rng.normal(size=600), np.full(600, 7.25)], 1)
    np.savez(tmp_path / "some.npz", x=x, y=y)
    return tmp_path / "some.npz"


def measurement(tmp_path, n=300, **changes):
    return Measurement(n, 3, tmp_path / "cache", **changes)


def test_it_is_registered_and_comes_back_from_its_settings(labelled):
    assert registry.kind_of("vectors") is VectorsTask
    task = small(str(labelled), label_dropout=0.1)
    again = from_json(Task, json.loads(json.dumps(to_json(task))), "here")
    assert again == task
    assert differences(task, replace(task, data=("elsewhere.npz",))) == []
    assert task.classes == ("2", "5", "11")
    assert task.dimensions == 3
    assert task.standard.scale[2] == 0


@pytest.mark.parametrize("d", [1, 2, 3, 7])
def test_a_smaller_draw_is_a_prefix_of_a_larger_one(d):
    rows = Part(torch.randn(50, d), torch.arange(50) % 3, np.arange(50))
    source = TensorSource(rows.x, LogNormal(-1.2, 1.2), label=rows.label, label_dropout=0.3)
    whole, some = (source.draw(n, torch.Generator().manual_seed(5)) for n in (100, 37))
    for name in ("x", "sigma", "weight", "id", "target", "label"):
        assert torch.equal(getattr(whole, name)[:37], getattr(some, name)), name
    assert torch.equal(
        normals(40, (d,), torch.Generator().manual_seed(1))[:9], normals(9, (d,), torch.Generator().manual_seed(1))
    )


def test_a_draw_is_noise_on_rows_and_another_noise_leaves_the_rest():
    rows = Part(torch.randn(50, 2), torch.arange(50) % 3, np.arange(50))
    source = TensorSource(rows.x, LogNormal(-1.2, 1.2), label=rows.label, label_dropout=0.3)
    batch = source.draw(20_000, torch.Generator().manual_seed(5))
    assert torch.equal(batch.target, rows.x[batch.id])
    eps = (batch.x - batch.target) / batch.sigma[:, None]
    assert eps.mean().abs() < 0.02
    assert eps.std() == pytest.approx(1, abs=0.02)
    assert batch.sigma.log().mean() == pytest.approx(-1.2, abs=0.03)
    assert (batch.label == -1).float().mean() == pytest.approx(0.3, abs=0.02)
    kept = batch.label >= 0
    assert torch.equal(batch.label[kept], rows.label[batch.id[kept]])
    assert torch.equal(source.complete(batch).target, batch.target)
    other = source.draw(20_000, torch.Generator().manual_seed(5), torch.Generator().manual_seed(6))
    assert torch.equal(other.id, batch.id)
    assert torch.equal(other.sigma, batch.sigma)
    assert torch.equal(other.label, batch.label)
    assert not torch.equal(other.x, batch.x)


@pytest.mark.parametrize(("d", "classes"), [(1, 0), (2, 0), (5, 3)])
def test_an_untrained_network_answers_c_skip_x_and_starts_at_a_loss_near_1(d, classes):
    network = VectorDenoiser(d, classes, 16, 2, generator=torch.Generator().manual_seed(0))
    x, sigma = torch.randn(6, d), torch.tensor([0.002, 0.1, 0.5, 1.0, 10.0, 80.0])
    label = torch.tensor([0, 1, 2, -1, 0, 1]) if classes else None
    torch.testing.assert_close(network(x, sigma, label), x / (sigma**2 + 1)[:, None])
    assert network.flops() == 2 * sum(
        p.numel() for n, p in network.named_parameters() if n.endswith("weight") and p.ndim == 2
    )
    rows = Part(torch.randn(4000, d), None, np.arange(4000))
    batch = TensorSource(rows.x, LogNormal(-1.2, 1.2), label=rows.label).draw(4000, torch.Generator().manual_seed(0))
    assert per_example_loss(network(batch.x, batch.sigma), batch).mean().item() == pytest.approx(1, abs=0.1)


def test_labels_move_the_answer_and_none_is_that_of_minus_one():
    network = VectorDenoiser(2, 3, 16, 1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    x, sigma = torch.randn(4, 2), torch.ones(4)
    none = network(x, sigma)
    assert torch.equal(network(x, sigma, torch.full((4,), -1)), none)
    assert not torch.allclose(network(x, sigma, torch.zeros(4, dtype=torch.int64)), none)


def test_weights_follow_from_the_seed_alone():
    task, before = small(), torch.random.get_rng_state()
    first, again, other, guide = (
        task.network(r, s).state_dict() for r, s in (("learner", 0), ("learner", 0), ("learner", 1), ("guide", 0))
    )
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["first.weight"], other["first.weight"])
    assert guide["first.weight"].shape[0] == 8
    assert torch.equal(torch.random.get_rng_state(), before)


def test_sketches_are_those_of_gradients():
    """Inner products of sketches estimate those of the gradients of the last layer's weights, up to one factor."""
    network = VectorDenoiser(3, 0, 64, 1, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        network.last.weight.normal_(generator=torch.Generator().manual_seed(1))
    rows = Part(torch.randn(60, 3), None, np.arange(60))
    batch = TensorSource(rows.x, LogNormal(-1.2, 1.2), label=rows.label).draw(24, torch.Generator().manual_seed(0))
    x, sigma, target, weight = (t.double() for t in (batch.x, batch.sigma, batch.target, batch.weight))
    denoised, sketch = network.sketched(x, sigma, None, target, weight)
    torch.testing.assert_close(denoised, network(x, sigma))
    gradients = []
    for i in range(24):
        loss = weight[i] * (network(x[i : i + 1], sigma[i : i + 1]) - target[i]).square().sum() / 2
        gradients.append(torch.autograd.grad(loss, network.last.weight)[0].flatten())
    exact, found = (g @ g.T for g in (torch.stack(gradients), sketch))
    assert torch.corrcoef(torch.stack([exact.flatten(), found.flatten()]))[0, 1] > 0.9


@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_mixture_is_known_exactly(d):
    mixture = mixture_of(f"mixture-{d}d")
    x, sigma = 3 * torch.randn(40, d, dtype=torch.float64), torch.rand(40, dtype=torch.float64) + 0.01
    x.requires_grad_()
    (slope,) = torch.autograd.grad(mixture.log_density(x, sigma).sum(), x)
    torch.testing.assert_close(mixture.score(x, sigma), slope)
    torch.testing.assert_close(mixture.denoise(x, sigma), x + sigma[:, None] ** 2 * slope)


def test_the_excess_loss_is_the_loss_above_that_of_the_exact_denoiser(tmp_path):
    task = small("mixture-3d:20000")
    exact, network = task.exact_denoiser(), task.network("learner", 0)
    assert task.tuned_by == "excess_loss"
    found = task.evaluate(Guided(network), measurement(tmp_path, 2000)).metrics
    best = task.evaluate(Guided(exact), measurement(tmp_path, 2000)).metrics
    assert best["excess_loss"] == 0
    assert 0 < found["excess_loss"] < found["loss"]
    assert found["excess_loss"] == pytest.approx(found["loss"] - best["loss"], rel=0.05)
    assert small("two-moons").exact_denoiser() is None
    assert "excess_loss" not in {metric.name for metric in small("two-moons").metrics}


def test_an_arm_scores_against_the_exact_denoiser_where_there_is_one(tmp_path):
    task, recipe = small("mixture-3d:2000"), Recipe(256, ema_widths=(0.1,))
    execute(tmp_path / "run", RunConfig(task, "learner", recipe, ARMS["learnable-exact"], 0, 3), Schedule())
    assert read_status(tmp_path / "run")["state"] == "done"
    unknown = RunConfig(small("two-moons"), "learner", recipe, ARMS["learnable-exact"], 0, 3)
    with pytest.raises(UserError, match="does not know of these data"):
        execute(tmp_path / "other", unknown, Schedule())


def test_no_denoiser_beats_that_of_the_mixture_and_its_samples_are_the_mixtures(tmp_path):
    task = small("mixture-3d:20000", sampler_steps=32)
    mean, scale = (torch.tensor(v, dtype=torch.float64) for v in (task.standard.mean, task.standard.scale))
    exact = mixture_of("mixture-3d").standardised(mean, scale)
    how = measurement(tmp_path, 2000)
    found = task.evaluate(Guided(exact.denoise), how).metrics
    real = task.real_data_reference(how)
    assert abs(found["energy_distance"]) < 0.004  # three standard deviations of real data's
    assert abs(real["energy_distance"]) < 0.004
    for name in ("precision", "recall", "density", "coverage"):
        assert found[name] == pytest.approx(real[name], abs=0.04), name
    # The loss of the exact denoiser is its posterior variance: a little more or less of its step is worse.
    for off in (0.9, 1.1):
        worse = task.evaluate(Guided(lambda x, s, y=None, off=off: x + off * (exact.denoise(x, s) - x)), how).metrics
        assert worse["loss"] > found["loss"]
    assert found["loss"] == pytest.approx(np.mean([found[f"loss_{k}"] for k in ("low", "middle", "high")]), rel=1e-3)
    # With noisy targets the mean score target at a place is the exact score: they agree along it.
    batch = task.source("cpu").draw(20_000, torch.Generator().manual_seed(0))
    score = exact.score(batch.x, batch.sigma) * batch.sigma[:, None]
    target = (batch.target - batch.x) / batch.sigma[:, None]
    assert ((score * target).sum() / score.square().sum()).item() == pytest.approx(1, abs=0.02)


def test_samples_of_classes_come_in_their_shares(labelled):
    task = small(str(labelled))
    many, few = task.labels(1000), task.labels(77)
    assert torch.equal(many[:77], few)
    shares = torch.bincount(task._parts[0].label) / task.size
    torch.testing.assert_close(torch.bincount(many) / 1000, shares, atol=0.004, rtol=0)
    assert small().labels(5) is None


def test_a_denoiser_is_judged_and_its_samples_are_kept(tmp_path, labelled):
    for name in ("two-moons:1000", str(labelled), "mixture-1d:1000", "mixture-6d:1000"):
        task = small(name)
        model = Guided(task.network("learner", 0), task.network("guide", 0), 1.0)
        found = task.evaluate(model, measurement(tmp_path, keep_tensors=True))
        names = {m.name for m in task.metrics}
        assert names == found.metrics.keys()
        assert all(np.isfinite(v) for v in found.metrics.values())
        assert task.evaluate(model, measurement(tmp_path)).metrics == found.metrics
        guided = task.evaluate(replace(model, weight=2.0), measurement(tmp_path)).metrics
        assert guided.keys() == {m.name for m in task.metrics if m.guided}
        real = task.real_data_reference(measurement(tmp_path))
        assert real.keys() == guided.keys()
        assert real["energy_distance"] < found.metrics["energy_distance"]
        assert found.tensors["samples"].shape == (300, task.dimensions)
        assert found.tensors["trajectories"].shape == (48, task.sampler_steps + 1, task.dimensions)
        assert set(task.real_data_reference(measurement(tmp_path, 5000))) <= set(metrics.FREE_OF_N)
        batch = task.source("cpu").draw(200, torch.Generator().manual_seed(0))
        chosen = {"x": batch.x, "sigma": batch.sigma, "kept": torch.arange(200) % 4 == 0}
        along = {1: found.tensors, 2: found.tensors}
        run = RunTensors(2.0, {1.0: found.tensors, 2.0: found.tensors}, {1: chosen, 9: chosen}, along)
        drawn = [*task.figures(run), *task.side_by_side(2.0, {"baseline": run.last, "ajest": run.last})]
        assert len(drawn) == 6 - (task.dimensions == 1)
        for i, (caption, figure) in enumerate(drawn):
            assert caption.endswith(".")
            if i in (0, 3) and task.dimensions in (1, 3):  # laying one out takes half a second
                figure.savefig(tmp_path / f"{i}.png", dpi=30)


def test_names_of_panels_lie_inside_the_figure():
    view = figures.View(Standard((0.5,) * 16, (0.3,) * 16), tuple(f"pixel{i}" for i in range(16)), (4, 4))
    x = np.zeros((40, 16))
    figure = figures.samples(view, {"without guidance": x, "autoguidance, w = 2": x}, x)
    figure.draw_without_rendering()
    names = ("without guidance", "autoguidance, w = 2", "held-out vectors")
    named = [text for text in figure.findobj(Text) if text.get_text() in names]
    assert len(named) == 3
    for text in named:
        box = text.get_window_extent()
        assert (box.min >= figure.bbox.min).all()
        assert (box.max <= figure.bbox.max).all()


def test_selection_of_a_line_is_shown_against_noise():
    """Against itself it would be a diagonal."""
    batch = {"x": torch.randn(50, 1), "sigma": torch.rand(50) + 0.1, "kept": torch.arange(50) % 4 == 0}
    figure = figures.selection(figures.View(Standard((0.0,), (1.0,)), ("height",)), {3: batch})
    plane = figure.axes[0]
    assert (plane.get_xlabel(), plane.get_ylabel()) == ("height", "ln sigma")
    shown = np.concatenate([points.get_offsets() for points in plane.collections])
    np.testing.assert_allclose(np.sort(shown[:, 1]), np.sort(batch["sigma"].log().numpy()), rtol=1e-5)


def test_samples_that_are_not_finite_have_no_metrics(tmp_path):
    with pytest.raises(NotFinite, match="NaN or infinite"):
        small().evaluate(Guided(lambda x, s, y=None: x * torch.nan), measurement(tmp_path))


def test_samples_are_written_in_the_users_units(tmp_path, labelled):
    task = small(str(labelled))
    rows = task._parts[0].x

    def ideal(x, sigma, label=None):
        return rows[: len(x)]  # where every path ends

    paths = task.write_samples(ideal, tmp_path / "out", 20, (4,))
    assert [p.name for p in paths] == ["samples.csv", "samples.png"]
    with paths[0].open() as file:
        head, *lines = csv.reader(file)
    assert head == ["x0", "x1", "x2", "label"]
    x = np.array([line[:3] for line in lines], dtype=float)
    np.testing.assert_allclose(x, task.standard.undo(rows[:20].numpy()), rtol=1e-7)
    assert (x[:, 2] == 7.25).all()
    task.write_samples(ideal, tmp_path / "out", 4, classes=("11", "2"))
    with paths[0].open() as file:
        assert [line[-1] for line in csv.reader(file)][1:] == ["11", "2", "11", "2"]
    with pytest.raises(UserError, match=r"unknown class 'cat'.*11, 2, 5"):
        task.write_samples(ideal, tmp_path / "out", 4, classes=("cat",))
    with pytest.raises(UserError, match="no classes to choose from"):
        small().write_samples(ideal, tmp_path / "out", 4, classes=("2",))
    with pytest.raises(UserError, match="name one"):
        task.write_samples(ideal, tmp_path / "out", 4, (1, 2))
    with pytest.raises(UserError, match="at least 1"):
        task.write_samples(ideal, tmp_path / "out", 0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"hidden": 0}, "hidden must be at least 1, not 0"),
        ({"label_dropout": 0.1}, "no labels, so there is none to drop"),
        ({"label_dropout": 1.0}, "label_dropout must lie in"),
        ({"image": (2, 3)}, r"\(2, 3\) is no height and width of 2 numbers"),
        ({"p_std": 0.0}, "p_std must be above 0"),
        ({"sampler_steps": 1}, "at least 2"),
    ],
)
def test_settings_are_checked(settings, says):
    with pytest.raises(UserError, match=says):
        small(**settings)


def test_who_can_guide_whom(labelled):
    task = small()
    assert task.domain == small(hidden=4).domain
    assert task.domain != small("checkerboard:1000").domain
    assert "two-moons" in task.subject
    assert "3 classes" in small(str(labelled)).subject
    assert task.example_names()[0].startswith("row-")
    assert len(task.example_names()) == task.size == 800
    assert any("200 held-out" in note for note in task.notes(100))


def test_a_short_training_brings_samples_near(tmp_path):
    """A few seconds of training at least halve the distance."""
    task = small("two-moons:4000", hidden=32, blocks=2, sampler_steps=16)
    network = task.network("learner", 0)
    how = measurement(tmp_path, 1000)
    before = task.evaluate(Guided(network), how).metrics
    source, adam = task.source("cpu"), torch.optim.Adam(network.parameters(), 4e-3)
    for step in range(200):
        batch = source.draw(256, torch.Generator().manual_seed(step))
        adam.zero_grad()
        per_example_loss(network(batch.x, batch.sigma), batch).mean().backward()
        adam.step()
    after = task.evaluate(Guided(network), how).metrics
    assert after["energy_distance"] < 0.5 * before["energy_distance"]
    assert after["loss"] < before["loss"]


def test_a_bench(tmp_path):
    config = BenchConfig(
        task=small("two-moons:600"),
        recipe=Recipe(64, LearningRate(2e-3, 0)),
        arms=arms_named(("baseline", "ajest", "random"), chunks=3),
        seeds=(0,),
        iterations=32,
        guide_iterations=8,
        n_final=200,
        n_curve=200,
        curve=(1.0,),
        calibration_rounds=3,
    )
    run_bench(tmp_path / "bench", config, Here(1), "cpu")
    results = read(tmp_path / "bench")
    assert results.config == config
    assert {run.state for run in results.runs.values()} == {"done"}
    assert {metric for _, _, metric, _ in results.cells} >= {"energy_distance", "loss", "coverage"}
