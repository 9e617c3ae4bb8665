"""SIGKILL at random moments: always resumable, the same bits at the end, no file half-written."""

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from harm import FULL, assert_same_end, command, not_whole, victim

from ajest.bench.plan.config import run_folder
from ajest.bench.read.folder import read
from ajest.bench.report.page import write_report
from ajest.storage import checkpoint, jsonl
from forked import FORKED, Begun


def test_a_run_killed_at_random_moments_ends_with_the_same_bits(tmp_path):
    victim("make_guide", tmp_path / "guide")
    said = victim("killed", tmp_path, 100 if FULL else 25, 0)
    assert said["kills"] >= (100 if FULL else 25)
    assert len(set(said["moments"])) > 5  # all over the run
    for name in said["runs"]:
        assert_same_end(tmp_path / name, tmp_path / "unbroken")


def children(process: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_bench_of_two_workers_killed_at_random_moments_ends_with_the_same_numbers(tmp_path):
    """The bench itself, one of its workers, or all at once."""
    whole, root, chance = tmp_path / "whole", tmp_path / "killed", random.Random(0)
    victim("whole_bench", whole)
    checkpoint.write_sealed(root / "calibration.json", checkpoint.read_sealed(whole / "calibration.json"))
    kills, wanted, starts = dict.fromkeys(("bench", "worker", "all"), 0), 100 if FULL else 4, 0
    while sum(kills.values()) < wanted:
        starts += 1
        with FORKED.start(command("whole_bench", root)) as process:
            while sum(kills.values()) < wanted:
                _wait(process, chance.uniform(0.1, 2.0))
                if process.poll() is not None:
                    break
                kind = chance.choice(list(kills))
                workers = children(process.pid)
                if not (root / "bench.json").exists() or (kind != "bench" and not workers):
                    continue
                everyone = [process.pid, *workers]
                struck = {"bench": everyone[:1], "worker": [chance.choice(workers or [0])], "all": everyone}[kind]
                for pid in struck:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                kills[kind] += 1
                if kind != "worker":
                    break
            process.wait()
        time.sleep(0.3)  # workers let go when their parent is gone
        assert not_whole(root) == []
        if read(root).missing() == [] and process.returncode == 0:
            _same_numbers(root, whole)
            root = tmp_path / f"killed-{starts}"
            checkpoint.write_sealed(root / "calibration.json", checkpoint.read_sealed(whole / "calibration.json"))
    victim("whole_bench", root)
    _same_numbers(root, whole)


def _wait(process: Begun, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def _same_numbers(root: Path, other: Path) -> None:
    ours, theirs = read(root), read(other)
    assert ours.missing() == []
    assert ours.amounts == theirs.amounts | {"seconds": ours.amounts["seconds"]}
    for where, cell in theirs.cells.items():
        if where[0] != "seconds":  # as measured, which differs
            assert ours.cells[where].values == cell.values, where
    for arm, seed in theirs.runs:
        lines = [jsonl.read(run_folder(r, arm, seed) / "ledger.jsonl") for r in (root, other)]
        assert [x["step"] for x in lines[0]] == [x["step"] for x in lines[1]]
    write_report(root)
