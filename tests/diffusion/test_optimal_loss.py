"""The least loss of any denoiser: against closed forms, quadrature, brute force and its limits."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ajest.bench.read.by_level import level_curves, level_table
from ajest.bench.report.levels import loss_by_level
from ajest.bench.run.optimal_loss import measure_optimal_loss, optimal_loss
from ajest.diffusion.batch import Batch
from ajest.diffusion.denoising import LogNormal, per_example_loss
from ajest.diffusion.optimal import (
    LEVELS,
    OptimalLoss,
    by_level,
    dataset_optimum,
    exact_optimum,
    posterior_means,
)
from ajest.tasks.base import Guided, Measurement
from ajest.tasks.images import judging
from ajest.tasks.sources import TensorSource
from ajest.tasks.tree.distribution import TreeDistribution
from ajest.tasks.vectors import task as vectors
from ajest.tasks.vectors.setup import vectors_task
from conftest import small_bench, small_images, small_task
from made_up import made_up

NOISE = LogNormal(-0.5, 1.2)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def test_ranges_of_noise_are_equally_likely_and_means_are_theirs():
    sigma = NOISE(torch.randn(60_000, generator=stream()))
    found = by_level(NOISE, sigma, {"one": torch.ones(60_000), "sigma": sigma.log()})
    assert len(found["one"]) == LEVELS
    assert found["one"] == (1.0,) * LEVELS
    order = sigma.sort().values.log().double().split(60_000 // LEVELS)
    assert found["sigma"] == pytest.approx([part.mean().item() for part in order], abs=0.02)
    lone = by_level(NOISE, torch.tensor([1e-9, 1e9]), {"x": torch.tensor([2.0, 3.0])})
    assert (lone["x"][0], lone["x"][-1]) == (2, 3)
    assert math.isnan(lone["x"][1])


def test_a_gaussians_least_loss_is_the_closed_form():
    """E tr Cov[x0 | x] / d = v sigma^2 / (v + sigma^2)."""
    v, n = 0.3, 40_000
    x0 = v**0.5 * torch.randn(n, 3, generator=stream())
    batch = TensorSource(x0, NOISE, 0.5).draw(n, stream(1))
    shrunk = lambda x, sigma, label=None: x * (v / (v + sigma.square()))[:, None]  # noqa: E731
    found = exact_optimum(NOISE, batch, shrunk, 4096)
    wanted = by_level(NOISE, batch.sigma, {"v": batch.weight * v * batch.sigma**2 / (v + batch.sigma**2)})["v"]
    for low, high, error, true in zip(found.low, found.high, found.error, wanted, strict=True):
        assert low == high
        assert abs(low - true) < 4 * error
        assert error < 0.03 * true


@pytest.mark.parametrize("level", [0.28, 0.5])
def test_the_trees_least_loss_is_that_of_quadrature(level):
    """The mean of |x0 - D|^2 / (2 sigma^2), against a sum over a grid, which for so smooth a density is exact."""
    tree = TreeDistribution(dtype=torch.float64)
    step = level / 1.5
    axis = torch.arange(-4.5, 4.5, step, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    density = tree.log_density(x, level).exp() * step**2
    assert density.sum().item() == pytest.approx(1, abs=1e-6)
    # E|x0 - D|^2 = d sigma^2 - E|D - x|^2: the noise is x - D, and what is orthogonal to it
    pulled = (tree.denoise(x, torch.full((len(x),), level)) - x).square().sum(1)
    exact = 1 - (density * pulled).sum().item() / (2 * level**2)
    parts = small_task().source("cpu").ingredients(20_000, stream())
    sigma = torch.full((20_000,), level)
    batch = Batch(parts.x0 + level * parts.eps, sigma, sigma**-2, parts.id, parts.x0)
    losses = per_example_loss(tree.denoise(batch.x.double(), batch.sigma), batch)
    assert losses.mean().item() == pytest.approx(exact, rel=4 / 20_000**0.5)


def batches(level, size=60, queries=4000, d=2):
    """(noised examples of a small data set, all of it)."""
    clean = torch.randn(size, d, generator=stream(), dtype=torch.float64)
    index = torch.randint(size, (queries,), generator=stream(1))
    sigma = torch.full((queries,), level, dtype=torch.float64)
    x = clean[index] + level * torch.randn(queries, d, generator=stream(2), dtype=torch.float64)
    whole = Batch(clean, clean[:, 0], clean[:, 0], torch.arange(size), clean)
    return Batch(x, sigma, torch.ones_like(sigma), index, clean[index]), whole


@pytest.mark.parametrize("level", [0.2, 0.6, 2.0])
def test_a_data_sets_best_denoiser_is_the_sum_over_all_of_it(level):
    batch, whole = batches(level, queries=50)
    found = posterior_means(batch, whole)
    for x, mean in zip(batch.x, found, strict=True):
        kernel = torch.stack([torch.exp(-(x - y).square().sum() / (2 * level**2)) for y in whole.target])
        assert torch.allclose(mean, (kernel[:, None] * whole.target).sum(0) / kernel.sum())
    assert torch.allclose(posterior_means(batch, whole, 1.0), found)


def loss(batch, references, correction=None):
    return per_example_loss(posterior_means(batch, references, correction), batch).mean().item()


def test_the_least_loss_of_a_data_set_vanishes_without_noise_and_is_its_variance_under_much():
    batch, whole = batches(1e-3)
    assert loss(batch, whole) == pytest.approx(0, abs=1e-9)
    batch, whole = batches(1e3)
    assert loss(batch, whole) == pytest.approx(whole.target.var(0, correction=0).mean().item(), rel=0.05)


@pytest.mark.parametrize("level", [0.3, 0.8])
def test_estimates_from_a_part_of_the_data(level):
    """DOL puts each example's own in and answers too well, SNIS leaves it out and answers too badly; cDOL lies between
    the two, and nears the truth as the part grows."""
    batch, whole = batches(level, size=400, queries=2000)
    true, off = loss(batch, whole), []
    for size in (50, 200):
        few = whole[torch.randperm(400, generator=stream(5))[:size]]
        estimates = [loss(batch, few, correction) for correction in (1.0, 400 / size, None)]
        assert estimates == sorted(estimates)
        assert estimates[0] < true < estimates[2]
        off.append(abs(estimates[1] - true) / true)
    assert off[1] < 0.5 * off[0]


@pytest.mark.parametrize("level", [0.1, 0.4])
def test_the_bounds_of_a_small_data_set_are_its_own_least_loss(level):
    """Of fewer examples than are drawn as references, each of which stands among these several times."""
    batch, whole = batches(level, size=40, queries=4000)
    drawn = whole[torch.randint(40, (4096,), generator=stream(6))]
    noise = LogNormal(math.log(level), 1e-6)
    found = dataset_optimum(noise, batch, batch, drawn, 40, 500)
    place = [i for i in range(LEVELS) if math.isfinite(found.value[i])]
    value = np.average([found.value[i] for i in place])
    assert value == pytest.approx(loss(batch, whole), rel=0.1)
    assert found.low == found.value


def test_an_example_whose_class_has_no_reference_is_answered_by_itself_where_it_is_put_in():
    batch, whole = batches(1.0, size=6, queries=3)
    known = replace(batch, label=torch.full((3,), 7))
    found = posterior_means(known, replace(whole, label=torch.zeros(6, dtype=torch.int64)), 1.0)
    torch.testing.assert_close(found, batch.target)


def test_examples_are_averaged_within_their_class():
    batch, whole = batches(1.0, size=6, queries=3)
    label = torch.tensor([0, 0, 0, 1, 1, 1])
    known = replace(batch, label=torch.tensor([0, 1, -1]))
    found = posterior_means(known, replace(whole, label=label))
    for i, some in enumerate((slice(0, 3), slice(3, 6), slice(0, 6))):
        assert torch.allclose(found[i], posterior_means(batch[i : i + 1], whole[some])[0])
    stranger = replace(batch, label=torch.full((3,), 7))
    assert torch.allclose(posterior_means(stranger, replace(whole, label=label)), posterior_means(batch, whole))


def test_bounds_from_a_data_set_hold_the_mixtures_own_least_loss():
    task = vectors_task(("mixture-8d:4000",), warn=lambda _: None)
    how = Measurement(100, 0, cache=None)
    exact = task.optimal_loss(how)
    source, streams = task.source("cpu"), [stream(i) for i in range(3)]
    learned, references = source.draw(3000, streams[0]), source.draw(2000, streams[1])
    held_out = task._loss_batch(0, "cpu")
    found = dataset_optimum(LogNormal(-1.2, 1.2), learned, held_out, references, task.size, 500)
    assert exact.exact
    assert not found.exact
    for i in range(LEVELS):
        slack = 4 * found.error[i] + 0.06 * exact.value[i]
        assert found.low[i] <= exact.value[i] + slack
        assert found.high[i] >= exact.value[i] - slack
    assert found.value[0] < 0.5 * exact.value[0] < found.high[0]  # known by heart
    assert found.low[-1] == pytest.approx(found.high[-1], rel=0.15)


def test_evaluations_say_the_excess_by_level_where_it_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "OPTIMAL_REFERENCES", 512)
    how = Measurement(64, 0, tmp_path)
    tree = small_task()
    found = tree.evaluate(Guided(lambda x, sigma, label=None: x), how)
    assert len(found.by_level["excess"]) == LEVELS
    assert np.average(found.by_level["excess"]) == pytest.approx(found.metrics["loss"], rel=0.6)
    mixture = vectors_task(("mixture-2d:400",), warn=lambda _: None, hidden=8, blocks=1)
    best = mixture.evaluate(Guided(mixture.exact_denoiser()), how)
    assert max(best.by_level["excess"]) == 0
    moons = vectors_task(("two-moons:4000",), warn=lambda _: None, hidden=8, blocks=1)
    network = moons.network("learner", 0)
    assert set(moons.evaluate(Guided(network.eval()), how).by_level) == {"sigma", "loss"}
    bounds = moons.optimal_loss(how)
    for low, value, high, error in zip(bounds.low, bounds.value, bounds.high, bounds.error, strict=True):
        assert low <= value + 1e-9
        assert value <= high + 6 * error


def test_a_bench_computes_it_once_and_reads_it_back(tmp_path, monkeypatch):
    config = small_bench()
    assert optimal_loss(tmp_path) is None
    made = OptimalLoss((0.1, 1.0), (0.9, 0.1), (0.8, 0.1), (0.9, 0.1), (0.01, 0.001))
    monkeypatch.setattr(type(config.task), "optimal_loss", lambda self, how: made)
    measure_optimal_loss(tmp_path, config)
    monkeypatch.setattr(type(config.task), "optimal_loss", None)
    measure_optimal_loss(tmp_path, config)
    assert optimal_loss(tmp_path) == made


def with_levels(kind, optimal, **by_arm):
    """Results whose runs have means of two ranges of noise by arm and seed."""
    results = made_up({("steps", "energy_distance", 1.0): {arm: [1.0, 1.0] for arm in by_arm}}, tuple(by_arm), seeds=2)
    n = results.config.n_final
    for (arm, seed), run in list(results.runs.items()):
        line = {"step": 40, "n": n, "weight": 1.0, "by_level": {"sigma": [0.1, 1.0], kind: by_arm[arm][seed]}}
        later = {"step": 20, "n": n, "weight": 1.0, "by_level": {"sigma": [0.1, 1.0], kind: [9.0, 9.0]}}
        reached = {results.config.final_budget: {4096.0: 40}}
        results.runs[arm, seed] = replace(run, lines=[line, later], reached=reached)
    return replace(results, optimal_loss=optimal, amounts={results.config.final_budget: 4096.0})


def test_the_table_has_the_optimal_loss_above_the_excess_of_arms():
    exact = OptimalLoss((0.1, 1.0), (0.5, 0.2), (0.5, 0.2), (0.5, 0.2), (0.005, 0.001))
    results = with_levels("excess", exact, baseline=([0.2, 0.1], [0.4, 0.1]), random=([0.6, 0.3], [0.6, 0.5]))
    curves = level_curves(results)
    assert curves.excess["baseline"] == pytest.approx((0.3, 0.1))
    assert curves.error["baseline"] == pytest.approx((0.1, 0.0))
    table = level_table(curves)
    assert table.texts() == [["optimal loss", "0.5", "0.2"], ["baseline", "0.3", "0.1"], ["random", "0.6", "0.4"]]
    assert "at most 1.0%" in table.notes[-1]
    assert len(loss_by_level(curves, "baseline").axes) == 2


def test_of_data_alone_the_excess_is_what_lies_above_the_estimate():
    bounds = OptimalLoss((0.1, 1.0), (0.1, 0.2), (0.0, 0.2), (0.7, 0.25), (0.0, 0.001))
    curves = level_curves(with_levels("loss", bounds, baseline=([0.4, 0.3], [0.6, 0.3])))
    assert curves.excess["baseline"] == pytest.approx((0.4, 0.1))
    first = level_table(curves).rows[0]
    assert [(cell.value, cell.detail) for cell in first[1:]] == [("0.1", "0 to 0.7"), ("0.2", "0.2 to 0.25")]
    assert len(loss_by_level(curves, "baseline").axes) == 2


def test_without_a_least_loss_there_is_no_table():
    assert not level_table(level_curves(with_levels("loss", None, baseline=([0.4, 0.3], [0.6, 0.3]))))


@pytest.mark.parametrize("flip", [False, True])
def test_mirrored_images_count_among_the_examples_of_a_data_set(flip, tmp_path, monkeypatch):
    totals = []
    monkeypatch.setattr(judging, "dataset_optimum", lambda *asked: totals.append(asked[4]))
    small_images(flip=flip).optimal_loss(Measurement(64, 0, tmp_path))
    assert totals == [512 if flip else 256]
