"""Disk that runs take, and threads that they agree on."""

import shutil
from collections import namedtuple
from dataclasses import replace

import pytest

from ajest.bench.plan.config import run_folder
from ajest.bench.read.findings import findings
from ajest.bench.read.folder import read
from ajest.bench.report.export import as_csv
from ajest.bench.run import bench as running
from ajest.bench.run import calibration, disk
from ajest.bench.run.calibration import agree_on_threads, agreed_threads, calibrated_costs, step_seconds
from ajest.bench.run.disk import Claim, check_room, claims, give_back
from ajest.bench.run.reached import common_amounts, curve_points, reached
from ajest.errors import UserError
from ajest.selection.catalogue import ARMS, arms_named
from ajest.storage import checkpoint
from ajest.training.run import execute
from ajest.training.run_folder import RunConfig, snapshots
from ajest.training.schedule import Schedule
from conftest import Here, small_bench, small_recipe, small_task

CONFIG = small_bench(arms=arms_named(("baseline", "random", "late-ajest")), n_final=256)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished bench that has given nothing back."""
    root = tmp_path_factory.mktemp("disk") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "give_back", lambda *_: None)
        running.run_bench(root, CONFIG, Here())
    return root


def runs_of(root):
    return [run_folder(root, arm.name, seed) for arm in CONFIG.arms for seed in CONFIG.seeds]


def space(monkeypatch, free):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free, 0, free))


def test_what_nothing_reads_is_given_back_and_the_report_is_the_same(whole, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(whole, root)
    before = [set(snapshots(folder)) for folder in runs_of(root)]
    table, costs = as_csv(findings(read(root))), calibrated_costs(root)
    give_back(root, CONFIG, costs)
    after = [set(snapshots(folder)) for folder in runs_of(root)]
    assert sum(map(len, after)) < 0.7 * sum(map(len, before))
    assert as_csv(findings(read(root))) == table
    amounts = common_amounts(root, CONFIG)
    for folder, kept in zip(runs_of(root), after, strict=True):
        crossed = reached(folder)
        needed = {crossed[clock][budget] for clock, budget in amounts.items()} | set(
            curve_points(crossed, CONFIG, costs)
        )
        assert kept == needed
        assert max(kept) == 40
    give_back(root, CONFIG, costs)
    assert [set(snapshots(folder)) for folder in runs_of(root)] == after


def test_a_finished_run_keeps_one_checkpoint(whole):
    assert all(len(checkpoint.stems(folder, "checkpoint")) == 1 for folder in runs_of(whole))


def test_runs_take_no_more_than_was_said(whole):
    for claim in claims(whole, CONFIG):
        stored = snapshots(claim.folder)
        assert 1 <= len(stored) <= claim.snapshots
        assert claim.kept <= claim.snapshots


@pytest.mark.parametrize("arm", ["baseline", "proxy"])
def test_sizes_are_those_of_the_files(arm, tmp_path):
    config = RunConfig(small_task(), "learner", small_recipe(), ARMS[arm], 0, 2)
    execute(tmp_path, config, Schedule())
    sizes = disk._Sizes()
    for size, stem in (
        (sizes.snapshot(config), next(iter(snapshots(tmp_path).values()))),
        (sizes.checkpoint(config), next(iter(checkpoint.stems(tmp_path, "checkpoint").values()))),
    ):
        tensors = checkpoint.load(stem).tensors
        stored = sum(
            t.numel() * t.element_size() for k, t in tensors.items() if not k.startswith(("example_counts", "selector"))
        )
        assert size == pytest.approx(stored, rel=0.01)


def test_a_bench_that_does_not_fit_is_refused_before_it_begins(whole, tmp_path, monkeypatch):
    space(monkeypatch, 1000)
    root = tmp_path / "deep" / "bench"
    said = r"bench: 7 runs take up to [\d.]+ kB of disk, and 1 kB are free there; free some space"
    with pytest.raises(UserError, match=said):
        running.run_bench(root, CONFIG, Here())
    assert not (root / "guide").exists()
    running.run_bench(whole, CONFIG, Here())  # all is there


def test_what_runs_take_is_said_once(tmp_path, monkeypatch):
    space(monkeypatch, 5e9)
    said = []
    run = CONFIG.run(CONFIG.arms[0], 0)
    check_room(tmp_path, [Claim(tmp_path / "a", run, 16, 2)], 1, said.append)
    sizes = disk._Sizes()
    most = 16 * sizes.snapshot(run) + 3 * sizes.checkpoint(run)
    least = 2 * sizes.snapshot(run) + sizes.checkpoint(run)
    show = disk._readable
    assert said == [f"1 run takes up to {show(most)} of disk, {show(least)} when all is read; 5 GB are free"]
    assert [show(n) for n in (12, 1500, 2e6, 3.21e12)] == ["12 bytes", "1.5 kB", "2 MB", "3.21 TB"]


def test_what_is_written_already_is_not_asked_for_again(tmp_path, monkeypatch):
    run = CONFIG.run(CONFIG.arms[0], 0)
    sizes = disk._Sizes()
    most = 16 * sizes.snapshot(run) + 3 * sizes.checkpoint(run)
    space(monkeypatch, most - 1000)
    with pytest.raises(UserError, match="1 run takes"):
        check_room(tmp_path, [Claim(tmp_path / "a", run, 16, 2)], 1, print)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "snapshot").write_bytes(b"x" * 1000)
    check_room(tmp_path, [Claim(tmp_path / "a", run, 16, 2)], 1, print)


@pytest.mark.parametrize(("seconds", "threads"), [({1: 1.0, 2: 0.6}, 2), ({1: 1.0, 2: 1.0}, 1), ({1: 1.0, 2: 9.7}, 1)])
def test_runs_get_one_thread_each_where_more_are_no_faster(seconds, threads, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(calibration, "step_seconds", lambda root, config, counts: {n: seconds[n] for n in counts})
    assert agreed_threads(tmp_path) is None
    assert agree_on_threads(tmp_path, CONFIG, "cpu", 2, said.append) == threads
    assert len(said) == (threads == 1)
    assert all("another process takes a core" in text for text in said)
    monkeypatch.setattr(calibration, "step_seconds", None)  # it is not timed again
    assert agree_on_threads(tmp_path, CONFIG, "cpu", 2, said.append) == agreed_threads(tmp_path) == threads


def test_one_thread_or_a_gpu_leaves_nothing_to_choose(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "step_seconds", None)
    assert agree_on_threads(tmp_path / "a", CONFIG, "cpu", 1, pytest.fail) == 1
    assert agree_on_threads(tmp_path / "b", CONFIG, "cuda", 8, pytest.fail) == 8


def test_threads_are_timed_in_turns_and_put_back(tmp_path, monkeypatch):
    import torch

    before, used = torch.get_num_threads(), []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    found = step_seconds(tmp_path, replace(CONFIG, arms=CONFIG.arms[1:]), (1, 2))
    assert set(found) == {1, 2}
    assert used == [1, 2] * (1 + calibration.THREAD_ROUNDS) + [before]
