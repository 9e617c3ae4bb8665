import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ajest.tasks.tree.distribution import PER_BRANCH, TreeDistribution, branches


def test_components_equal_the_reference_table(reference):
    stored, ours = np.load(reference / "tree_components.npz"), branches()
    assert [b.label for b in ours] == stored["label"].tolist()
    assert [b.depth for b in ours] == stored["depth"].tolist()
    assert stored["mean"].shape == (254, PER_BRANCH, 2)
    upper = [(b.covariance[0, 0], b.covariance[0, 1], b.covariance[1, 1]) for b in ours]
    np.testing.assert_allclose([b.phi for b in ours], stored["phi"], rtol=0, atol=1e-12)
    np.testing.assert_allclose([b.means for b in ours], stored["mean"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(upper, stored["covariance"], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_density_and_score_equal_the_reference(reference, dtype, tolerance):
    # In float32 the rounding of x alone, against sigma = 0.01, changes the density by some 1e-5.
    stored = {k: torch.from_numpy(v) for k, v in np.load(reference / "tree_scores.npz").items()}
    tree = TreeDistribution("A", dtype=dtype)
    x, sigma = stored["x"].to(dtype), stored["sigma"].to(dtype)
    scale = 1 + stored["logp"].abs()
    assert ((tree.log_density(x, sigma).double() - stored["logp"]).abs() / scale).max() < tolerance
    error = (tree.score(x, sigma).double() - stored["score"]).norm(dim=1)
    assert (error / (stored["score"].norm(dim=1) + 1 / stored["sigma"])).max() < tolerance


def dense_log_density(label, x, sigma):
    """The textbook mixture, component by component, in float64."""
    terms, total = [], sum(b.phi * PER_BRANCH for b in branches() if b.label == label)
    for b in branches():
        if b.label == label:
            cov = b.covariance + sigma**2 * np.eye(2)
            inverse, det = np.linalg.inv(cov), np.linalg.det(cov)
            for mean in b.means:
                r = x - mean
                terms.append(np.log(b.phi / total) - 0.5 * np.log(det) - 0.5 * np.einsum("ni,ij,nj->n", r, inverse, r))
    return np.logaddexp.reduce(terms, axis=0) - np.log(2 * np.pi)


@given(seed=st.integers(0, 2**31), log_sigma=st.floats(-7, 2), label=st.sampled_from("AB"))
def test_density_is_the_mixture_and_score_its_gradient(seed, log_sigma, label):
    sigma = float(np.exp(log_sigma))
    tree = TreeDistribution(label, dtype=torch.float64)
    numbers = torch.Generator().manual_seed(seed)
    x, _ = tree.sample(torch.rand(7, generator=numbers), torch.randn(7, 4, generator=numbers), sigma)
    expected = dense_log_density(label, x.numpy(), sigma)
    np.testing.assert_allclose(tree.log_density(x, sigma), expected, rtol=1e-9, atol=1e-9)
    step = 1e-6 * (sigma + 0.01)
    for axis in range(2):
        shift = torch.zeros(2, dtype=torch.float64)
        shift[axis] = step
        slope = (tree.log_density(x + shift, sigma) - tree.log_density(x - shift, sigma)) / (2 * step)
        np.testing.assert_allclose(tree.score(x, sigma)[:, axis], slope, rtol=1e-4, atol=1e-4 / (sigma + 0.01))


def test_far_points_and_tiny_sigma_stay_finite():
    tree = TreeDistribution()
    x = torch.tensor([[50.0, -70.0], [1e3, 1e3], [0.0, 0.0]])
    for sigma in (1e-4, 0.0, 5.0, 80.0):
        assert torch.isfinite(tree.score(x, sigma)).all()
        assert torch.isfinite(tree.log_density(x, sigma)).all()


def test_samples_have_the_exact_moments():
    tree = TreeDistribution("A", dtype=torch.float64)
    numbers = torch.Generator().manual_seed(3)
    n = 200_000
    x, index = tree.sample(torch.rand(n, generator=numbers), torch.randn(n, 4, generator=numbers), 0.3)
    chosen = [b for b in branches() if b.label == "A"]
    mass = np.repeat(tree.branch_mass / PER_BRANCH, PER_BRANCH)
    means = np.concatenate([b.means for b in chosen])
    mean = mass @ means
    cov = sum(
        m * (b.covariance + np.outer(mu - mean, mu - mean))
        for m, mu, b in zip(mass, means, np.repeat(np.array(chosen, dtype=object), PER_BRANCH), strict=True)
    ) + 0.09 * np.eye(2)
    np.testing.assert_allclose(x.mean(0), mean, atol=4 * np.sqrt(np.diag(cov) / n).max())
    np.testing.assert_allclose(np.cov(x.numpy().T), cov, atol=0.01)
    share = np.bincount(index.numpy(), minlength=len(mass)) / n
    assert np.abs(share - mass).max() < 5 * np.sqrt(mass.max() / n)


def test_exact_samples_reach_the_known_classification():
    from ajest.tasks.tree.metrics import hits

    tree = TreeDistribution()
    numbers = torch.Generator().manual_seed(0)
    x, _ = tree.sample(torch.rand(100_000, generator=numbers), torch.randn(100_000, 4, generator=numbers))
    assert hits(tree, x).double().mean().item() == pytest.approx(0.9947, abs=1e-3)


def test_responsibilities_are_the_posterior_of_branches():
    tree = TreeDistribution("A", dtype=torch.float64)
    numbers = torch.Generator().manual_seed(1)
    x, _ = tree.sample(torch.rand(40_000, generator=numbers), torch.randn(40_000, 4, generator=numbers), 0.5)
    posterior = tree.responsibilities(x, 0.5)
    np.testing.assert_allclose(posterior.sum(1), 1, rtol=1e-12)
    # Over exact samples the posterior averages to the prior.
    np.testing.assert_allclose(posterior.mean(0), tree.branch_mass, atol=0.004)


def test_unknown_class_is_named():
    with pytest.raises(ValueError, match="classes A and B"):
        TreeDistribution("C")
