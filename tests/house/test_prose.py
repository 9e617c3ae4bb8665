"""Every sentence that is generated is short, holds few numbers and is no riddle."""

import re
from dataclasses import replace
from functools import cache
from html import unescape

import pytest
from test_bench_equivalence import CLOSE, with_margins
from test_bench_groups import PARTED
from test_bench_published import ours
from test_bench_signs import results as with_signs
from test_bench_timing import UNIFORM, timed, with_ledgers
from test_study_verdict import made

from ajest.bench.plan.presets import bench_of
from ajest.bench.read.findings import findings
from ajest.bench.read.recommendation import cited
from ajest.bench.read.results import Run
from ajest.bench.read.table import Table
from ajest.bench.report.drawing import draw
from ajest.bench.report.figures import WHISKERS
from ajest.bench.report.markdown import as_markdown
from ajest.bench.report.page import render
from ajest.selection.catalogue import ARMS
from ajest.study import page as study_page
from ajest.study.figures import Figures
from ajest.study.findings import findings as study_findings
from ajest.study.presets import tree_full
from ajest.study.results import StudyResults
from conftest import small_recipe
from made_up import BASE, COSTS, NOISE, ahead, made_up
from prose import faults, numbers, words

ENERGY, GUIDED = ("energy_distance", 1.0), ("mandala", 3.0)
TIME = ("calibrated", *ENERGY)
MANY = ("baseline", "random", "ajest", "early-ajest", "hard", "easy", "high-loss", "learnable", "late-ajest")


def many(budget, seeds=6, **changes):
    """Nine arms, better and worse on both headlines, or on one of them."""
    leads = {arm: 2 * (i % 3) - 2 for i, arm in enumerate(MANY[1:])}
    low = {"baseline": BASE[:seeds]} | {arm: ahead(by, seeds) for arm, by in leads.items()}
    high = {"baseline": BASE[:seeds]} | {arm: ahead(by * (-1) ** i, seeds) for i, (arm, by) in enumerate(leads.items())}
    at = {(b, *ENERGY): low for b in ("calibrated", "samples", budget)} | {(budget, *GUIDED): high}
    if changes.get("final_only"):
        at = {where: values for where, values in at.items() if where[0] == budget}
    return made_up(at, MANY, seeds=seeds, **changes)


def broken():
    """An arm that lost a seed, and runs whose losses were not finite."""
    results = made_up({TIME: {"baseline": BASE, "ajest": [*ahead(2)[:5], None], "random": ahead(1)}},
                      diverged=[("ajest", 5)], recipe=small_recipe(not_finite="skip"))  # fmt: skip
    last = {"not_finite": 2000, "scores_not_finite": 9}
    results.runs["random", 0] = Run("random", 0, "unfinished", 7, "", [last], [])
    return results


def guided():
    """Autoguidance that helps, harms and does neither."""
    by_metric = {"energy_distance": (0, -3), "mandala": (-2, 2), "classification": (0, 0.01)}
    end = {("steps", metric, weight): {"baseline": ahead(by)}
           for metric, both in by_metric.items() for weight, by in zip((1.0, 3.0), both, strict=True)}  # fmt: skip
    return made_up({TIME: {"baseline": BASE, "random": BASE}} | end)


CHANCE = [v + n for v, n in zip(ahead(2), NOISE, strict=True)]
CLOSE_BY = {"baseline": BASE, "random": CLOSE, "ajest": CHANCE}
DEAR = COSTS | {ARMS["high-loss"].kinds()[0].label: {"learner scoring": 9.0, "update": 4.0}}
EAGER = timed(UNIFORM, 10, update=80.0) | {"eager_calls": 700, "compilations": 3}
TWO = 2 * (Run("guide", 1, "done", 8, "", [{"seconds": {"update": 2.0}}], []),)
#: Results that take every branch of the verdict.
BENCHES = {
    "alone": lambda: made_up({TIME: {"baseline": BASE}}, ("baseline",)),
    "nothing yet": lambda: made_up({}),
    "nine arms": lambda: many("calibrated", costs=DEAR),
    "one seed": lambda: many("calibrated", 1),
    "without the target": lambda: many("time_without_target", end="time_without_target", final_only=True),
    "operations": lambda: many("flops", end="flops", final_only=True),
    "steps": lambda: many("steps", end="steps", final_only=True),
    "equivalent": lambda: with_margins(CLOSE_BY, [b + 8 for b in BASE]),
    "no delta": lambda: with_margins(CLOSE_BY, [b - 1 for b in BASE]),
    "lost": broken,
    "few": lambda: made_up({TIME: {"baseline": [None, *BASE[1:]], "ajest": ahead(2), "random": ahead(1)}}),
    "none ranked": lambda: made_up({TIME: {"baseline": BASE, "ajest": [*ahead(2)[:5], None]}}, ("baseline", "ajest")),
    "worse": lambda: made_up({TIME: {"baseline": BASE, "ajest": ahead(-2), "random": ahead(-1)}}),
    "groups": lambda: with_signs(values={TIME: {"baseline": PARTED, "ajest": BASE, "random": BASE}}),
    "guided": guided,
    "slow": lambda: with_ledgers(baseline=EAGER, random={"eager_calls": 0, "compilations": 2}),
    "published": ours,
    "looks": lambda: replace(many("calibrated", looks=(5, 6, 12, 20)), ended="decided"),
    "untuned": lambda: many("calibrated", tuned="", rates={}),
    "two guides": lambda: replace(many("calibrated"), guides=TWO),
}


