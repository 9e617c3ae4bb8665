"""Numbers from counters: the published ones, normal and uniform as they should be, the same whoever computes them."""

import math
from itertools import combinations

import pytest
import torch
from scipy import stats

from ajest.runtime import counter
from ajest.runtime.counter import CounterStream, below, normal, philox, uniform

STREAM = CounterStream.named(5, "learner", "draw", 7)


@pytest.mark.parametrize(
    ("count", "key", "wanted"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_published_numbers(count, key, wanted):
    """Known answers of the Random123 library that goes with the paper."""
    count, key, wanted = ([int(word, 16) for word in text.split()] for text in (count, key, wanted))
    assert list(philox(tuple(count), tuple(key))) == wanted
    assert [int(word) for word in philox(tuple(map(torch.tensor, count)), tuple(map(torch.tensor, key)))] == wanted


def test_a_row_depends_on_its_number_alone():
    rows = torch.arange(200)
    words, normals = STREAM.words(rows, 7), STREAM.normals(rows, (3, 5))
    for some in (rows[:1], rows[63:130], rows[torch.tensor([199, 0, 77, 77])]):
        assert torch.equal(STREAM.words(some, 7), words[some])
        assert torch.equal(STREAM.normals(some, (3, 5)), normals[some])
    assert torch.equal(STREAM.words(rows, 3), words[:, :3])
    assert torch.equal(STREAM.normals(rows, (2,)), normals.flatten(1)[:, :2])


def test_normals_are_normal_and_uniforms_uniform():
    """A Kolmogorov-Smirnov test falls below 1e-4 for one stream in 10,000."""
    rows = torch.arange(20_000)
    normals = STREAM.normals(rows, (5,))
    assert stats.kstest(normals.flatten().double().numpy(), "norm").pvalue > 1e-4
    assert abs(normals.mean()) < 4 / math.sqrt(normals.numel())
    assert abs(normals.square().mean() - 1) < 4 * math.sqrt(2 / normals.numel())
    assert abs(normals.pow(4).mean() - 3) < 4 * math.sqrt(96 / normals.numel())
    words = STREAM.words(rows, 4)
    assert words.min() >= 0
    assert words.max() < 2**32
    for column in uniform(words).unbind(1):
        assert stats.kstest(column.double().numpy(), "uniform").pvalue > 1e-4
    counts = torch.bincount(below(words[:, :2], 10), minlength=11)
    assert counts[10] == 0
    assert stats.chisquare(counts[:10].numpy()).pvalue > 1e-4


def test_columns_rows_and_streams_have_nothing_to_do_with_each_other():
    """Correlations of 20,000 numbers beyond 0.032 are 4.5 standard errors."""
    rows = torch.arange(20_000)
    columns = STREAM.normals(rows, (6,))
    others = [CounterStream.named(5, "learner", "draw", 8), CounterStream.named(5, "learner", "draw", 7, "noise", 0)]
    series = [*columns.T, columns[:, 0].roll(1), *(s.normals(rows, (1,))[:, 0] for s in others)]
    table = torch.corrcoef(torch.stack(series))
    assert max(abs(table[a, b]) for a, b in combinations(range(len(series)), 2)) < 0.032


def test_the_ends_of_the_words_give_finite_numbers():
    ends = torch.tensor([[0, 0], [2**32 - 1, 2**32 - 1], [0, 2**32 - 1], [2**32 - 1, 0]])
    assert uniform(ends).min() > 0
    assert uniform(ends).max() < 1
    assert normal(ends).isfinite().all()
    assert normal(ends).abs().max() < 6.7
    assert below(ends, 2**31).tolist() == [0, 2**31 - 1, 0, 2**31 - 1]
    exact = [(a * 2**32 + b) * 1_281_167 >> 64 for a, b in STREAM.words(torch.arange(99), 2).tolist()]
    assert below(STREAM.words(torch.arange(99), 2), 1_281_167).tolist() == exact


def test_fused_noise_is_one_graph_for_every_step(monkeypatch):
    """Names are data of the kernel: none is compiled anew for another step or number of rows."""
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    counter._fused.cache_clear()
    monkeypatch.setattr(counter, "_fused", lambda: compiled)
    compiled = torch.compile(counter._normals, dynamic=True, backend=backend)
    for step, count in enumerate((5, 64, 9, 33)):
        stream, rows = CounterStream.named(step), torch.arange(step, step + count)
        found = stream._compiled(rows, stream._blocks(rows, 12))
        assert torch.equal(found[:, :12], stream.normals(rows, (12,)))
    assert len(graphs) == 1
