"""The critical batch by branching: what branches train on, what is said of them, and what is refused."""

from dataclasses import replace

import pytest

from ajest.bench.read.probed import branches_sentence, branches_table
from ajest.errors import Diverged, UserError
from ajest.selection.catalogue import ARMS
from ajest.training.branches import Branch, Branches, branch
from ajest.training.recipe import LearningRate
from ajest.training.run import execute
from ajest.training.run_folder import RunConfig
from ajest.training.schedule import Schedule
from ajest.training.trainer import Trainer
from conftest import small_recipe, small_task


def trained(folder, arm="constant", **recipe):
    config = RunConfig(small_task(), "learner", small_recipe(super_batch=64, **recipe), ARMS[arm], 0, 8)
    assert execute(folder, config, Schedule()) == "done"
    return folder


def test_branches_draw_as_many_examples_at_rates_by_the_root_of_their_batch(tmp_path):
    folder = trained(tmp_path / "run")
    files = sorted(p.name for p in folder.rglob("*"))
    done = []
    found = branch(folder, 1024, repeats=2, say=lambda *at: done.append(at))
    assert done[-1] == (10, 10)
    assert [(b.batch, b.steps) for b in found.branches] == [(16, 64), (32, 32), (64, 16), (128, 8), (256, 4)]
    assert all(b.batch * b.steps == found.examples for b in found.branches)
    rates = [b.rate for b in found.branches]
    assert [rate / rates[2] for rate in rates] == pytest.approx([0.5, 0.5**0.5, 1, 2**0.5, 2])
    assert (found.step, found.own) == (8, 64)
    assert all(len(set(b.losses)) == 2 for b in found.branches)  # other examples each time
    assert all(loss != found.before for b in found.branches for loss in b.losses)
    assert branch(folder, 1024, repeats=2) == found
    assert sorted(p.name for p in folder.rglob("*")) == files


def test_a_run_that_was_chosen_from_goes_on_choosing(tmp_path):
    found = branch(
        trained(tmp_path / "run", "hard-running", learning_rate=LearningRate(0.01, decay=0)), 2048, (1, 2), 1
    )
    assert [b.steps for b in found.branches] == [32, 16]


def test_what_cannot_be_branched_is_refused_in_one_line(tmp_path):
    folder = trained(tmp_path / "run")
    with pytest.raises(UserError, match="less than a step of the largest batch: branch over 256 or more"):
        branch(folder, 100)
    with pytest.raises(UserError, match=r"has fallen to .* --arm constant"):
        branch(trained(tmp_path / "fallen", "linear-to-zero"), 1024)
    with pytest.raises(UserError, match="let 1 be among the factors"):
        branch(folder, 1024, (2, 4))
    for path in folder.glob("checkpoint-*"):
        path.unlink()
    with pytest.raises(UserError, match="no checkpoint to branch from"):
        branch(folder, 1024)


def made(**losses):
    noise = (0.001, -0.001, 0.002, -0.002, 0.0)
    branches = [
        Branch(int(name[1:]), 0.01, 4, tuple(loss + (1 + i) * n for n in noise))
        for i, (name, loss) in enumerate(losses.items())
    ]
    return Branches("run", 8, 1024, 64, 2.0, tuple(branches))


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (
            {"b32": 1.0, "b64": 1.0, "b128": 1.0, "b256": 1.5},
            "Up to 128 examples a step nothing is",
        ),
        ({"b32": 1.0, "b64": 1.0, "b128": 1.0}, "Up to 128 examples a step nothing is certainly lost; no branch"),
        ({"b32": 1.0, "b64": 1.0, "b128": 1.5}, "The critical batch is about 64"),
        (
            {"b32": 1.0, "b64": 1.0, "b128": 1.5, "b256": 1.0},
            "The critical batch is about 64: no smaller one learns certainly more, and one of 128 learns certainly",
        ),
        ({"b32": 0.5, "b64": 1.0, "b128": 1.5}, "Batches of 32 learn certainly more from as many examples"),
    ],
)
def test_what_is_said_of_branches(losses, said):
    found = made(**losses)
    assert branches_sentence(found).startswith(said)
    table = branches_table(found)
    assert [row[0].value for row in table.rows] == [f"{b.batch:,}" for b in found.branches]
    assert [bool(row[4].value) for row in table.rows] == [b.batch != 64 for b in found.branches]


def test_few_repeats_decide_nothing_and_say_so():
    found = made(b32=1.0, b64=1.0, b128=1.5)
    few = replace(found, branches=tuple(replace(b, losses=b.losses[:2]) for b in found.branches))
    assert branches_sentence(few) == "Fewer than 5 repeats of each branch decide nothing: raise --repeats."


def test_the_command_branches_where_it_is_asked_to(command, tmp_path):
    folder = trained(tmp_path / "run")
    words = ("probe", folder, "--examples", "128")
    plain = command(*words)
    assert plain.code == 0, plain.err
    assert "Branches of" not in plain.out
    done = command(*words, "--branch", "1024", "--json", tmp_path / "p.json")
    assert done.code == 0, done.err
    assert "Branches of" in " ".join(done.out.split())
    assert '"branches"' in (tmp_path / "p.json").read_text()


def test_a_branch_that_diverges_is_named_in_one_line(tmp_path, monkeypatch):
    folder = trained(tmp_path / "run")

    def diverges(trainer, kind=None):
        raise Diverged("the loss is nan")

    monkeypatch.setattr(Trainer, "step", diverges)
    with pytest.raises(UserError, match=r"a branch of 64 examples a step diverged .*the loss is nan.* lower rate"):
        branch(folder, 1024, (1,), 1)
