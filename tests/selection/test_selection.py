import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ajest import (
    POLICIES,
    Batch,
    Scores,
    Trigger,
    importance,
    inclusion_of,
    per_example_loss,
    policy,
    score,
    select,
)
from ajest.errors import UserError
from ajest.selection.normalisation import normalised

NAMES = sorted(POLICIES)


def scores_of(size, seed=0, spread=1.0):
    numbers = torch.Generator().manual_seed(seed)
    learner, reference = torch.randn(2, size, generator=numbers).mul(spread).unbind()
    sigma = torch.randn(size, generator=numbers).exp()
    return Scores(learner, reference, sigma, features=torch.randn(size, 8, generator=numbers))


def dense_jest(scores, count, chunks, generator):
    """The published rule with its B x B matrix, s_ij = l_i - r_j, as an oracle."""
    matrix = scores.learner[:, None] - scores.reference[None, :]
    size, chosen = len(scores), torch.empty(0, dtype=torch.int64)
    for chunk in range(chunks):
        n = len(chosen)
        if n == 0:
            logits = torch.zeros(size)
        else:
            logits = (matrix.diagonal() + matrix[chosen].sum(0) + matrix[:, chosen].sum(1)) / (2 * n + 1)
        logits[chosen] = -torch.inf
        drawn = torch.multinomial(logits.softmax(0), count // chunks + (chunk < count % chunks), generator=generator)
        chosen = torch.cat([chosen, drawn])
    return chosen


@given(size=st.integers(2, 300), data=st.data(), name=st.sampled_from(NAMES))
def test_every_policy_returns_the_exact_number_of_distinct_indices(size, data, name):
    count = data.draw(st.integers(1, size))
    dials = {"chunks": data.draw(st.integers(1, count))} if "chunks" in POLICIES[name].dials else {}
    if "strata" in POLICIES[name].dials:
        dials["strata"] = data.draw(st.integers(1, max(1, size // 8)))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    chosen = select(scores_of(size, spread=10), count, name, generator, **dials)
    assert chosen.dtype == torch.int64
    assert chosen.shape == (count,)
    assert name == "proportional" or len(set(chosen.tolist())) == count  # that one draws with replacement
    assert 0 <= chosen.min() <= chosen.max() < size


@given(size=st.integers(3, 40), drawn=st.integers(1, 20), seed=st.integers(0, 999))
def test_the_joint_logits_are_independent_ones_plus_a_constant(size, drawn, seed):
    drawn = min(drawn, size - 1)
    learner, reference = torch.randn(2, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    matrix, chosen = learner[:, None] - reference[None, :], torch.arange(drawn)
    joint = (matrix.diagonal() + matrix[chosen].sum(0) + matrix[:, chosen].sum(1)) / (2 * drawn + 1)
    rest = joint - (drawn + 1) / (2 * drawn + 1) * (learner - reference)
    assert (rest - rest.mean()).abs().max() < 1e-13


def test_closed_form_draws_from_the_distribution_of_the_dense_rule():
    size, count, chunks, rounds = 12, 5, 3, 6000
    scores = scores_of(size, seed=4, spread=1.5)
    counts = torch.zeros(2, size)
    pairs = torch.zeros(2, size, size)
    for which, draw in enumerate((dense_jest, lambda s, c, n, g: select(s, c, "jest", g, chunks=n))):
        generator = torch.Generator().manual_seed(which)
        for _ in range(rounds):
            chosen = draw(scores, count, chunks, generator)
            counts[which, chosen] += 1
            pairs[which, chosen[0], chosen[-1]] += 1
    # Indices within a draw exclude each other, which makes the statistic smaller than chi-square: conservative.
    assert stats.chi2_contingency(counts.numpy()).pvalue > 1e-3
    often = pairs.sum(0) > 40
    assert stats.chi2_contingency(pairs[:, often].numpy()).pvalue > 1e-3
    inclusion = counts[1] / rounds
    assert np.corrcoef(inclusion, scores.learnability)[0, 1] > 0.8


def test_the_test_above_can_fail():
    """A rule with another temperature is told apart from the dense one by the same statistic."""
    scores, counts = scores_of(12, seed=4, spread=1.5), torch.zeros(2, 12)
    for which, temperature in enumerate((1.0, 0.6)):
        generator = torch.Generator().manual_seed(which)
        for _ in range(6000):
            counts[which, select(scores, 5, "jest", generator, chunks=3, temperature=temperature)] += 1
    assert stats.chi2_contingency(counts.numpy()).pvalue < 1e-3


def test_top_rules_take_the_top():
    scores = scores_of(50)
    assert set(select(scores, 7, "learnability").tolist()) == set(scores.learnability.topk(7).indices.tolist())
    assert set(select(scores, 7, "high-loss").tolist()) == set(scores.learner.topk(7).indices.tolist())
    easiest = set((-scores.reference).topk(7).indices.tolist())
    assert set(select(Scores(reference=scores.reference), 7, "easy-reference").tolist()) == easiest


def test_inverted_prefers_the_least_learnable():
    scores = scores_of(400, spread=4)
    draws = {n: select(scores, 40, n, torch.Generator().manual_seed(0), chunks=4) for n in ("jest", "inverted-jest")}
    mean = {n: scores.learnability[i].mean() for n, i in draws.items()}
    assert mean["inverted-jest"] < scores.learnability.mean() < mean["jest"]


def test_normalised_scores_are_free_of_scale_and_shift():
    scores = scores_of(200)
    scaled = Scores(scores.learner * 100 + 3, scores.reference * 100 - 5)
    for how in ("zscore", "rank"):
        first, second = (
            select(s, 30, "jest", torch.Generator().manual_seed(1), chunks=5, normalise=how) for s in (scores, scaled)
        )
        assert set(first.tolist()) == set(second.tolist())


def test_a_low_temperature_is_greedy_after_the_uniform_first_chunk():
    scores = scores_of(300)
    chosen = select(scores, 60, "jest", torch.Generator().manual_seed(0), chunks=2, temperature=1e-6)
    rest = torch.ones(300, dtype=torch.bool)
    rest[chosen[:30]] = False
    best = scores.learnability.masked_fill(~rest, -torch.inf).topk(30).indices
    assert set(chosen[30:].tolist()) == set(best.tolist())


def test_equal_generators_draw_equal_indices():
    draws = [select(scores_of(100), 20, "jest", torch.Generator().manual_seed(9), chunks=4) for _ in range(2)]
    assert torch.equal(*draws)


def test_bad_requests_are_named():
    scores = scores_of(10)
    for count in (0, 11):
        with pytest.raises(UserError, match="cannot choose"):
            select(scores, count, "random")
    with pytest.raises(UserError, match="16 chunks"):
        select(scores, 3, "jest")
    with pytest.raises(UserError, match="temperature"):
        select(scores, 3, "jest", chunks=1, temperature=0)
    with pytest.raises(UserError, match="did you mean 'jest'"):
        policy("jset")
    with pytest.raises(UserError, match="no dial 'chunks'"):
        policy("random", chunks=3)
    with pytest.raises(UserError, match="normalisation"):
        select(scores, 3, "jest", chunks=1, normalise="softmax")
    with pytest.raises(ValueError, match="reference"):
        select(Scores(scores.learner), 3, "learnability")
    with pytest.raises(ValueError, match="learner"):
        select(Scores(reference=scores.reference), 3, "high-loss")
    with pytest.raises(ValueError, match="noise levels"):
        Scores()


def made_batch(n=64):
    numbers = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, n, 2, generator=numbers)
    sigma = torch.rand(n, generator=numbers) + 0.1
    return Batch(x=x0 + sigma[:, None] * eps, sigma=sigma, weight=sigma**-2, id=torch.arange(n), target=x0)


class Plain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 32), torch.nn.SiLU(), torch.nn.Linear(32, 2))

    def forward(self, x, sigma, label=None):
        return self.net(torch.cat([x, sigma[:, None]], 1))


@given(seed=st.integers(0, 999), count=st.integers(1, 64))
def test_gradient_on_the_kept_alone_equals_index_after_forward(seed, count):
    torch.manual_seed(seed)
    net, batch = Plain(), made_batch()
    kept = torch.randperm(64)[:count]
    whole = torch.autograd.grad(per_example_loss(net(batch.x, batch.sigma), batch)[kept].mean(), list(net.parameters()))
    part = batch[kept]
    alone = torch.autograd.grad(per_example_loss(net(part.x, part.sigma), part).mean(), list(net.parameters()))
    for a, b in zip(alone, whole, strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm()


def test_scoring_builds_no_graph_and_micro_batches_change_nothing():
    net, batch = Plain(), made_batch()
    whole = score(net, batch)
    assert not whole.requires_grad
    torch.testing.assert_close(score(net, batch, micro_batch=10), whole)
    torch.testing.assert_close(whole, per_example_loss(net(batch.x, batch.sigma), batch).detach())


def run_trigger(trigger, advantages):
    """Whether each step selected, and the final state; an advantage is reference loss minus learner loss."""
    state, selected = trigger.begin(), []
    for step, advantage in enumerate(advantages):
        selected.append(state.on)
        state = trigger.observe(state, step, (1.0, 1.0 + advantage))
    return selected, state


def test_early_stops_for_good_and_late_starts_for_good():
    course = [-1.0] * 10 + [1.0] * 40 + [-5.0] * 40
    early, state = run_trigger(Trigger("early", half_life=4), course)
    late, late_state = run_trigger(Trigger("late", half_life=4), course)
    assert early == [not on for on in late]
    assert 10 < state.fired_at < 20
    assert late_state.fired_at == state.fired_at
    assert all(early[: state.fired_at + 1])
    assert not any(early[state.fired_at + 1 :])


def test_one_lucky_batch_fools_the_published_trigger_and_not_the_smoothed_one():
    course = [-1.0] * 20 + [0.5] + [-1.0] * 20
    assert run_trigger(Trigger("early", half_life=0), course)[1].fired_at == 20
    assert run_trigger(Trigger("early"), course)[1].fired_at is None


def test_always_and_window():
    assert all(run_trigger(Trigger(), [5.0] * 5)[0])
    assert run_trigger(Trigger("window", start=2, stop=4), [0.0] * 6)[0] == [False, False, True, True, False, False]
    with pytest.raises(ValueError, match="window"):
        Trigger("window", start=3, stop=3)
    with pytest.raises(ValueError, match="half_life"):
        Trigger("early", half_life=-1)


def test_waves_choose_and_take_all_in_turns_by_the_share_of_the_run():
    trigger = Trigger("waves", waves=2)
    state, on = trigger.begin(), []
    for step in range(16):
        on.append(state.on)
        state = trigger.observe(state, step, None, (step + 1) / 16)
    assert on == ([True] * 4 + [False] * 4) * 2
    with pytest.raises(ValueError, match="waves"):
        Trigger("waves", waves=0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", [name for name in NAMES if POLICIES[name].needs & {"learner", "reference"}])
def test_examples_whose_scores_are_not_finite_are_not_chosen(name, bad):
    """And the others as if they had not been there."""
    scores = scores_of(64)
    for part in (scores.learner, scores.reference):
        part[[5, 40]] = bad
    good = torch.tensor([i for i in range(64) if i not in (5, 40)])
    dials = {"chunks": 4} if "chunks" in POLICIES[name].dials else {}
    dials |= {"strata": 3, "normalise": "zscore"} if "strata" in POLICIES[name].dials else {}
    chosen, alone = (select(s, 16, name, torch.Generator().manual_seed(0), **dials) for s in (scores, scores[good]))
    assert torch.equal(chosen, good[alone])
    with pytest.raises(UserError, match="cannot choose 63 examples: of the 64 scores 62 are finite"):
        select(scores, 63, name, **dials)


def test_nothing_of_a_choice_has_a_gradient():
    """Losses in training have a graph: weights that rest on them are numbers."""
    losses = (torch.linspace(0.1, 1, 20, requires_grad=True) * 2).square()
    weights = importance(inclusion_of("proportional")(Scores(losses), 5), 5)
    assert not weights.requires_grad
    assert len(select(Scores(losses, losses / 2), 4, "jest", chunks=2)) == 4


def test_scores_hold_one_number_for_each_example():
    x = torch.ones(8)
    for parts, said in (
        ((x[:, None],), r"learner's losses have the shape \(8, 1\): scores hold one for each of the 8 examples"),
        ((x, x[:, None]), r"reference's losses have the shape \(8, 1\)"),
        ((x, None, x[:6]), r"noise levels have the shape \(6,\)"),
        ((x, None, x, x), r"running statistics .* have the shape \(8,\)"),
        ((torch.tensor(1.0),), r"learner's losses have the shape \(\)"),
    ):
        with pytest.raises(UserError, match=said):
            Scores(*parts)


def test_a_stratum_is_told_to_need_eight_examples():
    """In one of a few all scores are alike: the choice would be by chance."""
    with pytest.raises(UserError, match=r"64 examples are too few for 16 strata .*'hard' needs 8 .*; set strata=8"):
        select(scores_of(64), 8, "hard")
    assert len(select(scores_of(64), 8, "hard", strata=8)) == 8


def test_equal_scores_have_equal_ranks():
    ranks = normalised(torch.tensor([3.0, 1.0, 1.0, 2.0, 1.0]), "rank")
    assert ranks.tolist() == [[1.0, 0.25, 0.25, 0.75, 0.25]]
    even = Scores(torch.ones(40), sigma=torch.ones(40))
    counts, numbers = torch.zeros(40), torch.Generator().manual_seed(0)
    for _ in range(800):
        counts[select(even, 10, "hard", numbers, strata=1, normalise="rank")] += 1
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
