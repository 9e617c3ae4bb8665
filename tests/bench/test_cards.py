"""Graphics cards: who looks at them, which process computes on which, and that the parent computes on none."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from test_queue import Task, act

from ajest.bench.plan.presets import GPU_MINI
from ajest.bench.run import bench as running
from ajest.bench.run import jobs
from ajest.bench.run.bench import run_bench
from ajest.cli import asked
from ajest.errors import UserError
from ajest.jobs.base import Room
from ajest.jobs.failures import noted
from ajest.jobs.local import InProcess, Local
from ajest.jobs.progress import board
from ajest.jobs.slurm import Slurm
from ajest.runtime import cards
from ajest.runtime.cards import Card
from conftest import small_bench

GIB = 2**30


def card(number=0, name="Made-up 9", bfloat16=True, free=70):
    return Card(str(number), name, bfloat16, 80 * GIB, free * GIB)


@pytest.fixture
def seen(monkeypatch):
    """Lets this process see these cards."""
    return lambda *found: monkeypatch.setattr(cards, "visible", lambda: found)


@pytest.fixture
def asked_anew():
    cards._visible.cache_clear()
    yield
    cards._visible.cache_clear()


def test_another_process_looks_at_the_cards_and_this_one_at_none(monkeypatch, asked_anew):
    monkeypatch.setattr(cards, "_look", lambda: pytest.fail("this process looked"))
    assert len(cards.visible()) == torch.cuda.device_count()


CARDS = '[{"id": "0", "name": "A", "bfloat16": true, "total": 8, "free": 6}, ' \
    '{"id": "1", "name": "B", "bfloat16": false, "total": 4, "free": 4}]'  # fmt: skip


@pytest.mark.parametrize(
    ("named", "ids"),
    [(None, "01"), ("3,5", "35"), ("GPU-8f2a, MIG-11", ("GPU-8f2a", "MIG-11")), ("4,2,-1,7", "42"), ("", "01")],
)
def test_cards_are_named_as_the_environment_names_them(named, ids, monkeypatch, asked_anew):
    said = SimpleNamespace(returncode=0, stdout=f"a warning\n{CARDS}\n", stderr="")
    monkeypatch.setattr(cards.subprocess, "run", lambda *_, **__: said)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    found = cards.visible()
    assert [c.id for c in found] == list(ids)
    assert [(c.name, c.bfloat16, c.free) for c in found] == [("A", True, 6), ("B", False, 4)]


def test_cards_that_cannot_be_looked_at_are_said_in_a_line(monkeypatch, asked_anew):
    said = SimpleNamespace(returncode=1, stdout="", stderr="Traceback\nRuntimeError: no driver")
    monkeypatch.setattr(cards.subprocess, "run", lambda *_, **__: said)
    with pytest.raises(UserError, match=r"cannot be looked at \(RuntimeError: no driver\): use --device cpu"):
        cards.visible()


def test_what_is_told_of_a_card(monkeypatch):
    at = []

    class On:
        def __init__(self, number):
            at.append(number)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    made_up = SimpleNamespace(
        device_count=lambda: 2,
        device=On,
        mem_get_info=lambda: (5 + at[-1], 9),
        is_bf16_supported=lambda including_emulation: at[-1] == 1 and not including_emulation,
        get_device_name=lambda: f"kind {at[-1]}",
    )
    monkeypatch.setattr(torch, "cuda", made_up)
    assert cards._look() == [Card("0", "kind 0", False, 9, 5), Card("1", "kind 1", True, 9, 6)]


def test_cards_of_several_kinds_are_refused_with_a_choice_of_one(seen):
    seen(card(0, "Small"), card(1, "Large"), card(3, "Large"))
    with pytest.raises(UserError, match=r"differ.*Small \(0\), Large \(1, 3\); .*CUDA_VISIBLE_DEVICES=1,3$"):
        Local().room("cuda")
    seen()
    with pytest.raises(UserError, match="no CUDA device here: use --device cpu"):
        Local().count("cuda")


def test_runs_take_a_card_each_or_share_them_evenly(seen):
    seen(card(2, free=60), card(5, free=70))
    assert Local().count("cuda") == 2
    assert [s["CUDA_VISIBLE_DEVICES"] for s in Local()._seats("cuda")] == ["2", "5"]
    assert [s["CUDA_VISIBLE_DEVICES"] for s in Local(3)._seats("cuda")] == ["2", "5", "2"]
    assert Local()._seats("cpu") == [{}] * Local().count("cpu")
    assert Local().room("cuda") == Room("Made-up 9", 80 * GIB, 60 * GIB, 1)
    assert Local(3).room("cuda") == Room("Made-up 9", 80 * GIB, 30 * GIB, 2)
    assert Local(1).room("cuda").sharing == 1
    assert InProcess().room("cuda") == Room("Made-up 9", 80 * GIB, 60 * GIB, 1)
    assert [launch.room("cpu") for launch in (Local(), InProcess(), Slurm())] == [None] * 3
    assert Slurm(gpus_per_run=1).room("cuda") is None


def test_a_cluster_is_asked_for_cards_of_one_kind(monkeypatch, tmp_path):
    class Executor:
        def __init__(self, folder):
            self.folder = folder

        def update_parameters(self, **asked):
            self.asked = asked

    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(SlurmExecutor=Executor))
    wanted = {Slurm(): None, Slurm(gpus_per_run=2): 2, Slurm(gpus_per_run=2, gpu_kind="a100"): "a100:2"}
    assert {slurm: slurm._executor(tmp_path).asked["gpus_per_node"] for slurm in wanted} == wanted


@dataclass(frozen=True)
class Look(Task):
    """A job of these tests that says which card its process sees."""


def look(job, report):
    place = Path(job.place)
    (place / f"{job.name}.{os.environ['CUDA_VISIBLE_DEVICES']}.{os.getpid()}").touch()
    if job.does == "wait":  # until each of the others has a process
        while len({p.name.split(".")[2] for p in place.glob("?.*.*")}) < 3:
            report("waiting", 0, 1, "")
    return act(job, report)


def placed(folder):
    """(job, card, process) of each attempt."""
    return [tuple(p.name.split(".")) for p in folder.glob("?.*.*")]


def worked(folder, *tasks, launch=None):
    with board("", {t.name: 1.0 for t in tasks}) as lines:
        (launch or Local(3)).work(look, tasks, "cuda", 1, lines, lambda _: None, folder)


def test_each_worker_sees_one_card_and_none_is_left_behind(tmp_path, seen, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    seen(card(4), card("GPU-77"))
    worked(tmp_path, *(Look(name, "wait", str(tmp_path)) for name in "abc"))
    found = placed(tmp_path)
    assert sorted(where for _, where, _ in found) == ["4", "4", "GPU-77"]
    assert len({pid for *_, pid in found}) == 3
    for *_, pid in found:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_who_takes_a_dead_workers_place_takes_its_card(tmp_path, seen, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    seen(card(6), card(7))
    worked(tmp_path, Look("a", "die once", str(tmp_path)), Look("b", "die once", str(tmp_path)), launch=Local(2))
    assert [f.kind for f in noted(tmp_path)] == ["killed"] * 2
    assert len(placed(tmp_path)) == 4
    assert sorted(where for _, where, _ in placed(tmp_path)) == ["6", "6", "7", "7"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "6,7"


class Recording(Local):
    """On one made-up card: what is sent to workers is done on the CPU, in this process, and written down."""

    done: ClassVar[list] = []

    def work(self, do, jobs, device, threads, lines, say, folder):
        assert device == "cuda"
        self.done.append((do, [job.name for job in jobs]))
        for job in jobs:
            do(replace(job, bench=replace(job.bench, device="cpu")), lambda *_: None)


def test_on_a_card_all_that_computes_is_sent_to_workers(tmp_path, seen, monkeypatch):
    """A process that has computed on a card keeps memory there until it ends, and the bench's own lives longest."""
    seen(card())
    inside = []
    for module, name in ((jobs, "prepare_all"), (jobs, "train_references"), (jobs, "calibrate")):
        original = getattr(module, name)

        def watched(*args, original=original, name=name):
            inside.append((name, bool(Recording.done)))
            return original(*args)

        monkeypatch.setattr(module, name, watched)
    monkeypatch.setattr(running, "prepare_all", lambda *_: pytest.fail("prepared by the bench's own process"))
    Recording.done.clear()
    config = small_bench(arms=small_bench().arms[:1], seeds=(0,), n_curve=256, n_final=256, calibration_rounds=1)
    run_bench(tmp_path / "bench", config, Recording(), "cuda")
    assert [do for do, _ in Recording.done] == [jobs.prepare, jobs.prepare_seed, jobs.run, jobs.evaluate_late]
    assert inside == [("prepare_all", True), ("train_references", True), ("calibrate", True)]
    assert Local().near("cpu")
    assert not Local().near("cuda")
    assert InProcess().near("cuda")
    assert not Slurm().near("cpu")


def test_presets_leave_bfloat16_where_a_card_has_none(seen, monkeypatch):
    said = []
    monkeypatch.setattr(asked, "warn", said.append)
    data = {"data": ("shapes:256",), "validation": ("shapes:128",), "resolution": 16}
    seen(card())
    assert asked.images_of(GPU_MINI, data, "cuda").precision == "bfloat16"
    assert not any("bfloat16" in line for line in said)
    seen(card(name="Old 7", bfloat16=False))
    assert asked.images_of(GPU_MINI, data, "cuda").precision == "float32"
    assert sum("Old 7 does not compute in bfloat16" in line for line in said) == 1
    assert asked.images_of(GPU_MINI, data | {"precision": "bfloat16"}, "cuda").precision == "bfloat16"


def test_the_program_that_looks_is_found_wherever_the_package_is(monkeypatch, asked_anew, tmp_path):
    """In a notebook the package may stand on sys.path alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert len(cards.visible()) == torch.cuda.device_count()
