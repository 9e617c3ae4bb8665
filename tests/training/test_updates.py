"""Courses of the learning rate and optimizers as arms: the published formulas, checkpoints, benches, a user's file."""

import json
import math
import sys
from dataclasses import replace

import pytest
import torch

from ajest import Batch
from ajest.bench.plan.trials import trial_bench, tried_for
from ajest.bench.plan.tuning import Tuning
from ajest.bench.read.folder import read
from ajest.bench.run.bench import run_bench
from ajest.bench.run.calibration import measure
from ajest.bench.run.memory import memory_needed
from ajest.errors import UserError
from ajest.runtime.seeding import Streams
from ajest.selection import ARMS, Arm, Updates, load_rules, register_course
from ajest.selection.flow import Networks
from ajest.selection.updates import FALLS
from ajest.storage.config import from_json, to_json
from ajest.training import muon
from ajest.training.muon import Muon, orthogonal
from ajest.training.networks import load_network
from ajest.training.optimizer import OptimizedNetwork, optimizers_of
from ajest.training.recipe import LearningRate, Recipe
from ajest.training.run import execute
from ajest.training.run_folder import RunConfig
from ajest.training.schedule import Schedule
from ajest.training.schedule_free import ScheduleFree
from ajest.training.trainer import Trainer
from conftest import Here, small_bench, small_recipe, small_task

UPDATED = [name for name, arm in ARMS.items() if arm.updates != Updates()]
LINEAR = LearningRate(0.1, decay=1, clock="share", course="linear")


def trainer(name, **recipe):
    task = small_task()
    networks = Networks(task.network("learner", 0))
    return Trainer(task.source("cpu"), networks, small_recipe(super_batch=64, **recipe), ARMS[name], Streams(0))


def test_schedule_free_takes_the_steps_of_its_paper():
    """y' = f(y) = a y on two numbers, in the paper's own symbols, at a rate that rises and then stays."""
    a, rates, (b1, b2), eps = (3.0, -0.5), (0.05, 0.1, 0.2, 0.2, 0.2), (0.8, 0.9), 1e-8
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = ScheduleFree([parameter], lr=1.0, betas=(b1, b2), eps=eps)
    assert torch.equal(optimizer.averages([parameter])[0], parameter)
    x, z, v, total = [1.0, -2.0], [1.0, -2.0], [0.0, 0.0], 0.0
    for t, rate in enumerate(rates, start=1):
        optimizer.param_groups[0]["lr"] = rate
        (parameter.square() * torch.tensor(a)).sum().div(2).backward()
        optimizer.step()
        optimizer.zero_grad()
        gamma = rate * math.sqrt(1 - b2**t)
        total += gamma**2
        for i in range(2):
            gradient = a[i] * ((1 - b1) * z[i] + b1 * x[i])
            v[i] = b2 * v[i] + (1 - b2) * gradient**2
            z[i] -= gamma * gradient / (math.sqrt(v[i]) + eps)
            x[i] += gamma**2 / total * (z[i] - x[i])
        assert optimizer.averages([parameter])[0].tolist() == pytest.approx(x, rel=1e-12)
        assert parameter.tolist() == pytest.approx([(1 - b1) * z[i] + b1 * x[i] for i in range(2)], rel=1e-12)
    optimizer.param_groups[0]["lr"], before = 0.0, parameter.clone()
    parameter.sum().backward()
    optimizer.step()
    assert torch.equal(parameter, before)


def test_muon_orthogonalises_steps_of_matrices_and_leaves_the_rest_to_adam():
    torch.manual_seed(0)
    network = torch.nn.Linear(6, 4)
    before = [p.detach().clone() for p in network.parameters()]
    made = optimizers_of(network, Recipe(learning_rate=LearningRate(0.01), optimizer="muon"))
    assert list(made) == ["muon", "adam"]
    network(torch.randn(32, 6)).square().sum().backward()
    for optimizer in made.values():
        optimizer.step()
    weight, bias = (p.detach() - old for p, old in zip(network.parameters(), before, strict=True))
    size = 0.01 * 0.2 * 6**0.5  # arXiv 2502.16982, equation 4; five iterations leave singular values from 0.7 to 1.2
    assert (torch.linalg.svdvals(weight) / size).sub(0.95).abs().max() < 0.3
    torch.testing.assert_close(bias, -0.01 * network.bias.grad.sign())
    with pytest.raises(UserError, match="this network has none"):
        optimizers_of(torch.nn.BatchNorm1d(3), Recipe(optimizer="muon"))


