"""Compiled networks: what is shared, what is counted. The backend runs graphs as they are, which is fast."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ajest.runtime import compiling


class Small(nn.Module):
    """A network whose second argument may be left out."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.linear = nn.Linear(3, width)

    def forward(self, x, shift=None):
        return self.linear(x) if shift is None else self.linear(x) + shift[:, None]


def as_it_is(graph, inputs):
    return graph.forward


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(width=4):
    network = Small(width)
    compiling.compile_network(network, as_it_is)
    return network


def counted(work):
    before = compiling.so_far()
    work()
    return compiling.so_far() - before


def test_one_graph_serves_all_batch_sizes_and_all_networks_of_an_architecture():
    networks = [compiled(), compiled()]

    def work():
        for network in networks:
            for n in (8, 5, 31):
                network(torch.randn(n, 3))

    found = counted(work)
    assert (found.compilations, found.eager_calls) == (1, 0)
    assert found.seconds > 0


def test_training_scoring_and_another_width_take_a_graph_each_and_none_is_given_up():
    def work():
        for width in range(4, 16):  # more than the compiler's own limit
            network = compiled(width)
            network(torch.randn(8, 3)).sum().backward()
            with torch.no_grad():
                network(torch.randn(8, 3))

    found = counted(work)
    assert (found.compilations, found.eager_calls) == (24, 0)


def test_a_call_that_falls_back_is_counted(monkeypatch):
    monkeypatch.setattr(compiling, "GRAPHS", 1)
    with torch._dynamo.config.patch(recompile_limit=1):
        network, x = compiled(), torch.randn(8, 3)
        assert counted(lambda: network(x)).eager_calls == 0
        with torch.no_grad():  # another graph, which is one too many
            found = counted(lambda: network(x))
    assert (found.compilations, found.eager_calls) == (0, 1)


def test_a_copy_is_compiled_with_weights_of_its_own():
    network = compiled()
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.linear.weight.zero_()
        other.linear.bias.zero_()
    found = counted(lambda: other(torch.randn(8, 3)))
    assert (found.compilations, found.eager_calls) == (1, 0)
    assert not other(torch.randn(8, 3)).any()
    assert network(torch.randn(8, 3)).any()
    assert other.state_dict().keys() == Small().state_dict().keys()


def test_arguments_left_out_and_numbers():
    network, x, shift = compiled(), torch.randn(8, 3), torch.randn(8)
    plain = copy.copy(network)
    del plain.forward
    torch.testing.assert_close(network(x, shift), plain(x, shift))
    torch.testing.assert_close(network(x, None), plain(x))


def test_within_uncompiled_nothing_is_compiled_or_counted():
    network = compiled()

    def work():
        with compiling.uncompiled():
            network(torch.randn(8, 3))

    assert counted(work) == compiling.CompileCounts()
