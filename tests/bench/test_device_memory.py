"""What runs need of a device's memory, and how many examples at a time fit."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from ajest.bench.plan.config import run_folder
from ajest.bench.run import memory as planning
from ajest.bench.run.bench import run_bench
from ajest.bench.run.memory import USABLE, _saved, fitted, memory_needed, runs_in_turns, settle_micro_batch
from ajest.diffusion.batch import Batch
from ajest.diffusion.denoising import LogNormal
from ajest.errors import UserError
from ajest.jobs.base import Room
from ajest.runtime.seeding import generator
from ajest.selection.catalogue import arms_named
from ajest.storage.checkpoint import read_sealed
from ajest.tasks.sources import TensorSource
from ajest.tasks.tree.task import TreeTask
from ajest.training.run_folder import read_config
from conftest import Here, small_bench, small_images, small_task

CONFIG = small_bench(arms=arms_named(("baseline", "ajest", "random")))


def room(free, sharing=1):
    return Room("a made-up card", 80 << 30, int(free), sharing)


class Line(nn.Module):
    """One matrix, so that what is saved can be counted by hand."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6, bias=False)

    def forward(self, x, sigma, label=None):
        return self.layer(x)


def batch(n):
    x = torch.zeros(n, 6)
    return Batch(x=x, sigma=torch.ones(n), weight=torch.ones(n), id=torch.arange(n), target=x.clone())


def test_what_a_forward_pass_keeps_is_counted_without_the_weights():
    # Of the layer its input (n, 6); of the square the error (n, 6); of the product the weights of the loss (n,).
    # Twice the largest is added for gradients on their way.
    for device in ("cpu", "meta"):
        found = _saved(Line().to(device), batch(5).to(device))
        assert found == 4 * 5 * (6 + 6 + 1) + 2 * 4 * 5 * 6


def look(module, inputs):
    assert bool(inputs[0].isfinite().all())


@dataclass(frozen=True)
class Looking(TreeTask):
    """The tree with a network that looks at values, which there are none of on the meta device."""

    def network(self, role, seed):
        network = super().network(role, seed)
        network.register_forward_pre_hook(look)
        return network


def test_a_network_that_looks_at_values_is_counted_like_any_other():
    task = small_task()
    looking = Looking(hidden=task.hidden, guide_hidden=task.guide_hidden, layers=task.layers)
    with pytest.raises(RuntimeError):
        looking.network("learner", 0).to("meta")(torch.zeros(1, 2, device="meta"), torch.ones(1, device="meta"))
    assert planning._costs(looking, "learner") == planning._costs(task, "learner")


@pytest.mark.parametrize("task", [small_task(), small_images()], ids=["tree", "images"])
def test_activations_on_the_meta_device_are_those_of_real_numbers(task):
    source = task.source("cpu")
    real = [_saved(task.network("learner", 0), source.complete(source.draw(n, generator(0, "x")))) for n in (8, 16)]
    costs = planning._costs(task, "learner")
    for n, saved in zip((8, 16), real, strict=True):
        # Fused attention of the CPU keeps less than what is counted, which is for any device.
        assert saved <= costs.shared + n * costs.each <= 1.3 * saved


def test_each_part_of_a_run_is_in_what_it_needs():
    config = replace(CONFIG, arms=arms_named(("baseline", "ajest", "proxy", "learnable-strong")), strong_iterations=8)
    found = memory_needed(config)
    assert set(found) == {"baseline", "ajest", "proxy", "learnable-strong", "the guide", "the strong reference"}
    base, ajest, proxy = found["baseline"], found["ajest"], found["proxy"]
    small, large = (config.task.network(role, 0) for role in ("guide", "learner"))
    of = {m: sum(t.numel() * t.element_size() for t in m.state_dict().values()) for m in (small, large)}
    parameters = sum(p.numel() * 4 for p in large.parameters())
    assert (base.weights, base.undo, base.reference) == (of[large], of[large], 0)
    assert (base.gradients, base.moments) == (parameters, 2 * parameters)
    assert base.averages == len(config.recipe.ema_widths) * of[large]
    assert ajest.reference == of[small]
    assert proxy.weights == of[large] + of[small]
    assert found["learnable-strong"].reference == of[large]
    assert base.data == 0  # the tree draws its examples anew
    assert (base.examples, ajest.examples) == (256, 51)
    assert base.batch == 256 * (8 + 8 + 4 + 4 + 8)  # x, target, sigma, weight, id
    kept = base.weights + base.gradients + base.moments + base.undo + base.averages + base.batch
    assert base.total == kept + base.shared + 256 * base.each


def test_data_that_stay_on_the_device_are_in_it():
    config = small_bench(task=small_images(), recipe=replace(CONFIG.recipe, super_batch=20), arms=CONFIG.arms[:1])
    images = 256 * 3 * 16 * 16
    for free, held in ((4 * images, images), (4 * images - 4, 0)):
        assert memory_needed(config, free)["baseline"].data == held + 256 * 8  # an int64 label each
    vectors = TensorSource(torch.zeros(10, 3), LogNormal(0, 1))
    assert vectors.held(0) == 120


