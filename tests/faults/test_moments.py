"""Two at once, clocks that jump, data that vanish, numbers that are not finite."""

import os
import signal
import time

import pytest
from harm import assert_same_end, victim
from victims import SCHEDULE, config, make_guide

from ajest.bench.read.folder import read
from ajest.bench.read.status import look
from ajest.bench.report.page import write_report
from ajest.bench.run.bench import run_bench
from ajest.errors import UserError
from ajest.selection.catalogue import ARMS, arms_named
from ajest.storage import jsonl
from ajest.tasks.images.data import prepare
from ajest.tasks.images.setup import image_task
from ajest.tasks.images.task import _opened
from ajest.training.recipe import LearningRate, Recipe
from ajest.training.run import execute, execution
from ajest.training.run_folder import RunConfig
from ajest.training.schedule import Schedule
from conftest import Here, small_bench, small_images, small_recipe
from forked import FORKED


def test_a_second_process_on_a_run_says_so_and_leaves(tmp_path):
    run = tmp_path / "run"
    begun = ["ajest", "train", "tree", "--super-batch", "256", "--out", run]
    with FORKED.start(begun) as first:
        while not jsonl.read(run / "ledger.jsonl"):
            assert first.poll() is None
            time.sleep(0.01)
        second = FORKED.run(begun)
        assert second.returncode == 2
        said = f"another process is at work in {run}: wait for it or name another folder"
        assert said in " ".join(second.stderr.split())
        assert first.poll() is None
        first.send_signal(signal.SIGTERM)
        assert first.wait() == 130


def test_a_clock_that_jumps_backwards_changes_nothing(tmp_path):
    make_guide(tmp_path / "guide")
    victim("backwards", tmp_path / "jumping")
    execute(tmp_path / "steady", config(), SCHEDULE)
    assert_same_end(tmp_path / "jumping", tmp_path / "steady")
    for line in jsonl.read(tmp_path / "jumping" / "ledger.jsonl"):
        assert all(seconds >= 0 for seconds in line["seconds"].values())


def test_a_bench_whose_files_are_from_the_future_goes_on(tmp_path):
    root, plan = tmp_path / "bench", small_bench(arms=arms_named(("baseline", "random")), seeds=(0,))
    run_bench(root, plan, Here())
    (root / "arms" / "random" / "seed-0" / "status.json").unlink()
    for path in root.rglob("*"):
        os.utime(path, (time.time() + 1e6, time.time() + 1e6))
    _, ended = look(root)
    assert not ended
    run_bench(root, plan, Here())
    # Of measured time two short runs on a busy machine may have no amount in common.
    assert [text for text in read(root).missing() if "as measured" not in text] == []


@pytest.mark.parametrize("suffix", [".zip", ".npz"])
def test_a_data_set_that_vanishes_from_under_a_run_is_named_when_it_is_wanted_again(tmp_path, suffix, monkeypatch):
    monkeypatch.setenv("AJEST_CACHE", str(tmp_path / "cache"))
    packed = tmp_path / f"images{suffix}"
    prepare(("shapes:128",), packed, 16)
    names = ("learner", "guide", "sampler_steps", "references", "chunk")
    settings = {name: getattr(small_images(), name) for name in names}
    task = image_task((str(packed),), ("shapes:128",), resolution=16, **settings)
    recipe = Recipe(16, LearningRate(0.02, 0), ema_widths=(0.1,))
    plan = RunConfig(task, "learner", recipe, ARMS["random"], 0, 6)
    steps = execution(tmp_path / "run", plan, Schedule(checkpoint_every=1))
    for trainer in steps:
        if trainer.steps_taken == 2:
            packed.unlink()
        if trainer.steps_taken == 4:
            steps.close()
    _opened.cache_clear()  # as in a new process
    with pytest.raises(UserError, match=rf"images\{suffix} does not exist"):
        execute(tmp_path / "run", plan, Schedule())
    prepare(("shapes:128",), packed, 16)
    assert execute(tmp_path / "run", plan, Schedule(checkpoint_every=1)) == "done"
    execute(tmp_path / "unbroken", plan, Schedule(checkpoint_every=1))
    assert_same_end(tmp_path / "run", tmp_path / "unbroken")


def test_the_report_counts_what_was_not_finite(tmp_path):
    """Steps so long that no number survives them, in a bench that goes on all the same."""
    wild = small_recipe(learning_rate=LearningRate(peak=1e25), not_finite="zero")
    run_bench(tmp_path, small_bench(recipe=wild, arms=arms_named(("baseline", "hard")), seeds=(0,)), Here())
    counted = jsonl.read(tmp_path / "arms" / "baseline" / "seed-0" / "ledger.jsonl")[-1]["not_finite"]
    assert counted > 0
    write_report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert f"baseline, seed 0: in {counted} steps the loss or its gradient was not finite; zeros stood" in page
    assert "scores were not finite; these examples were not trained on" in page
