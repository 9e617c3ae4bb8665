"""Keep-lists: files that say which examples are learned from, in and out."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch

import ajest.bench.report.page
import ajest.bench.run.bench
import ajest.cli.bench
from ajest.bench.plan.config import BenchConfig, run_folder
from ajest.bench.read.kept import kept_of
from ajest.errors import UserError
from ajest.runtime.counter import CounterStream
from ajest.selection.catalogue import ARMS, pruned
from ajest.selection.keep_list import read_keep_list, restricted
from ajest.storage.config import differences, from_json, to_json
from ajest.storage.config_file import write_config
from ajest.training.run import execute
from ajest.training.run_folder import RunConfig
from ajest.training.schedule import Schedule
from conftest import small_images, small_recipe, small_task


@pytest.fixture
def half(tmp_path):
    """Every second of the images of `small_images`, as `ajest data kept` would name them."""
    names = small_images().example_names()[::2]
    file = tmp_path / "half.csv"
    file.write_text("id,drawn,trained\n" + "".join(f"{name},3,1\n" for name in names))
    return read_keep_list(file)


@pytest.mark.parametrize("drawing", ["host", "device"])
def test_a_source_draws_the_examples_of_the_list_alone(half, drawing):
    task = small_images()
    source, stream = task.source("cpu"), torch.Generator().manual_seed(3)
    few = restricted(source, half, task.example_names())
    if drawing == "host":
        batch, others = few.draw(512, stream), source.draw(512, torch.Generator().manual_seed(3))
    else:
        streams = CounterStream.named(0, "examples"), CounterStream.named(0, "noise")
        batch, others = few.draw_rows(range(512), *streams), source.draw_rows(range(512), *streams)
    assert not (batch.id % 2).any()
    assert 0.9 * half.count < len(batch.id.unique()) <= half.count
    assert torch.equal(batch.sigma, others.sigma)  # at the same noise levels as all others
    images = torch.from_numpy(np.array(task.image_set("train").images))
    assert torch.equal(((batch.target + 1) * 127.5).round().byte(), images[batch.id])


def test_a_run_learns_from_the_list_alone_and_says_how_often(half, tmp_path):
    arm = replace(ARMS["high-loss"], keep=0.5, examples=half)
    config = RunConfig(small_images(), "learner", replace(small_recipe(), super_batch=32), arm, 0, 3)
    execute(tmp_path / "run", config, Schedule())
    found = kept_of(tmp_path / "run", print)
    rows = list(csv.DictReader(found.as_csv().splitlines()))
    assert [row["id"] for row in rows] == small_images().example_names()
    assert sum(int(row["drawn"]) for row in rows) == 96
    assert sum(int(row["trained"]) for row in rows) == 48
    assert not any(int(row["drawn"]) for row in rows[1::2])
    best = found.of(None).top(0.1)
    counts = sorted((int(row["trained"]) for row in rows), reverse=True)
    assert sorted(best.by_arm["high-loss"][1].tolist(), reverse=True) == counts[: len(best.names)]

    (tmp_path / "best.csv").write_text(best.as_csv())  # what comes out goes in
    again = read_keep_list(tmp_path / "best.csv")
    assert again.count == len(best.names)
    assert [small_images().example_names()[row] for row in again.rows(small_images().example_names())] == best.names


def test_the_runs_of_a_bench_are_added_up_by_arm(tmp_path):
    arms = (ARMS["baseline"], replace(ARMS["random"], keep=0.5))
    config = BenchConfig(small_images(), replace(small_recipe(), super_batch=16), arms, (0, 1), 32, 1)
    write_config(tmp_path / "bench.json", config)
    for arm in arms:
        for seed in config.seeds:
            execute(run_folder(tmp_path, arm.name, seed), replace(config.run(arm, seed), iterations=2), Schedule())
    found = kept_of(tmp_path, print)
    assert {arm: counts.sum(1).tolist() for arm, counts in found.by_arm.items()} == {
        "baseline": [64, 64],
        "random": [32, 32],
    }
    assert found.as_csv().startswith("id,baseline drawn,baseline trained,random drawn,random trained\n")
    assert found.of("random").as_csv().startswith("id,drawn,trained\n")
    with pytest.raises(UserError, match="the bench has the arms baseline, random: choose one with --arm"):
        found.of(None)
    with pytest.raises(UserError, match="unknown arm 'radnom': did you mean 'random'"):
        found.of("radnom")


def test_an_arm_with_a_list_is_told_by_what_the_list_names_and_not_by_where_it_lies(half, tmp_path):
    arm = pruned(half)
    assert (arm.name, arm.axis) == ("pruned-half", "examples")
    assert from_json(type(arm), to_json(arm), "here") == arm
    moved = tmp_path / "moved.txt"
    moved.write_text("\n".join(sorted(small_images().example_names()[::2], reverse=True)))
    assert not differences(arm, replace(arm, examples=read_keep_list(moved)))
    moved.write_text("\n".join(small_images().example_names()[1::2]))
    assert differences(arm, replace(arm, examples=read_keep_list(moved)))[0].startswith("examples.digest")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty: name at least one example"),
        ("id,trained\n", "is empty: name at least one example"),
        ("a,1\nb,2\n", "has no column `id`: head its columns, or write one name on each line"),
        ("a\nb\na\n", "names examples twice: a"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused(tmp_path, text, said):
    (tmp_path / "ids.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        read_keep_list(tmp_path / "ids.csv")


def test_a_list_must_name_examples_of_the_data_set(tmp_path, half):
    names, file = small_images().example_names(), tmp_path / "ids.csv"
    file.write_text("cat.png\ndog.png\n" + names[0])
    with pytest.raises(UserError, match=r"names 2 of 3 examples that the data set does not hold \(cat.png, dog.png\)"):
        read_keep_list(file).rows(names)
    known = read_keep_list(file)
    file.write_text(names[0])
    with pytest.raises(UserError, match="names other examples than when this arm was made: put the old list back"):
        known.rows(names)
    with pytest.raises(UserError, match="cannot leave out examples: a keep-list is for tasks with a data set"):
        restricted(small_task().source("cpu"), half, small_task().example_names())
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_keep_list(tmp_path / "absent.csv")


def test_a_bench_has_an_arm_for_each_list(command, monkeypatch, tmp_path):
    benches = []
    monkeypatch.setattr(ajest.bench.run.bench, "run_bench", lambda root, config, *_: benches.append(config))
    monkeypatch.setattr(ajest.bench.report.page, "write_report", lambda root: None)
    monkeypatch.setattr(ajest.cli.bench, "_print_verdict", lambda _: None)
    for name, rows in (("few", range(5)), ("many", range(200))):
        (tmp_path / f"{name}.csv").write_text("".join(f"train/shape-{row:06d}\n" for row in rows))
    words = ("images", "--data", "shapes:256", "--classes", "all", "--resolution", "16", "--keep-list")
    done = command("bench", *words, "few.csv", "many.csv", "--arms", "baseline", "hard-running")
    assert done.code == 0, done.err
    assert [arm.name for arm in benches[0].arms] == ["baseline", "hard-running", "pruned-few", "pruned-many"]
    assert [arm.examples.count for arm in benches[0].arms[2:]] == [5, 200]
    done = command("bench", *words, "few.csv", "few.csv", "--arms", "baseline")
    assert (done.code, "arms are named twice: pruned-few" in done.err) == (2, True)
    done = command("bench", "tree", "--keep-list", "few.csv")
    assert (done.code, "cannot leave out examples" in done.err) == (2, True)
