"""Rules beyond the paper: strata, inclusion probabilities, couplings, memory (docs/method.md#rules)."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ajest import POLICIES, Batch, Scores, importance, inclusion_of, policy, select
from ajest.errors import UserError
from ajest.selection.catalogue import ARMS
from ajest.selection.diagnostics import correlation, effective_sample_share, rank_correlation
from ajest.selection.memory import BINS, LossMemory, LossTracker, bin_of
from ajest.selection.normalisation import eta_squared, normalised
from ajest.selection.strata import strata_by, strata_of


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scores_of(size, seed=0):
    learner, reference, sigma = random(3, size, seed=seed).unbind()
    sigma = (1.5 * sigma).exp()
    return Scores(learner.exp() * sigma, reference.exp() * sigma, sigma, features=random(size, 8, seed=seed + 1))


@given(size=st.integers(1, 200), data=st.data(), seed=st.integers(0, 99))
def test_strata_are_of_equal_size_and_in_the_order_of_sigma(size, data, seed):
    strata = data.draw(st.integers(1, size))
    sigma = random(size, seed=seed).exp()
    stratum = strata_of(sigma, strata)
    sizes = torch.bincount(stratum, minlength=strata)
    assert sizes.max() - sizes.min() <= 1
    order = sigma.argsort()
    assert (stratum[order].diff() >= 0).all()
    layout = strata_by(sigma, strata)
    assert torch.equal(layout.examples(layout.rows(sigma)), sigma)
    in_rows = layout.rows(sigma).tolist()
    missing = [[False] * len(in_rows[0])] * strata if layout.missing is None else layout.missing.tolist()
    found = [[x for x, no in zip(*row, strict=True) if not no] for row in zip(in_rows, missing, strict=True)]
    alone = strata == 1  # whose examples stay in their order
    assert found == [
        sigma[stratum == s].tolist() if alone else sigma[stratum == s].sort().values.tolist() for s in range(strata)
    ]


def test_examples_of_one_noise_level_are_parted_in_their_order():
    for sigma in (torch.ones(10), torch.ones(10, dtype=torch.float64)):
        assert strata_by(sigma, 3).rows(torch.arange(10)).tolist() == [[0, 1, 2, 3], [4, 5, 6, 6], [7, 8, 9, 9]]


@pytest.mark.parametrize("strata", [6, 7])
@pytest.mark.parametrize("how", ["zscore", "rank"])
def test_normalised_scores_do_not_see_the_noise_level_nor_its_scale(how, strata):
    scores = scores_of(600)
    layout, stratum = strata_by(scores.sigma, strata), strata_of(scores.sigma, strata)

    def on_one_scale(values):
        return layout.examples(normalised(values, how, layout))

    plain = on_one_scale(scores.learner)
    scaled = on_one_scale(scores.learner * (stratum + 1.0) * 1e3 + 7 * stratum)
    torch.testing.assert_close(plain, scaled, atol=2e-4, rtol=1e-4)
    for s in range(strata):
        part = plain[stratum == s]
        if how == "zscore":
            torch.testing.assert_close(part.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
            torch.testing.assert_close(part.std(), torch.tensor(1.0), atol=1e-4, rtol=0)
        else:
            assert sorted(part.tolist()) == pytest.approx(np.linspace(0, 1, len(part)).tolist(), abs=1e-6)


def test_running_normalisation_measures_against_running_statistics():
    running_stats = torch.tensor([[1.0, 2.0], [10.0, 5.0]])
    got = normalised(torch.tensor([3.0, 0.0]), "running", None, running_stats)
    assert got.tolist() == [[1.0, -2.0]]
    with pytest.raises(ValueError, match="running statistics"):
        normalised(torch.ones(2), "running")


def test_hard_keeps_every_noise_level_as_often_as_it_was_drawn():
    scores = scores_of(1000)
    stratum = strata_of(scores.sigma, 10)
    for seed in range(5):
        chosen = select(scores, 205, "hard", torch.Generator().manual_seed(seed), strata=10)
        counts = torch.bincount(stratum[chosen], minlength=10)
        assert set(counts.tolist()) <= {20, 21}
    raw = select(scores, 205, "hard", torch.Generator().manual_seed(0), strata=1, normalise="none")
    assert torch.bincount(stratum[raw], minlength=10)[-1] > 40


def test_hard_prefers_high_losses_more_at_a_lower_temperature():
    scores = scores_of(2000)
    layout = strata_by(scores.sigma, 16)
    z = layout.examples(normalised(scores.learner, "zscore", layout))
    means = []
    for temperature in (100.0, 1.0, 0.2):
        chosen = select(scores, 400, "hard", torch.Generator().manual_seed(0), temperature=temperature)
        means.append(z[chosen].mean().item())
    assert abs(means[0]) < 0.1
    assert means[0] < means[1] < means[2]
    easy = select(scores, 400, "easy", torch.Generator().manual_seed(0))
    assert z[easy].mean() < -0.2


CASES = [
    ("random", {}),
    ("jest", {"chunks": 4, "normalise": "zscore"}),
    ("jest", {"chunks": 3, "normalise": "zscore", "strata": 7}),
    ("hard", {"strata": 4}),
    ("easy", {"strata": 7}),
    ("learnable", {"strata": 3, "temperature": 0.7}),
    ("guide-hard", {"strata": 1, "normalise": "rank"}),
    ("proportional", {"power": 0.5}),
    ("infobatch", {}),
    ("speed", {}),
]


@pytest.mark.parametrize(("name", "dials"), CASES)
def test_inclusion_probabilities_against_the_frequency_of_being_chosen(name, dials):
    """Exact with replacement, for random choice and InfoBatch; an approximation for races, good to a few percent."""
    size, count, rounds = 60, 18, 4000
    scores = scores_of(size, seed=3)
    generator = torch.Generator().manual_seed(0)
    expected = inclusion_of(name, **dials)(scores, count)
    assert expected.sum().item() == pytest.approx(count, rel=1e-6)
    times = torch.zeros(size)
    for _ in range(rounds):
        times += torch.bincount(select(scores, count, name, generator, **dials), minlength=size)
    error = (times / rounds - expected).abs()
    noise = (expected * (1 - expected).clamp_min(0.02) / rounds).sqrt()
    assert (error < 5 * noise + 0.015).all(), error.max()


def plain_hard(scores, count, strata, generator, temperature=1.0):
    """The stratified draw one stratum after the other: its z-scores, its number of winners, a draw one by one."""
    order = scores.sigma.argsort().tolist()
    parts = [[i for place, i in enumerate(order) if place * strata // len(order) == s] for s in range(strata)]
    offsets = torch.rand(strata, generator=generator).tolist()
    keys = sorted(((j + offsets[s]) / len(part), s) for s, part in enumerate(parts) for j in range(len(part)))
    chosen = []
    for s, part in enumerate(parts):
        values = scores.learner[part]
        z = (values - values.mean()) / values.std()
        number = sum(won == s for _, won in keys[:count])
        if number:
            drawn = torch.multinomial((z / temperature).softmax(0), number, generator=generator)
            chosen += [part[i] for i in drawn.tolist()]
    return torch.tensor(chosen)


@pytest.mark.parametrize("size", [12, 14])  # in 3 strata: of equal size, and not
@pytest.mark.parametrize(("temperature", "same"), [(1.0, True), (0.5, False)])
def test_a_stratified_draw_has_the_distribution_of_drawing_stratum_by_stratum(size, temperature, same):
    """Of who is chosen and of which two are chosen together; with another temperature it has not."""
    scores, count, rounds = scores_of(size, seed=4), 5, 4000
    counts, pairs = torch.zeros(2, size), torch.zeros(2, size, size)
    for which in range(2):
        generator = torch.Generator().manual_seed(which)
        for _ in range(rounds):
            if which:
                chosen = policy("hard", strata=3)(scores, count, generator)
            else:
                chosen = plain_hard(scores, count, 3, generator, temperature)
            counts[which, chosen] += 1
            pairs[which][chosen[:, None], chosen] += 1
    often = (pairs.sum(0) > 40) & torch.ones(size, size).tril(-1).bool()
    # Those of one draw exclude each other, which makes the statistic smaller than chi-square: conservative.
    likely = [stats.chi2_contingency(c.numpy()).pvalue for c in (counts, pairs[:, often])]
    assert min(likely) > 1e-3 if same else max(likely) < 1e-3


@pytest.mark.parametrize("lead", [1.0, 20.0, 35.0, 50.0, 300.0])
def test_chances_stay_exact_where_one_score_leads_by_far(lead):
    """The leader is certain, the others share what is left: weights must not explode."""
    learner = torch.zeros(20)
    learner[3] = lead
    chance = inclusion_of("hard", strata=1, normalise="none")(Scores(learner, sigma=torch.ones(20)), 4)
    assert chance.sum().item() == pytest.approx(4)
    if lead > 10:
        assert chance[3].item() == pytest.approx(1)
        assert chance[0].item() == pytest.approx(3 / 19)
        assert importance(chance, 4).max() < 1.3


def test_every_noise_level_that_is_drawn_is_trained_on():
    """What was never seen is not taken for solved."""
    memory, generator = LossTracker(LossMemory("sigma")), torch.Generator().manual_seed(0)
    drawn, trained = Counter(), set()
    for _ in range(300):
        sigma = (1.2 * torch.randn(20, generator=generator) - 0.4).exp()
        batch = Batch(x=sigma[:, None], sigma=sigma, weight=sigma, id=torch.arange(20))
        kept = select(Scores(memory.recall(batch), sigma=sigma), 4, "proportional", generator)
        memory.learn(batch[kept], sigma[kept])
        drawn.update(bin_of(sigma).tolist())
        trained |= set(bin_of(sigma[kept]).tolist())
    assert {level for level, times in drawn.items() if times >= 100} <= trained


def test_infobatch_keeps_some_of_the_low_ones_whatever_the_count():
    scores = Scores(torch.cat([torch.full((90,), 2.0), torch.zeros(10)]), sigma=torch.ones(100))
    chance = inclusion_of("infobatch")(scores, 50)
    assert chance[-1] > 0
    kept = select(scores, 50, "infobatch", torch.Generator().manual_seed(0))
    assert len(kept) == len(set(kept.tolist())) == 50
    assert int((kept >= 90).sum()) == 5


def test_weights_make_the_kept_mean_unbiased():
    scores = scores_of(400, seed=1)
    probability = inclusion_of("hard")(scores, 80)
    weight = importance(probability, 80)
    estimates = []
    generator = torch.Generator().manual_seed(1)
    for _ in range(400):
        kept = select(scores, 80, "hard", generator)
        estimates.append((weight[kept] * scores.learner[kept]).mean().item())
    estimates = np.array(estimates)
    truth = scores.learner.mean().item()
    assert abs(estimates.mean() - truth) < 4 * estimates.std() / 20 + 0.01 * truth


def test_policies_without_known_probabilities_say_so():
    assert inclusion_of("joint") is None
    assert inclusion_of("learnability") is None
    assert {n for n in POLICIES if POLICIES[n].inclusion is None} == {
        "joint", "joint-hard", "learnability", "high-loss", "easy-reference"
    }  # fmt: skip


def test_a_coupling_spreads_the_choice_over_directions():
    """Half of the examples point one way and score highest: without a coupling they are all taken."""
    size = 200
    features = torch.zeros(size, 4)
    features[:100, 0] = 1.0
    features[torch.arange(100, 200), 1 + torch.arange(100) % 3] = 1.0
    learner = torch.where(torch.arange(size) < 100, 2.0, 0.0)
    scores = Scores(learner, torch.zeros(size), torch.ones(size), features=features)

    def share(redundancy):
        generator = torch.Generator().manual_seed(0)
        chosen = select(scores, 60, "joint-hard", generator, redundancy=redundancy, normalise="none", chunks=10)
        return (chosen < 100).float().mean().item()

    assert share(0.0) > 0.75
    assert share(8.0) < 0.6


def test_without_redundancy_a_joint_draw_is_a_plain_softmax_draw():
    scores = scores_of(50, seed=2)
    counts = torch.zeros(2, 50)
    for i, (name, dials) in enumerate(
        [("joint-hard", {"redundancy": 0.0, "chunks": 5}), ("hard", {"strata": 1, "normalise": "zscore"})]
    ):
        generator = torch.Generator().manual_seed(i)
        for _ in range(3000):
            counts[i] += torch.bincount(select(scores, 10, name, generator, **dials), minlength=50)
    share = counts / 3000
    assert (share[0] - share[1]).abs().max() < 0.05


def test_speed_suppresses_the_noisiest_levels():
    scores = Scores(sigma=torch.tensor([0.1] * 500 + [3.0] * 500))
    chosen = select(scores, 60, "speed", torch.Generator().manual_seed(0))
    assert 3 <= (chosen >= 500).sum() <= 18  # a sixth of 60 is 10


def batch_of(ids, sigmas):
    n = len(ids)
    return Batch(x=torch.zeros(n, 2), sigma=torch.tensor(sigmas), weight=torch.ones(n), id=torch.tensor(ids))


@pytest.mark.parametrize("by", ["sigma", "id", "both"])
def test_memory_predicts_the_losses_it_was_told(by):
    """Loss = level of sigma x factor of the example: each memory recalls the part that it keeps."""
    memory = LossTracker(LossMemory(by, half_life=1e6))
    generator = torch.Generator().manual_seed(0)
    factor, level = torch.tensor([0.5, 1.0, 1.5]), {0.1: 1.0, 10.0: 4.0}
    for _ in range(300):
        ids = torch.randint(3, (30,), generator=generator)
        sigmas = torch.tensor([0.1, 10.0])[torch.randint(2, (30,), generator=generator)]
        batch = batch_of(ids.tolist(), sigmas.tolist())
        losses = torch.tensor([level[round(s, 1)] for s in sigmas.tolist()]) * factor[ids]
        memory.learn(batch, losses)
    asked = batch_of([0, 2, 0, 2], [0.1, 0.1, 10.0, 10.0])
    told = memory.recall(asked)
    expected = {"sigma": [1.0, 1.0, 4.0, 4.0], "id": [0.5, 1.5, 2.0, 6.0], "both": [0.5, 1.5, 2.0, 6.0]}[by]
    assert told.tolist() == pytest.approx(expected, rel=0.1)


def test_bins_of_the_noise_level():
    assert bin_of(torch.tensor([1e-9, 1e9])).tolist() == [0, BINS - 1]
    assert bin_of(torch.tensor([1.0])).item() == 13


def test_how_much_of_a_score_is_the_noise_level():
    sigma = random(4000, seed=5).exp()
    stratum = strata_of(sigma, 16)
    assert eta_squared(sigma.log(), stratum) > 0.9
    assert eta_squared(random(4000, seed=6), stratum) < 0.01
    assert eta_squared(torch.ones(4000), stratum) == 0.0


def test_correlations_and_effective_sample_share():
    a = random(500, seed=7)
    assert correlation(a, 3 * a + 1) == pytest.approx(1)
    assert rank_correlation(a, -a.exp()) == pytest.approx(-1)
    assert correlation(a, torch.ones(500)) == 0.0
    stratum = (a > 0).long()
    assert abs(rank_correlation(a, (a > 0).float() + random(500, seed=8) * 1e-3, stratum)) < 0.15
    assert effective_sample_share(torch.full((10,), 0.3)) == pytest.approx(1)
    assert effective_sample_share(torch.tensor([1.0] + [0.0] * 9)) == pytest.approx(0.1)


def test_dials_out_of_range_name_themselves():
    scores = scores_of(20)
    with pytest.raises(UserError, match="30 strata"):
        select(scores, 5, "hard", strata=30)
    with pytest.raises(UserError, match="temperature"):
        select(scores, 5, "hard", strata=1, temperature=0.0)
    with pytest.raises(UserError, match="every"):
        LossMemory(every=-1)
    with pytest.raises(ValueError, match="features"):
        select(Scores(scores.learner, None, scores.sigma), 5, "joint-hard", chunks=2)


def test_kinds_of_steps_are_told_by_their_mode_and_keyed_by_their_label():
    """The label is the key of calibrations and ledgers: equal work, equal key."""
    kinds = {name: [(k.mode, str(k)) for k in ARMS[name].kinds()] for name in (
        "baseline", "random", "ajest", "late-ajest", "early-ajest", "recall", "stale", "speed")}  # fmt: skip
    assert kinds == {
        "baseline": [("uniform", "uniform")],
        "random": [("random", "random 0.2")],
        "ajest": [("select", "select jest guide 0.2")],
        "late-ajest": [("select", "select jest guide 0.2"), ("watch", "watch")],
        "early-ajest": [("select", "select jest guide 0.2"), ("uniform", "uniform")],
        "recall": [("recall", "recall hard none 0.2 16 strata by both")],
        "stale": [("select", "select hard none 0.2 16 strata by both every 8"),
            ("recall", "recall hard none 0.2 16 strata by both every 8")],
        "speed": [("select", "select speed none 0.2")],
    }  # fmt: skip
    for arm in ARMS.values():
        modes = [kind.mode for kind in arm.kinds()]
        assert len(set(modes)) == len(modes)
        assert [k.trains_on_all for k in arm.kinds()] == [mode in ("uniform", "watch") for mode in modes]
        assert [k.chooses for k in arm.kinds()] == [mode in ("select", "recall") for mode in modes]
