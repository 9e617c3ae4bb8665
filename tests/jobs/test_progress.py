"""What is said of work that goes on: plain lines where the output is no terminal."""

import re
from types import SimpleNamespace

import pytest

from ajest.bench.plan.config import guide_folder
from ajest.bench.run.jobs import train_references
from ajest.jobs import progress
from conftest import small_bench


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand, and a process that has said nothing yet."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now.seconds)
    monkeypatch.setattr(progress, "plainly", progress._Plain())
    return now


def test_a_pipe_gets_a_plain_line_now_and_then_with_stage_jobs_and_time_left(clock, capsys):
    with progress.board("2 arms in runs/x", {"a": 1.0, "b": 1.0}) as lines:
        for _ in range(8):
            clock.seconds += 10
            lines.update(("a", "evaluating", clock.seconds - 1000, 100, "5 it/s"))
        lines.finish("a")
        clock.seconds += 40
        lines.update(("b", "evaluating", 20, 100, ""))
    assert capsys.readouterr().err.splitlines() == [
        "ajest: 2 arms in runs/x: 15%, 0 of 2 jobs, about 2:50 left",
        "ajest: 2 arms in runs/x: 30%, 0 of 2 jobs, about 2:20 left",
        "ajest: 2 arms in runs/x: 60%, 1 of 2 jobs, about 1:20 left",
    ]


def test_a_terminal_has_its_bars_alone_and_other_processes_are_silent(clock, capsys, monkeypatch):
    clock.seconds += 100
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    progress.plainly("said by bars")
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    monkeypatch.setattr(progress.distributed, "rank", lambda: 1)
    progress.plainly("said by the first process")
    assert capsys.readouterr().err == ""


def test_a_line_holds_no_control_characters(clock, capsys):
    clock.seconds += 100
    progress.plainly("runs/\x1b[31m\nred")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.strip().isprintable()


def test_a_guide_that_trains_for_long_says_how_far_it_is(clock, capsys, tmp_path, monkeypatch):
    """Before the runs there is no display, and a guide of images takes a while."""
    config = small_bench()
    monkeypatch.setattr("ajest.bench.run.jobs.plainly", progress.plainly)
    clock.seconds += 100
    train_references(tmp_path, config, "cpu", lambda what: None, lambda what: None)
    assert re.fullmatch(rf"ajest: training the guide: 1 of {config.guide_iterations} steps\n", capsys.readouterr().err)
    assert guide_folder(tmp_path, 1).exists()
