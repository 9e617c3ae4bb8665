import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ajest.errors import UserError
from ajest.runtime import distributed
from ajest.runtime.seeding import Streams
from ajest.selection.catalogue import ARMS
from ajest.storage import checkpoint, jsonl
from ajest.storage.config_file import write_config
from ajest.training.run_folder import RunConfig, read_config, read_status
from ajest.training.trainer import Trainer
from conftest import small_recipe, small_task
from forked import FORKED
from together import SCENARIOS, STEPS, trainer_of

HERE = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]


def environment():
    path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def launched(*command):
    """By torchrun itself, as two processes."""
    start = [*TORCHRUN, "--nproc-per-node=2"]
    return subprocess.run([*start, *map(str, command)], env=environment(), capture_output=True, text=True, timeout=300)


def goes_well(processes, *command):
    done = FORKED.run(command, processes=processes)
    assert done.returncode == 0, done.stderr[-3000:]


def test_any_number_of_processes_comes_to_the_same(tmp_path):
    found = {}
    for count in (1, 2, 4):
        folder = tmp_path / f"of-{count}"
        goes_well(count, HERE / "together.py", folder)
        found[count] = {name: checkpoint.load(folder / name) for name in (*SCENARIOS, "judged")}
    for name in SCENARIOS:
        if name != "rank":
            trains_as_one(found, name)
    chooses_by_rank(found)
    judges_as_one(found)


def trains_as_one(together, name):
    one = together[1][name]
    for count in (2, 4):
        other = together[count][name]
        assert other.facts["ledger"] == one.facts["ledger"]
        assert other.facts["trigger"]["fired_at"] == one.facts["trigger"]["fired_at"]
        assert (one.facts["trigger"]["fired_at"] is not None) == (name == "early")
        for key, value in one.tensors.items():
            if key.startswith("example_counts"):
                assert torch.equal(value, other.tensors[key]), f"{count} processes kept other examples"
            else:
                torch.testing.assert_close(other.tensors[key], value, rtol=2e-3, atol=2e-4, msg=f"{key} of {count}")


def chooses_by_rank(together):
    """In rank scope each process chooses from its own part."""
    for count in (2, 4):
        stored = together[count]["rank"]
        alone = trainer_of("ajest")
        arm = replace(alone.arm, within=alone.recipe.super_batch // count)
        alone = Trainer(alone.selector.source, alone.selector.networks, alone.recipe, arm, Streams(0))
        for _ in range(STEPS):
            alone.step()
        tensors, _ = alone.state()
        assert torch.equal(tensors["example_counts/trained"], stored.tensors["example_counts/trained"])
        assert not torch.equal(tensors["example_counts/trained"], together[1]["rank"].tensors["example_counts/trained"])


def judges_as_one(together):
    """Samples and metrics do not depend on the number of processes."""
    one = together[1]["judged"]
    for count in (2, 4):
        other = together[count]["judged"]
        assert other.facts["images"] == one.facts["images"]
        assert other.facts["tree"] == one.facts["tree"]
        for key, value in one.tensors.items():
            assert torch.equal(value, other.tensors[key]), key


def test_the_first_process_chooses_and_those_that_no_longer_agree_with_it_are_found():
    goes_well(2, HERE / "apart.py")


def small_run(folder, iterations):
    """A run's folder that `ajest train` goes on with, small enough for a test."""
    config = RunConfig(small_task(), "learner", small_recipe(), ARMS["hard"], 0, iterations)
    write_config(folder / "config.json", config)
    assert read_config(folder) == config


TRAIN = """
import os, sys
sys.path.insert(0, {tests!r})
from contextlib import nullcontext
from pathlib import Path
import torch
torch.set_num_threads(1)
from ajest.runtime import distributed, interrupts
from ajest.training.run_folder import read_config
from ajest.training.schedule import Schedule; from ajest.training.run import execute
interrupts.listen()
folder = Path({folder!r})
with distributed.joined() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else nullcontext():
    execute(folder, read_config(folder), Schedule(checkpoint_every=20, ledger_every=1))
# A thread that outlives its group can abort the process while the interpreter ends.
tasks = Path("/proc/self/task")
left = [(task / "comm").read_text() for task in tasks.iterdir()] if tasks.exists() else []
assert not any("gloo" in name for name in left), left
"""


def script(tmp_path, folder):
    path = tmp_path / f"train-{folder.name}.py"
    path.write_text(TRAIN.format(tests=str(HERE), folder=str(folder)))
    return path


def children(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_killed_process_is_brought_back_and_ends_with_the_same_bits(tmp_path):
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    for folder in (unbroken, killed):
        small_run(folder, 200)
    goes_well(2, script(tmp_path, unbroken))
    command = [*TORCHRUN, "--nproc-per-node=2", "--max-restarts=2", str(script(tmp_path, killed))]
    said = tmp_path / "said.log"
    with (
        said.open("w") as log,
        subprocess.Popen(command, env=environment(), stdout=log, stderr=log) as agent,
    ):
        while len(jsonl.read(killed / "ledger.jsonl")) < 50:
            assert agent.poll() is None
            time.sleep(0.01)
        os.kill(children(agent.pid)[1], signal.SIGKILL)
        assert agent.wait(timeout=120) == 0, said.read_text()
    assert read_status(killed) == {"state": "done", "step": 200}
    final = [checkpoint.latest(f, "checkpoint", pytest.fail) for f in (unbroken, killed)]
    for key, value in final[0].tensors.items():
        assert torch.equal(value, final[1].tensors[key]), key


def test_a_checkpoint_of_two_processes_goes_on_in_any_number(tmp_path):
    ends, begun = {}, tmp_path / "begun"
    small_run(begun, 20)
    goes_well(2, script(tmp_path, begun))
    write_config(begun / "config.json", replace(read_config(begun), iterations=30))
    (begun / "status.json").unlink()
    for count in (2, 1, 4):
        folder = shutil.copytree(begun, tmp_path / f"then-{count}")
        goes_well(count, script(tmp_path, folder))
        ends[count] = checkpoint.latest(folder, "checkpoint", pytest.fail)
    for count in (1, 4):
        assert ends[count].facts["step"] == 30
        for key, value in ends[2].tensors.items():
            torch.testing.assert_close(ends[count].tensors[key], value, rtol=1e-3, atol=1e-4)


def test_the_command_line_under_torchrun(tmp_path):
    run = tmp_path / "run"
    train = ("-m", "ajest", "train", "tree", "--iterations", 2, "--super-batch", 64, "--out", run)
    done = launched(*train)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("2 steps done") == 1
    again = FORKED.run(["ajest", "train", "tree", "--iterations", 2, "--super-batch", 128, "--out", run], processes=2)
    assert again.returncode != 0
    assert again.stderr.count("ajest: ") == 1, again.stderr
    assert "super_batch: 64 -> 128" in again.stderr
    refused = FORKED.run(["ajest", "bench", "tree"], processes=2)
    assert "start it without torchrun" in refused.stderr


def test_statistics_of_one_processs_examples_alone_are_refused(monkeypatch):
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    assert distributed.averaging(network) is network
    monkeypatch.setattr(distributed, "world", lambda: 2)
    with pytest.raises(UserError, match=r"BatchNorm1d keeps statistics of its own process's .*convert_sync_batchnorm"):
        distributed.averaging(network)
