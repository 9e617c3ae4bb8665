"""docs/method.md: what code and tests cite is there, and its tables say what the code says."""

import math
import re
from pathlib import Path

import pytest

from ajest.bench.read.published import PUBLISHED
from ajest.selection.catalogue import ARMS
from ajest.tasks.images.architecture import LEARNING_RATES, SIZES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "method.md").read_text()
ANCHORS = re.findall(r'<a id="([a-z-]+)"></a>', PAGE)
HAND_WRITTEN = [
    ROOT / "README.md",
    *(p for p in sorted((ROOT / "docs").glob("*.md")) if not p.name.startswith(("results-", "study-"))),
]

TEXTS = [
    ROOT / "README.md",
    *(
        path
        for folder in ("benchmarks", "docs", "scripts", "src", "tests")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".md", ".html")
    ),
]


def section(anchor):
    return PAGE.split(f'<a id="{anchor}"></a>')[1].split("<a id=")[0]


def rows(anchor):
    """The cells of the tables of a section, by the first."""
    lines = [line for line in section(anchor).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [(first, rest) for first, *rest in cells]


def test_every_anchor_is_there_once_and_every_link_leads_to_one():
    assert len(set(ANCHORS)) == len(ANCHORS) > 40
    assert set(re.findall(r"\(#([a-z-]+)\)", PAGE)) <= set(ANCHORS)


def test_citations_lead_to_this_page_or_a_paper():
    for path in TEXTS:
        text = path.read_text()
        assert not re.findall(r"METHO[D]\b|EDM2\.m[d]", text), path
        assert set(re.findall(r"docs/method\.md#([a-z-]*)", text)) <= set(ANCHORS), path


@pytest.mark.parametrize("path", HAND_WRITTEN, ids=lambda path: path.name)
def test_prose_has_no_line_beyond_120_columns(path):
    long = [line for line in path.read_text().splitlines() if len(line) > 120 and not line.startswith("|")]
    assert not long


def figure(text):
    """ ".0108 ± .0028" as (mean, standard deviation); NaN where there is none."""
    mean, _, sd = text.partition(" ± ")
    return float(mean), float(sd) if sd else math.nan


def test_the_published_figures_are_those_that_reports_compare_with():
    names = {"L2": "l2", "mandala, 16,384 samples": "mandala_16k"}
    reading, found = "", {}
    for first, cells in rows("published-tree"):
        if first == "metric":
            arms, reading = [arm.lower().replace(" ", "-") for arm in cells], "samples" if reading else "steps"
        elif len(cells) == 4 and "-" not in first[:1]:
            guided, plain = first.startswith("guided "), first.removeprefix("guided ")
            name = names.get(plain, plain)
            values = {arm: figure(cell) for arm, cell in zip(arms, cells, strict=True) if cell}
            found[reading, name, guided] = values
    assert found.keys() == PUBLISHED.keys()
    for where, values in found.items():
        wanted = {arm: (f.mean, f.sd) for arm, f in PUBLISHED[where].items()}
        assert values.keys() == wanted.keys()
        for arm, (mean, sd) in values.items():
            assert mean == wanted[arm][0]
            assert sd == wanted[arm][1] or math.isnan(sd)


def test_the_published_networks_are_those_of_the_code():
    told = {
        name.lower(): (int(cells[0]), float(cells[2]))
        for name, cells in rows("images")
        if len(name) <= 3 and len(cells) == 3 and cells[0].isdigit()
    }
    assert told == {size: (SIZES[size].channels, LEARNING_RATES[size]) for size in ("xxs", "xs", "s", "m")}


def test_arms_are_named_as_in_the_catalogue():
    assert {first.strip("`") for first, _ in rows("ajest") if first.startswith("`")} <= ARMS.keys()
