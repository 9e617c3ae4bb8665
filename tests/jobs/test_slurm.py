"""Against a real cluster, such as `scripts/slurm-on-loopback.sh` starts: only where AJEST_SLURM names a partition."""

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
from test_queue import Task, act, attempts_of

from ajest.bench.read.folder import read
from ajest.bench.run.bench import run_bench
from ajest.errors import UserError
from ajest.jobs.failures import noted
from ajest.jobs.local import Local
from ajest.jobs.progress import board
from ajest.jobs.slurm import Slurm
from conftest import small_bench

pytest.importorskip("submitit")
PARTITION = os.environ.get("AJEST_SLURM", "")
if not PARTITION:
    pytest.skip("there is no cluster: set AJEST_SLURM to a partition", allow_module_level=True)

CLUSTER = Slurm(PARTITION, cpus_per_run=1, memory=1.0, max_parallel=2, hours=0.2, poll=0.5)


@pytest.fixture(autouse=True)
def paths(monkeypatch):
    """Jobs of the cluster find these tests."""
    monkeypatch.setenv("PYTHONPATH", ":".join(str(Path(__file__).parents[k]) for k in (0, 1)))


def tried(folder, *jobs):
    said = []
    tasks = [Task(name, does, str(folder)) for name, does in jobs]
    with board("", {t.name: 1.0 for t in tasks}) as lines:
        try:
            CLUSTER.work(act, tasks, "cpu", 1, lines, said.append, folder)
        except UserError as error:
            return said, str(error)
    return said, None


def test_jobs_of_the_cluster_are_done_or_tried_again_or_reported(tmp_path):
    said, error = tried(tmp_path, ("a", ""), ("b", "die once"), ("c", "fail"), ("d", "hoard"))
    assert "a: a is done" in said
    assert "b: b is done" in said
    assert error.startswith("2 of 4 jobs failed")
    kinds = {f.job: f.kind for f in noted(tmp_path) if f.final}
    assert kinds == {"c": "crashed", "d": "memory"}
    assert "ValueError: c cannot be" in next(f.log for f in noted(tmp_path) if f.job == "c")
    assert attempts_of(tmp_path, "b") == 2


def test_a_mistake_ends_everything(tmp_path):
    _, error = tried(tmp_path, ("a", "refuse"), ("b", "sleep"))
    assert error == "name another folder"
    time.sleep(3)
    running = subprocess.run(["squeue", "--noheader", "--states=R"], capture_output=True, text=True, check=True)
    assert running.stdout == ""


def test_a_bench_of_the_cluster_learns_what_one_of_this_machine_does(tmp_path):
    run_bench(tmp_path / "far", small_bench(), CLUSTER)
    run_bench(tmp_path / "near", small_bench(), Local(2))
    far, near = read(tmp_path / "far"), read(tmp_path / "near")
    assert far.missing() == []
    for arm in far.arms:
        values = [r.cell("steps", arm, "loss", 1.0).values for r in (far, near)]
        assert values[0] == values[1]


def test_a_pre_empted_run_goes_on_in_another_job(tmp_path):
    config = small_bench(arms=small_bench().arms[:1], seeds=(0,), iterations=4000)

    def pre_empt():
        while not list(tmp_path.glob("bench/arms/*/*/ledger.jsonl")):
            time.sleep(0.1)
        jobs = subprocess.run(["squeue", "--noheader", "--format=%i"], capture_output=True, text=True, check=True)
        subprocess.run(["scancel", *jobs.stdout.split()], check=True)

    thread = threading.Thread(target=pre_empt)
    thread.start()
    run_bench(tmp_path / "bench", config, CLUSTER)
    thread.join()
    assert read(tmp_path / "bench").missing() == []
    assert [f.kind for f in noted(tmp_path / "bench")] == ["killed"]
