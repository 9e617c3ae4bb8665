"""Random streams: none shares its numbers with another, and those that must be equal are."""

import hashlib
from itertools import combinations, product

import numpy as np
import pytest
import torch

from ajest.diffusion.batch import Batch
from ajest.runtime.seeding import generator, substream
from ajest.selection.catalogue import arms_named
from ajest.training.run import execute, make_trainer
from ajest.training.run_folder import RunConfig
from ajest.training.schedule import Schedule
from ajest.training.trainer import Trainer
from conftest import small_bench, small_images, small_recipe, small_task


def numbers(*name):
    return torch.randn(64, generator=generator(*name))


def test_streams_are_their_names():
    assert torch.equal(numbers(73, "learner", "draw", 5), numbers(73, "learner", "draw", 5))
    others = [
        numbers(*name) for name in ((73, "learner", "draw", 6), (73, "guide", "draw", 5), (74, "learner", "draw", 5))
    ]
    assert not any(torch.equal(numbers(73, "learner", "draw", 5), other) for other in others)


@pytest.mark.parametrize("distance", [2**32, 2**40, 2**63])
def test_seeds_far_apart_draw_differently(distance):
    assert not torch.isclose(numbers(5, "draw"), numbers(5 + distance, "draw")).any()


def test_the_whole_state_comes_from_the_name():
    """With 32 bits of it 100,000 names share a state 1.2 times on average; seed 19 did at steps 779 and 3811."""
    first, second = (generator(19, "draw", step).get_state().numpy() for step in (779, 3811))
    words = [state[24 : 24 + 8 * 624].view(np.uint64) for state in (first, second)]
    assert not (words[0] == words[1]).any()
    assert all((w < 2**32).all() for w in words)
    seen = set()
    for name in product(range(20), ("draw",), range(5000)):
        state = generator(*name).get_state().numpy()
        seen.add(state[24 : 24 + 8 * 4].tobytes())  # 128 bits of the twister
    assert len(seen) == 20 * 5000


def test_numbers_are_uniform_and_no_two_streams_go_together():
    """A chi-square statistic of 255 degrees beyond 360 has a chance of 2e-5 if the numbers are uniform; the largest of
    45 correlations over 20,000 numbers is beyond 0.032, 4.5 standard errors, by chance in 3e-4 of cases."""
    streams = [
        torch.rand(20_000, generator=generator(seed, "draw", step)) for seed, step in product(range(2), range(5))
    ]
    counts = np.bincount((torch.cat(streams) * 256).long().numpy(), minlength=256)
    expected = counts.sum() / 256
    assert ((counts - expected) ** 2 / expected).sum() < 360
    assert max(abs(np.corrcoef(a, b)[0, 1]) for a, b in combinations(streams, 2)) < 0.032
    first = torch.stack([torch.rand(1, generator=generator(0, "draw", step)) for step in range(4000)]).flatten()
    assert first.mean().item() == pytest.approx(0.5, abs=5 * (1 / 12 / 4000) ** 0.5)
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 5 / 4000**0.5


def test_substreams_differ_from_each_other_and_depend_on_their_parent():
    parent = generator(0, "draw")
    first, second = (torch.rand(8, generator=substream(parent)) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, torch.rand(8, generator=substream(generator(0, "draw"))))
    # All 62 bits of a number act: with manual_seed two parents that differ in the upper half would give one child.
    assert substream(parent).initial_seed() != substream(parent).initial_seed()


def test_on_another_device_the_name_is_hashed_to_64_bits(monkeypatch):
    """Philox takes them all; the generator itself is stood in for where there is no GPU."""
    seeds = []

    class OnDevice:
        def __init__(self, device):
            self.device = torch.device(device)

        def manual_seed(self, seed):
            seeds.append(seed)
            return self

    monkeypatch.setattr(torch, "Generator", OnDevice)
    for step in range(200):
        generator(0, "draw", step, device="cuda")
    assert seeds[7] == int.from_bytes(hashlib.blake2b(b"0/draw/7", digest_size=8).digest(), "little")
    assert max(seeds) >= 2**63
    assert len({s % 2**32 for s in seeds} & {s >> 32 for s in seeds}) == 0


def same_draw(a: Batch, b: Batch) -> bool:
    return a.x.shape == b.x.shape and bool((a.x == b.x).flatten(1).all(1).any())


@pytest.mark.parametrize("task", [small_task, small_images])
def test_roles_of_one_seed_share_neither_weights_nor_draws_and_arms_of_one_seed_share_both(task, tmp_path):
    made = {}
    for role, arm in (("learner", "baseline"), ("learner", "hard"), ("guide", "baseline"), ("strong", "baseline")):
        run = RunConfig(task(), role, small_recipe(super_batch=128), *arms_named((arm,)), 0, 10)
        made[role, arm] = make_trainer(tmp_path / role, run)
    steps = {name: trainer.step().batch for name, trainer in made.items()}
    assert torch.equal(steps["learner", "baseline"].x, steps["learner", "hard"].x)
    roles = ("learner", "guide", "strong")
    for a, b in combinations(roles, 2):
        assert not same_draw(steps[a, "baseline"], steps[b, "baseline"]), (a, b)
    networks = [task().network(role, 0).state_dict() for role in ("learner", "strong", "guide", "proxy")]
    for a, b in (networks[:2], networks[2:]):
        assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}
        assert any(v.numel() > 1 and not torch.isclose(v, b[k]).any() for k, v in a.items())


def test_a_bench_keeps_guide_strong_reference_and_runs_apart():
    config = small_bench(arms=arms_named(("baseline", "learnable-strong")), strong_iterations=8, guide_seed=0)
    runs = [config.guide(), config.strong(), *(config.run(arm, 0) for arm in config.arms)]
    assert [(run.role, run.seed) for run in runs] == [("guide", 0), ("strong", 0), ("learner", 0), ("learner", 0)]


def test_train_keeps_guide_strong_reference_and_learner_apart(command, monkeypatch):
    seen, step = [], Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self, kind=None: seen.append(step(self, kind)) or seen[-1])

    def first_draw(name, *words):
        seen.clear()
        done = command("train", "tree", "--super-batch", 128, "--iterations", 2, "--out", name, *words)
        assert done.code == 0, done
        assert "very examples" not in done.out + done.err
        return seen[0].batch

    draws = [first_draw(role, "--network", role) for role in ("guide", "strong", "learner")]
    assert not any(same_draw(a, b) for a, b in combinations(draws, 2))
    assert torch.equal(first_draw("arm", "--arm", "ajest", "--guide", "guide").x, draws[2].x)


def test_a_reference_that_saw_the_same_examples_is_named(tmp_path):
    complaints = []
    run = RunConfig(small_task(), "learner", small_recipe(), *arms_named(("baseline",)), 0, 4)
    assert execute(tmp_path / "one", run, Schedule()) == "done"
    again = RunConfig(small_task(), "learner", small_recipe(), *arms_named(("rho",)), 0, 4, "../one")
    assert execute(tmp_path / "two", again, Schedule(), warn=complaints.append) == "done"
    assert len(complaints) == 1
    assert "learned from the very examples" in complaints[0]
