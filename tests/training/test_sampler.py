"""The sampler whose choice follows remembered losses."""

import io
from collections import Counter
from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from ajest import LossSampler, Scores, select_across
from ajest.errors import UserError

SIZE = 40


def hardness(ids):
    """The loss of an example, which rises with its number."""
    return ids.float() / SIZE


def gone_through(sampler, batch=4):
    """An epoch's batches, all reported."""
    batches = list(torch.tensor(list(sampler)).split(batch))
    for ids in batches:
        sampler.update(ids, hardness(ids))
    return batches


def test_with_nothing_known_all_are_as_likely_and_then_the_choice_follows_losses():
    sampler = LossSampler(SIZE, keep=0.25, policy="high-loss")
    first = torch.cat(gone_through(sampler))
    assert len(set(first.tolist())) == 10
    assert first.max() < SIZE
    everything = torch.arange(SIZE)
    sampler.update(everything, hardness(everything))
    assert sorted(sampler) == list(range(30, 40))  # the next epoch by itself
    assert sampler.epoch == 1


def test_losses_are_compared_with_what_is_usual_at_their_noise_level():
    ids, sampler = torch.arange(SIZE), LossSampler(SIZE, keep=0.25, policy="high-loss")
    sigma = torch.where(ids < 20, 50.0, 0.1)
    losses = torch.where(ids < 20, 9.0, 1.0) + torch.where(ids % 4 == 0, 0.5, 0.0)
    sampler.update(ids, losses, sigma)
    assert sorted(sampler) == list(range(0, 40, 4))


def test_fewer_are_looked_at_in_an_epoch_until_all_had_their_turns():
    sampler, seen = LossSampler(10, keep=1.0, super_batch=3), Counter()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        seen.update(sampler)
    assert seen == dict.fromkeys(range(10), 6)


def test_processes_together_yield_in_each_step_what_one_would():
    one = LossSampler(SIZE, keep=0.6)
    two = [LossSampler(SIZE, keep=0.6, num_replicas=2, rank=rank) for rank in (0, 1)]
    for _ in range(3):
        alone = gone_through(one, 8)
        parts = [torch.tensor(list(sampler)).split(4) for sampler in two]
        for ids, *mine in zip(alone, *parts, strict=True):
            both = torch.cat(mine)
            assert sorted(both.tolist()) == sorted(ids.tolist())
            for sampler in two:
                sampler.update(both, hardness(both))  # in another order than the one process reports
    for name, value in one.state_dict().items():
        for sampler in two:
            assert torch.equal(torch.as_tensor(sampler.state_dict()[name]), torch.as_tensor(value)), name


def stored(state):
    file = io.BytesIO()
    torch.save(state, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


# From Python 3.12 on a fork of a process with threads warns; torch forks its workers where nothing else is asked.
@pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_in_its_middle_however_far_the_loader_has_read_ahead(workers):
    data = TensorDataset(torch.arange(SIZE))

    def trained(sampler, steps, skip=0):
        """Steps of training with a loader of its own; the last steps of an epoch read the next one's choice."""
        seen = []
        while len(seen) < steps:
            loader = DataLoader(data, 4, sampler=sampler, num_workers=workers)
            for (ids,) in islice(loader, skip, skip + steps - len(seen)):
                seen.append(ids.tolist())
                sampler.update(ids, hardness(ids))
            skip = 0
        return seen

    whole = trained(LossSampler(SIZE, keep=0.5), 13)
    first, skips, starts = (LossSampler(SIZE, keep=0.5) for _ in range(3))
    before = trained(first, 8)
    state = stored(first.state_dict())
    assert (state["epoch"], state["reported"]) == (1, 12)
    skips.load_state_dict(state)
    assert before + trained(skips, 5, skip=3) == whole
    starts.load_state_dict(state)
    starts.skip(starts.reported)
    assert before + trained(starts, 5) == whole


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # which torchdata still calls
def test_a_loader_that_keeps_its_own_state_goes_on_in_the_middle():
    loaders = pytest.importorskip("torchdata.stateful_dataloader")
    data = TensorDataset(torch.arange(SIZE))

    def loader():
        sampler = LossSampler(SIZE, keep=0.5)
        return sampler, loaders.StatefulDataLoader(data, 4, sampler=sampler)

    sampler, whole = loader()
    seen = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        for step, (ids,) in enumerate(whole):
            seen.append(ids.tolist())
            sampler.update(ids, hardness(ids))
            if (epoch, step) == (1, 1):
                state = stored(whole.state_dict())
    _, rest = loader()
    rest.load_state_dict(state)
    assert [ids.tolist() for (ids,) in rest] == seen[-3:]


def test_losses_that_are_not_finite_are_left_out():
    ids = torch.arange(SIZE)
    one, other = (LossSampler(SIZE, keep=0.25, policy="high-loss") for _ in range(2))
    one.update(ids, hardness(ids).masked_fill(ids == 3, torch.nan))
    other.update(ids[ids != 3], hardness(ids[ids != 3]))
    assert list(one) == list(other)
    assert (one.reported, other.reported) == (SIZE, SIZE - 1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"policy": "hrad"}, "did you mean 'hard'"),
        ({"policy": "jest"}, "policy 'jest' reads learner, reference, and a sampler knows the learner's losses alone"),
        ({"policy": "speed"}, "policy 'speed' reads sigma"),
        ({"power": 2.0}, "policy 'hard' has no dial 'power'"),
        ({"keep": 0.0}, "the keep fraction must lie above 0"),
        ({"keep": 0.01}, "keeps 0 of 40 examples"),
        ({"super_batch": 41}, "super_batch must lie between 1 and the 40 examples"),
        ({"rank": 1}, "rank must lie between 0 and 0, not at 1"),
        ({"normalise": "zscroe"}, "did you mean 'zscore'"),
        ({"normalise": "running"}, r"compares losses by their noise levels in update\(\): take another"),
        ({"temperature": -1.0}, "the temperature must be positive"),
    ],
)
def test_what_cannot_be_is_refused(settings, said):
    with pytest.raises(UserError, match=said):
        LossSampler(SIZE, **settings)