def test_muons_steps_are_torchs_but_for_its_rounding():
    """Of wide, tall and square matrices, some of one shape. Torch computes in bfloat16, of 8 bits."""
    torch.manual_seed(0)
    sizes = ((6, 20), (20, 6), (8, 8), (6, 20))
    mine, theirs = ([torch.nn.Parameter(torch.zeros(size)) for size in sizes] for _ in range(2))
    ours = Muon(mine, lr=0.01)
    other = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for a, b in zip(mine, theirs, strict=True):
            a.grad = torch.randn(a.shape)
            b.grad = a.grad.clone()
        ours.step()
        other.step()
        for a, b in zip(mine, theirs, strict=True):
            apart = torch.linalg.matrix_norm(a.detach() - b.detach()) / torch.linalg.matrix_norm(b.detach())
            assert apart < 0.03


def test_muon_steps_a_few_at_a_time_as_all_together(monkeypatch):
    """Of so many matrices of one shape that memory would not hold all."""
    found = []
    for together in (1 << 24, 100):
        monkeypatch.setattr(muon, "_TOGETHER", together)
        torch.manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(4, 9)) for _ in range(5)]
        optimizer = Muon(weights, lr=0.1)
        for weight in weights:
            weight.grad = torch.randn(4, 9)
        optimizer.step()
        found.append(torch.stack([weight.detach() for weight in weights]))
    torch.testing.assert_close(*found)


