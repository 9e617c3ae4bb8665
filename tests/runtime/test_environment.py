"""What the machine and the environment allow: cores, processes, readers that leave."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

import ajest
from ajest.cli import main as cli
from ajest.cli.console import device_of, readable
from ajest.errors import UserError
from ajest.runtime import distributed, launcher, threads
from ajest.runtime.launcher import Place, place

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "localhost", "MASTER_PORT": "1", "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2"}  # fmt: skip


@pytest.fixture
def environment(monkeypatch):
    """Sets what torchrun sets, and nothing else of it."""
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)

    def put(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.mark.parametrize(
    ("files", "granted"),
    [
        ({}, 64),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 64),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (  # a group further up grants less than one's own
            {
                "proc/self/cgroup": "0::/user/job\n",
                "sys/fs/cgroup/user/job/cpu.max": "800000 100000\n",
                "sys/fs/cgroup/user/cpu.max": "400000 100000\n",
            },
            4,
        ),
        (  # in a container the host's name of the group is not there
            {"proc/self/cgroup": "0::/docker/abc\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"},
            2,
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/m\n4:cpu,cpuacct:/job\n0::/\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "500000\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            5,
        ),
    ],
)
def test_cores_are_those_that_the_process_is_bound_to_and_its_groups_grant(files, granted, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    assert threads.cores(tmp_path) == granted
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})
    assert threads.cores(tmp_path) == 1


def test_threads_are_configured_and_freed_memory_is_kept(monkeypatch, environment):
    kept, set_to = [], []
    monkeypatch.setattr(threads, "cores", lambda: 8)
    monkeypatch.setattr(threads, "keep_freed_memory", lambda: kept.append(1))
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.delenv("OMP_NUM_THREADS")
    threads.configure_threads()
    threads.configure_threads(3)
    environment(**TORCHRUN)
    threads.configure_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    threads.configure_threads()
    assert set_to == [8, 3, 4, 2]
    assert len(kept) == 4
    assert ajest.keep_freed_memory() is None


def test_a_place_among_processes_is_what_torchrun_says(environment):
    assert place() == Place()
    environment(WORLD_SIZE="4")
    assert place() == Place()
    assert "WORLD_SIZE=4 is set and RANK is not" in launcher.half_set()
    environment(RANK="1")
    with pytest.raises(UserError, match="MASTER_ADDR, MASTER_PORT is not set: start them with torchrun, or unset RANK"):
        place()
    environment(**TORCHRUN)
    assert place() == Place(1, 4, 1, 2)
    assert launcher.half_set() == ""
    environment(WORLD_SIZE="many")
    with pytest.raises(UserError, match="WORLD_SIZE=many in the environment is no whole number"):
        place()


def called(monkeypatch, *words):
    """What `ajest` does with these words, in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["ajest", *words])
    monkeypatch.setattr(cli.interrupts, "listen", lambda: None)
    try:
        cli.main()
    except SystemExit as ended:
        return ended.code
    return 0


@pytest.mark.parametrize(
    "half", [{"WORLD_SIZE": "4"}, {"WORLD_SIZE": "4", "RANK": "0"}, {"WORLD_SIZE": "", "RANK": ""}]
)
def test_verbs_that_train_nothing_work_whatever_the_environment(half, environment, monkeypatch, capsys):
    environment(**half)
    assert called(monkeypatch, "arms") == 0
    assert "early-ajest" in capsys.readouterr().out
    assert called(monkeypatch, "report", "nowhere") == 2
    assert "not a bench" in capsys.readouterr().err


def test_training_says_what_is_half_set(environment, monkeypatch, capsys, tmp_path):
    small = ("--iterations", "2", "--super-batch", "64", "--out", str(tmp_path / "run"))
    environment(WORLD_SIZE="4")
    assert called(monkeypatch, "train", "tree", *small) == 0
    said = capsys.readouterr()
    assert said.err.startswith("ajest: WORLD_SIZE=4 is set and RANK is not: working as one process")
    assert "2 steps done" in said.out
    environment(RANK="0")
    assert called(monkeypatch, "train", "tree", *small) == 2
    assert "MASTER_ADDR" in capsys.readouterr().err
    environment(**TORCHRUN)
    for verb in ("bench", "study"):
        assert called(monkeypatch, verb, "tree") == 2
        assert "start it without torchrun" in capsys.readouterr().err


