import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ajest.bench.read.status import benches_in, look, standings
from ajest.bench.run.bench import run_bench
from ajest.errors import UserError
from ajest.jobs import failures
from ajest.jobs.failures import ATTEMPTS, Failure, noted
from ajest.jobs.pool import work
from ajest.jobs.progress import board
from ajest.selection.catalogue import ARMS
from ajest.storage import checkpoint, jsonl
from ajest.storage.lock import in_use, locked
from ajest.training.run import execute
from ajest.training.run_folder import RunConfig, read_status
from ajest.training.schedule import Schedule
from ajest.training.trackers import TRACKERS, Tracked, Trackers, Tracking, checked, numbers_of
from conftest import Here, small_bench, small_recipe, small_task
from forked import FORKED


@dataclass(frozen=True)
class Task:
    name: str
    does: str
    place: str


def act(task, report):
    """What the jobs of these tests do, in a worker."""
    attempts = Path(task.place) / f"{task.name}.attempts"
    with attempts.open("a") as file:
        file.write(".")
    first = attempts.stat().st_size == 1
    report("training", 1, 2, "")
    if task.does == "die once" and first:
        os.kill(os.getpid(), signal.SIGKILL)
    if task.does == "die":
        print("the last words")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    if task.does == "fail":
        raise ValueError(f"{task.name} cannot be")
    if task.does == "refuse":
        raise UserError("name another folder")
    if task.does == "sleep":
        time.sleep(60)
    if task.does == "hoard":
        hoard = [b"x" * (1 << 26) for _ in range(64)]
        time.sleep(20 + len(hoard))
    if task.does == "leave":
        os._exit(3)
    if task.does.startswith("tell "):
        return [os.environ.get(task.does.removeprefix("tell "), "nothing")]
    return [f"{task.name} is done"]


def attempts_of(folder, name):
    return (folder / f"{name}.attempts").stat().st_size


def tried(folder, *jobs, workers=2):
    said = []
    tasks = [Task(name, does, str(folder)) for name, does in jobs]
    with board("", {t.name: 1.0 for t in tasks}) as lines:
        try:
            work(act, tasks, [{}] * workers, 1, lines, said.append, folder)
        except UserError as error:
            return said, str(error)
    return said, None


def test_workers_find_the_environment_of_now_not_that_of_earlier_ones(monkeypatch, tmp_path):
    for number, value in enumerate(("one", "two", None)):
        if value is None:
            monkeypatch.delenv("AJEST_TOLD")
        else:
            monkeypatch.setenv("AJEST_TOLD", value)
        said, error = tried(tmp_path, (f"a{number}", "tell AJEST_TOLD"), workers=1)
        assert (said, error) == ([f"a{number}: {value or 'nothing'}"], None)


def test_a_killed_job_is_done_by_another_process(tmp_path):
    said, error = tried(tmp_path, ("a", ""), ("b", "die once"), ("c", ""), ("d", ""))
    assert error is None
    assert {s for s in said if "is done" in s} == {f"{n}: {n} is done" for n in "abcd"}
    assert [(f.job, f.kind, f.attempt, f.final) for f in noted(tmp_path)] == [("b", "killed", 1, False)]
    assert attempts_of(tmp_path, "b") == 2


def test_jobs_that_fail_for_good_are_reported_with_what_they_said_and_the_others_are_done(tmp_path):
    said, error = tried(tmp_path, ("a", "die"), ("b", "fail"), ("c", "leave"), ("d", ""))
    assert "d: d is done" in said
    assert error.startswith("3 of 4 jobs failed")
    assert "start the same command again" in error
    found = {f.job: f for f in noted(tmp_path)}
    assert {n: f.kind for n, f in found.items()} == {"a": "killed", "b": "crashed", "c": "crashed"}
    assert all(f.final for f in found.values())
    assert "ValueError: b cannot be" in found["b"].log
    assert "the last words" in found["a"].log
    for name, failure in found.items():
        assert attempts_of(tmp_path, name) == ATTEMPTS[failure.kind]


def test_a_job_killed_for_want_of_memory_is_tried_again_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("ajest.jobs.pool._memory_kills", iter(range(100)).__next__)
    _, error = tried(tmp_path, ("a", "die once"), ("b", ""), ("c", ""))
    assert error is None
    assert [(f.job, f.kind) for f in noted(tmp_path)] == [("a", "memory")]
    assert attempts_of(tmp_path, "a") == 2


