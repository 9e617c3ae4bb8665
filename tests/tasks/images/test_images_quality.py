"""Distances between sets of features: closed forms, invariants, and what is stored."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from ajest.errors import UserError
from ajest.tasks.images import quality, references
from ajest.tasks.images.extractors import Features
from ajest.tasks.images.quality import Moments, consistency, frechet_distance, kid, moments, streamed
from ajest.tasks.images.references import References, Stock, references_of
from ajest.tasks.statistics import prdc

SEEDS = st.integers(0, 2**31)


def normal(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(n, d, generator=generator, dtype=torch.float64)


def mixed(n: int, d: int, seed: int) -> torch.Tensor:
    """Features whose covariance is not diagonal."""
    return normal(n, d, seed) @ normal(d, d, seed + 1) + normal(1, d, seed + 2)


def rotation(d: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(normal(d, d, seed)).Q


def diagonal(mean: float, variances: list[float]) -> Moments:
    v = torch.tensor(variances, dtype=torch.float64)
    return Moments(torch.full_like(v, mean), torch.diag(v), 100)


def test_moments_are_numpys():
    x = mixed(50, 6, 0)
    found = moments(x.float())
    assert found.n == 50
    assert found.mean.dtype == found.cov.dtype == torch.float64
    np.testing.assert_allclose(found.mean, x.float().double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.cov, np.cov(x.float().double().numpy().T), rtol=1e-10)


def test_frechet_of_diagonal_gaussians():
    a, b = diagonal(0.0, [1.0, 4.0, 9.0]), diagonal(2.0, [4.0, 4.0, 0.25])
    expected = 3 * 2.0**2 + (1 - 2) ** 2 + 0 + (3 - 0.5) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_frechet_of_commuting_gaussians():
    q = rotation(7, 1)
    values = [torch.linspace(0.1, 3, 7, dtype=torch.float64), torch.linspace(2, 0, 7, dtype=torch.float64)]
    a, b = (Moments(torch.zeros(7, dtype=torch.float64), (q * v) @ q.T, 10) for v in values)
    expected = (values[0].sqrt() - values[1].sqrt()).square().sum().item()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_frechet_by_scipys_square_root(seed):
    a, b = moments(mixed(200, 12, seed)), moments(mixed(200, 12, seed + 10))
    root = scipy.linalg.sqrtm(a.cov.numpy() @ b.cov.numpy())
    expected = float((a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * np.trace(root).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_fewer_images_than_features():
    # tr (A^1/2 B A^1/2)^1/2 is the nuclear norm of the product of the centred features, without any root of a matrix.
    x, y = normal(20, 64, 1), normal(30, 64, 2, shift=0.3)
    product = (x - x.mean(0)) @ (y - y.mean(0)).T / (19 * 29) ** 0.5
    a, b = moments(x), moments(y)
    nuclear = torch.linalg.svdvals(product).sum()
    expected = float((a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * nuclear)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


@given(SEEDS, st.integers(3, 40), st.integers(2, 12))
def test_frechet_is_a_distance_that_rotations_keep(seed, n, d):
    a, b = mixed(n, d, seed), mixed(n + 3, d, seed + 7)
    size = float(moments(a).cov.trace() + moments(b).cov.trace())
    value = frechet_distance(moments(a), moments(b))
    assert value >= 0
    assert frechet_distance(moments(b), moments(a)) == pytest.approx(value, abs=1e-6 * size)
    assert frechet_distance(moments(a), moments(a)) == pytest.approx(0, abs=1e-6 * size)
    q = rotation(d, seed + 9)
    assert frechet_distance(moments(a @ q), moments(b @ q)) == pytest.approx(value, abs=1e-6 * size)
    assert frechet_distance(moments(a + 5), moments(a)) == pytest.approx(25 * d, abs=1e-6 * (size + 25 * d))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_an_error(bad):
    x = normal(20, 4, 0)
    x[3, 1] = bad
    with pytest.raises(UserError, match="features of 1 of 20 examples are not finite"):
        moments(x)
    with pytest.raises(UserError, match="not finite"):
        kid(x, normal(20, 4, 1))
    with pytest.raises(UserError, match="not finite"):
        prdc(normal(20, 4, 1), x)
    good = moments(normal(20, 4, 0))
    with pytest.raises(UserError, match="not finite"):
        frechet_distance(Moments(good.mean, good.cov * bad, 20), good)
    with pytest.raises(UserError, match="not finite"):
        frechet_distance(good, Moments(good.mean + bad, good.cov, 20))


def test_sets_that_cannot_be_compared():
    with pytest.raises(UserError, match="too few"):
        moments(normal(1, 4, 0))
    with pytest.raises(UserError, match="widths 4 and 5"):
        frechet_distance(moments(normal(9, 4, 0)), moments(normal(9, 5, 0)))
    with pytest.raises(UserError, match="widths 4 and 5"):
        kid(normal(9, 4, 0), normal(9, 5, 0))
    with pytest.raises(UserError, match="widths 4 and 5"):
        prdc(normal(9, 4, 0), normal(9, 5, 0))
    with pytest.raises(UserError, match="at least 6 examples"):
        prdc(normal(5, 4, 0), normal(9, 4, 0))
    with pytest.raises(UserError, match="at least 1, not 0"):
        prdc(normal(5, 4, 0), normal(9, 4, 0), k=0)


def plain_kid(x: np.ndarray, y: np.ndarray) -> float:
    """Pair by pair."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    def own(s: np.ndarray) -> float:
        return float(np.mean([kernel(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j]))

    return own(x) + own(y) - 2 * float(np.mean([kernel(a, b) for a in x for b in y]))


def test_kid_pair_by_pair_with_its_jackknife(monkeypatch):
    monkeypatch.setattr(quality, "_ROWS", 4)  # several parts
    x, y = mixed(11, 5, 0), mixed(9, 5, 3)
    found = kid(x, y)
    assert found.value == pytest.approx(plain_kid(x.numpy(), y.numpy()), rel=1e-10)
    variance = 0.0
    for s, estimate in ((x, lambda r: plain_kid(r, y.numpy())), (y, lambda r: plain_kid(x.numpy(), r))):
        left = [estimate(np.delete(s.numpy(), i, 0)) for i in range(len(s))]
        variance += (len(s) - 1) / len(s) * float(np.sum((left - np.mean(left)) ** 2))
    assert (found.high - found.low) / 2 == pytest.approx(1.959964 * variance**0.5, rel=1e-8)
    assert (found.high + found.low) / 2 == pytest.approx(found.value)
    assert kid(y, x).value == pytest.approx(found.value, rel=1e-10)


def test_kid_is_unbiased_and_its_interval_covers():
    # The kernel's mean under Gaussians of equal covariance is known: E (x . y / d + 1)^3 with independent x, y.
    d, shift, runs = 4, 0.5, 300
    c = np.full(d, shift)

    def mean_kernel(a: np.ndarray, b: np.ndarray) -> float:
        # x . y has mean a . b and variance |a|^2 + |b|^2 + d; its third central moment is 6 a . b.
        m, v = a @ b / d + 1, (a @ a + b @ b + d) / d**2
        return m**3 + 3 * m * v + 6 * (a @ b) / d**3

    zero = np.zeros(d)
    for b, truth in ((zero, 0.0), (c, mean_kernel(zero, zero) + mean_kernel(c, c) - 2 * mean_kernel(zero, c))):
        found = [kid(normal(40, d, 2 * i), normal(60, d, 2 * i + 1, shift=float(b[0]))) for i in range(runs)]
        values = np.array([k.value for k in found])
        assert abs(values.mean() - truth) < 4 * values.std() / runs**0.5
        assert np.mean([k.low <= truth <= k.high for k in found]) > 0.9


@pytest.mark.parametrize(
    ("stock", "n", "pool", "said"),
    [
        (Stock(1000, 1000, 100), 100, "validation", "Real examples are 100 validation images."),
        (Stock(1000, 1000, 99), 100, "references", "100 training images, compared with the other 900."),
        (Stock(1000, 800, 99), 200, "spare", "200 training images that are no references."),
        (Stock(1000, 5000), 500, "references", "500 training images, compared with the other 500."),
        (Stock(1000, 1000), 501, "references", "500 training images, compared with the other 500: too few"),
        (Stock(1000, 1000, 700), 800, "validation", "700 validation images: too few for metrics"),
    ],
)
def test_where_other_real_images_come_from(stock, n, pool, said):
    found, there = stock.pool(n)
    assert found == pool
    assert said in stock.notes(n)[1]
    if pool == "validation":
        return
    labels = np.arange(1000) % 7
    rows, near = stock.rows(labels)
    others = stock.others(found, labels, min(n, there))
    assert len(set(others)) == len(others) == min(n, there)
    assert np.bincount(labels[others]).max() - np.bincount(labels[others]).min() <= 1
    if pool == "spare":
        assert not set(others) & set(rows)
    assert set(near) <= set(rows)


def test_notes_name_the_number_of_references(monkeypatch):
    assert Stock(2000, 9000).notes(9)[0] == "Samples are compared with all 2,000 training images."
    assert Stock(2000, 500).notes(9)[0] == "Samples are compared with 500 of the 2,000 training images."
    many = Stock(100_000, 100_000)
    assert many.notes(9)[0].endswith(
        "all 100,000 training images, in KID and the neighbour metrics with 5,000 of these."
    )
    rows, near = many.rows(np.arange(100_000) % 200)
    assert (len(rows), len(near)) == (100_000, 5000)
    assert set(np.bincount(near % 200)) == {25}
    others = many.others("references", np.arange(100_000) % 200, 2000)
    assert not set(others) & set(near)  # all that KID looks at stays


def test_consistency_looks_at_the_data_sets_classes_only():
    logits = torch.zeros(3, 1000)
    logits[:, 7] = 9  # no class of the data set
    logits[0, 30] = logits[1, 30] = 2
    logits[2, [10, 20, 30, 40, 50]] = torch.tensor([5.0, 4, 3, 2, 1])
    indices = (10, 20, 30, 40, 50, 60)
    assert consistency(logits, torch.tensor([2, 2, 0]), indices) == (1.0, 1.0)
    assert consistency(logits, torch.tensor([2, 2, 4]), indices) == (pytest.approx(2 / 3), 1.0)
    assert consistency(logits[2:], torch.tensor([5]), indices) == (0.0, 0.0)
    assert consistency(logits[:1], torch.tensor([0]), (30, 40)) == (1.0, 1.0)  # fewer than five classes


@dataclass
class Counting:
    """An extractor that counts its images; features are mean colours."""

    identity: str = "counting 1"
    name: str = "counting"
    key: str = "fd_counting"
    distance: str = "FD-Counting"
    width: int = 3
    classifies: bool = False
    seen: list[int] = field(default_factory=list)

    def __call__(self, images: torch.Tensor) -> Features:
        self.seen.append(len(images))
        return Features(images.float().mean((2, 3)), None)


def image_set(n: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 3, side, side), dtype=np.uint8)


