"""Arms that are composed of others."""

from dataclasses import replace

import pytest
import torch

from ajest.bench.read.results import randoms, rivals
from ajest.errors import UserError
from ajest.runtime.seeding import Streams
from ajest.selection.catalogue import ARMS, arms_named
from ajest.selection.composed import composed
from ajest.selection.flow import Networks
from ajest.selection.updates import Updates
from ajest.training.trainer import Trainer
from conftest import small_bench, small_recipe, small_task


def named(name):
    return arms_named((name,))[0]


def test_each_part_brings_what_it_changes():
    arm = named("random-keep-0.1+muon+wsd+stratified+min-snr")
    assert (arm.policy, arm.keep) == ("random", 0.1)
    assert arm.updates == Updates("linear", 0.2, optimizer="muon")
    assert arm.noising == replace(ARMS["stratified"].noising, weight=ARMS["min-snr"].noising.weight)
    assert arm.axis == "selection, noise levels, weight, learning rate, optimizer"
    assert ARMS["muon"].summary in arm.summary
    assert "arXiv 2404.06395" in arm.paper
    assert replace(named("wsd+muon"), name="") == replace(named("muon+wsd"), name="")
    assert named("wsd+beta2-0.95").updates == Updates("linear", 0.2, beta2=0.95)


def test_one_part_is_itself_under_another_name():
    for arm in ARMS.values():
        if arm.axis:
            assert replace(composed([arm, arm]), name=arm.name) == arm


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("random+hard", "two of its parts change the same, policy: leave out one"),
        ("min-snr+eps-weight", "two of its parts change the same, weight"),
        ("wsd+constant", "two of its parts change the same, "),
        ("random+baseline", "'baseline' changes nothing"),
        ("baseline+random", "'baseline' changes nothing"),
        ("random+mun", "muon"),
        ("random+", "arm"),
        ("stratified+hard", "it chooses by noise level, which undoes the strata"),
    ],
)
def test_what_contradicts_itself_is_refused(name, says):
    with pytest.raises(UserError, match=says):
        named(name)


def test_random_choice_alone_is_the_match_of_what_is_composed_with_it():
    config = small_bench(arms=arms_named(("baseline", "random+muon", "random", "hard")))
    assert randoms(config) == {0.2: "random"}
    assert rivals(config) == {"random+muon": "random", "hard": "random"}


def test_a_composed_arm_trains_on_random_choices_examples_by_the_optimizer_that_it_names():
    task = small_task()

    def steps(name):
        networks = Networks(task.network("learner", 0))
        trainer = Trainer(task.source("cpu"), networks, small_recipe(super_batch=64), named(name), Streams(0))
        drawn = [trainer.step().batch.id for _ in range(3)]
        return drawn, torch.cat([p.flatten() for p in trainer.network.parameters()])

    (ids, both), (others, random) = steps("random+muon"), steps("random")
    assert all(torch.equal(a, b) for a, b in zip(ids, others, strict=True))
    assert not torch.equal(both, random)