def test_a_device_goes_by_the_place_among_processes(environment, monkeypatch):
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    environment(LOCAL_RANK="3")
    assert device_of("auto") == "cuda"
    environment(**TORCHRUN)
    assert device_of("cpu") == "cpu"
    assert current == []
    assert device_of("auto") == "cuda:1"
    assert current == [1]
    environment(LOCAL_RANK="2")
    with pytest.raises(UserError, match="2 processes here have 2 CUDA devices: start one a device, or use"):
        device_of("cuda")


def test_processes_that_join_leave_devices_alone(environment, monkeypatch):
    """Which device a process has is known when its options are: with --device cpu it has none."""
    environment(**TORCHRUN)
    joined = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", pytest.fail)
    monkeypatch.setattr(distributed.dist, "rendezvous", lambda _: iter([(None, 1, 4)]))
    monkeypatch.setattr(distributed.dist, "PrefixStore", lambda *_: None)
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda backend, **_: joined.append(backend))
    monkeypatch.setattr(distributed.dist, "barrier", lambda: None)
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: None)
    with distributed.joined():
        assert joined == ["cpu:gloo,cuda:nccl"]


def test_a_run_is_given_more_steps_and_ends_as_one_that_had_them_at_once(monkeypatch, capsys, tmp_path):
    from ajest.storage import checkpoint

    def train(folder, steps, *more):
        return called(monkeypatch, "train", "tree", "--super-batch", "128", "--iterations", str(steps), "--out",
                      str(tmp_path / folder), *more)  # fmt: skip

    assert train("run", 2) == 0
    assert train("run", 4) == 0
    assert "4 steps done" in capsys.readouterr().out
    assert train("run", 4) == 0
    assert train("unbroken", 4) == 0
    one, other = (checkpoint.latest(tmp_path / f, "checkpoint", pytest.fail) for f in ("run", "unbroken"))
    assert one.facts["step"] == other.facts["step"] == 4
    assert all(torch.equal(value, other.tensors[key]) for key, value in one.tensors.items())
    assert (tmp_path / "run" / "snapshots" / "snapshot-0000004.json").exists()
    capsys.readouterr()
    assert train("run", 3) == 2
    assert "a run of 4 steps, which cannot become one of 3: it cannot be shortened" in capsys.readouterr().err
    assert train("run", 6, "--seed", "1") == 2
    assert "seed: 0 -> 1" in capsys.readouterr().err
    assert train("fading", 2, "--arm", "hard-early", "--keep", "0.5") == 0
    capsys.readouterr()
    assert train("fading", 4, "--arm", "hard-early", "--keep", "0.5") == 2
    said = capsys.readouterr().err
    assert "its selection stops by the share of the run that is done; name a new folder" in said
    assert said.count("\n") == 1


def test_an_exit_code_says_that_nobody_read_on(monkeypatch):
    def leaves(code=None):
        with readable():
            if code is not None:
                raise SystemExit(code)
            raise BrokenPipeError

    monkeypatch.setattr(os, "dup2", lambda *_: None)
    with monkeypatch.context() as closed:
        closed.setattr(sys, "stdout", None)
        with readable():
            pass
    for code, expected in ((None, 141), (0, 0), (2, 2)):
        with pytest.raises(SystemExit) as ended:
            leaves(code)
        assert ended.value.code == expected


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("words", ["arms", "data describe shapes:40", "bench --help"])
def test_a_reader_may_leave_early(words, tmp_path):
    command = f"set -o pipefail; {sys.executable} -m ajest {words} | true"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
    assert done.returncode == 141
    assert (tmp_path / "contact-sheet.png").exists() == words.startswith("data")
