"""Rules of the user's own: registered by a file, named by arms, read again by workers, refused where it has changed."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ajest.bench.plan.config import BenchConfig
from ajest.bench.run.bench import run_bench
from ajest.errors import UserError
from ajest.jobs.local import Local
from ajest.selection import (
    ARMS,
    POLICIES,
    Arm,
    Scores,
    Trigger,
    load_rules,
    register_arm,
    register_normalisation,
    register_policy,
    register_trigger,
    select,
)
from ajest.selection.normalisation import NORMALISATIONS
from ajest.selection.triggers import TRIGGERS
from ajest.storage.config import from_json, to_json
from ajest.training.run_folder import read_config
from conftest import small_bench

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_rule.py"


@pytest.fixture
def rules(tmp_path):
    """A file with a policy, a normalisation, a trigger and an arm of each; forgotten afterwards."""
    before = [dict(known) for known in (POLICIES, NORMALISATIONS, TRIGGERS, ARMS)]
    path = tmp_path / "rules.py"
    path.write_text(
        EXAMPLE.read_text()
        + """
from ajest.selection import register_normalisation

register_normalisation("sign", lambda values, stratum: values.sign())
register_arm(Arm("sign-hard", "hard", keep=0.2, normalise="sign", strata=1))
"""
    )
    yield path
    for known, old in zip((POLICIES, NORMALISATIONS, TRIGGERS, ARMS), before, strict=True):
        known.clear()
        known.update(old)


def test_the_example_chooses_the_middle_of_each_noise_level(rules):
    load_rules(rules)
    losses = torch.arange(64.0)
    sigma = torch.arange(64) // 8 + 1.0  # eight levels of eight examples
    chosen = select(Scores(learner=losses, sigma=sigma), count=8, name="middle")
    assert sorted(chosen.tolist()) == [8 * k + 4 for k in range(8)]


def test_arms_of_a_file_carry_it_through_json_and_pickle(rules):
    found = load_rules(rules)
    assert ARMS["middle"].rules == ARMS["late-hard"].rules == ARMS["sign-hard"].rules == found
    assert ARMS["hard"].rules is None
    bench = small_bench(arms=(ARMS["baseline"], ARMS["middle"], ARMS["late-hard"]))
    value = json.loads(json.dumps(to_json(bench)))
    assert value["arms"][1]["rules"] == {"place": str(rules), "digest": found.digest}
    assert from_json(BenchConfig, value, "x") == bench
    assert pickle.loads(pickle.dumps(bench)) == bench
    rules.write_text(rules.read_text() + "SIZE = 3\n")
    with pytest.raises(UserError, match=r"rules\.py has changed since then"):
        from_json(BenchConfig, value, "x")


def test_a_bench_with_rules_of_a_file_in_workers(rules, tmp_path):
    load_rules(rules)
    root = tmp_path / "bench"
    arms = (ARMS["baseline"], ARMS["middle"], replace(ARMS["late-hard"], strata=4))
    run_bench(root, small_bench(arms=arms, seeds=(0,)), Local(2))
    assert read_config(root / "arms" / "middle" / "seed-0").arm == ARMS["middle"]
    kinds = [
        json.loads(line)["by_kind"] for line in (root / "arms/late-hard/seed-0/ledger.jsonl").read_text().splitlines()
    ]
    assert kinds[-1]["uniform"] == 21  # half of 40 steps, and the one whose end the trigger saw
    assert sum(kinds[-1].values()) == 40


def test_arms_lists_where_a_rule_comes_from(rules, command):
    done = command("arms", "--rules", rules)
    assert done.code == 0
    assert "middle" in done.out
    assert "rules.py" in done.out


@pytest.mark.parametrize(
    ("register", "why"),
    [
        (lambda: register_policy("hard", lambda s, c, g: torch.arange(c)), "there is another policy 'hard'"),
        (
            lambda: register_policy("p", lambda s, c, g: torch.arange(c), needs=("colour",)),
            "there is no colour to read",
        ),
        (lambda: register_policy("p", lambda s, c, g: torch.arange(c), dials=("size",)), "arms have no dial size"),
        (lambda: register_policy("p", lambda s, c, g: torch.rand(c)), "must give the indices"),
        (lambda: register_policy("p", lambda s, c, g: torch.arange(c - 1)), "must give the indices"),
        (lambda: register_policy("p", lambda s, c, g: 30 + torch.arange(c)), "chooses examples that there are not"),
        (lambda: register_policy("p", lambda s, c, g: torch.randperm(32)[:c]), "chooses anew for the same generator"),
        (lambda: register_policy("p", lambda s, c: torch.arange(c)), "policy 'p': TypeError"),
        (lambda: register_normalisation("zscore", lambda v, s: v), "there is another normalisation 'zscore'"),
        (lambda: register_normalisation("running", lambda v, s: v), "there is another normalisation 'running'"),
        (lambda: register_normalisation("n", lambda v, s: v.sum()), "must give as many"),
        (lambda: register_trigger("late", lambda *state: state[0]), "there is another trigger 'late'"),
        (lambda: register_trigger("t", lambda *_: True), "must give a TriggerState"),
        (lambda: register_arm(Arm("random", "hard", keep=0.2)), "there is another arm 'random'"),
        (lambda: Arm("mine", "hardest", keep=0.2), "unknown policy 'hardest'"),
        (lambda: Arm("mine", "hard", keep=0.2, normalise="cube"), "unknown normalisation 'cube'"),
        (lambda: Trigger("soon"), "unknown trigger 'soon'"),
    ],
)
def test_what_is_no_rule_is_one_clear_line(rules, register, why):
    with pytest.raises(UserError, match=why):
        register()


def test_an_arm_of_two_files_is_refused(rules, tmp_path):
    load_rules(rules)
    other = tmp_path / "other.py"
    other.write_text(
        "from ajest.selection import register_policy\n"
        "register_policy('first', lambda scores, count, generator: scores.learner.argsort()[:count])\n"
    )
    load_rules(other)
    assert Arm("a", "first", keep=0.2).rules.place == str(other)
    with pytest.raises(UserError, match="stand in several files"):
        Arm("a", "first", keep=0.2, trigger=Trigger("second-half"))


def test_words_of_a_users_arm_are_shown_as_they_are(command, rules):
    """Even those that a terminal's markup would take for its own."""
    rules.write_text(
        "from ajest.selection import Arm, register_arm\n"
        'register_arm(Arm("half [odd]", "random", keep=0.5, summary="loss^[k/2] of those [/even]"))\n'
    )
    done = command("arms", "--rules", rules)
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert "half [odd]" in said
    assert "loss^[k/2] of those [/even]" in said


@pytest.mark.parametrize("name", ["..", "../there", "a/b", "a\\b", "a\nb"])
def test_an_arm_has_a_name_that_a_folder_can_have(name):
    with pytest.raises(UserError, match="its runs have a folder of this name: take letters, numbers"):
        Arm(name, "random")


def test_an_arm_that_trains_on_all_keeps_all():
    for changes in ({"keep": 0.5}, {"trigger": Trigger("share", share=0.5)}):
        with pytest.raises(UserError, match=r'policy "uniform" trains on all that is drawn, always: .* take "random"'):
            Arm("half", "uniform", **changes)