def counted(network: Counting, images: np.ndarray, digest: str, cache: Path, count: int | None = None) -> References:
    rows = np.arange(len(images) if count is None else count)
    return references_of(images, rows, rows[::3], digest, network, cache)


def test_references_are_kept_by_content(tmp_path, monkeypatch):
    monkeypatch.setattr(references, "_BLOCK", 32)
    network, images = Counting(), image_set(70)
    first = counted(network, images, "a", tmp_path)
    assert network.seen == [16, 16, 16, 16, 6]
    again = counted(network, images, "a", tmp_path)
    assert len(network.seen) == 5
    for name in ("mean", "cov", "n"):
        assert np.array_equal(getattr(again.moments, name), getattr(first.moments, name))
    assert torch.equal(again.near, first.near)
    features = torch.from_numpy(images).float().mean((2, 3))
    assert torch.equal(first.near, features[::3])
    np.testing.assert_allclose(first.moments.cov, np.cov(features.double().numpy().T), rtol=1e-10)
    # Other content, another size, another number and other weights are other features.
    counted(network, images, "b", tmp_path)
    counted(network, image_set(70, 4), "a", tmp_path)
    assert counted(network, images, "a", tmp_path, 64).moments.n == 64
    assert sum(network.seen) == 3 * 70 + 64
    other = Counting(identity="counting 2")
    counted(other, images, "a", tmp_path)
    assert sum(other.seen) == 70


