"""What is left of claims, and what their page and figures show of it."""

from dataclasses import replace

import pytest
from made_up_claims import judged

from ajest.claims.catalogue import CLAIMS, RECTIFIED
from ajest.claims.forest import forest, forests
from ajest.claims.page import answer, render, sentences, summary
from ajest.claims.settings import SETTINGS
from ajest.claims.store import Verdicts
from ajest.training.probe import Estimate


@pytest.mark.parametrize(
    ("shifts", "left"),
    [
        ((-0.3, -0.2), "better"),
        ((-0.3, 0.0), "better"),
        ((0.3, 0.0), "worse"),
        ((-0.3, 0.3), "mixed"),
        ((0.0, 0.0), "equivalent"),
    ],
)
def test_what_is_left_of_a_claim_by_its_arms(shifts, left):
    one = judged(CLAIMS["laplace"], *shifts)
    assert one.left == left
    assert replace(one, finished=False).left == "unfinished"


def test_a_mixed_claim_shows_what_was_gained_and_what_it_cost():
    one = judged(CLAIMS["laplace"], -0.3, 0.4)
    row = summary([one], [one.claim]).rows[0]
    gained, cost = one.tests
    assert row[-1].value == "mixed"
    assert row[-1].detail == (
        f"better: {gained.arm}: loss {100 * gained.baseline.difference / 1.00875:.1f} %; "
        f"worse: {cost.arm}: loss +{100 * cost.baseline.difference / 1.00875:.1f} %"
    )


def test_the_summary_has_a_column_for_each_setting_at_each_budget():
    one = judged(CLAIMS["laplace"], -0.3, 0.0)
    timed = summary([one, replace(one, setting=SETTINGS["digits"])], [one.claim])
    assert timed.title == "What is left at equal time"
    assert [head.value for head in timed.heads[2:]] == ["the tree, exact targets", "digits of 8 by 8 pixels"]
    both = summary([one, judged(CLAIMS["laplace"], 0.3, 0.2, end="samples")], [one.claim])
    assert both.title == "What is left"
    assert [head.value for head in both.heads[2:]] == [
        "the tree, exact targets, at equal time", "the tree, exact targets, at equal samples",
    ]  # fmt: skip
    assert [cell.value for cell in both.rows[0][2:]] == ["better", "worse"]


def test_the_forest_has_a_column_for_each_headline_of_each_setting():
    one = judged(CLAIMS["laplace"], -0.3, 0.4)
    guided = replace(one, tests=(*one.tests, *(replace(test, weight=2.0) for test in one.tests)))
    figure = forest([guided, replace(one, setting=SETTINGS["digits"])])
    titles = [axis.get_title(loc="left").split("\n") for axis in figure.axes]
    assert [(title[0], title[-2]) for title in titles] == [
        ("the tree, exact targets", "loss"),
        ("the tree, exact targets", "guided loss"),
        ("digits of 8 by 8 pixels", "loss"),
    ]
    assert {title[-1] for title in titles} == {"% better"}


def test_verdicts_of_another_day_share_a_column_though_their_metric_is_worded_otherwise():
    one = judged(CLAIMS["min-snr"], 0.3)
    said = tuple(replace(test, metric=replace(test.metric, meaning="as it was", perfect=0.5)) for test in one.tests)
    earlier = replace(one, claim=CLAIMS["speed"], tests=said)
    assert len(forest([one, earlier]).axes) == len(forest([one]).axes)


def test_forests_name_groups_and_keep_guides_apart():
    """A guide is held against none, not against the baseline. Where differences are far apart none hides the others."""
    near, far = judged(CLAIMS["laplace"], -0.3, 0.4), judged(CLAIMS["min-snr"], 5.0)
    guide = judged(CLAIMS["reg"], -0.3)
    drawn = forests([near, far, guide])
    assert list(drawn) == ["figures/claims.png", "figures/guides.png"]
    (axis,) = drawn["figures/claims.png"][1].axes
    rows = [(label.get_text(), label.get_fontweight() == "bold") for label in axis.get_yticklabels()]
    assert rows == [
        ("levels", True), ("laplace", False), ("cauchy", False), ("weights", True), ("min-snr", False),
    ]  # fmt: skip
    assert axis.get_xscale() == "symlog"
    (alone,) = drawn["figures/guides.png"][1].axes
    assert [label.get_text() for label in alone.get_yticklabels()] == [RECTIFIED]
    assert alone.get_xscale() == "linear"
    captions = {name: caption for name, (caption, _) in drawn.items()}
    assert "![Every guide minus no guide at equal time](figures/guides.png)" in render(
        Verdicts(("c",), (guide,)), captions
    )
    assert "![" not in render(Verdicts(("c",), (guide,)))
    both = forests([near, replace(near, setting=SETTINGS["digits"])])
    assert [(name, caption.split(", on ")[1]) for name, (caption, _) in both.items()] == [
        ("figures/claims-tree.png", "the tree, exact targets"),
        ("figures/claims-digits.png", "digits of 8 by 8 pixels"),
    ]


def test_the_answer_counts_claims_that_hold_somewhere_and_everywhere():
    holds, fails = judged(CLAIMS["min-snr"], -0.3), judged(CLAIMS["laplace"], 0.3, 0.2)
    elsewhere = replace(judged(CLAIMS["min-snr"], 0.3), setting=SETTINGS["digits"])
    assert answer(()) == "No claim is judged at equal time yet."
    said = "Of 2 claims judged at equal time, certainly better somewhere: 1; everywhere: {}."
    assert answer((holds, fails)) == said.format(1)
    assert answer((holds, elsewhere, fails)) == said.format(0)
    sampled = replace(holds, end="samples")
    assert answer((sampled,)) == "Of 1 claim judged at equal samples, certainly better somewhere: 1; everywhere: 1."
    assert answer((sampled, fails)).startswith("Of 1 claim judged at equal time, certainly better somewhere: 0")
    assert answer((replace(fails, finished=False),)) == "No claim is judged at equal time yet."
    assert len(forest([sampled]).axes) == 1


def test_a_claim_is_quoted_with_its_numbers_and_its_control():
    bounded = replace(judged(CLAIMS["min-snr"], -0.3), bound=Estimate(0.12, 0.1, 0.15))
    assert sentences(bounded)[-1].endswith("it could save some 12% of the examples (10% to 15%).")
    said = sentences(judged(CLAIMS["min-snr"], -0.3, control=-0.3))
    assert said[0].startswith("On the tree, exact targets, at equal time, `min-snr` certainly beats the tuned baseline")
    assert "0.709 against 1.009" in said[0]
    assert "the control `soft-min-snr`" in said[1]
    assert "equivalent" in said[1]
    assert sentences(judged(CLAIMS["min-snr"], 0.1, finished=False)) == [
        "On the tree, exact targets, at equal time: not judged yet."
    ]
