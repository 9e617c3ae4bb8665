"""Training, sampling, judging and resuming on a device that is not the CPU: the same code, the same numbers; and what
is on the wrong device is found."""

import copy
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass, replace
from functools import cache
from types import SimpleNamespace

import pytest
import torch

from ajest.bench.read.folder import read
from ajest.bench.run.bench import run_bench
from ajest.bench.run.evaluation import evaluate_snapshot
from ajest.diffusion import ema
from ajest.runtime import cards, seeding
from ajest.runtime.cards import Card
from ajest.runtime.seeding import Streams
from ajest.selection import policies
from ajest.selection.agreement import check_agreement
from ajest.selection.catalogue import ARMS, arms_named
from ajest.selection.flow import Networks
from ajest.selection.selector import Selector
from ajest.selection.strata import Strata
from ajest.storage import checkpoint
from ajest.tasks.images.architecture import Architecture
from ajest.tasks.images.setup import image_task
from ajest.tasks.tree.source import TreeSource
from ajest.tasks.vectors.setup import vectors_task
from ajest.training import muon
from ajest.training.networks import Guidance, load_network
from ajest.training.recipe import LearningRate
from ajest.training.run import execute, execution
from ajest.training.run_folder import RunConfig
from ajest.training.schedule import Schedule
from ajest.training.trainer import Trainer
from conftest import Here, small_bench, small_recipe, small_task
from simulated_device import simulated_cuda


@pytest.fixture
def cuda(monkeypatch):
    """The simulated device, whose generators draw the numbers that the CPU's of the same name do."""
    on_cpu = seeding.generator

    def generator(seed, *stream, device="cpu"):
        made = torch.Generator(device=device)
        made.set_state(on_cpu(seed, *stream).get_state())
        return made

    with simulated_cuda() as device:
        monkeypatch.setattr(seeding, "generator", generator)
        # Of fewer digits there, which is meant, and so not the same numbers.
        monkeypatch.setattr(muon, "_type_on", lambda device: torch.float32)
        yield device


@cache
def tiny_images():
    network = Architecture(channels=4, multipliers=(1,), blocks=1, attention=(), patch=2)
    return image_task(
        ("shapes:256",), ("shapes:128",), resolution=16, learner=network, guide=network, sampler_steps=3, references=64
    )


def tiny_vectors():
    sizes = {"hidden": 16, "guide_hidden": 8, "blocks": 1, "sampler_steps": 4}
    return vectors_task(("two-moons:300",), warn=lambda _: None, **sizes)


@cache
def fresh(task, role, seed):
    network = task.network(role, seed)
    network.flops()  # is counted once, and copied along
    return network


def trainer(task, arm, device, **recipe):
    def network(role, seed):
        return copy.deepcopy(fresh(task, role, seed)).to(device)

    proxy = network("proxy", 0) if arm.scoring.scorer == "proxy" else None
    reference = None if arm.reference == "none" else network("guide", 5).eval().requires_grad_(False)
    networks = Networks(network("learner", 0), reference, proxy)
    recipe = small_recipe(super_batch=128, learning_rate=LearningRate(0.01, 0), not_finite="zero", **recipe)
    return Trainer(task.source(device), networks, recipe, arm, Streams(0))