def test_what_is_reported_must_be_of_this_data_set():
    sampler, ids = LossSampler(SIZE), torch.tensor([3, 40])
    with pytest.raises(UserError, match="the loss of example 40 is reported, and the data set has 40: report the"):
        sampler.update(ids, torch.ones(2))
    with pytest.raises(UserError, match=r"of one shape \(n,\), not \(2,\) and \(2, 1\): report one loss for each"):
        sampler.update(ids, torch.ones(2, 1))
    with pytest.raises(UserError, match="a noise level is not a number: report the sigma of each example"):
        sampler.update(ids - 1, torch.ones(2), torch.tensor([1.0, torch.nan]))


def test_losses_of_noise_alone_are_told_from_those_of_hardly_any():
    """t / (1 - t) is infinite where t is 1."""
    ids, sampler = torch.arange(SIZE), LossSampler(SIZE, keep=0.25, policy="high-loss")
    sigma = torch.where(ids < 20, torch.inf, 0.001)
    losses = torch.where(ids < 20, 9.0, 1.0) + torch.where(ids % 4 == 0, 0.5, 0.0)
    sampler.update(ids, losses, sigma)
    assert sorted(sampler) == list(range(0, 40, 4))


def test_weights_make_a_pruned_epoch_a_fair_sample_of_all():
    """InfoBatch: what is left of the easy ones counts for those that were pruned."""
    ids, means = torch.arange(400), []
    for seed in range(20):
        sampler = LossSampler(400, keep=0.7, policy="infobatch", seed=seed)
        assert torch.equal(sampler.weights(ids), torch.ones(400))  # nothing is known: chosen at random
        sampler.update(ids, hardness(ids).square())
        kept = torch.tensor(list(sampler))
        weights = sampler.weights(kept)
        high = hardness(kept).square() >= hardness(ids).square().mean()
        assert torch.equal(weights[high], weights[high][:1].expand(int(high.sum())))
        assert weights[~high].min() > weights[high].max()
        means.append((weights * hardness(kept)).mean())
        other = LossSampler(400, keep=0.7, policy="infobatch", seed=seed)
        other.load_state_dict(stored(sampler.state_dict()))
        assert torch.equal(other.weights(kept), weights)
        sampler.set_epoch(5)
        assert torch.equal(sampler.weights(ids), torch.ones(400))
    error = torch.stack(means) - hardness(ids).mean()
    assert abs(error.mean()) < 4 * error.std() / 20**0.5
    with pytest.raises(UserError, match="is not known for policy 'high-loss': it has no weights"):
        LossSampler(SIZE, policy="high-loss").weights(ids)


def test_an_accelerate_loop_goes_on_in_the_middle_of_an_epoch():
    accelerate = pytest.importorskip("accelerate")
    data = TensorDataset(torch.arange(SIZE))

    def made():
        sampler = LossSampler(SIZE, keep=0.5)
        return sampler, accelerate.Accelerator(cpu=True).prepare(DataLoader(data, 4, sampler=sampler))

    def trained(sampler, loader, epochs, skip=0):
        for epoch in epochs:
            loader.set_epoch(epoch)
            for (ids,) in accelerate.skip_first_batches(loader, skip) if skip else loader:
                sampler.update(ids, hardness(ids))
                yield ids.tolist(), stored(sampler.state_dict())
            skip = 0

    steps = list(trained(*made(), range(3)))
    sampler, loader = made()
    sampler.load_state_dict(steps[6][1])
    rest = [ids for ids, _ in trained(sampler, loader, range(sampler.epoch, 3), skip=2)]
    assert rest == [ids for ids, _ in steps[7:]]


def test_a_state_of_another_length_is_refused():
    with pytest.raises(UserError, match="the sampler's state is of 40 examples, and this data set has 41: go on with"):
        LossSampler(SIZE + 1).load_state_dict(LossSampler(SIZE).state_dict())
    with pytest.raises(UserError, match="the sampler's state keeps 8 examples of an epoch, and this sampler 20"):
        LossSampler(SIZE, keep=0.5).load_state_dict(LossSampler(SIZE).state_dict())


def test_what_a_choice_is_taken_of_must_be_what_was_scored():
    chosen = select_across(Scores(torch.arange(8.0)), 2, "high-loss")
    assert sorted(chosen.take(torch.arange(8)).tolist()) == [6, 7]
    with pytest.raises(UserError, match="7 rows are not those of the 8 examples that were scored"):
        chosen.take(torch.arange(7))
