"""Signals while a run is at work: real ones, with sources and networks that sleep."""

import os
import signal
import threading
import time
from dataclasses import replace

import pytest
import torch

from ajest.jobs.slurm import _kind, _remote
from ajest.runtime import interrupts
from ajest.selection.catalogue import ARMS
from ajest.storage import checkpoint
from ajest.training.run import execute, execution
from ajest.training.run_folder import RunConfig, read_status
from ajest.training.schedule import Schedule
from ajest.training.shared_draws import in_turns
from conftest import small_recipe, small_task

PATIENCE = 0.1  # in these tests
SCHEDULE = Schedule({"steps": (3.0, 4.0, 5.0, 8.0)}, ledger_every=1)


class Slow:
    """A source whose draw for one step sleeps, while signals come so many seconds after its beginning."""

    def __init__(self, source, step, seconds, signals=(0.02,)):
        self.source, self.step, self.seconds, self.signals, self.draws = source, step, seconds, signals, 0

    def __getattr__(self, name):
        return getattr(self.source, name)

    def draw(self, count, generator, eps=None):
        self.draws += 1
        if self.draws == self.step:
            for after in self.signals:
                signal_soon(after)
            time.sleep(self.seconds)
        return self.source.draw(count, generator, eps)


def signal_soon(after=0.02):
    threading.Timer(after, os.kill, (os.getpid(), signal.SIGTERM)).start()


def config(name="baseline", iterations=8, seed=0):
    return RunConfig(small_task(), "learner", small_recipe(), ARMS[name], seed, iterations)


def steps_of(folder, run, source=None):
    """Train as far as it goes; the last step saved."""
    with pytest.raises(KeyboardInterrupt):
        for _ in execution(folder, run, SCHEDULE, source=source):
            pass
    return checkpoint.latest(folder, "checkpoint", pytest.fail).facts["step"]


def same_end(folder, tmp_path, run):
    """Gone on with, a run ends as one that was never stopped."""
    assert execute(folder, run, SCHEDULE) == "done"
    unbroken = tmp_path / "unbroken"
    assert execute(unbroken, run, SCHEDULE) == "done"
    one, other = (checkpoint.latest(f, "checkpoint", pytest.fail) for f in (folder, unbroken))
    assert all(torch.equal(value, other.tensors[key]) for key, value in one.tensors.items())
    assert list(checkpoint.stems(folder / "snapshots", "snapshot")) == [3, 4, 5, 8]


@pytest.fixture(autouse=True)
def hasty(monkeypatch, signals):
    monkeypatch.setattr(interrupts, "PATIENCE", PATIENCE)
    monkeypatch.setattr(interrupts, "ECHO", 0.0)


@pytest.fixture
def again(monkeypatch):
    """Forget a signal, as a new process would."""

    def forget():
        monkeypatch.setattr(interrupts, "_asked_at", None)
        monkeypatch.setattr(interrupts, "_over", False)

    return forget


def test_patience_goes_by_how_long_steps_take(tmp_path, monkeypatch, again):
    """A step that takes longer than the least patience is still waited for where steps take as long."""
    monkeypatch.setattr("ajest.training.recorder.Recorder.step_seconds", lambda self: 2.0)
    source = Slow(small_task().source("cpu"), step=4, seconds=5 * PATIENCE)
    assert steps_of(tmp_path / "run", config(), source) == 4
    again()
    same_end(tmp_path / "run", tmp_path, config())


def test_of_a_step_that_hangs_only_that_step_is_lost(tmp_path, again):
    source = Slow(small_task().source("cpu"), step=5, seconds=60)
    assert steps_of(tmp_path / "run", config(), source) == 4
    assert read_status(tmp_path / "run") == {}
    again()
    same_end(tmp_path / "run", tmp_path, config())


def test_a_second_signal_gives_up_the_running_step(tmp_path, monkeypatch, again):
    monkeypatch.setattr("ajest.training.recorder.Recorder.step_seconds", lambda self: 1000.0)
    source = Slow(small_task().source("cpu"), step=5, seconds=60, signals=(0.02, 0.2))
    assert steps_of(tmp_path / "run", config(), source) == 4
    again()
    same_end(tmp_path / "run", tmp_path, config())


def test_a_step_given_up_in_its_update_is_undone(tmp_path, monkeypatch, again):
    """The network has normalised its weights in place by then."""
    from ajest.training import optimizer

    calls, plain = [], optimizer.objective

    def hangs(losses, part, network):
        calls.append(0)
        if len(calls) == 5:
            signal_soon()
            time.sleep(60)
        return plain(losses, part, network)

    monkeypatch.setattr(optimizer, "objective", hangs)
    run = replace(config(), recipe=small_recipe(ema_widths=(0.1,)))
    assert steps_of(tmp_path / "run", run) == 4
    again()
    same_end(tmp_path / "run", tmp_path, run)


def test_what_was_begun_to_be_written_is_written(tmp_path, monkeypatch, again):
    """Neither an end of patience nor a second signal breaks the writing of a step off; it goes on beside the next."""
    plain = checkpoint.write

    def slow(stem, *rest):
        if stem.name == "snapshot-0000004":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(2 * PATIENCE)
            os.kill(os.getpid(), signal.SIGINT)
        plain(stem, *rest)

    monkeypatch.setattr(checkpoint, "write", slow)
    last = steps_of(tmp_path / "run", config())
    assert last in (4, 5)
    assert list(checkpoint.stems(tmp_path / "run" / "snapshots", "snapshot")) == [3, 4, 5][: last - 2]
    monkeypatch.undo()
    again()
    same_end(tmp_path / "run", tmp_path, config())


def test_runs_in_turns_all_save_where_they_stand(tmp_path):
    source = Slow(small_task().source("cpu"), step=8, seconds=60)  # the second run's fourth
    runs = [execution(tmp_path / str(k), config(seed=k), SCHEDULE, source=source) for k in range(2)]
    with pytest.raises(KeyboardInterrupt):
        in_turns(runs)
    saved = [checkpoint.latest(tmp_path / str(k), "checkpoint", pytest.fail).facts["step"] for k in range(2)]
    assert saved == [4, 3]


def test_a_run_that_diverges_as_the_signal_comes_ends_what_would_follow_it(tmp_path, monkeypatch):
    from ajest.errors import Diverged
    from ajest.training.trainer import Trainer

    def diverges(self, kind=None):
        os.kill(os.getpid(), signal.SIGTERM)
        raise Diverged("wild")

    monkeypatch.setattr(Trainer, "step", diverges)
    with pytest.raises(KeyboardInterrupt):
        execute(tmp_path / "run", config(), SCHEDULE)
    assert read_status(tmp_path / "run")["state"] == "diverged"


def stopped(job, report):
    raise KeyboardInterrupt


def test_a_job_of_a_cluster_that_is_told_to_end_in_time_is_no_crash(tmp_path):
    place = tmp_path / "outcome.json"
    with pytest.raises(KeyboardInterrupt):
        _remote(stopped, None, 1, place)
    assert checkpoint.read_json(place) == ["stopped"]
    assert _kind("FAILED", "1:0", "", stopped=True) == "timeout"
    assert _kind("PREEMPTED", "0:15", "", stopped=True) == "preempted"
    assert _kind("FAILED", "1:0", "") == "crashed"
    assert signal.getsignal(signal.SIGUSR2) is signal.getsignal(signal.SIGTERM)
