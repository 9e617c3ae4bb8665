"""What is remembered of examples: means by sightings, at a cost and a size that follow what was seen."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ajest import Batch
from ajest.errors import UserError
from ajest.selection.cells import Cells
from ajest.selection.counts import ExampleCounts
from ajest.selection.memory import BINS, Levels, LossMemory, LossTracker


def numbers(seed=0):
    return torch.Generator().manual_seed(seed)


def batch_of(ids, sigma=None):
    n = len(ids)
    sigma = torch.ones(n) if sigma is None else sigma
    return Batch(x=torch.zeros(n, 2), sigma=sigma, weight=torch.ones(n), id=ids)


def faded_mean(values, half_life, prior):
    """Weights 1, 0.5^(1 / h), 0.5^(2 / h), ... from the last sighting back, and the prior as one more."""
    values = torch.tensor(values, dtype=torch.float64)
    weight = 0.5 ** (torch.arange(len(values)).flip(0) / half_life)
    return float(((weight * values).sum() + prior) / (weight.sum() + 1))


@given(seed=st.integers(0, 99), half_life=st.sampled_from([0.5, 1.0, 4.0, 1e6]), sizes=st.lists(st.integers(0, 40)))
def test_a_cell_is_the_mean_of_its_sightings_the_older_the_less(seed, half_life, sizes):
    """Whatever batches they come in, and however often one batch has the same example."""
    cells, seen = Cells(half_life), {}
    generator = numbers(seed)
    for size in sizes:
        cell = torch.randint(12, (size,), generator=generator) * 987_654_321
        values = torch.randn(size, generator=generator)
        cells.update(cell, values)
        for number, value in zip(cell.tolist(), values.tolist(), strict=True):
            seen.setdefault(number, []).append(value)
    asked = torch.arange(13) * 987_654_321
    expected = [faded_mean(seen.get(number, []), half_life, 0.25) for number in asked.tolist()]
    assert cells.shrunk(asked, torch.full((13,), 0.25)).tolist() == pytest.approx(expected, abs=1e-5)
    assert len(cells) == len(seen)


def test_an_example_seen_thrice_in_a_batch_fades_thrice():
    memory = LossTracker(LossMemory("both", half_life=1))
    memory.learn(batch_of(torch.tensor([7, 7, 7, 7])), torch.tensor([0.0, 0.0, 0.0, 8.0]))
    mean = memory.running_stats(torch.ones(1))[0, 0].item()
    assert mean == pytest.approx(2)
    assert memory.recall(batch_of(torch.tensor([7]))).item() == pytest.approx((8 + mean) / (1.875 + 1))


def test_levels_fade_by_steps_and_borrow_from_the_nearest():
    levels = Levels()
    asked = torch.tensor([0, 3, 5, 27])
    assert levels.mean_and_std(asked).tolist() == [[0.0, 1.0]] * 4
    for value in (1.0, 5.0):
        levels.update(torch.tensor([4, 4]), torch.full((2,), value))
    levels.update(torch.tensor([20]), torch.tensor([9.0]))
    fade = 0.5 ** (1 / 64)
    near = (2 * fade * 1 + 2 * 5) / (2 * fade + 2)
    assert levels.mean_and_std(asked)[:, 0].tolist() == pytest.approx([near, near, near, 9.0])


class Touched(TorchDispatchMode):
    """Counts the numbers that operations read or write; of an indexed tensor, those at the indices."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        parts = out if isinstance(out, (tuple, list)) else [out]
        if name == "index_put_":
            parts = args[2:3]
        elif name in ("index_add_", "index_copy_"):
            parts = args[2:]
        elif name in ("alias", "slice", "select", "view", "detach", "unsqueeze", "expand"):  # of the same numbers
            parts = []
        elif name not in ("index", "index_select") and not name.startswith("new_"):
            parts = [*args, *parts]
        self.total += sum(part.numel() for part in parts if isinstance(part, torch.Tensor))
        return out


def touched(do):
    with Touched() as counter:
        do()
    return counter.total


