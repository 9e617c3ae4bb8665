"""Ways from noise to data: churn, flows, and how commands reach them."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from ajest.diffusion import sample, sigma_schedule
from ajest.diffusion.solvers import Solver
from ajest.errors import UserError
from ajest.runtime.seeding import generator
from ajest.tasks import Guided, Measurement
from ajest.tasks.vectors.setup import vectors_task
from conftest import small_images, small_task

DOUBLE = torch.float64
S = 0.5


def gaussian(x, sigma, label=None):
    return x * (S**2 / (S**2 + sigma**2))[:, None]


def test_churn_is_algorithm_2():
    """EDM, arXiv 2206.00364: written out once more, with its numbers in the same order."""
    sigmas, start = sigma_schedule(6, 5.0, 0.01), 5 * torch.randn(7, 2, dtype=DOUBLE, generator=generator(0))
    for churn, low, high, noise in ((3.0, 0.0, math.inf, 1.0), (100.0, 0.05, 2.0, 1.007)):
        stream, x = generator(1), start
        for t, t_next in pairwise(sigmas):
            gamma = min(churn / 6, 2**0.5 - 1) if low <= t <= high else 0.0
            t_hat = t + gamma * t
            if gamma:
                eps = noise * torch.randn(7, 2, dtype=DOUBLE, generator=stream)
                x = x + (t_hat**2 - t**2) ** 0.5 * eps
            d = (x - gaussian(x, torch.full((7,), t_hat, dtype=DOUBLE))) / t_hat
            after = x + (t_next - t_hat) * d
            if t_next:
                d_after = (after - gaussian(after, torch.full((7,), t_next, dtype=DOUBLE))) / t_next
                after = x + (t_next - t_hat) * (d + d_after) / 2
            x = after
        found = sample(
            gaussian, start, sigmas, churn=churn, churn_interval=(low, high), churn_noise=noise, generator=generator(1)
        )
        torch.testing.assert_close(found, x)


def test_with_a_stream_for_each_the_way_of_an_example_is_its_own():
    start, sigmas = torch.randn(9, 2, generator=generator(0)), sigma_schedule(4, 5.0)

    def streams(rows):
        return [generator(i) for i in rows]

    whole = sample(gaussian, start, sigmas, churn=2, generator=streams(range(9)))
    parted = sample(gaussian, start, sigmas, churn=2, generator=streams(range(9)), chunk=4)
    some = sample(gaussian, start[[2, 7]], sigmas, churn=2, generator=streams((2, 7)))
    assert torch.equal(whole, parted)
    assert torch.equal(whole[[2, 7]], some)
    assert not torch.equal(whole, sample(gaussian, start, sigmas))


@pytest.mark.parametrize("kind", ["flow-heun", "flow-euler"])
def test_solvers_go_from_the_same_start_to_the_same_end(kind):
    """To that of the exact ODE of a Gaussian; levels are told as they are met."""
    start, seen = 80 * torch.randn(5, 2, dtype=DOUBLE, generator=generator(0)), []
    solver = Solver(300, 80.0, sigma_data=S, kind=kind, shift=2.0)
    end = solver(gaussian, start, watch=lambda i, x: seen.append((i, x)))
    exact = start * S / (S**2 + 80**2) ** 0.5
    torch.testing.assert_close(end, exact, rtol=0, atol=0.01 if kind == "flow-heun" else 0.03)
    assert [i for i, _ in seen] == list(range(301))
    torch.testing.assert_close(seen[0][1], start)
    torch.testing.assert_close(seen[-1][1], end)
    sigmas = solver.sigmas()
    assert (len(sigmas), sigmas[0], sigmas[-1]) == (301, 80.0, 0.0)
    middle = start * ((S**2 + sigmas[150] ** 2) / (S**2 + 80**2)) ** 0.5
    torch.testing.assert_close(seen[150][1], middle, rtol=0.02, atol=0.02)


def test_heun_is_the_sampler_as_it_was():
    start = torch.randn(5, 2, generator=generator(0))
    assert torch.equal(Solver(8, 5.0, 0.01)(gaussian, start), sample(gaussian, start, sigma_schedule(8, 5.0, 0.01)))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kind": "flow"}, "unknown solver 'flow': did you mean 'flow-"),
        ({"churn": -1.0}, "churn must be at least 0"),
        ({"shift": 0.0}, "shift must be above 0"),
        ({"kind": "flow-heun", "churn": 2.0}, "churn is for the solver \"heun\", not for 'flow-heun'"),
        ({"shift": 3.0}, "shift is for the solvers of a flow"),
        ({"steps": 1}, "sampler_steps must be at least 2"),
    ],
)
def test_settings_that_cannot_be_are_one_line(settings, says):
    with pytest.raises(UserError, match=says):
        Solver(**settings)


def vectors(**settings):
    return vectors_task(("two-moons:1000",), warn=lambda _: None, hidden=8, blocks=1, sampler_steps=4, **settings)


@pytest.mark.parametrize("task", [small_task, vectors])
def test_each_task_is_judged_by_the_way_that_is_asked_for(task, tmp_path):
    usual = task()
    network, found = usual.network("learner", 0).eval(), {}
    for name, changes in {
        "usual": {}, "churn": {"churn": 2.0}, "again": {"churn": 2.0}, "flow": {"solver": "flow-heun", "shift": 2.0},
    }.items():  # fmt: skip
        judged = replace(usual, **changes).evaluate(
            Guided(lambda x, s, y=None: network(x, s, y) * 0.9), Measurement(40, 0, tmp_path, keep_tensors=True)
        )
        found[name] = judged.tensors["samples"], judged.tensors["trajectories"]
    assert found["flow"][1].shape[1] == usual.sampler_steps + 1
    assert all(torch.equal(a, b) for a, b in zip(found["churn"], found["again"], strict=True))
    assert not torch.equal(found["usual"][0], found["churn"][0])
    assert not torch.equal(found["usual"][0], found["flow"][0])


def test_commands_sample_and_evaluate_by_another_way(command, refused, tmp_path):
    words = ("vectors", "--data", "two-moons:1000", "--objective", "flow", "--iterations", "2", "--super-batch", "64")
    assert command("train", *words, "--out", "r").code == 0
    ways = ((), ("--churn", "4"), ("--solver", "flow-euler"), ("--solver", "flow-heun", "--shift", "3"))
    samples = []
    for way in ways:
        done = command("sample", "r", "--n", "16", "--sampler-steps", "3", *way, "--out", "s")
        assert done.code == 0, done.err
        samples.append((tmp_path / "s" / "samples.csv").read_text())
        done = command("evaluate", "r", "--n", "40", "--sampler-steps", "3", *way)
        assert done.code == 0, done.err
    assert len(set(samples)) == len(ways)
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert [line["settings"] for line in lines] == [
        {"sampler_steps": 3},
        {"sampler_steps": 3, "churn": 4.0},
        {"sampler_steps": 3, "solver": "flow-euler"},
        {"sampler_steps": 3, "solver": "flow-heun", "shift": 3.0},
    ]
    refused("sample", "r", "--shift", "3", "--out", "s", says="shift is for the solvers of a flow")
    refused(
        "train",
        "tree",
        "--objective",
        "flow",
        "--out",
        "t",
        says="--objective is for images and vectors: .* its network is an energy",
    )


def noisy(x, sigma, label=None):
    """A denoiser of images that leaves what churn brings in."""
    return (0.5 / (1 + sigma.square())).view(-1, 1, 1, 1) * x


def test_an_image_with_churn_is_the_same_whatever_else_is_asked_for():
    sampler = replace(small_images(), churn=2.0).sampler
    pairs = [(0, 1), (1, 2), (0, 3)]
    together, alone = (sampler.asked(noisy, some, "cpu") for some in (pairs, pairs[2:]))
    assert torch.equal(together[2], alone[0])
    judged = sampler.evaluated(noisy, slice(0, 4), 5, "cpu")
    assert torch.equal(sampler.evaluated(noisy, slice(2, 4), 5, "cpu"), judged[2:])
    assert torch.equal(sampler.shown(noisy, 4, 5, "cpu")["samples"], judged)
    for other in ({}, {"solver": "flow-euler"}, {"solver": "flow-heun", "shift": 3.0}):
        assert not torch.equal(replace(small_images(), **other).sampler.evaluated(noisy, slice(0, 4), 5, "cpu"), judged)