def state(trainer):
    """Everything that a checkpoint holds, on the CPU."""
    return {k: v.detach().cpu() for k, v in trainer.state()[0].items()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


NOT_FOR = {
    "tree": {"half-resolution"},
    "images": {"exact-target", "infonoise-mmse", "internal-head", "dispersive"},
}


def what_they_use(part, path=""):
    """The registered functions, dials and settings of an arm or a part of it, whatever the numbers are."""
    if not is_dataclass(part):
        yield path, "a number" if type(part) in (int, float) and part else str(part)
        return
    yield path, type(part).__name__
    for name in (f.name for f in fields(part)):
        if name not in ("name", "summary", "paper"):
            yield from what_they_use(getattr(part, name), f"{path}.{name}")


def enough(names):
    """So few of these arms that each function and dial which any of them uses is used."""
    uses = {name: set(what_they_use(ARMS[name])) for name in names}
    left, chosen = set().union(*uses.values()), []
    while left:
        chosen.append(max(uses, key=lambda name: len(uses[name] & left)))
        left -= uses[chosen[-1]]
    return chosen


FOR = {task: [arm for arm in ARMS if arm not in NOT_FOR[task]] for task in NOT_FOR}
CASES = [("tree", arm) for arm in FOR["tree"]] + [("images", arm) for arm in enough(FOR["images"])]


@pytest.mark.parametrize(("task", "name"), CASES)
def test_arms_train_on_the_device_as_on_the_cpu(task, name, cuda):
    """Two steps, a restart from what a checkpoint would hold, and another: losses, weights, averages, counts and what
    is remembered are the CPU's, bit for bit."""
    task, arm = {"tree": small_task, "images": tiny_images}[task](), arms_named((name,), chunks=4)[0]
    on_cpu, on_device, again = (trainer(task, arm, device) for device in ("cpu", "cuda", "cuda"))
    expected, found = ([t.step().loss for _ in range(2)] for t in (on_cpu, on_device))
    assert found == expected
    assert_equal(state(on_device), state(on_cpu))
    again.restore(state(on_device), on_device.state()[1])
    assert again.step().loss == on_cpu.step().loss
    assert_equal(state(again), state(on_cpu))
    assert {t.device.type for t in again.network.parameters()} == {"cuda"}


def train_and_judge(folder, task, device):
    """A guide, and an AJEST run that is given up after three steps and taken up again; (what its last checkpoint holds,
    its metrics without guidance and with)."""
    recipe = small_recipe(super_batch=128, not_finite="zero")
    guide = RunConfig(task, "guide", recipe, ARMS["baseline"], 0, 2)
    run = RunConfig(task, "learner", recipe, arms_named(("early-ajest",), chunks=4)[0], 0, 4, "../guide")
    schedule = Schedule({"steps": (2.0, 4.0)}, checkpoint_every=2, ledger_every=2, selection_at=(2,))
    assert execute(folder / "guide", guide, Schedule(), device) == "done"
    steps = execution(folder / "run", run, schedule, device)
    while next(steps).steps_taken < 3:
        pass
    steps.close()
    assert execute(folder / "run", run, schedule, device) == "done"
    judged = evaluate_snapshot(folder / "run", 4, (1.0, 2.0), 24, folder / "cache", Guidance(folder / "guide"),
        device=device, keep_tensors=True)  # fmt: skip
    network, _ = load_network(folder / "run", device=device)
    assert all(path.exists() for path in task.write_samples(network, folder, 4, device=device))
    stored = checkpoint.latest(folder / "run", "checkpoint", print)
    return stored.tensors, [line["metrics"] for line in judged]


@pytest.mark.parametrize("task", [small_task, tiny_images, tiny_vectors], ids=["tree", "images", "vectors"])
def test_a_run_is_resumed_sampled_guided_and_judged_on_the_device(task, cuda, small_judge, tmp_path):
    tensors, metrics = train_and_judge(tmp_path / "cpu", task(), "cpu")
    found, found_metrics = train_and_judge(tmp_path / "cuda", task(), "cuda")
    assert_equal(found, tensors)
    for one, other in zip(found_metrics, metrics, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)


def test_a_whole_bench_runs_on_the_device(cuda, tmp_path, monkeypatch):
    card = Card("0", "simulated", bfloat16=True, total=1 << 34, free=1 << 34)
    monkeypatch.setattr(cards, "_visible", lambda ids: (card,))
    arms = arms_named(("baseline", "ajest"))
    run_bench(
        tmp_path,
        small_bench(arms=arms, iterations=32, guide_iterations=4, n_final=200, n_curve=200),
        Here(),
        device="cuda",
    )
    assert {arm.name for arm in read(tmp_path).config.arms} == {"baseline", "ajest"}
    assert cuda.counts.operations > 0


def stays_behind(monkeypatch):
    draw = TreeSource.draw
    monkeypatch.setattr(TreeSource, "draw", lambda *a: (lambda b: replace(b, sigma=b.sigma.cpu()))(draw(*a)))


def strata_without_a_device(monkeypatch):
    def strata_by(sigma, count):
        return Strata(count, len(sigma), torch.arange(len(sigma)).view(count, -1))

    monkeypatch.setattr(policies, "strata_by", strata_by)


def averages_on_the_host(monkeypatch):
    real = ema.copy.deepcopy
    monkeypatch.setattr(ema, "copy", SimpleNamespace(deepcopy=lambda network: real(network).to("cpu")))


def noise_by_a_generator_of_the_cpu(monkeypatch):
    monkeypatch.setattr(Selector, "stream", lambda selector, *name: selector.streams.generator(*name))


def numbers_without_a_copy(monkeypatch):
    monkeypatch.setattr(Trainer, "_booked", lambda trainer, choice, *_: choice.drawn.batch.id.numpy())


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (stays_behind, "at least two devices, cuda:0 and cpu"),
        (strata_without_a_device, "at least two devices, cuda:0 and cpu"),
        (averages_on_the_host, "at least two devices, cuda:0 and cpu"),
        (noise_by_a_generator_of_the_cpu, "Expected a 'cuda' device type for generator"),
        (numbers_without_a_copy, "can't convert cuda:0"),
    ],
)
def test_a_planted_mistake_is_found(mistake, says, cuda, monkeypatch):
    mistake(monkeypatch)
    with pytest.raises((RuntimeError, TypeError), match=says):
        trainer(small_task(), ARMS["hard"], "cuda").step()


