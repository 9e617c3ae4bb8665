"""What the page and its Markdown say of results that are made up."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from test_bench_published import ours

from ajest.bench.read.findings import findings
from ajest.bench.report import markdown
from ajest.bench.report.drawing import Figures, draw
from ajest.bench.report.export import as_json
from ajest.bench.report.figures import OUTCOMES, encoded
from ajest.bench.report.forest import bench_forest, strips
from ajest.bench.report.page import render
from ajest.bench.report.tables import html_prose
from ajest.bench.report.terminal import verdict_lines
from ajest.selection.catalogue import ARMS
from ajest.study.figures import differences
from ajest.study.results import pairwise_tests
from made_up import BASE, ahead, made_up

pytestmark = pytest.mark.usefixtures("painted")

ENERGY, GUIDED, LOSS = ("energy_distance", 1.0), ("mandala", 3.0), ("loss", 1.0)


@pytest.fixture(autouse=True)
def uncited(monkeypatch):
    """The studies that come with the package say nothing here."""
    monkeypatch.setattr("ajest.bench.read.findings.cited", lambda config: [])


def page_of(results):
    """The page without figures."""
    return render(findings(results), Figures())


def as_markdown(results):
    return markdown.as_markdown(findings(results))


def means(axis):
    """The large dots of a panel; small ones are seeds."""
    return [line for line in axis.lines if line.get_marker() == "o" and line.get_markersize() > 5]


def table_of(page, title):
    """Rows of the HTML table below a heading, each (class, value, detail)."""
    section = page.split("<h2>All metrics</h2>")[1].split(f"<h3>At {title}")[1].split("</table>")[0]
    rows = re.findall(r"<tr>(<td.*?)</tr>", section, re.S)
    cells = [
        re.findall(r'<td(?: class="(.*?)")?(?: title=".*?")?>(.*?)(?:<small>(.*?)</small>)?</td>', r) for r in rows
    ]
    return {row[0][1]: row[2:] for row in cells}


def lines_of(text, title):
    """Rows of the Markdown table below a heading."""
    section = text.split("## All metrics")[1].split(f"## At {title}")[1].split("\n##")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")
    ]
    return {row[0]: row[1:] for row in rows[2:]}


AT_TIME = {
    ("calibrated", *ENERGY): {"baseline": BASE, "ajest": ahead(2), "random": ahead(-3)},
    ("calibrated", *GUIDED): {"baseline": BASE, "ajest": ahead(0.01), "random": [*ahead(5)[:5], None]},
    ("calibrated", *LOSS): {"baseline": BASE, "ajest": ahead(-1), "random": ahead(1)},
}


def test_colours_and_bold_are_for_what_is_certain():
    results = made_up(AT_TIME)
    rows = table_of(page_of(results), "equal time")
    assert [(tone, value) for tone, value, _ in rows["baseline"]] == [("", "10333.3"), ("", "10.33"), ("", "10.33")]
    assert [(tone, value) for tone, value, _ in rows["ajest"]] == [
        ("better", "8333.3"),
        ("", "10.32"),
        ("worse", "11.33"),
    ]
    assert [(tone, value) for tone, value, _ in rows["random"]] == [
        ("worse", "13333.3"),
        ("", "5.460"),
        ("better", "9.333"),
    ]
    assert rows["baseline"][0][2] == "sd 1080.1"
    assert rows["random"][1][2].endswith("; 5 of 6 seeds, baseline there 10.50")
    assert rows["real examples"] == [("aside", "", "")] * 3
    lines = lines_of(as_markdown(results), "equal time: 4096.0 s of training")
    assert [cell.split(" ")[0] for cell in lines["energy distance × 1000 ↓"]] == [
        "10333.3",
        "**8333.3**",
        "*13333.3*",
        "",
    ]
    assert lines["guided mandala ↑"][2].startswith("5.460 (")
    assert lines["guided mandala ↑"][2].endswith("; 5 of 6 seeds, baseline there 10.50)")
    assert lines["loss ↓"][0] == "10.33 (sd 1.080)"


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_nothing_has_a_colour_or_is_bold_below_five_seeds(seeds):
    few = {where: {arm: values[:seeds] for arm, values in at.items()} for where, at in AT_TIME.items()}
    results = made_up(few, seeds=seeds)
    page, text = page_of(results), as_markdown(results)
    rows = table_of(page, "equal time")
    assert {tone for name, row in rows.items() if name != "real examples" for tone, *_ in row} == {""}
    cells = [cell for row in lines_of(text, "equal time").values() for cell in row]
    assert not any("*" in cell for cell in cells)
    assert "behind this, a first look; 5 are the least" in page
    assert "behind this, a first look; 5 are the least" in text
    if seeds == 1:
        assert all("no interval: one seed" in rows[name][1][2] for name in ("ajest", "random"))
    figure = bench_forest(results, "calibrated")
    assert {line.get_color() for axis in figure.axes for line in axis.lines} <= {OUTCOMES["undecided"], "#555"}


def test_a_figure_of_differences_has_the_colours_of_the_table():
    figure = bench_forest(made_up(AT_TIME), "calibrated")
    dots = [line.get_color() for line in means(figure.axes[0])]
    assert dots == [OUTCOMES["better"], OUTCOMES["worse"]]
    guided = [line.get_color() for line in means(figure.axes[1])]
    assert guided == [OUTCOMES["undecided"]] * 2


def test_a_dot_is_open_where_a_difference_only_looks_certain():
    wild = [base - gap for base, gap in zip(BASE, (0.3, 1.2, 0.2, 1.0, 0.1, 0.4), strict=True)]
    at = {("calibrated", *ENERGY): {"baseline": BASE, "ajest": wild, "random": ahead(-3)}}
    at["calibrated", *GUIDED] = {"baseline": BASE, "ajest": ahead(0.01), "random": [*ahead(5)[:5], None]}
    results = made_up(at, end="time", final_only=True)
    assert results.cell("calibrated", "ajest", *ENERGY).against["baseline"].p < 0.05
    bench = bench_forest(results, "calibrated")
    study = differences(pairwise_tests(results), "baseline")
    for figure in (bench, study):
        dots = [[(line.get_color(), line.get_markerfacecolor()) for line in means(axis)] for axis in figure.axes[:2]]
        grey, worse = OUTCOMES["undecided"], OUTCOMES["worse"]
        assert dots == [[(grey, "white"), (worse, worse)], [(grey, grey), (grey, "white")]]


def test_a_forest_has_a_dot_a_seed_and_a_row_against_random_choice_of_as_many():
    """Of an arm that keeps another share than the one at random, and of the baseline, there is no such row."""
    others = (("random", "random-0.1", 0.1), ("hard", "hard-0.1", 0.1), ("hard", "hard-0.3", 0.3))
    more = (replace(ARMS[arm], name=name, keep=keep) for arm, name, keep in others)
    arms = (*(ARMS[name] for name in ("baseline", "ajest", "random")), *more)
    names = [arm.name for arm in arms]
    at = {("calibrated", *ENERGY): {name: ahead(i, 5) for i, name in enumerate(names)}}
    figure = bench_forest(made_up(at, arms, seeds=5), "calibrated")
    rows = [[label.get_text() for label in axis.get_yticklabels()] for axis in figure.axes[::2]]
    assert rows == [names[1:], ["ajest", "hard-0.1"]]
    seeds = [line for line in figure.axes[2].lines if line.get_marker() == "o" and line not in means(figure.axes[2])]
    energy = next(m for m in made_up(at, arms, seeds=5).metrics if m.name == "energy_distance")
    gaps = [
        [(a - b) * energy.scale for a, b in zip(ahead(i, 5), ahead(j, 5), strict=True)] for i, j in ((1, 2), (4, 3))
    ]
    assert [list(line.get_xdata()) for line in seeds] == [pytest.approx(gap) for gap in gaps]
    alone = made_up({("calibrated", *ENERGY): {"baseline": BASE}}, arms=("baseline",))
    assert bench_forest(alone, "calibrated") is None


def test_strips_show_every_seed_of_every_arm_and_join_the_same_seeds():
    at = {("calibrated", *ENERGY): {"baseline": BASE, "ajest": [*ahead(2)[:5], None]}}
    axis = strips(made_up(at, ("baseline", "ajest")), ["calibrated"]).axes[0]
    dots = [list(line.get_xdata()) for line in axis.lines if line.get_marker() == "o"]
    assert dots == [pytest.approx([1000 * v for v in BASE]), pytest.approx([1000 * v for v in ahead(2)[:5]])]
    joined = np.array(axis.lines[0].get_data())
    apart = np.split(joined, np.flatnonzero(np.isnan(joined[0])), axis=1)
    assert [np.isfinite(part[0]).sum() for part in apart] == [2, 2, 2, 2, 2, 1, 0]
    assert strips(made_up({}), []) is None


def test_the_page_leads_with_the_answer_and_the_forest():
    results = made_up(AT_TIME)
    found = findings(results)
    page = render(found, draw(found))
    assert page.index("<h1>") < page.index('<figure class="forest">') < page.index("<li>") < page.index("<table>")
    assert page.count("<h1>") == 1
    assert len(found.verdict) <= 5
    text = markdown.as_markdown(found, draw(found))
    places = [
        text.index(part) for part in (found.answer, "figures/lead-1.png", found.verdict[0], "figures/seeds-1.png")
    ]
    assert places == sorted(places)


def test_every_table_scrolls_within_a_frame_of_its_own():
    page = page_of(made_up(AT_TIME))
    assert page.count("<table>") == page.count('<div class="scroll"><table>') > 5


def test_a_figure_is_drawn_once_and_cut_to_its_ink(monkeypatch):
    figure = Figure(figsize=(4, 3))
    figure.text(0.5, 0.5, "x")
    drawn, draw = [], Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda self, renderer: drawn.append(self) or draw(self, renderer))
    found = encoded(figure, dpi=100)
    assert (found.kind, drawn) == ("png", [figure])
    with Image.open(io.BytesIO(found.data)) as image:
        pixels = np.asarray(image)
    assert 13 <= min(pixels.shape[:2]) <= max(pixels.shape[:2]) < 30  # 0.06 inches of white on each side
    assert (pixels[:6] == 255).all()
    assert (pixels[6] < 255).any()
    noise = Figure(figsize=(4, 3))
    noise.subplots().imshow(np.random.default_rng(0).random((300, 400)))
    assert encoded(noise).kind == "webp"
    assert encoded(noise, "png").kind == "png"
    blank = encoded(Figure(figsize=(1, 1)), dpi=50)
    with Image.open(io.BytesIO(blank.data)) as image:
        assert image.size == (50, 50)


@pytest.mark.parametrize(
    ("end", "budget", "amount", "title", "in_units"),
    [
        ("flops", "flops", 2e12, "equal operations of the networks", "2.000 TFLOP of the networks"),
        (
            "time_without_target",
            "time_without_target",
            33.0,
            "equal time without the exact target",
            "33.00 s of training",
        ),
        ("steps", "steps", 40.0, "equal steps (the whole run)", "40 steps"),
        ("samples", "samples", 2040.0, "equal samples", "2,040 examples trained on"),
        ("time", "calibrated", 0.5, "equal time", "0.500 s of training"),
    ],
)
def test_a_bench_that_compares_at_its_end_alone_has_a_verdict_in_its_unit(end, budget, amount, title, in_units):
    at = {"baseline": BASE, "ajest": ahead(2), "random": ahead(1)}
    results = made_up({(budget, *ENERGY): at}, amounts={budget: amount}, end=end, final_only=True)
    page, text = page_of(results), as_markdown(results)
    sentence = f"On energy distance × 1000 at {title}, `ajest` certainly beats `baseline`: 8333.3"
    for said, same in ((page, html_prose(sentence)), (text, sentence)):
        assert "no verdict" not in said
        assert same in said
        assert f"At {title}: {in_units}" in said
    assert f"compared at {title}\non the task" in page
    assert "What is missing" not in page


def test_a_page_says_at_what_it_compares_and_how_long_runs_are():
    at = {
        ("calibrated", *ENERGY): {"baseline": BASE, "ajest": BASE},
        ("samples", *ENERGY): {"baseline": BASE, "ajest": BASE},
    }
    page = page_of(made_up(at, end="time"))
    assert "compared at equal time and at equal samples\non the task" in page
    assert "<li>40 steps of baseline, and for the others as much time, with <b>256</b> drawn examples each</li>" in page
    assert "40 steps of baseline, and for the others as much time, with 256 drawn" in as_markdown(
        made_up(at, end="time")
    )
    assert "<li>40 steps, with <b>256</b>" in page_of(made_up(at))
    assert "compared at equal time\non" in page_of(made_up({}, end="time"))
    assert "40 steps, with 256 drawn" in as_markdown(made_up(at))


def test_page_and_markdown_say_every_sentence_of_the_verdict_and_what_is_missing():
    results = made_up(AT_TIME, diverged=[("random", 5)])
    page, text = page_of(results), as_markdown(results)
    found = findings(results)
    for sentence in [*found.verdict, *found.notes, *found.missing]:
        assert f"<li>{html_prose(sentence)}</li>" in page
        assert f"- {sentence}\n" in text
    assert "random, seed 5: stopped at step 40" in page


def test_costs_stand_in_page_and_markdown():
    results = made_up(AT_TIME)
    assert "<td>ajest</td><td>1.00</td><td>50%</td><td>5.00</td>" in page_of(results)
    assert "| ajest | 1.00 | 50% | 5.00 |" in as_markdown(results)
    assert "What selection costs" not in as_markdown(replace(results, costs={}))


def test_published_figures_stand_beside_ours_in_page_and_markdown():
    page, text = page_of(ours()), as_markdown(ours())
    ajest = "<td>loss, equal samples</td><td>ajest</td><td>0.0135 ± 0.0034</td><td>0.0135 ± 0.0016</td>"
    assert f'{ajest}<td class="agree">agree' in page
    assert "| loss, equal samples | ajest | 0.0135 ± 0.0034 | 0.0135 ± 0.0016 | agree |" in text
    assert "published figures" not in as_markdown(made_up(AT_TIME))


def test_differences_to_random_choice_have_a_table_of_their_own():
    """Of arms alone that have a rival which keeps as many; a bench without one has no such table."""
    by_arm = {"baseline": BASE, "random": ahead(0.6), "ajest": ahead(0.1)}
    values = {("calibrated", *column): by_arm for column in (ENERGY, GUIDED)}
    results = made_up(values)
    (table,) = findings(results).rivals
    assert table.title == "Minus random choice, equal time"
    ((arm, rival, *gaps),) = table.rows
    assert (arm.value, rival.value) == ("ajest", "random")
    assert [cell.tone for cell in gaps] == ["worse", "better"]  # energy distances are lower for the better
    assert all("better on" in cell.detail and "p " in cell.detail for cell in gaps)
    assert "### Minus random choice, equal time" in as_markdown(results)
    assert "Minus random choice, equal time" in page_of(results)
    alone = made_up({("calibrated", *ENERGY): {"baseline": BASE, "ajest": ahead(0.1)}}, arms=("baseline", "ajest"))
    assert findings(alone).rivals == ()
    assert "random choice, equal" not in as_markdown(alone)


def test_what_other_benches_recommend_stands_apart_from_what_this_one_found(monkeypatch):
    monkeypatch.setattr("ajest.bench.read.findings.cited", lambda config: ["By docs/x.md, train with `y`."])
    found = findings(made_up({("calibrated", *ENERGY): {"baseline": BASE, "ajest": ahead(2)}}))
    assert found.recommended == ("By docs/x.md, train with `y`.",)
    assert not set(found.recommended) & set(found.sentences)
    assert as_json(found)["recommended"] == list(found.recommended)
    page, text = render(found, Figures()), markdown.as_markdown(found)
    assert re.search(r"<h3>What other benches recommend</h3><ul[^>]*><li>By docs/x.md", page)
    assert "### What other benches recommend\n\n- By docs/x.md" in text
    assert verdict_lines(found)[-2:] == ["What other benches recommend:", "- By docs/x.md, train with `y`."]
    monkeypatch.setattr("ajest.bench.read.findings.cited", lambda config: [])
    assert "What other benches" not in page_of(found.results)
