"""Distances between sets of vectors against their definitions and closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ajest.diffusion.batch import Batch
from ajest.errors import UserError
from ajest.tasks import statistics
from ajest.tasks.vectors import metrics
from ajest.tasks.vectors.metrics import compared, energy_distance, loss_metrics, losses_of, sliced_wasserstein

SEEDS = st.integers(0, 2**31)


def some(n, d, seed, shift=0.0, scale=1.0):
    return shift + scale * np.random.default_rng(seed).normal(size=(n, d))


def by_pairs(x, y):
    """The definition, pair by pair: a row is not its own other."""
    cross = np.mean([math.dist(a, b) for a in x for b in y])
    own = [np.mean([math.dist(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (x, y)]
    return 2 * cross - own[0] - own[1]


@given(SEEDS, st.integers(2, 12), st.integers(2, 12), st.integers(1, 5), st.floats(-2, 2))
def test_energy_distance_is_its_definition(seed, n, m, d, shift):
    x, y = some(n, d, seed), some(m, d, seed + 1, shift, 0.7)
    assert energy_distance(x, y) == pytest.approx(by_pairs(x, y), abs=1e-9)
    assert energy_distance(y, x) == pytest.approx(energy_distance(x, y), abs=1e-12)


def test_energy_distance_of_doubled_rows_and_far_from_the_origin():
    x, y = np.repeat(some(6, 3, 0), 2, 0), some(9, 3, 1)
    assert energy_distance(x, y) == pytest.approx(by_pairs(x, y), abs=1e-7)
    assert energy_distance(x + 1e4, y + 1e4) == pytest.approx(by_pairs(x, y), abs=1e-6)


def test_energy_distance_in_parts(monkeypatch):
    x, y = some(70, 3, 0), some(50, 3, 1, 0.3)
    whole = energy_distance(x, y)
    monkeypatch.setattr(statistics, "_ROWS", 16)
    assert energy_distance(x, y) == pytest.approx(whole, rel=1e-12)


def test_energy_distance_has_no_bias():
    values = [energy_distance(some(60, 2, 2 * i), some(90, 2, 2 * i + 1)) for i in range(200)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 200**0.5


@pytest.mark.parametrize("d", [1, 2, 5, 200])
def test_sliced_wasserstein_of_a_shift_is_its_share_of_a_coordinate(d):
    x, shift = some(80, d, 0), some(1, d, 1)
    assert sliced_wasserstein(x, x + shift) == pytest.approx(np.linalg.norm(shift) / d**0.5, rel=1e-9)
    assert sliced_wasserstein(x, x[::-1].copy()) == pytest.approx(0, abs=1e-9)


def test_sliced_wasserstein_on_a_line_is_that_of_its_quantiles():
    x, y = some(6, 1, 0), some(4, 1, 1)
    steps = (np.arange(12) + 0.5) / 12  # quantiles of both are constant in between
    gap = np.sort(x[:, 0])[(steps * 6).astype(int)] - np.sort(y[:, 0])[(steps * 4).astype(int)]
    assert sliced_wasserstein(x, y) == pytest.approx(np.sqrt(np.mean(gap**2)), rel=1e-12)


def test_sliced_wasserstein_of_gaussians_nears_its_closed_form():
    """Along every line W_2^2 of N(0, 1) and N(a, s^2) is a^2 + (1 - s)^2."""
    found = sliced_wasserstein(some(40_000, 2, 0), some(30_000, 2, 1, 0.5, 2.0))
    assert found == pytest.approx((0.5**2 + 1) ** 0.5, rel=0.03)


def test_sliced_wasserstein_in_parts(monkeypatch):
    x, y = some(30, 7, 0), some(20, 7, 1, 0.3)
    whole = sliced_wasserstein(x, y)
    monkeypatch.setattr(metrics, "_BYTES", 1)
    assert sliced_wasserstein(x, y) == pytest.approx(whole, rel=1e-12)


def test_sets_that_cannot_be_compared():
    for distance in (energy_distance, sliced_wasserstein):
        with pytest.raises(UserError, match="2 and 3 coordinates"):
            distance(some(9, 2, 0), some(9, 3, 0))
        with pytest.raises(UserError, match="not finite"):
            distance(some(9, 2, 0) * np.nan, some(9, 2, 0))
    with pytest.raises(UserError, match="at least 2"):
        energy_distance(some(1, 2, 0), some(9, 2, 0))


def test_within_classes_samples_of_another_class_are_far():
    x, label = torch.from_numpy(some(400, 2, 0)), torch.arange(400) % 2
    x[label == 1] += 4
    y, of_y = torch.from_numpy(some(300, 2, 1)), (torch.arange(300) % 3 == 0).long()
    y[of_y == 1] += 4
    right, wrong = compared(x, y, label, of_y), compared(x, y, 1 - label, of_y)
    assert {k: v for k, v in wrong.items() if k != "class_energy_distance"} == {
        k: v for k, v in right.items() if k != "class_energy_distance"
    }
    by_hand = [energy_distance(x[label == k], y[of_y == k]) for k in (0, 1)]
    assert right["class_energy_distance"] == pytest.approx((2 * by_hand[0] + by_hand[1]) / 3)
    assert wrong["class_energy_distance"] > 2
    assert "class_energy_distance" not in compared(x, y)
    assert "class_energy_distance" not in compared(x, y, torch.full((400,), 7), of_y)


def test_losses_by_level_of_noise():
    """A denoiser that is wrong at the least third of noise alone."""
    n = 300
    sigma = torch.logspace(-2, 1, n)[torch.randperm(n)]
    border = sigma.sort().values[100]
    batch = Batch(torch.randn(n, 3), sigma, torch.full((n,), 2.0), torch.arange(n), torch.randn(n, 3))
    at = {float(s): t for s, t in zip(sigma, batch.target, strict=True)}

    def wrong(x, sigma, label=None):
        return torch.stack([at[float(s)] + (s < border) for s in sigma])

    found = loss_metrics(losses_of(wrong, batch, 64), sigma)
    assert found["loss_low"] == pytest.approx(2, rel=1e-5)
    assert found["loss_middle"] == found["loss_high"] == pytest.approx(0, abs=1e-9)
    assert found["loss"] == pytest.approx(2 / 3, rel=1e-5)