def test_waits_and_copies_are_counted(cuda):
    x = torch.arange(6.0).to("cuda")
    mask = x > 2
    cuda.restart()
    waits = (x.sum().item, x.tolist, x.cpu, mask.any, lambda: bool(mask.any()), lambda: x[mask], mask.nonzero,
        lambda: torch.tensor(1.0, device="cuda"), lambda: x[torch.tensor([0])], torch.cuda.synchronize)  # fmt: skip
    for wait in waits:
        wait()
    x[mask] = 0.0
    x[:2] = 1
    torch.ones(4).pin_memory().to("cuda", non_blocking=True)
    (x * torch.tensor(2.0)).topk(2)
    whats = Counter(wait.what for wait in cuda.counts.waits)
    assert whats == {"_local_scalar_dense": 2, "copy device to host": 2, "index": 1, "nonzero": 1,
        "copy host to device": 2, "torch.cuda.synchronize": 1}  # fmt: skip
    assert cuda.counts.syncs == 9
    assert (cuda.counts.copies("host to device"), cuda.counts.bytes("host to device")) == (3, 4 + 8 + 16)
    assert (cuda.counts.copies("device to host"), cuda.counts.bytes("device to host")) == (2, 48)
    assert all(wait.where.startswith("test_simulated_device.py:") for wait in cuda.counts.waits)


def test_a_copy_that_does_not_wait_is_done_late(cuda):
    x = torch.arange(3.0).to("cuda")
    cuda.restart()
    late = x.to("cpu", non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    x += 1
    assert late.isnan().all()
    assert cuda.counts.syncs == 0
    assert not copied.query()
    copied.synchronize()
    assert late.tolist() == [0, 1, 2]
    assert [wait.what for wait in cuda.counts.waits] == ["event.synchronize"]
    copied.synchronize()
    assert cuda.counts.syncs == 1  # what is done is not waited for


def test_pinned_memory_may_not_change_before_it_is_copied(cuda):
    source = torch.ones(3).pin_memory()
    source.to("cuda", non_blocking=True)
    torch.cuda.synchronize()
    source.zero_()  # the copy is done
    source.to("cuda", non_blocking=True)
    source.fill_(2)
    with pytest.raises(AssertionError, match="pinned memory was changed"):
        torch.cuda.synchronize()
    source.fill_(0)


def test_a_thread_computes_on_the_device_too(cuda):
    x = torch.ones(3, device="cuda")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: (x + torch.zeros(3, device="cuda")).sum().item()).result() == 3
    assert cuda.counts.waits[-1].what == "_local_scalar_dense"


def test_two_devices_do_not_mix(cuda):
    x, y = torch.ones(3, device="cuda"), torch.ones(3)
    host = torch.Generator()
    mixed = (lambda: x + y, lambda: torch.stack([x[0], y[0]]), lambda: y[x.long()], lambda: y.add_(x[0]),
        lambda: torch.cat([x, y]), lambda: x.lerp(y, 0.5),
        lambda: torch.randn(2, generator=host, device="cuda"))  # fmt: skip
    for operation in mixed:
        with pytest.raises(RuntimeError, match=r"same device|device type for generator"):
            operation()
    y.copy_(x * 3)
    assert y.tolist() == [3, 3, 3]
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        x.to("cuda:1")


@pytest.mark.parametrize("name", ["stale", "second-moment"])
def test_processes_compare_what_is_remembered_on_either_device(name, cuda):
    """A count of looks is kept on the CPU, beside averages on the device."""
    trained = Trainer(
        small_task().source("cuda"),
        Networks(small_task().network("learner", 0).to("cuda")),
        small_recipe(),
        ARMS[name],
        Streams(0),
    )
    trained.step()
    ids = torch.arange(64, device="cuda")
    check_agreement(0, ids, ids[::4], trained.selector.trigger, trained.selector.state())
