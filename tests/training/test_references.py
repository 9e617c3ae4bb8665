"""A run goes on with the reference that it began with, or not at all."""

import shutil
from dataclasses import replace

import pytest
import torch

from ajest.bench.plan.config import run_folder
from ajest.errors import UserError
from ajest.selection.catalogue import arms_named
from ajest.storage import checkpoint, jsonl
from ajest.study.guides import Guided, evaluate_guided, values
from ajest.training.run import execute, execution
from ajest.training.run_folder import RunConfig
from ajest.training.schedule import Schedule
from conftest import small_bench, small_recipe, small_task

SCHEDULE = Schedule(checkpoint_every=4)


def config(arm="rho", role="learner", iterations=20, seed=0):
    guide = "../guide" if role == "learner" else None
    return RunConfig(small_task(), role, small_recipe(), *arms_named((arm,)), seed, iterations, guide)


def train(root, name, run):
    return execute(root / name, run, SCHEDULE)


def guide_of(root, seed=0, iterations=8):
    shutil.rmtree(root / "guide", ignore_errors=True)
    assert train(root, "guide", config("baseline", "guide", iterations, seed)) == "done"


def stop_at(folder, run, step):
    """Take some steps, then leave as a kill would."""
    for trainer in execution(folder, run, SCHEDULE):
        if trainer.steps_taken == step:
            return


def weights(folder):
    return checkpoint.latest(folder, "checkpoint", pytest.fail).tensors


def same(a, b):
    return all(torch.equal(value, b[key]) for key, value in a.items())


@pytest.fixture
def root(tmp_path):
    guide_of(tmp_path)
    assert train(tmp_path, "whole", config()) == "done"
    stop_at(tmp_path / "run", config(), 9)
    return tmp_path


def test_a_run_whose_reference_was_trained_anew_is_refused_when_it_would_go_on(root):
    guide_of(root, seed=1)
    with pytest.raises(UserError, match=rf"{root / 'guide'} is not the reference .* step 8 .* trained anew"):
        train(root, "run", config())
    with pytest.raises(UserError, match="is not the reference"):  # nor is one that has ended taken for one of the new
        train(root, "whole", config())
    guide_of(root)  # the same bits are the same reference
    assert train(root, "run", config()) == "done"
    assert same(weights(root / "run"), weights(root / "whole"))


def test_a_reference_that_was_trained_on_since_then_is_still_the_one_of_its_step(root):
    assert train(root, "guide", config("baseline", "guide", 12)) == "done"
    assert train(root, "run", config()) == "done"
    assert same(weights(root / "run"), weights(root / "whole"))
    assert train(root, "new", config()) == "done"
    assert not same(weights(root / "new"), weights(root / "whole"))


def test_a_missing_reference_matters_to_runs_that_go_on(root):
    shutil.rmtree(root / "guide")
    with pytest.raises(UserError, match="is gone"):
        train(root, "run", config())
    assert train(root, "whole", config()) == "done"


def test_a_run_that_has_yet_to_begin_takes_what_is_there(root):
    stop_at(root / "early", config(), 2)  # before its first checkpoint
    guide_of(root, seed=1)
    assert train(root, "early", config()) == "done"
    assert train(root, "fresh", config()) == "done"
    assert same(weights(root / "early"), weights(root / "fresh"))


def test_the_runs_of_a_bench_and_a_studys_gains_are_of_the_guide_that_lies_there(tmp_path):
    arms = arms_named(("baseline", "ajest"))
    bench = small_bench(arms=arms, seeds=(0,), iterations=32, n_final=200, n_curve=200)
    folders = [run_folder(tmp_path, arm.name, 0) for arm in arms]
    execute(tmp_path / "guide", bench.guide(), bench.guide_schedule())
    for folder, arm in zip(folders, arms, strict=True):
        assert execute(folder, bench.run(arm, 0), Schedule()) == "done"
    job = Guided("x", tmp_path, bench, 0, {"trained": (2.0,)}, False, tmp_path / "truth", "cpu")
    for _ in range(2):
        evaluate_guided(job, lambda *_: None)
    assert len(jsonl.read(folders[0] / "guides.jsonl")) == 1
    before = values(tmp_path, bench, "trained", 2.0, "mandala")

    shutil.rmtree(tmp_path / "guide")
    execute(tmp_path / "guide", replace(bench, guide_seed=7).guide(), bench.guide_schedule())
    evaluate_guided(job, lambda *_: None)
    assert values(tmp_path, bench, "trained", 2.0, "mandala") != before
    with pytest.raises(UserError, match="is not the reference"):
        execute(folders[1], bench.run(arms[1], 0), Schedule())