@pytest.mark.parametrize("damage", ["truncated", "altered", "gone", "facts"])
def test_damaged_references_are_made_anew(tmp_path, damage):
    network, images = Counting(), image_set(10)
    first = counted(network, images, "a", tmp_path)
    (tensors,) = tmp_path.rglob("*.safetensors")
    (facts,) = tmp_path.rglob("*.json")
    content = tensors.read_bytes()
    if damage == "truncated":
        tensors.write_bytes(content[:-5])
    elif damage == "altered":
        tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "gone":
        tensors.unlink()
    else:
        facts.write_text("{")
    again = counted(network, images, "a", tmp_path)
    assert torch.equal(again.moments.cov, first.moments.cov)
    assert network.seen == [10, 10]
    counted(network, images, "a", tmp_path)
    assert network.seen == [10, 10]


def test_images_are_taken_away_from_references_without_a_second_look(tmp_path):
    network, images = Counting(), image_set(60)
    everything = counted(network, images, "a", tmp_path)
    taken = np.array([0, 3, 4, 11, 59])
    stay = np.setdiff1d(np.arange(60), taken)
    features = torch.from_numpy(images).float().mean((2, 3))
    rest = everything.without(taken, features[taken])
    assert sorted(rest.rows) == [i for i in range(0, 60, 3) if i not in taken]
    assert torch.equal(rest.near, features[rest.rows])
    direct = moments(features[stay])
    assert rest.moments.n == 55
    np.testing.assert_allclose(rest.moments.mean, direct.mean, rtol=1e-13)
    np.testing.assert_allclose(rest.moments.cov, direct.cov, rtol=1e-11)
    with pytest.raises(ValueError, match="more than half"):
        everything.without(stay, features[stay])


