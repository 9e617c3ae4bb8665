"""The trainers of examples/loops: few lines differ, any number of processes comes to the same, and they resume."""

import difflib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

LOOPS = Path(__file__).parents[2] / "examples" / "loops"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]


def changed(one, other):
    """Lines in which two files differ: of those that stand for others, the more."""
    texts = [(LOOPS / f"{name}.py").read_text().splitlines() for name in (one, other)]
    blocks = difflib.SequenceMatcher(None, *texts, autojunk=False).get_opcodes()
    return sum(max(a1 - a0, b1 - b0) for kind, a0, a1, b0, b1 in blocks if kind != "equal")


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def words_of(options):
    return [str(word) for name, value in options.items() for word in (f"--{name}", value)]


def launched(*command):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def in_two(name, **options):
    """A trainer in two processes."""
    launched(*TORCHRUN, "--nproc-per-node=2", str(LOOPS / f"{name}.py"), *words_of(options))


IN_TURNS = """
import json, runpy, sys
for path, words in json.loads(sys.argv[1]):
    sys.argv = [path, *words]
    runpy.run_path(path, run_name="__main__")
"""


def in_one(*runs):
    """Trainers with their options, one after another in one process."""
    asked = [(str(LOOPS / f"{name}.py"), words_of(options)) for name, options in runs]
    launched(sys.executable, "-c", IN_TURNS, json.dumps(asked))


@pytest.mark.parametrize("name", ["sit", "unconditional"])
def test_at_most_15_lines_are_changed(name):
    assert 4 <= changed(name, f"{name}_ajest") <= 15


def test_a_sampler_in_a_trainer_like_sits(tmp_path):
    def options(name, steps):  # an epoch of half of 512 examples has 8 steps
        return {"batch-size": 32, "checkpoint-every": 8, "steps": steps, "out": tmp_path / name}

    in_two("sit_ajest", **options("two", 21))
    wanted = {"whole": [21], "resumed": [11, 21]}
    in_one(("sit", options("plain", 3)),
           *(("sit_ajest", options(name, steps)) for name, ends in wanted.items() for steps in ends))  # fmt: skip
    assert len(losses(tmp_path / "plain")) == 3

    assert losses(tmp_path / "resumed") == losses(tmp_path / "whole")
    stored = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "resumed", "two"))
    one, resumed, two = stored
    for key, value in one["model"].items():
        assert torch.equal(value, resumed["model"][key]), key

    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)
    assert torch.equal(two["sampler"]["order"], one["sampler"]["order"])
    assert two["sampler"]["epoch"] == 2


def test_selection_in_an_accelerate_loop(tmp_path):
    pytest.importorskip("accelerate")

    def options(name, batch, steps):  # an epoch has 8 steps
        own = {"train_batch_size": batch, "max_train_steps": steps, "output_dir": tmp_path / name}
        return own | {"checkpointing_steps": 100}

    in_two("unconditional_ajest", **options("resumed", 32, 11))
    two = losses(tmp_path / "resumed")
    runs = {"whole": 14, "resumed": 14}  # by one process, which goes on from what two have made
    in_one(("unconditional", options("plain", 64, 2)),
           *(("unconditional_ajest", options(name, 64, steps)) for name, steps in runs.items()))  # fmt: skip
    assert len(losses(tmp_path / "plain")) == 2
    whole = losses(tmp_path / "whole")
    assert two == pytest.approx(whole[:11], rel=1e-4)
    assert losses(tmp_path / "resumed") == pytest.approx(whole, rel=1e-4)