def test_a_mistake_of_the_user_ends_everything_at_once(tmp_path):
    _, error = tried(tmp_path, ("a", "refuse"), ("b", ""), workers=1)
    assert error == "name another folder"
    assert not (tmp_path / "b.attempts").exists()


def test_what_is_told_of_failures(tmp_path):
    assert failures.tail("\n".join(map(str, range(50)))).splitlines()[0] == "38"
    assert "run fewer at a time" in str(Failure("ajest, seed 0", "memory", 1))
    assert Failure("x", "preempted", 3).final is False
    failures.give_up(tmp_path, [], 3)
    with pytest.raises(UserError, match=r"1 of 3 jobs failed; x ran out of its time .*\(no time\)"):
        failures.give_up(tmp_path, [Failure("x", "timeout", 10, "a\nno time")], 3)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    root = tmp_path_factory.mktemp("status") / "bench"
    run_bench(root, small_bench(), Here())
    return root


def test_the_status_of_a_bench_while_it_is_at_work(bench, tmp_path):
    config = small_bench()
    whole = standings(bench)
    assert len(whole) == len(config.arms) * len(config.seeds)
    assert {(s.state, s.share) for s in whole} == {("done", 1.0)}
    assert all(s.measured > 0 for s in whole)
    table, ended = look(bench)
    assert ended
    assert table.title == f"{len(whole)} runs: {len(whole)} done"

    half = tmp_path / "half"
    subprocess.run(["cp", "-r", bench, half], check=True)
    names = [s.name for s in whole]
    folders = [half / "arms" / n.split(",")[0] / f"seed-{n.split()[-1]}" for n in names]
    for folder in folders[:3]:
        (folder / "status.json").unlink()
        lines = jsonl.read(folder / "ledger.jsonl")
        jsonl.rewrite(folder / "ledger.jsonl", lines[: len(lines) // 2])
    failures.note(half, Failure(names[1], "memory", ATTEMPTS["memory"]))
    failures.note(half, Failure(names[2], "killed", 1))
    with locked(folders[0]):
        assert in_use(folders[0])
        running, failed, waiting, *rest = standings(half)
    assert not in_use(folders[0])
    assert (running.state, failed.state, waiting.state) == ("running", "failed", "waiting")
    assert 0 < running.share < 1
    assert running.rate > 0
    assert running.left > 0
    assert "want of memory" in failed.why
    assert {s.state for s in rest} == {"done"}
    assert not look(half)[1]


def test_the_status_of_a_study_counts_its_benches(bench, tmp_path):
    for name in ("screening/net", "screening/samples"):
        (tmp_path / "screening").mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(bench)
    assert len(benches_in(tmp_path)) == 2
    table, ended = look(tmp_path)
    assert ended
    assert list(table.columns[0].cells) == ["screening/net", "screening/samples"]
    assert table.caption is None
    failures.note(tmp_path, Failure("seed 3, runs 1 to 16", "killed", 1))
    failures.note(tmp_path, Failure("seed 4, runs 1 to 16", "killed", ATTEMPTS["killed"]))
    assert look(tmp_path)[0].caption.startswith("failed: seed 4, runs 1 to 16 was killed")
    with pytest.raises(UserError, match="holds no bench"):
        benches_in(tmp_path / "screening" / "nothing")


def run_config(iterations=64):
    return RunConfig(small_task(), "learner", small_recipe(), ARMS["hard"], 0, iterations)


class Notebook:
    """A tracker of these tests."""

    kept: list

    def __init__(self, run):
        Notebook.kept = [("begin", run.config["seed"], run.step)]

    def log(self, step, values):
        Notebook.kept.append((step, values))

    def close(self):
        Notebook.kept.append("end")


class Broken(Notebook):
    def log(self, step, values):
        raise ConnectionError("no network")


def test_a_tracker_hears_every_line_of_the_ledger_by_the_same_names(tmp_path, monkeypatch):
    monkeypatch.setitem(TRACKERS, "notebook", Notebook)
    execute(tmp_path, run_config(), Schedule(tracking=Tracking(("notebook",)), ledger_every=16))
    begin, *told, end = Notebook.kept
    assert (begin, end) == (("begin", 0, 0), "end")
    lines = jsonl.read(tmp_path / "ledger.jsonl")
    assert told == [(line["step"], numbers_of(line)) for line in lines]
    assert {"loss", "clocks/seconds", "seconds/update", "scores/test_retest", "trained"} <= told[0][1].keys()


def test_a_tracker_that_fails_never_stops_a_run(tmp_path, monkeypatch):
    said = []
    monkeypatch.setitem(TRACKERS, "broken", Broken)
    monkeypatch.setitem(TRACKERS, "absent", lambda *_: 1 / 0)
    state = execute(tmp_path, run_config(), Schedule(tracking=Tracking(("broken", "absent"))), warn=said.append)
    assert state == "done"
    assert len(said) == 2
    assert "absent failed, and the run goes on without it: ZeroDivisionError" in said[0]
    assert "ConnectionError: no network" in said[1]


def test_trackers_are_asked_for_by_name():
    assert checked(Tracking()) == Tracking()
    with pytest.raises(UserError, match="did you mean 'tensorboard'"):
        checked(Tracking(("tensorbord",)))
    with pytest.raises(UserError, match="--track-entity means something to wandb alone: name it with --track"):
        checked(Tracking(("tensorboard",), entity="team"))


def test_trackio_is_told_where_a_run_belongs(tmp_path, monkeypatch):
    told = []
    module = SimpleNamespace(init=lambda **place: told.append(place), log=lambda *_, **__: None, finish=lambda: None)
    monkeypatch.setitem(sys.modules, "trackio", module)
    Trackers(Tracked(tmp_path, {}, 0, Tracking(("trackio",), project="pets", group="first")), pytest.fail).close()
    assert [(place["project"], place["group"]) for place in told] == [("pets", "first")]


def test_tensorboard_reads_the_same_numbers(tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    execute(tmp_path, run_config(), Schedule(tracking=checked(Tracking(("tensorboard",))), ledger_every=16))
    found = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    lines = jsonl.read(tmp_path / "ledger.jsonl")
    assert set(found.Tags()["scalars"]) == set(numbers_of(lines[-1]))
    assert [e.step for e in found.Scalars("loss")] == [line["step"] for line in lines]
    assert [e.value for e in found.Scalars("loss")] == pytest.approx([line["loss"] for line in lines])


def test_wandb_keeps_a_run_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    said = []
    place = Tracking(("wandb",), project="pets", entity="team", group="first", tags=("small", "quick"))
    execute(tmp_path, run_config(), Schedule(tracking=place, ledger_every=16), warn=said.append)
    assert said == []
    (kept,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    for word in ("pets", "team", "first", "small", "quick"):
        assert word.encode() in kept.read_bytes(), word


@pytest.mark.parametrize(("after", "saved", "status"), [(5, 6, {}), (64, 64, {"state": "done", "step": 64})])
def test_a_signal_between_steps_is_heeded_after_the_next_or_at_the_end(after, saved, status, tmp_path, signals):
    def tell(step, trainer):
        if step == after:
            signals.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        execute(tmp_path, run_config(), Schedule(), progress=tell)
    assert checkpoint.latest(tmp_path, "checkpoint", pytest.fail).facts["step"] == saved
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert read_status(tmp_path) == status


def test_a_run_told_to_end_saves_its_step_and_says_how_to_go_on(tmp_path):
    command = ["train", "tree", "--super-batch", "256", "--iterations", "400", "--arm", "random"]
    run, unbroken = tmp_path / "run", tmp_path / "unbroken"
    for number in (signal.SIGTERM, signal.SIGINT):
        seen = len(jsonl.read(run / "ledger.jsonl"))
        with FORKED.start(["ajest", *command, "--out", run]) as process:
            while len(jsonl.read(run / "ledger.jsonl")) < seen + 3:
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(number)
            assert process.wait() == 130
            errors = process.errors
        assert "start the same command again to go on" in errors
        assert "Traceback" not in errors
        stored = checkpoint.latest(run, "checkpoint", pytest.fail)
        assert stored.facts["step"] >= jsonl.read(run / "ledger.jsonl")[-1]["step"]
        assert stored.facts["step"] % 256
    for folder in (run, unbroken):
        assert FORKED.run(["ajest", *command, "--out", folder]).returncode == 0
    assert read_status(run) == {"state": "done", "step": 400}
    final = [checkpoint.latest(f, "checkpoint", pytest.fail) for f in (run, unbroken)]
    for key, value in final[0].tensors.items():
        assert torch.equal(value, final[1].tensors[key]), key
    losses = [[line["loss"] for line in jsonl.read(f / "ledger.jsonl")] for f in (run, unbroken)]
    assert losses[0] == losses[1]
