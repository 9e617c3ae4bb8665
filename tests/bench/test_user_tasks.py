"""Tasks of the user's own: in a file, benched by the command line with workers, killed, resumed, changed."""

import json
import pickle
import signal
import time
from dataclasses import dataclass, replace

import pytest
import torch

from ajest.bench.plan.presets import any_quick
from ajest.bench.read.folder import read_bench
from ajest.errors import UserError
from ajest.runtime import plugins
from ajest.storage.config import from_json, to_json
from ajest.tasks import Evaluation, Metric, Task, from_spec, register, registry
from ajest.training.run_folder import RunConfig
from forked import FORKED

CIRCLE = '''
from dataclasses import dataclass

import torch
from torch import nn

from ajest.diffusion.batch import Batch
from ajest.diffusion.denoising import edm_weight
from ajest.diffusion.sampling import sample, sigma_schedule
from ajest.runtime.seeding import LARGE, drawing_from, generator
from ajest.tasks import Evaluation, Metric, Task


class Network(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, 2))

    def forward(self, x, sigma, label=None):
        sigma = sigma[:, None]
        scale = (1 + sigma**2).sqrt()
        raw = self.layers(torch.cat([x / scale, sigma.log() / 4], 1))
        return x / scale**2 + raw * sigma / scale


class Source:
    def draw(self, count, generator, eps=None):
        numbers = torch.stack([torch.randn(6, generator=generator) for _ in range(count)])
        if eps is not None:
            numbers[:, 2:4] = torch.stack([torch.randn(6, generator=eps) for _ in range(count)])[:, 2:4]
        sigma = (numbers[:, 4] * 1.2 - 1.2).exp()
        clean = nn.functional.normalize(numbers[:, :2])
        target = clean.clone()
        turn = (clean[:, 1].atan2(clean[:, 0]) / 6.2832 * 500).long() % 500
        return Batch(clean + sigma[:, None] * numbers[:, 2:4], sigma, edm_weight(sigma, 1.0), turn, target)

    def complete(self, batch):
        return batch


@dataclass(frozen=True)
class Circle(Task):
    """A circle."""

    name: str = "circle"
    width: int = 16

    @property
    def metrics(self):
        return (Metric("radius", "error of the radius", "lower", "Mean distance from the circle.", headline="both"),)

    def source(self, device):
        return Source()

    def network(self, role, seed):
        with drawing_from(generator(seed, role, "weights")):
            return Network(self.width if role in LARGE else 4)

    def evaluate(self, model, how):
        start = 5 * torch.randn(how.n, 2, generator=generator(how.seed, "evaluation"))
        x = sample(model.denoiser, start, sigma_schedule(8, 5.0, 0.01))
        return Evaluation({"radius": (x.norm(dim=1) - 1).abs().mean().item()})


def make_task():
    return Circle()
'''


@pytest.fixture
def circle(tmp_path):
    path = tmp_path / "circle.py"
    path.write_text(CIRCLE)
    return path


def small(task: Task):
    quick = any_quick(task)
    recipe = replace(quick.recipe, super_batch=64)
    arms = tuple(replace(arm, chunks=4) for arm in quick.arms)
    return replace(
        quick, recipe=recipe, arms=arms, seeds=(0, 1), iterations=32, guide_iterations=8, n_final=200, n_curve=200,
        curve=(0.5, 1.0), calibration_rounds=2,
    )  # fmt: skip


def test_a_task_in_a_file_comes_back_from_json_and_through_a_pickle(circle):
    task = from_spec(f"{circle}:make_task")
    config = RunConfig(replace(task, width=24), "learner", small(task).recipe, small(task).arms[0], 0, 10)
    value = json.loads(json.dumps(to_json(config)))
    assert value["task"]["from"] == {
        "place": str(circle),
        "class": "Circle",
        "digest": plugins.load(f"{circle}:Circle")[1].digest,
    }
    assert from_json(RunConfig, value, "x") == config
    bench = small(task)
    assert pickle.loads(pickle.dumps(bench)) == bench


