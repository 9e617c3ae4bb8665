"""Statistics of two sets of examples against their definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from ajest.tasks import statistics
from ajest.tasks.statistics import prdc

SEEDS = st.integers(0, 2**31)


def normal(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(n, d, generator=generator, dtype=torch.float64)


def rotation(d: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(normal(d, d, seed)).Q


def test_prdc_of_equal_sets():
    x = normal(200, 8, 0)
    found = prdc(x, x)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert found.density == pytest.approx(6 / 5)  # each example is in its own ball and, on average, in 5 others


def test_prdc_of_sets_far_apart():
    found = prdc(normal(50, 8, 0), normal(60, 8, 1, shift=100))
    assert (found.precision, found.recall, found.density, found.coverage) == (0, 0, 0, 0)


def test_prdc_by_hand():
    real = torch.tensor(
        [[0.0], [1.0], [3.0], [10.0]]
    )  # distances to the nearest other: 1, 1, 2, 7; to the next 3, 2, 3, 9
    fake = torch.tensor([[0.5], [20.0]])  # 19.5 both
    found = prdc(real, fake, k=1, k_dense=1)
    assert found.precision == 0.5  # 20 lies in no ball: 10 + 7 < 20
    assert found.recall == 1.0
    assert found.density == pytest.approx(2 / 2)  # 0.5 lies in the balls of 0 and 1; 20 in none
    assert found.coverage == pytest.approx(2 / 4)  # of 0 and 1; 3 - 2 > 0.5, 10 - 7 > 0.5
    wider = prdc(real, fake, k=1, k_dense=2)
    assert (wider.precision, wider.recall) == (found.precision, found.recall)
    assert wider.density == pytest.approx(3 / (2 * 2))  # of 0, 1 and 3: 3 - 3 < 0.5; 10 - 9 > 0.5
    assert wider.coverage == pytest.approx(3 / 4)


def from_the_papers(real: np.ndarray, fake: np.ndarray) -> tuple[float, float, float, float]:
    """Pair by pair: equations 1 and 2 of arXiv 1904.06991 with k = 3, section 3 of arXiv 2002.09797 with k = 5."""

    def radius(s: np.ndarray, i: int, k: int) -> float:
        return sorted(np.linalg.norm(s[i] - s[j]) for j in range(len(s)) if j != i)[k - 1]

    def within(a: np.ndarray, s: np.ndarray, k: int) -> list[bool]:
        return [bool(np.linalg.norm(a - s[i]) <= radius(s, i, k)) for i in range(len(s))]

    precision = float(np.mean([any(within(y, real, 3)) for y in fake]))
    recall = float(np.mean([any(within(x, fake, 3)) for x in real]))
    balls = np.array([within(y, real, 5) for y in fake])
    return precision, recall, float(balls.sum() / (5 * len(fake))), float(balls.any(0).mean())


@pytest.mark.parametrize("seed", range(4))
def test_prdc_is_what_the_papers_define(seed):
    # Lengths that differ much: scaled to length 1, these features would give other numbers.
    lengths = normal(40, 1, seed + 50).exp()
    real, fake = normal(40, 3, seed) * lengths, 0.7 * normal(25, 3, seed + 9) + 0.4
    found = prdc(real, fake)
    expected = from_the_papers(real.numpy(), fake.numpy())
    assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(expected)
    turned = prdc(normalize(real), normalize(fake))
    assert (turned.precision, turned.recall, turned.density, turned.coverage) != pytest.approx(expected)


def test_prdc_tells_lost_kinds_from_bad_samples():
    real = torch.cat([normal(150, 6, 0), normal(150, 6, 1, shift=20)])
    half = prdc(real, normal(150, 6, 2))
    assert half.precision > 0.7
    assert half.recall < 0.55
    assert half.coverage < 0.55
    noisy = prdc(real, torch.cat([normal(150, 6, 3), normal(150, 6, 4, shift=-50)]))
    assert noisy.precision < 0.55


@given(SEEDS, st.integers(6, 40), st.integers(6, 40))
def test_prdc_is_in_range_and_motions_keep_it(seed, n, m):
    x, y = normal(n, 5, seed), normal(m, 5, seed + 1, shift=0.5)
    found = prdc(x, y)
    assert all(0 <= v <= 1 for v in (found.precision, found.recall, found.coverage))
    assert found.density >= 0
    moved = prdc(*(s @ rotation(5, seed + 2) + 30 for s in (x, y)))
    assert moved == found
    turned = prdc(y, x)
    assert (turned.precision, turned.recall) == (found.recall, found.precision)


def test_prdc_in_parts(monkeypatch):
    x, y = normal(90, 5, 0), normal(70, 5, 1)
    whole = prdc(x, y)
    monkeypatch.setattr(statistics, "_ROWS", 16)
    assert prdc(x, y) == whole