@cache
def found_of(name):
    """What is found in one of these."""
    return findings(BENCHES[name]())


def said(found):
    """All that findings have to say outside of cells."""
    parts = [part for value in vars(found).values() for part in (value if isinstance(value, tuple) else (value,))]
    notes = [note for part in parts if isinstance(part, Table) for note in part.notes]
    return [
        *found.sentences,
        *found.recommended,
        *found.missing,
        found.legend,
        found.caution,
        found.guide,
        WHISKERS,
        *notes,
    ]


@pytest.mark.parametrize("name", BENCHES)
def test_sentences_of_a_bench_are_short(name):
    found = found_of(name)
    assert not faults(said(found))
    assert all(sentence[0].isupper() or sentence[0] == "`" for sentence in found.sentences)


def test_every_branch_of_the_verdict_is_among_them():
    text = " ".join(sentence for name in BENCHES for sentence in found_of(name).sentences)
    for part in (
        "stands alone", "no verdict yet", "beats both", "beat both", "but nothing certainly beats", "or random choice",
        "is certainly worse", "are certainly worse", "is equivalent to", "may beat", "lacks seeds", "is compared on",
        "none is ranked", "no arm is better", "fall into two groups", "divides the same seeds", "certainly worsens",
        "fell back to", "times their calibrated", "others", "behind this, a first look",
        "Seeds were added", "were not tuned",
    ):  # fmt: skip
        assert part in text, part


@pytest.mark.parametrize(("preset", "steps"), [("quick", 128), ("full", 512)])
def test_what_other_benches_recommend_is_short_and_says_how_they_differ(preset, steps):
    config = bench_of("tree", preset)
    sentences = cited(config)
    assert sentences[0].startswith("By docs/best-recipe.md, train with ")
    assert not faults(sentences)
    assert f"Here it takes {steps} steps of 4,096 examples." in sentences


def test_captions_and_paragraphs_of_a_page_are_short():
    found = found_of("looks")
    figures = draw(found)
    page = re.sub(r"<style>.*?</style>|<(table|dl|h3)[ >].*?</\1>", "", render(found, figures), flags=re.S)
    lines = re.sub(r"</(?:p|li|h\d|figcaption|summary)>", "\n", page.replace("\n", " "))
    text = unescape(re.sub(r"<[^>]*>", "", lines)).splitlines()
    assert not faults(line for line in text if line.rstrip().endswith("."))
    assert not [line for line in as_markdown(found, figures).splitlines() if "+G" in line or "lsewhere" in line]


@pytest.mark.parametrize(
    "effects",
    [{"hard": 6, "easy": -6}, {"hard": 0.2}, {"hard": -9}, {"learnable": 9, "learnable-strong": 9, "hard": 9}],
)
def test_sentences_of_a_study_are_short(effects):
    final = {
        name: made({"baseline": 0, "random": 0, **effects}, end=name, count=count, strong_iterations=80)
        for name, count in (("time", 12), ("samples", 3))
    }
    found = study_findings(tree_full(), StudyResults({}, {}, final))
    grounds = [sentence for r in found.recommendations for sentence in r.sentences()]
    assert not faults([*found.verdict, *grounds, *found.missing, found.references])
    text = study_page.render(found, Figures(), "ajest study tree").splitlines()
    assert not faults(line for line in text if line and line[0] not in "|#!" and line.endswith((".", "**")))


def test_words_and_numbers_are_counted_as_a_reader_does():
    sentence = "On energy distance × 1000, `a-0.2` may beat `b`: 12.2 to 13.5 against 55%, lower is better (p = 0.32)."
    assert words(sentence) == 18
    assert numbers(sentence) == ["12.2 to 13.5", "55"]
    assert numbers("Around 1,024.5 are seeds 0, 3, 4.") == ["1,024.5"]
    assert sorted(faults(["It mends 1 and 2 and 3."])) == [
        "3 numbers: It mends 1 and 2 and 3.", "riddle 'mends': It mends 1 and 2 and 3.",
    ]  # fmt: skip
    (long,) = faults(["Word " * 26 + "."])
    assert long.startswith("26 words")