@pytest.mark.parametrize("by", ["id", "both"])
def test_the_cost_of_a_step_does_not_grow_with_what_is_remembered(by):
    ids, losses = torch.arange(64) * 20_000, torch.rand(64, generator=numbers())
    batch, cost = batch_of(ids), {}
    for size in (64, 200_000):
        memory = LossTracker(LossMemory(by))
        many = torch.randperm(1_280_000, generator=numbers())[:size]
        memory.learn(batch_of(many, torch.rand(size, generator=numbers()).exp()), torch.rand(size, generator=numbers()))
        memory.learn(batch, losses)  # by now they are known
        cost[size] = touched(lambda memory=memory: (memory.learn(batch, losses), memory.recall(batch)))
    assert 64 < cost[64] < 64 * 1_000
    assert cost[200_000] < 2 * cost[64]


def test_growing_costs_each_example_the_same():
    """Room is made by doubling: the work of a filling is in proportion to its sightings."""
    costs = {}
    for size in (2_048, 16_384):
        cells, all_cells = Cells(4.0), torch.randint(36_000_000, (size,), generator=numbers())
        costs[size] = (
            touched(lambda c=cells, a=all_cells: [c.update(p, torch.ones(len(p))) for p in a.split(256)]) / size
        )
    assert costs[16_384] < 1.5 * costs[2_048]


def test_counting_a_step_costs_what_it_names():
    ids, cost = torch.arange(64), {}
    for examples in (64, 1_280_000):
        example_counts = ExampleCounts()
        example_counts.count(torch.tensor([examples - 1]), torch.tensor([0]))
        cost[examples] = touched(lambda example_counts=example_counts: example_counts.count(ids, ids[::3]))
        assert example_counts.drawn[:64].tolist() == [1] * 63 + [1 + (examples == 64)]
        assert example_counts.trained[:4].tolist() == [2, 0, 0, 1]
    assert cost[64] == cost[1_280_000]


@pytest.mark.parametrize("by", ["sigma", "id", "both"])
def test_what_is_stored_and_held_follows_what_was_seen(by):
    """The largest id does not matter: 20 bytes a cell in a checkpoint, a few more in memory."""
    memory, generator = LossTracker(LossMemory(by)), numbers()
    ids = torch.randint(1_280_000, (3_000,), generator=generator)
    memory.learn(batch_of(ids, torch.randn(3_000, generator=generator).exp()), torch.rand(3_000, generator=generator))
    stored = sum(part.numel() * part.element_size() for part in memory.state().values())
    assert stored <= 3 * BINS * 4 + 16 * 3_000
    held = (v for v in vars(memory.examples).values() if isinstance(v, torch.Tensor))
    assert sum(part.numel() * part.element_size() for part in held) <= 48 * 2 * 3_000


@pytest.mark.parametrize("by", ["sigma", "id", "both"])
def test_a_restored_memory_goes_on_bit_for_bit(by):
    unbroken, generator = LossTracker(LossMemory(by)), numbers()
    batches = [batch_of(torch.randint(400, (50,), generator=generator), torch.rand(50).exp()) for _ in range(30)]
    losses = torch.rand(30, 50, generator=generator)
    for k, batch in enumerate(batches):
        if k == 13:
            stored = {name: part.clone() for name, part in unbroken.state().items()}
            cut = LossTracker(LossMemory(by))
            cut.learn(batches[0], losses[0])  # whatever it held is forgotten
            cut.restore(stored)
        for memory in (unbroken, cut) if k >= 13 else (unbroken,):
            memory.learn(batch, losses[k])
    for batch in batches:
        assert torch.equal(unbroken.recall(batch), cut.recall(batch))
    assert all(torch.equal(part, cut.state()[name]) for name, part in unbroken.state().items())
    with pytest.raises(UserError, match="older version"):
        cut.restore({"levels": torch.zeros(3, 20), "examples": torch.zeros(3, 0)})


@given(seed=st.integers(0, 999), size=st.integers(1, 600), spread=st.sampled_from([1, 2, 28, 1 << 20, 1 << 40]))
def test_every_cell_is_found_again(seed, size, spread):
    """Also where the numbers are such as hash badly: all multiples of a power of two."""
    generator = numbers(seed)
    named = torch.randperm(1 << 16, generator=generator)[:size] * spread
    cells = Cells(1e9)
    for part in named.split(37):
        cells.update(part, part.float())
    stored = cells.state()
    assert torch.equal(stored["cells"].sort().values, named.sort().values)
    assert torch.equal(stored["sums"][1], stored["cells"].float())
    zero = torch.zeros(size)
    torch.testing.assert_close(cells.shrunk(named, zero), named.float() / 2)
    assert not cells.shrunk(named + (1 << 60), zero).any()
