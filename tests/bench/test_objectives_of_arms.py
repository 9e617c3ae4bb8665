"""Whether an arm's expected objective is the task's own, as reports say it."""

from dataclasses import replace

import pytest

from ajest.bench.plan.objectives import FOLLOWS, SAME, objective_of
from ajest.selection.catalogue import ARMS
from conftest import small_images, small_task


@pytest.fixture(scope="module")
def tree():
    return small_task(target="x0").source("cpu")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("baseline", SAME),
        ("random", SAME),
        ("hard", "by choice"),
        ("hard-unbiased", SAME),
        ("infobatch", SAME),
        ("recall", "by choice"),
        ("stratified", SAME),
        ("levels-4", SAME),
        ("cosine-levels-same", SAME),
        ("second-moment", SAME),
        ("first-moment", SAME),
        ("eps-weight", SAME),  # on the tree that is the task's own
        ("stable-target-16", SAME),
        ("adaptive-beta", FOLLOWS),
        ("adaptive-beta-control", SAME),
        ("assignment", "another best denoiser"),
        ("contrastive", "another best denoiser"),
        ("internal-head", "a term more"),
        ("schedule-free", SAME),
    ],
)
def test_an_objective_is_the_tasks_own_or_it_is_said_what_differs(tree, name, said):
    assert objective_of(ARMS[name], tree) == said


@pytest.mark.parametrize("name", ["logit-normal", "laplace", "min-snr", "speed-code", "infonoise"])
def test_what_lies_at_other_levels_is_said_in_per_cent(tree, name):
    moved = ARMS[name].noising
    said = objective_of(ARMS[name], tree)
    assert said.endswith("% at other levels")
    if not moved.learns:
        assert said == f"{moved.moved(tree):.0%} at other levels"
        unweighted = replace(ARMS[name], noising=replace(moved, target="x0"))
        assert objective_of(unweighted, tree) == said


def test_where_the_best_denoiser_is_not_known_levels_follow_losses():
    images = small_images().source("cpu")
    assert objective_of(ARMS["infonoise"], images) == FOLLOWS
    assert objective_of(ARMS["second-moment"], images) == SAME
    assert objective_of(ARMS["edm-weight"], images) == SAME
