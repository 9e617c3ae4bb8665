"""Runs that begin where another one stands end with the bits of runs from the first step."""

from dataclasses import replace

import pytest
import torch

from ajest.errors import UserError
from ajest.selection.catalogue import ARMS
from ajest.selection.triggers import Trigger
from ajest.storage import checkpoint
from ajest.training.begin import begin
from ajest.training.recipe import LearningRate
from ajest.training.run import execute
from ajest.training.run_folder import RunConfig, claim_folder
from ajest.training.schedule import Schedule
from conftest import small_recipe, small_task


def config(arm, steps, **changes):
    rate = LearningRate(0.01, decay=0)
    return RunConfig(
        small_task(), "learner", small_recipe(super_batch=64, learning_rate=rate), ARMS[arm], 0, steps, **changes
    )


def trained(folder, config):
    assert execute(folder, config, Schedule()) == "done"
    return folder


def weights(folder):
    return checkpoint.latest(folder, "checkpoint", pytest.fail).tensors


@pytest.mark.parametrize("steps", [10, 15])
def test_every_budget_of_a_stable_rate_comes_from_one_run(tmp_path, steps):
    """wsd falls over the last fifth: after 8 of 10 steps, or 12 of 15."""
    constant = trained(tmp_path / "constant", config("constant", 8))
    wanted = config("wsd", steps)
    assert begin(tmp_path / "branch", wanted, constant, pytest.fail) == 8
    whole, branch = (trained(tmp_path / name, wanted) for name in ("whole", "branch"))
    mine, theirs = weights(branch), weights(whole)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    assert not torch.equal(mine["network/gain"], weights(constant)["network/gain"])
    assert begin(branch, wanted, constant, pytest.fail) == steps  # which has begun, and ended
    lines = (branch / "ledger.jsonl").read_text().splitlines()
    assert len(lines) >= 1


def test_a_run_that_had_fallen_already_or_was_another_one_is_no_beginning(tmp_path):
    constant = trained(tmp_path / "constant", config("constant", 10))
    with pytest.raises(UserError, match=r"took step 10 of its 10 .* begin where its rate has not fallen"):
        begin(tmp_path / "a", config("wsd", 11), constant, pytest.fail)
    with pytest.raises(UserError, match="has taken 10 steps already"):
        begin(tmp_path / "a", config("wsd", 10), constant, pytest.fail)
    with pytest.raises(UserError, match=r"did not begin as this run would: .*seed"):
        begin(tmp_path / "a", replace(config("wsd", 16), seed=1), constant, pytest.fail)
    with pytest.raises(UserError, match=r"did not begin as this run would: .*policy"):
        begin(tmp_path / "a", config("random", 16), constant, pytest.fail)
    assert not (tmp_path / "a").exists()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine").touch()
    with pytest.raises(UserError, match="not empty"):
        begin(tmp_path / "b", config("wsd", 16), constant, pytest.fail)
    of_bench = checkpoint.latest(constant, "checkpoint", pytest.fail)
    checkpoint.save(constant / "checkpoint-0000010", of_bench.tensors, of_bench.facts | {"progress": 0.5})
    with pytest.raises(UserError, match="ended by time, samples or operations, as runs of a bench do"):
        begin(tmp_path / "a", config("wsd", 16), constant, pytest.fail)
    for stem in checkpoint.stems(constant, "checkpoint").values():
        checkpoint.delete(stem)
    with pytest.raises(UserError, match="no checkpoint to begin at"):
        begin(tmp_path / "a", config("wsd", 16), constant, pytest.fail)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"trigger": Trigger("share", share=0.5)}, "its selection stops by the share"),
        ({"trigger": Trigger("waves")}, "its selection comes and goes by the share"),
        ({"cooling": True, "temperature": 1.0}, "its selection fades by the share"),
    ],
)
def test_what_chooses_by_the_share_of_the_run_begins_otherwise_in_a_longer_one(tmp_path, changes, why):
    stable, falls = (
        replace(ARMS["hard"], strata=2, updates=ARMS[name].updates, **changes) for name in ("constant", "wsd")
    )
    short = replace(config("constant", 8), arm=stable)
    longer = replace(short, arm=falls, iterations=16)
    with pytest.raises(UserError, match=rf"was to take 8 steps and this run 16: {why}"):
        begin(tmp_path / "a", longer, trained(tmp_path / "stable", short), pytest.fail)
    with pytest.raises(UserError, match=f"cannot become one of 16: {why}"):
        claim_folder(tmp_path / "stable", replace(short, iterations=16))


def test_levels_that_follow_losses_begin_otherwise_in_a_longer_run(tmp_path):
    arm = replace(ARMS["second-moment"], updates=ARMS["constant"].updates)
    short = replace(config("constant", 8), arm=arm)
    trained(tmp_path / "short", short)
    with pytest.raises(UserError, match="cannot become one of 16: its noise levels follow losses by the share"):
        claim_folder(tmp_path / "short", replace(short, iterations=16))


def test_the_command_branches_a_fall(command):
    words = ("train", "tree", "--super-batch", "64", "--seed", "1")
    assert command(*words, "--arm", "constant", "--iterations", "4", "--out", "c").code == 0
    done = command(*words, "--arm", "wsd", "--iterations", "5", "--begin", "c", "--out", "w")
    assert done.code == 0, done.err
    assert "w: begins at step 4 of c" in done.out
    again = command(*words, "--arm", "wsd", "--iterations", "5", "--begin", "c", "--out", "w")
    assert again.code == 0, again.err