def test_as_many_examples_as_fit_are_in_the_network_at_a_time_for_all_arms():
    needed = memory_needed(CONFIG)["baseline"]
    assert fitted(CONFIG, room(needed.total / USABLE + 10)) == CONFIG
    halved = fitted(CONFIG, room(needed.total / USABLE - 10))
    assert halved.recipe.micro_batch == 128
    assert halved == replace(CONFIG, recipe=replace(CONFIG.recipe, micro_batch=128))
    alone = max(replace(memory, examples=1).total for memory in memory_needed(CONFIG).values())
    fewest = fitted(CONFIG, room(alone / USABLE + 10))
    assert fewest.recipe.micro_batch == 1
    own = replace(CONFIG.recipe, micro_batch=20)
    asked = replace(CONFIG, recipe=replace(CONFIG.recipe, micro_batch=100), guide_recipe=own)
    less = fitted(asked, room(replace(memory_needed(CONFIG)["ajest"], examples=50).total / USABLE + 10))
    assert (less.recipe.micro_batch, less.guide_recipe.micro_batch) == (50, 20)
    with pytest.raises(UserError, match=r"needs about .* GiB with one example at a time, and of a made-up card .* are "
                       r"free for it: take a smaller network"):  # fmt: skip
        fitted(CONFIG, room(alone / 2))
    with pytest.raises(UserError, match=r"take fewer runs at a time \(3 share a card; see --workers\) or a smaller"):
        fitted(CONFIG, room(alone / 2, sharing=3))


def test_a_bench_goes_on_with_the_number_it_began_with(tmp_path):
    said = []
    needed = memory_needed(CONFIG)["baseline"]
    tight, wide = room(needed.total / USABLE - 10), room(1 << 40, sharing=2)
    begun = settle_micro_batch(tmp_path, CONFIG, tight, said.append)
    assert begun.recipe.micro_batch == 128
    assert said[0].startswith("a run (baseline) needs about ")
    assert said[1] == "128 examples are in the network at a time, for all arms: more do not fit"
    assert read_sealed(tmp_path / "memory.json")["micro_batch"] == 128
    for other in (wide, None):
        assert settle_micro_batch(tmp_path, CONFIG, other, said.append) == begun
    assert "2 runs share a card" in said[-1]
    asked = replace(CONFIG, recipe=replace(CONFIG.recipe, micro_batch=64))
    assert settle_micro_batch(tmp_path, asked, wide, said.append) == asked  # of which the folder knows nothing


def test_without_a_bound_nothing_is_settled_and_what_has_begun_stays(tmp_path):
    assert settle_micro_batch(tmp_path, CONFIG, None, pytest.fail) == CONFIG
    assert not list(tmp_path.iterdir())
    (tmp_path / "bench.json").touch()
    assert settle_micro_batch(tmp_path, CONFIG, room(1), lambda _: None) == CONFIG
    assert not (tmp_path / "memory.json").exists()


def test_runs_in_turns_share_data_and_activations_and_no_weights():
    needed = memory_needed(CONFIG)
    kept, passing = max(m.kept for m in needed.values()), max(m.passing for m in needed.values())
    assert all(m.kept + m.passing == m.total for m in needed.values())
    said = []
    assert runs_in_turns(CONFIG, None, 16, said.append) == 16
    assert said == []
    for count in (1, 3, 16):
        assert runs_in_turns(CONFIG, room((count * kept + passing) / USABLE + 10), 16, said.append) == count
    assert runs_in_turns(CONFIG, room(1 << 40), 16, said.append) == 16
    assert said[1].startswith("3 runs that one process makes in turns need about ")
    assert [line.endswith("on a made-up card; 16 do not fit") for line in said] == [True, True, False, False]
    with pytest.raises(UserError, match=r"a run \(.*\) needs about .*: take a smaller network, or a larger device"):
        runs_in_turns(CONFIG, room(passing / USABLE), 16, said.append)


class Tight(Here):
    """Jobs in this process, of a device with room for half of the examples."""

    free = 0.0

    def room(self, device):
        return room(self.free)


def test_runs_of_a_bench_take_the_examples_that_fit(tmp_path, monkeypatch):
    config = replace(CONFIG, arms=CONFIG.arms[:1], seeds=(0,), n_curve=256, n_final=256, calibration_rounds=1)
    monkeypatch.setattr(Tight, "free", memory_needed(config)["baseline"].total / USABLE - 10)
    root = tmp_path / "bench"
    run_bench(root, config, Tight())
    for folder in (run_folder(root, "baseline", 0), root / "guide"):
        assert read_config(folder).recipe.micro_batch == 128
    monkeypatch.setattr(Tight, "free", 1e12)
    run_bench(root, config, Tight())  # goes on, and is done
    with pytest.raises(UserError, match="super_batch: 256 -> 512"):
        run_bench(root, replace(config, recipe=replace(config.recipe, super_batch=512)), Tight())
