import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ajest.errors import UserError
from ajest.selection.catalogue import ARMS
from ajest.storage import checkpoint, jsonl
from ajest.storage.config import differences, from_json, to_json
from ajest.storage.lock import locked
from ajest.training.networks import load_network
from ajest.training.recipe import LearningRate
from ajest.training.recorder import Recorder
from ajest.training.run import execute
from ajest.training.run_folder import RunConfig, load_snapshot, read_config, read_status, snapshots
from ajest.training.schedule import Schedule, clocks
from conftest import small_recipe, small_task
from forked import FORKED

SCHEDULE = Schedule({"steps": (10.0, 25.0, 60.0), "samples": (2000.0,)}, checkpoint_every=10, ledger_every=8)


def config(arm="baseline", role="learner", iterations=60, **changes):
    guide = "../guide" if ARMS[arm].reference == "guide" else None
    return RunConfig(small_task(), role, small_recipe(), ARMS[arm], 3, iterations, guide, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A guide and a finished run of early AJEST."""
    root = tmp_path_factory.mktemp("runs")
    assert execute(root / "guide", config(role="guide", iterations=12), Schedule()) == "done"
    assert execute(root / "early", config("early-ajest"), SCHEDULE) == "done"
    return root


def test_a_budget_is_crossed_once_whatever_sums_round_to():
    rates = np.random.default_rng(0)
    for cost, steps, share in zip(
        rates.random(2000), rates.integers(8, 999, 2000), rates.integers(1, 8, 2000), strict=True
    ):
        budget, crossed = steps * cost * (share / 8), []
        recorder = SimpleNamespace(schedule=Schedule({"calibrated": (budget,)}))
        near = int(steps * share / 8)
        for step in range(max(1, near - 2), near + 3):
            recorder._last = {"calibrated": step * cost}
            if Recorder._reached(recorder, {"calibrated": (step - 1) * cost}):
                crossed.append(step)
        assert len(crossed) == 1


def test_a_run_leaves_what_a_report_needs(folder):
    run = folder / "early"
    assert read_config(run) == config("early-ajest")
    assert read_status(run) == {"state": "done", "step": 60}
    lines = jsonl.read(run / "ledger.jsonl")
    assert [line["step"] for line in lines if line["step"] % 8 == 0] == [8, 16, 24, 32, 40, 48, 56]
    assert lines[-1]["step"] == 60
    reached = {step: checkpoint.facts(stem)["reached"] for step, stem in snapshots(run).items()}
    assert reached[10]["steps"] == [10.0]
    assert reached[60]["steps"] == [60.0]
    # 51 examples a selecting step: the budget of 2000 falls where it is first crossed.
    crossing = next(step for step, r in reached.items() if "samples" in r)
    trained = checkpoint.facts(snapshots(run)[crossing])["clocks"]["samples"]
    assert 2000 <= trained < 2000 + 256


def test_a_finished_run_is_not_repeated(folder):
    before = (folder / "early" / "ledger.jsonl").stat().st_mtime_ns
    assert execute(folder / "early", config("early-ajest"), SCHEDULE) == "done"
    assert (folder / "early" / "ledger.jsonl").stat().st_mtime_ns == before


def test_another_config_is_refused_with_the_field_that_differs(folder):
    changed = replace(config("early-ajest"), recipe=small_recipe(super_batch=512), seed=4)
    with pytest.raises(UserError, match=r"recipe.super_batch: 256 -> 512, seed: 3 -> 4"):
        execute(folder / "early", changed, SCHEDULE)


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(tmp_path):
    wild = replace(config(), recipe=small_recipe(learning_rate=LearningRate(peak=1e30)))
    assert execute(tmp_path / "wild", wild, replace(SCHEDULE, checkpoint_every=1)) == "diverged"
    status = read_status(tmp_path / "wild")
    assert "lower the learning rate" in status["why"]
    stored = checkpoint.latest(tmp_path / "wild", "checkpoint", pytest.fail)
    assert stored.facts["step"] == status["step"]
    assert all(torch.isfinite(v).all() for k, v in stored.tensors.items() if k.startswith("ema/"))
    assert execute(tmp_path / "wild", wild, SCHEDULE) == "diverged"


def test_two_processes_do_not_share_a_folder(folder):
    with locked(folder / "early"), pytest.raises(UserError, match="another process"):
        execute(folder / "early", config("early-ajest"), SCHEDULE)


def test_configs_survive_json_and_differences_name_fields():
    c = config("late-ajest")
    assert from_json(RunConfig, to_json(c), "x") == c
    assert differences(c, replace(c, iterations=61)) == ["iterations: 60 -> 61"]
    broken = to_json(c) | {"iterations": "many"}
    with pytest.raises(UserError, match="iterations"):
        from_json(RunConfig, broken, "config.json")
    with pytest.raises(UserError, match="extra"):
        from_json(RunConfig, to_json(c) | {"extra": 1}, "config.json")
    with pytest.raises(UserError, match="iterations must be"):
        from_json(RunConfig, to_json(c) | {"iterations": 0}, "config.json")


def test_a_truncated_snapshot_is_passed_over(folder, tmp_path, capsys):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(folder / "early", run)
    path = run / "snapshots" / "snapshot-0000060.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert load_snapshot(run).facts["step"] < 60
    assert "snapshot-0000060" in capsys.readouterr().out
    with pytest.raises(UserError, match="no snapshot of step 7"):
        load_snapshot(run, 7)


def test_any_ema_width_can_be_had_afterwards(tmp_path):
    """From fifteen snapshots, as exactly as by a run that kept it: both see the same weights go by."""
    schedule = Schedule({"steps": tuple(float(step) for step in range(4, 61, 4))})
    mine = config()
    exact = replace(mine, recipe=replace(mine.recipe, ema_widths=(0.07,)))
    for name, run in (("mine", mine), ("exact", exact)):
        assert execute(tmp_path / name, run, schedule) == "done"
    x, sigma = torch.randn(20, 2), torch.ones(20)
    wanted = load_network(tmp_path / "exact")[0](x, sigma)
    gaps = {
        width: (load_network(tmp_path / "mine", width=width)[0](x, sigma) - wanted).norm()
        for width in (0.07, *mine.recipe.ema_widths)
    }
    assert gaps.pop(0.07) < 0.01 * min(gaps.values())


def test_calibrated_clocks_count_steps_by_kind():
    facts = {"trained": 7, "seconds": {"draw": 1.0}, "flops": 9.0, "by_kind": {"a": 3, "b": 2}}
    costs = {"a": {"target": 0.5, "update": 1.0}, "b": {"update": 2.0}}
    found = clocks(facts, 5, costs)
    assert found == {
        "steps": 5,
        "samples": 7,
        "seconds": 1.0,
        "flops": 9.0,
        "calibrated": 8.5,
        "time_without_target": 7.0,
    }
    assert "calibrated" not in clocks(facts, 5, {"a": costs["a"]})


KILLABLE = """
import sys
sys.path[:0] = {tests!r}
from pathlib import Path
import torch
torch.set_num_threads(1)
from ajest.training.run import execute
from test_runs import SCHEDULE, config
from dataclasses import replace
execute(Path({folder!r}), config("late-ajest", iterations=400), replace(SCHEDULE, checkpoint_every=7))
"""


def start(folder):
    script = folder.with_suffix(".py")
    script.write_text(KILLABLE.format(tests=[str(Path(__file__).parents[k]) for k in (0, 1)], folder=str(folder)))
    return FORKED.start([script])


def test_a_run_killed_at_any_moment_ends_with_the_same_bits(folder, tmp_path):
    (tmp_path / "guide").symlink_to(folder / "guide")
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    with start(unbroken) as process:
        assert process.wait() == 0, process.errors

    kills, chance = 0, random.Random(0)
    for _ in range(3):
        with start(killed) as process:
            seen = len(jsonl.read(killed / "ledger.jsonl"))
            while process.poll() is None and len(jsonl.read(killed / "ledger.jsonl")) < seen + chance.randint(2, 8):
                time.sleep(0.003)
            time.sleep(chance.random() * 0.05)
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
    assert kills >= 2
    assert read_status(killed) == {}
    with start(killed) as process:
        assert process.wait() == 0, process.errors

    assert list(snapshots(killed)) == list(snapshots(unbroken))
    final = [checkpoint.latest(f, "checkpoint", pytest.fail) for f in (unbroken, killed)]
    assert final[0].facts["step"] == final[1].facts["step"] == 400
    for key, value in final[0].tensors.items():
        assert torch.equal(value, final[1].tensors[key]), key
    for key in ("trained", "scored", "drawn", "by_kind", "flops"):
        assert final[0].facts["ledger"][key] == final[1].facts["ledger"][key]
    steps = [[line["step"] for line in jsonl.read(f / "ledger.jsonl")] for f in (unbroken, killed)]
    assert steps[0] == steps[1]