def test_muons_polynomial_keeps_singular_vectors():
    x = torch.randn(3, 5, 9, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    a, b, c = 3.4445, -4.775, 2.0315
    s = s / s.square().sum(1, keepdim=True).sqrt()
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(orthogonal(x), u * s[:, None] @ v, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(orthogonal(x.mT), orthogonal(x).mT)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_muon_takes_a_kernel_as_the_matrix_of_its_outputs(layout):
    """Steps of a convolution are those of a linear layer over its patches, from one state to the next."""
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(5, 4, 3, bias=False).to(memory_format=layout)
    linear = torch.nn.Linear(45, 4, bias=False)
    linear.weight.data.copy_(convolution.weight.flatten(1))
    recipe = Recipe(learning_rate=LearningRate(0.01), optimizer="muon")
    kernel, matrix = (OptimizedNetwork(network, recipe) for network in (convolution, linear))
    assert list(kernel.optimizers) == ["muon"]
    for _ in range(3):
        patches = torch.randn(32, 5, 3, 3)
        convolution(patches).square().sum().backward()
        linear(patches.flatten(1)).square().sum().backward()
        for trained in (kernel, matrix):
            trained.step(True)
        torch.testing.assert_close(convolution.weight.flatten(1), linear.weight, rtol=1e-4, atol=1e-5)
        assert convolution.weight.grad is None
        kernel.restore(kernel.state())


def test_a_recipe_by_an_arm_keeps_its_peak_and_takes_what_the_arm_changes():
    recipe = small_recipe(learning_rate=LearningRate(0.3, decay=16, rampup=100))
    assert recipe.of(ARMS["baseline"]) == recipe
    linear = recipe.of(ARMS["linear-to-zero"])
    assert linear.learning_rate == LearningRate(0.3, 1, 100, "share", "linear")
    shares = (0, 0.5, 0.9, 1)
    assert [linear.learning_rate(9, 1000, s) for s in shares] == pytest.approx([0.3, 0.15, 0.03, 0])
    wsd, root, constant = (recipe.of(ARMS[name]).learning_rate for name in ("wsd", "inverse-sqrt", "constant"))
    assert [wsd(9, 1000, s) for s in shares] == pytest.approx([0.3, 0.3, 0.15, 0])
    assert [root(9, 1000, s) for s in (0.125, 0.5)] == pytest.approx([0.3, 0.15])
    assert constant(10**6, 1000, 1.0) == 0.3
    assert [rate.ends_low for rate in (linear.learning_rate, wsd, root, constant)] == [True, True, False, False]
    assert recipe.of(ARMS["beta2-0.999"]) == replace(recipe, betas=(0.9, 0.999))
    assert recipe.of(ARMS["schedule-free"]).optimizer == "schedule-free"
    assert linear.of(ARMS["linear-to-zero"]) == linear


@pytest.mark.parametrize("name", UPDATED)
def test_arms_that_update_in_their_own_way_survive_json_and_say_so(name):
    arm = ARMS[name]
    assert from_json(Arm, json.loads(json.dumps(to_json(arm))), "x") == arm
    assert set(arm.axis.split(", ")) <= {"learning rate", "optimizer", "term", "average"}
    (kind,) = arm.kinds()
    assert kind.label == "uniform" + (f", {arm.updates.work}" if arm.updates.work else "")


@pytest.mark.parametrize("name", ["schedule-free", "muon", "wsd"])
def test_training_goes_on_from_a_checkpoint_bit_for_bit(name):
    whole, part = trainer(name), trainer(name)
    for step in range(5):
        if step == 3:
            again = trainer(name)
            again.restore(*part.state())
            part = again
        whole.progress = part.progress = step / 5
        whole.step(), part.step()
    one, other = whole.state()[0], part.state()[0]
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


class Convolved(torch.nn.Module):
    """A denoiser of images whose weights lie in memory channels last."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 3, 3, padding=1).to(memory_format=torch.channels_last)

    def forward(self, x, sigma, label=None):
        return self.layer(x)


@pytest.mark.parametrize("optimizer", ["adam", "muon", "schedule-free"])
def test_weights_that_lie_channels_last_go_on_from_a_checkpoint_bit_for_bit(optimizer):
    numbers = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, 3, 8, 8, generator=numbers)
    recipe = Recipe(optimizer=optimizer, ema_widths=(0.1,))

    def made():
        torch.manual_seed(0)
        return OptimizedNetwork(Convolved(), recipe)

    def step(learner, i):
        batch = Batch(x[i], torch.ones(4), torch.ones(4), torch.arange(4), target=x[i] / 2)
        learner.gradients(batch, 0.01)
        learner.step(finite=True)

    whole, cut = made(), made()
    for i in range(6):
        if i == 3:
            stored = {name: tensor.detach().clone().contiguous() for name, tensor in cut.state().items()}
            cut = made()
            cut.restore(stored)
        step(whole, i), step(cut, i)
    assert whole.network.layer.weight.is_contiguous(memory_format=torch.channels_last)
    for (name, one), other in zip(whole.state().items(), cut.state().values(), strict=True):
        assert torch.equal(one, other), name


def test_schedule_free_is_sampled_from_by_its_own_average_and_can_be_undone():
    t = trainer("schedule-free", ema_widths=(0.05, 0.1))
    own = t.learner.optimizers["schedule-free"]
    for _ in range(3):
        t.step()
    parameters = list(t.network.parameters())
    for width in (0.05, 0.1):
        for mine, x, y in zip(t.ema[width].parameters(), own.averages(parameters), parameters, strict=True):
            assert torch.equal(mine, x)
            assert not torch.equal(mine, y)
    before = [p.detach().clone() for p in parameters]
    batch = t.selector.source.complete(t.selector.source.draw(64, torch.Generator().manual_seed(1)))
    t.learner.gradients(batch, 0.1)
    t.learner.undo()
    assert all(torch.equal(p, old) for p, old in zip(parameters, before, strict=True))


def test_buffers_go_into_the_own_average_as_they_are():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    learner = OptimizedNetwork(network, Recipe(optimizer="schedule-free", ema_widths=(0.1,)))
    averages = learner.averages()
    network(torch.randn(8, 2)).square().sum().backward()
    learner.step(finite=True)
    averages.update(1)
    assert torch.equal(averages[0.1][1].running_mean, network[1].running_mean)
    assert averages[0.1][1].num_batches_tracked == 1


def test_no_other_width_is_made_of_an_own_average(tmp_path):
    recipe = small_recipe(super_batch=64, ema_widths=(0.1,))
    run = RunConfig(small_task(), "learner", recipe, ARMS["schedule-free"], 0, 4)
    assert execute(tmp_path / "run", run, Schedule({"steps": (2.0, 4.0)})) == "done"
    network, step = load_network(tmp_path / "run")
    assert step == 4
    assert network(torch.zeros(3, 2), torch.ones(3)).isfinite().all()
    with pytest.raises(UserError, match="average of its optimizer"):
        load_network(tmp_path / "run", width=0.07)


def test_a_bench_times_optimizers_apart_and_compares_fallen_rates_at_their_end_alone(tmp_path):
    arms = tuple(ARMS[name] for name in ("baseline", "constant", "schedule-free", "muon"))
    config = small_bench(arms=arms, calibration_rounds=1, recipe=small_recipe(super_batch=64))
    costs = measure(tmp_path, config)
    assert set(costs) == {"uniform", "uniform, schedule-free", "uniform, muon", "guide"}
    assert len(config.budgets) > 1
    fallen = replace(config, arms=(*arms, ARMS["wsd"]))
    assert set(fallen.budgets) == {"steps"}
    needed = memory_needed(config)
    assert needed["schedule-free"].moments * 2 == needed["baseline"].moments * 3
    assert config.run(ARMS["constant"], 0).stretched == ""
    assert "falls" in fallen.run(ARMS["wsd"], 0).stretched


def test_an_arm_is_judged_by_the_average_that_it_asks_for(tmp_path):
    """Two widths of one run: what is learned is the same, what is judged is not."""
    config = small_bench(
        arms=tuple(ARMS[name] for name in ("baseline", "constant", "constant-ema-0.2")), seeds=(0,), n_curve=256,
        n_final=256, calibration_rounds=1, recipe=small_recipe(super_batch=64),
    )  # fmt: skip
    run_bench(tmp_path / "bench", config, Here(1), "cpu")
    results = read(tmp_path / "bench")
    plain, wide = (results.runs[name, 0] for name in ("constant", "constant-ema-0.2"))
    assert plain.ledger[-1]["loss"] == wide.ledger[-1]["loss"]
    assert {line["width"] for line in wide.lines} == {0.2}
    assert {line["width"] for line in plain.lines} == {config.recipe.ema_widths[0]}
    budget = config.final_budget
    cells = [results.cell(budget, name, "loss", 1.0) for name in ("constant", "constant-ema-0.2")]
    assert None not in cells
    assert cells[0].mean != cells[1].mean


def test_a_rate_that_falls_to_a_tenth():
    fall = FALLS["linear-to-tenth"]
    assert [fall(share, 1.0) for share in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.55, 0.1])


def test_trials_of_learning_rates_keep_what_an_arm_changes():
    arms = tuple(ARMS[name] for name in ("baseline", "wsd", "muon"))
    config = small_bench(arms=arms, tuning=Tuning(seeds=(90,)))
    assert tried_for(config, shared=True) == {arm.name: arm.name for arm in arms}
    trials = trial_bench(config, config.tuning, (0.1, 0.2))
    one = next(arm for arm in trials.arms if arm.name == "wsd-rate-0.2")
    recipe = trials.run(one, 90).recipe.of(one)
    assert recipe.learning_rate == LearningRate(0.2, 0.2, 0, "share", "linear")


@pytest.fixture
def cosine(tmp_path):
    """A file of rules with a course and an arm; forgotten afterwards."""
    before = [dict(known) for known in (FALLS, ARMS)]
    path = tmp_path / "rules.py"
    path.write_text(
        "import math\n"
        "from ajest.selection import Arm, Updates, register_arm, register_course\n"
        "register_course('cosine', lambda share, decay: math.cos(share * math.pi / 2) ** 2)\n"
        "register_arm(Arm('cosine', 'uniform', updates=Updates('cosine')))\n"
    )
    yield path
    for known, old in zip((FALLS, ARMS), before, strict=True):
        known.clear()
        known.update(old)


def test_a_course_of_the_users_travels_with_its_arm(cosine, monkeypatch):
    found = load_rules(cosine)
    arm = ARMS["cosine"]
    assert arm.rules == found
    value = to_json(arm)
    del FALLS["cosine"], ARMS["cosine"]  # as in a worker, which has yet to read the file
    for name in [name for name, module in sys.modules.items() if getattr(module, "__file__", None) == str(cosine)]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match="unknown course 'cosine'"):
        Updates("cosine")
    assert from_json(Arm, json.loads(json.dumps(value)), "x") == arm
    rate = small_recipe(learning_rate=LearningRate(0.1)).of(arm).learning_rate
    assert [rate(0, 1, s) for s in (0, 0.5, 1)] == pytest.approx([0.1, 0.05, 0], abs=1e-12)
    assert rate.ends_low


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Updates("lineal"), "unknown course 'lineal': did you mean 'linear'"),
        (lambda: Updates("linear", 0.0), "above 0 and at most 1, not 0"),
        (lambda: Updates("inverse-sqrt", 512), "at least 0 and at most 1, not 512"),
        (lambda: Updates(decay=0.2), "a decay needs a course"),
        (lambda: Updates(beta2=1.0), "beta2 must lie between 0 and 1, not 1"),
        (lambda: replace(LINEAR, course="lineal"), "unknown course"),
        (lambda: register_course("linear", lambda share, decay: 1.0), "another course 'linear'"),
        (lambda: register_course("inverse-sqrt", lambda share, decay: 1.0), "another course 'inverse-sqrt'"),
        (lambda: register_course("c", lambda share, decay: -1.0), "a finite number, at least 0"),
        (lambda: register_course("c", lambda share: 1.0), "course 'c': TypeError"),
    ],
)
def test_what_is_no_course_is_one_clear_line(make, why):
    with pytest.raises(UserError, match=why):
        make()
