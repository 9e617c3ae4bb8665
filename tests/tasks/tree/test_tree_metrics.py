import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from ajest import LogNormal
from ajest.errors import NotFinite
from ajest.runtime.seeding import generator
from ajest.tasks.base import Guided, Measurement
from ajest.tasks.tree import metrics
from ajest.tasks.tree.distribution import ORIGIN, TreeDistribution
from ajest.tasks.tree.source import TreeSource
from conftest import small_task


@given(seed=st.integers(0, 2**31), n=st.integers(2, 60), m=st.integers(2, 60), shift=st.floats(-2, 2))
def test_energy_distance_equals_the_definition(seed, n, m, shift):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 2)), rng.normal(size=(m, 2)) * 0.7 + shift
    xx, yy = cdist(x, x).sum() / (n * (n - 1)), cdist(y, y).sum() / (m * (m - 1))
    expected = 2 * cdist(x, y).mean() - xx - yy
    # 64 directions stand for all of them: the error is far below the distances themselves.
    assert metrics.energy_distance(x, y) == pytest.approx(expected, abs=2e-3 * (xx + yy))
    assert metrics.energy_distance(x, y, 2048) == pytest.approx(expected, abs=2e-6 * (xx + yy))


def test_energy_distance_has_no_bias():
    rng = np.random.default_rng(0)
    values = [metrics.energy_distance(rng.normal(size=(200, 2)), rng.normal(size=(300, 2))) for _ in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(200)
    assert np.std(values) > 0


def test_mandala_counts_cells():
    cell = metrics.GRID_SIDE / metrics.GRID_CELLS
    middle = np.array(ORIGIN)
    away = np.array([[0, 0], [0, 0], [cell, 0], [0, 3 * cell], [99.0, 0]])
    x = middle + away
    hit = np.array([True, False, False, True, True])  # a mixed cell, a missed one, a hit one, one outside
    assert metrics.mandala(x, hit) == pytest.approx(2 / 3)
    good, bad = metrics.mandala_cells(x, hit)
    assert (good.sum(), bad.sum()) == (2, 2)
    assert metrics.mandala(x[4:], hit[4:]) == 0.0


def test_mandala_of_exact_samples():
    tree, numbers = TreeDistribution(), torch.Generator().manual_seed(5)
    x, _ = tree.sample(torch.rand(16384, generator=numbers), torch.randn(16384, 4, generator=numbers))
    assert metrics.mandala(x.numpy(), metrics.hits(tree, x).numpy()) == pytest.approx(0.974, abs=0.015)


def test_branch_metrics_of_exact_and_of_lopsided_samples():
    tree, numbers = TreeDistribution(), torch.Generator().manual_seed(5)
    x, index = tree.sample(torch.rand(20000, generator=numbers), torch.randn(20000, 4, generator=numbers))
    exact = metrics.branch_metrics(tree, metrics.branch_shares(tree, x))
    assert exact["branch_tv"] < 0.03
    assert exact["branches_reached"] == 1
    trunk = metrics.branch_metrics(tree, metrics.branch_shares(tree, x[index < 8]))
    assert trunk["branch_tv"] > 0.5
    assert trunk["depth_tv"] > 0.5
    assert trunk["branches_reached"] < 0.1


def losses(tree, denoiser, batch, micro_batch):
    return metrics.losses(tree, metrics.answers(denoiser, batch, micro_batch), batch)


def test_losses_of_the_ideal_denoiser_are_zero_and_outer_ones_are_from_outer_branches():
    tree = TreeDistribution()
    source = TreeSource(tree, LogNormal(-2.3, 1.5))
    batch = source.complete(source.draw(500, torch.Generator().manual_seed(0)))
    ideal = losses(tree, tree.denoise, batch, 128)
    assert ideal == {"loss": 0, "outer_loss": 0, "rare_loss": 0, "rare_bias": pytest.approx(0, abs=1e-6)}
    outer = torch.as_tensor(tree.depth)[batch.id // 8] >= 5

    def wrong_outside(x, sigma, label=None):
        error = torch.where(outer, sigma, 0 * sigma)
        return tree.denoise(x, sigma) + error[:, None]

    found = losses(tree, wrong_outside, batch, 500)
    assert found["outer_loss"] == pytest.approx(1, rel=1e-3)
    assert found["loss"] == pytest.approx(outer.double().mean().item(), rel=1e-3)


def test_errors_at_rare_places_are_told_from_those_elsewhere():
    """Rare: the tenth of least density within each of 16 noise levels."""
    tree = TreeDistribution()
    source = TreeSource(tree, LogNormal(-2.3, 1.5))
    batch = source.complete(source.draw(1600, torch.Generator().manual_seed(0)))
    density, order = tree.log_density(batch.x, batch.sigma), batch.sigma.argsort()
    rare = torch.zeros(1600, dtype=torch.bool)
    for level in order.split(100):
        rare[level[density[level].argsort()[:10]]] = True

    def stretched(where, by):
        return lambda x, sigma, label=None: x + (1 + by * where[:, None]) * (batch.target - x)

    found = losses(tree, stretched(rare.float(), -0.25), batch, 1600)
    assert found["rare_bias"] == pytest.approx(0.25, rel=1e-4)
    assert found["loss"] == pytest.approx(0.1 * found["rare_loss"], rel=1e-4)
    found = losses(tree, stretched(1 - rare.float(), 0.5), batch, 1600)
    assert found["rare_loss"] == pytest.approx(0, abs=1e-9)
    assert found["rare_bias"] == pytest.approx(0, abs=1e-6)
    signs = torch.where(torch.arange(1600) % 2 == 0, 1.0, -1.0)  # they nearly cancel, and cost all the same
    found = losses(tree, stretched(rare * signs, 0.5), batch, 1600)
    assert found["rare_bias"] < 0.1
    assert found["rare_loss"] > 0.1


def test_with_clean_targets_the_same_examples_are_drawn_and_the_measures_stay_exact(tmp_path):
    """Only the target of training differs: by noise whose mean is the exact target's."""
    exact, clean = (small_task(target=target) for target in ("exact", "x0"))
    drawn = []
    for task in (exact, clean):
        source = task.source("cpu")
        drawn.append(source.complete(source.draw(20_000, generator(3, "draw"))))
    assert all(torch.equal(getattr(drawn[0], name), getattr(drawn[1], name)) for name in ("x", "sigma", "weight", "id"))
    gap = (drawn[1].target - drawn[0].target) / drawn[0].sigma[:, None]
    assert gap.abs().mean() > 0.1
    assert gap.mean(0).abs().max() < 4 * gap.std() / len(gap) ** 0.5
    assert (exact.costly_target, clean.costly_target) == (True, False)
    ideal = Guided(exact.exact_denoiser())
    found = [task.evaluate(ideal, Measurement(400, 0, tmp_path)).metrics for task in (exact, clean)]
    assert found[0] == found[1]
    assert found[1]["loss"] < 1e-9


def test_samples_that_are_not_finite_have_no_metrics(tmp_path):
    with pytest.raises(NotFinite, match="NaN or infinite"):
        small_task().evaluate(Guided(lambda x, s, y=None: x * torch.nan), Measurement(64, 0, tmp_path))