def test_a_file_that_has_changed_is_refused_by_its_name(circle):
    bench = small(from_spec(f"{circle}:Circle"))
    value = to_json(bench)
    circle.write_text(CIRCLE + "\nSIZE = 3\n")
    with pytest.raises(UserError, match=r"circle\.py has changed since then: put the old file back, or name a new fol"):
        from_json(type(bench), value, "x")


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("{folder}/none.py:make_task", "there is no file .*none.py"),
        ("{folder}/circle.py:make_square", "has no make_square; it defines .*make_task"),
        ("{folder}/circle.py:Network", r"circle\.py:Network: TypeError: .*missing 1 required"),
        ("no_such_module_of_mine:make", "there is no module no_such_module_of_mine"),
        ("{folder}/broken.py:make_task", r"broken\.py, line 2: ZeroDivisionError"),
        ("{folder}/loose.py:make_task", "must be a frozen dataclass"),
        ("{folder}/other.py:make_task", "makes no task but a int"),
    ],
)
def test_what_is_no_task_is_one_clear_line(circle, spec, why):
    folder = circle.parent
    (folder / "broken.py").write_text("x = 1\ny = x / 0\n")
    (folder / "other.py").write_text("def make_task():\n    return 3\n")
    (folder / "loose.py").write_text(
        "from ajest.tasks import Task\n\n\nclass Loose(Task):\n    name = 'loose'\n    metrics = ()\n"
        "    source = network = evaluate = None\n\n\ndef make_task():\n    return Loose('loose')\n"
    )
    with pytest.raises(UserError, match=why):
        from_spec(spec.format(folder=folder))


def test_a_name_is_taken_once_and_a_task_has_one():
    @dataclass(frozen=True)
    class Mine(Task):
        name: str = "tree"
        metrics = (Metric("m", "m", "lower", "m"),)

        def source(self, device):
            raise NotImplementedError

        def network(self, role, seed):
            raise NotImplementedError

        def evaluate(self, model, how):
            return Evaluation({})

    with pytest.raises(UserError, match="there is another task 'tree'"):
        register(Mine)
    assert "tree" in registry.known()


def test_a_registered_task_still_says_where_it_stands(circle):
    """Another process has not run the file that registers it."""
    circle.write_text(CIRCLE + "\nfrom ajest.tasks import register\n\nregister(Circle)\n")
    task = from_spec(f"{circle}:Circle")
    try:
        assert registry.kind_of("circle") is type(task)
        assert to_json(small(task))["task"]["from"]["place"] == str(circle)
    finally:
        del registry._registered["circle"]


def test_a_module_that_has_changed_is_not_even_imported(tmp_path, monkeypatch):
    (tmp_path / "loud_module.py").write_text("raise SystemExit('it was run')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="loud_module has changed since then"):
        plugins.load_module("loud_module", "0" * 16)
    with pytest.raises(UserError, match=r"there is no module loud_modul_$"):
        plugins.load_module("loud_modul_")


def test_a_bench_of_a_file_by_the_command_line_killed_and_resumed(circle, tmp_path):
    """Two workers, as a user would; what is done is not done again, and the file must stay as it is."""
    root = tmp_path / "bench"
    words = ["ajest", "bench", f"{circle}:make_task", "--out", root, "--workers", "2",
             "--seeds", "0", "1", "--iterations", "64", "--super-batch", "64",
             "--arms", "baseline", "random"]  # fmt: skip
    with FORKED.start(words) as process:
        deadline = time.monotonic() + 120
        while not list(root.glob("arms/*/*/ledger.jsonl")) and time.monotonic() < deadline:
            assert process.poll() is None, process.errors
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = FORKED.run(words)
    assert done.returncode == 0, done.stderr
    assert "error of the radius" in done.stdout
    assert (root / "report.html").exists()
    assert read_bench(root).task == from_spec(f"{circle}:make_task")
    circle.write_text(CIRCLE + "\nSIZE = 3\n")
    refused = FORKED.run(words)
    assert refused.returncode == 2
    assert "circle.py has changed since then" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def test_what_is_asked_of_a_task_that_has_no_such_setting_is_refused(circle, refused):
    refused("bench", f"{circle}:make_task", "--p-mean", "1", says="the task circle has no setting 'p_mean'")
    refused("bench", "squares", says=r"unknown task 'squares': .*or path/to/file\.py:NAME")
    refused("bench", f"{circle}:make_task", "--preset", "paper", says="unknown preset of circle 'paper'.* full, quick")


def test_vectors_from_the_command_line(command, refused, tmp_path):
    """Any table of numbers, with nothing but its file."""
    numbers = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    (tmp_path / "x.csv").write_text(
        "a,b,c\n" + "\n".join(",".join(f"{v:.4f}" for v in row) for row in numbers.tolist())
    )
    words = ("--arms", "baseline", "random", "--seeds", "0", "--iterations", "32", "--super-batch", "64")
    done = command("bench", "vectors", "--data", "x.csv", *words, "--workers", "1", "--out", "b")
    assert done.code == 0, done.err
    assert "80 of 400 vectors are held out" in done.err
    assert "energy distance" in done.out
    refused("bench", "vectors", "--resolution", "32", says="the task vectors has no setting 'resolution'")
    refused("bench", "vectors", "--data", "none.npy", says="none.npy")


def test_tasks_that_learn_from_data_can_be_made_of_nothing():
    assert registry.make("vectors").subject
    assert registry.make("images").data == ("shapes",)