@given(SEEDS, st.lists(st.integers(1, 9), min_size=2, max_size=6))
def test_streamed_moments_are_those_of_all_at_once_whatever_the_blocks(seed, sizes):
    x = 1e4 + mixed(sum(sizes), 4, seed)  # a mean far beyond the spread, where E[x^2] - E[x]^2 loses all digits
    found = streamed(x.split(sizes))
    assert found.n == len(x)
    np.testing.assert_allclose(found.mean, x.numpy().mean(0), rtol=1e-13)
    expected = np.cov(x.numpy().T)
    np.testing.assert_allclose(found.cov, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())


def test_by_directions_images_of_short_features_do_not_pass_for_real_ones():
    """Noise and blur excite a network little: by distances they lie in the middle of all, by directions they do not."""
    g = torch.Generator().manual_seed(0)
    active = torch.rand(300, 64, generator=g).argsort(1).argsort(1) < 6
    real = torch.cat([3.0 * active * (0.5 + torch.rand(300, 64, generator=g)), torch.zeros(300, 16)], 1)
    noise = torch.cat([torch.zeros(100, 64), 0.1 * torch.rand(100, 16, generator=g)], 1)
    plain, turned = prdc(real, noise), prdc(normalize(real), normalize(noise))
    assert plain.precision == 1
    assert plain.density > 5
    assert turned.precision == turned.density == turned.coverage == 0
    assert prdc(normalize(real), normalize(7 * real)).coverage == 1


def test_the_factor_of_either_side_gives_one_distance():
    """Of few samples against the moments of few references, which a file keeps without theirs."""
    few, fewer = moments(normal(40, 64, 0)), moments(normal(20, 64, 1))
    plain = replace(few, factor=None), replace(fewer, factor=None)
    expected = frechet_distance(*plain)
    for a, b in ((few, fewer), (few, plain[1]), (plain[0], fewer), (fewer, few)):
        assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)
