"""What the tests of faults kill, starve and disturb: `python victims.py VERB FOLDER [...]`, in a process of its own."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from harm import not_whole

from ajest.bench.plan.config import BenchConfig
from ajest.bench.run.bench import run_bench
from ajest.errors import UserError
from ajest.jobs.local import Local
from ajest.selection.catalogue import ARMS, arms_named
from ajest.training import recorder
from ajest.training.run import execute
from ajest.training.run_folder import RunConfig, read_status
from ajest.training.schedule import Schedule
from conftest import small_bench, small_recipe, small_task

SCHEDULE = Schedule({"steps": tuple(float(s) for s in range(10, 400, 10))}, checkpoint_every=7, ledger_every=3)


def config(iterations: int = 250) -> RunConfig:
    """A run that watches, decides and selects: everything a checkpoint has to hold is in use."""
    return RunConfig(small_task(), "learner", small_recipe(), ARMS["late-ajest"], 3, iterations, "../guide")


def bench() -> BenchConfig:
    return small_bench(arms=arms_named(("baseline", "ajest", "random")), iterations=60)


def make_guide(folder: Path) -> None:
    guide = RunConfig(small_task(), "guide", small_recipe(), ARMS["baseline"], 3, 12)
    assert execute(folder, guide, Schedule()) == "done"


def run(folder: Path) -> None:
    assert execute(folder, config(), SCHEDULE) == "done"


def killed(root: Path, kills: int, seed: int) -> dict[str, object]:
    """Start runs and kill them at random moments, so many times in all; each is let end at last.

    The children are forked, once everything is imported, so that a start costs the time of a start of training alone.
    """
    run(root / "unbroken")
    chance, done, folders, moments = random.Random(seed), 0, [], []
    while done < kills:
        folders.append(f"killed-{len(folders)}")
        folder = root / folders[-1]
        while read_status(folder) == {}:
            child = os.fork()
            if not child:
                run(folder)
                os._exit(0)
            if done < kills:
                _worked(child, chance.uniform(0.0, 0.6))
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if os.WIFSIGNALED(status):
                done += 1
                assert os.WTERMSIG(status) == signal.SIGKILL
                assert not_whole(folder) == []
                moments.append(len(list(folder.glob("snapshots/*.json"))))
            else:
                assert os.WEXITSTATUS(status) == 0
    return {"kills": done, "runs": folders, "moments": moments}


def _worked(process: int, seconds: float) -> None:
    """Wait until a process has ended or has had so many seconds of a processor: on a busy machine, too, a moment of its
    own life."""
    stat = Path(f"/proc/{process}/stat")
    while (facts := stat.read_text().rpartition(") ")[2].split())[0] != "Z":
        if (int(facts[11]) + int(facts[12])) / os.sysconf("SC_CLK_TCK") >= seconds:
            return
        time.sleep(0.002)


def starved(root: Path) -> dict[str, object]:
    """A run on a small file system that is full, then read-only, then larger. Needs a mount namespace of its own."""
    place = root / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(place)], check=True)
    make_guide(place / "guide")
    said = {"full": _refused(place / "run")}
    said["whole"] = not_whole(place / "run")
    said["step"] = max((int(p.stem[-7:]) for p in (place / "run").glob("checkpoint-*.json")), default=0)
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    said["read-only"] = _refused(place / "run")
    subprocess.run(["mount", "-o", "remount,rw,size=50m", str(place)], check=True)
    run(place / "run")
    subprocess.run(["cp", "-r", str(place / "run"), str(root / "run")], check=True)
    return said


def _refused(folder: Path) -> str:
    try:
        run(folder)
    except UserError as error:
        return str(error)
    raise AssertionError("nothing was refused")


def backwards(folder: Path) -> None:
    """A run while the clock on the wall jumps back by up to an hour at every look."""
    chance, now = random.Random(0), time.time

    def jumping() -> float:
        return now() - chance.uniform(0, 3600)

    time.time = jumping
    time.time_ns = lambda: int(jumping() * 1e9)
    run(folder)


def main() -> None:
    verb, folder, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    recorder.COPYING_SHARE = math.inf  # these steps are so short that checkpoints would be few
    verbs = {f.__name__: f for f in (make_guide, run, killed, starved, backwards, whole_bench)}
    print(json.dumps(verbs[verb](Path(folder), *map(int, rest))))


def whole_bench(root: Path) -> None:
    run_bench(root, bench(), Local(2))


if __name__ == "__main__":
    main()
