"""Draw, score and pick as functions by themselves: what a selector makes of them, and that they change nothing."""

from contextlib import contextmanager
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from ajest import Scores
from ajest.runtime.seeding import Streams
from ajest.selection.catalogue import ARMS
from ajest.selection.flow import Networks, Plan, Scorer, draw, draw_noised, pick, score_drawn
from ajest.selection.selector import Selector
from conftest import small_task


class Noted:
    """Phases by name, in their order."""

    def __init__(self):
        self.seen = []

    @contextmanager
    def __call__(self, name):
        self.seen.append(name)
        yield


def parts(name):
    task, arm = small_task(), ARMS[name]
    proxy = task.network("guide", 3) if arm.scoring.scorer == "proxy" else None
    networks = Networks(task.network("learner", 0), task.network("guide", 5).eval(), proxy)
    return task.source("cpu"), networks, arm, Streams(0)


def plan_of(arm, **changes):
    plan = Plan(3, 0.25, arm.kinds()[0], 256, arm.scoring.draws, arm.measures, watches=False)
    return replace(plan, **changes)


@pytest.mark.parametrize("name", ["ajest", "hard", "hard-unbiased", "joint-gradient", "learnable-draws", "proxy"])
def test_a_selector_composes_the_three_functions(name):
    source, networks, arm, streams = parts(name)
    choice = Selector(source, networks, arm, streams, 256).choose(3, 0.25, Noted())
    plan = plan_of(arm)
    assert choice.plan == plan
    drawn = draw(source, streams, plan, Noted())
    scored = score_drawn(drawn, plan, Scorer(networks, arm.scoring, arm.registered.needs), Noted())
    scores = Scores(scored.learner, scored.reference, drawn.batch.sigma, features=scored.features)
    picked = pick(drawn.batch, scores, arm, arm.kept(256), 0.25, streams.generator("select", 3))
    assert torch.equal(picked.kept, choice.picked.kept)
    assert torch.equal(picked.chosen.x, choice.picked.chosen.x)
    assert (picked.weight is None) == (choice.picked.weight is None) == (not arm.unbiased)
    assert scored.flops == choice.scored.flops
    assert choice.counts.scored == scored.examples == 256 * arm.scoring.draws
    again = score_drawn(drawn, plan, Scorer(networks, arm.scoring, arm.registered.needs), Noted())
    assert again.learner is None or torch.equal(again.learner, scored.learner)


@pytest.mark.parametrize(
    ("name", "phases"),
    [
        ("baseline", ["draw", "target"]),
        ("random", ["draw", "target"]),
        ("ajest", ["draw", "target", "reference scoring", "learner scoring", "select"]),
        ("hard", ["draw", "target", "learner scoring", "select"]),
        ("guide-hard", ["draw", "target", "reference scoring", "select"]),
        ("recall", ["draw", "select", "target"]),
        ("late-ajest", ["draw", "target", "reference scoring"]),
    ],
)
def test_each_part_of_a_step_is_charged_to_its_phase(name, phases):
    source, networks, arm, streams = parts(name)
    noted = Noted()
    Selector(source, networks, arm, streams, 256).choose(0, 0.0, noted)
    assert noted.seen == phases


def test_targets_are_computed_only_where_they_are_needed():
    source, _, arm, streams = parts("ajest")
    with_targets = draw(source, streams, plan_of(arm), Noted())
    assert with_targets.batch is with_targets.parts[0]
    assert with_targets.batch.target is not None
    without = draw(source, streams, plan_of(arm, measures=False), Noted())
    assert without.batch.target is None
    assert torch.equal(without.batch.x, with_targets.batch.x)
    assert draw(source, streams, plan_of(arm, measures=False, watches=True), Noted()).batch.target is not None


def test_noise_draws_share_their_examples():
    source, _, arm, streams = parts("learnable-draws")
    drawn = draw(source, streams, plan_of(arm), Noted())
    first, second = drawn.parts
    assert torch.equal(first.id, second.id)
    assert torch.equal(first.sigma, second.sigma)
    assert not torch.equal(first.x, second.x)
    assert torch.equal(draw_noised(source, streams, 256, 3, 1).x, second.x)


def test_picking_leaves_scores_and_batch_alone_and_passes_over_what_is_not_finite():
    source, _, arm, streams = parts("hard")
    batch = draw(source, streams, plan_of(arm), Noted()).batch
    learner = torch.rand(256, generator=torch.Generator().manual_seed(0))
    learner[[3, 200]] = torch.tensor([float("nan"), float("inf")])
    scores = Scores(learner, sigma=batch.sigma)
    before = learner.clone(), batch.x.clone()
    picked = pick(batch, scores, arm, 51, 0.0, torch.Generator().manual_seed(0), scores.finite())
    assert picked.finite.tolist() == [i for i in range(256) if i not in (3, 200)]
    assert len(picked.kept) == len(set(picked.kept.tolist()) - {3, 200}) == 51
    assert torch.equal(picked.chosen.x, batch.x[picked.kept])
    assert torch.equal(learner.nan_to_num(9, 9), before[0].nan_to_num(9, 9))
    assert torch.equal(batch.x, before[1])
    with pytest.raises(FrozenInstanceError):
        picked.kept = None
