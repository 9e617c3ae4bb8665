"""What whoever lands on the repository finds: the contributor's shelf says what is there."""

import ast
import json
import re
from pathlib import Path

import pytest

import ajest
from prose import faults

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks" / "README.md"])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_is_longer_than_120_characters(path):
    """Tables and lines of one link or image aside."""
    lines = path.read_text().splitlines()
    alone = re.compile(r"\||!?\[[^\]]*\]\([^)\s]*\)$")
    assert not [line for line in lines if len(line) > 120 and not alone.match(line)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_that_are_there(path):
    """As the repository shows them; the site checks its own."""
    text = re.sub(r"```.*?```|`[^`]*`", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        place, _, _ = target.partition("#")
        assert "://" in place or not place or (path.parent / place).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tables_have_a_head(path):
    """An empty line within a table makes its rest a paragraph."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    assert not [table for table in tables if not re.match(r"\|.*\n\|[ :|-]+\|\n", table)]


def test_the_site_leads_to_every_page_and_example():
    nav = set(re.findall(r"^ +- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {str(path.relative_to(ROOT / "docs")) for path in ROOT.glob("docs/**/*.md")}
    examples = {str(path.relative_to(ROOT).with_suffix(".md")) for path in ROOT.glob("examples/**/*.py")}
    assert not (pages | examples) - nav


def run_first_example(path: Path, names: dict) -> int:
    """Run the first Python of a page. Returns how many lines of it are not empty."""
    code = re.search(r"```python\n(.*?)```", path.read_text(), re.DOTALL).group(1)
    exec(code, names)
    assert names["points"].shape == (64, 2)
    assert names["points"].isfinite().all()
    return len([line for line in code.splitlines() if line.strip()])


def test_the_examples_of_the_loop_run():
    names: dict = {}
    assert run_first_example(ROOT / "docs" / "how-to" / "own-loop.md", names) < 24
    assert run_first_example(ROOT / "README.md", {name: names[name] for name in ("learner", "guide")}) <= 10


def test_the_notebooks_are_light_and_their_code_reads():
    notebooks = sorted((ROOT / "examples").glob("*.ipynb"))
    assert len(notebooks) == 2
    for path in notebooks:
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        assert not any(cell["outputs"] or cell["execution_count"] for cell in cells), f"{path.name} holds outputs"
        for cell in cells:
            ast.parse("".join(cell["source"]))


def test_the_version_stands_in_one_place_and_all_others_say_the_same():
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited[1] == ajest.__version__
    (entry,) = re.findall(r"```bibtex\n(.*?)```", (ROOT / "docs" / "quickstart.md").read_text(), re.DOTALL)
    assert f"version = {{{ajest.__version__}}}" in entry
    assert f"\n## {ajest.__version__}" in (ROOT / "CHANGELOG.md").read_text()  # its date may follow
    assert "version = " not in (ROOT / "pyproject.toml").read_text().split("[tool")[0]


def test_papers_whose_methods_are_here_are_cited_and_no_address_is_made_up():
    text = (ROOT / "CITATION.cff").read_text()
    papers = re.findall(r"^    url: https://arxiv\.org/abs/(\S+)$", text, re.MULTILINE)
    assert set(papers) == {"2206.00364", "2312.02696", "2406.02507", "2406.17711", "2509.15267"}
    assert text.count("  - type: article\n    title: ") == len(papers)
    declared = re.search(r'^"?(?:Repository|Source)"? = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    stated = re.search(r"^repository-code: (.+)$", text, re.MULTILINE)
    assert (declared and declared[1]) == (stated and stated[1])


@pytest.mark.parametrize("term", ["JEST", "AJEST", "early AJEST", "Muon"])
def test_a_method_has_its_row_among_the_concepts_before_it_is_spoken_of(term):
    text = (ROOT / "docs" / "concepts.md").read_text()
    row = text.index(f"| {term} | ")
    assert not re.search(rf"\b{term}\b", text[:row])


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_a_page_of_the_front_says_what_methods_are_where_it_names_them_first(page):
    text = " ".join((ROOT / page).read_text().split())
    for term, said in (("AJEST", ("easy for a weaker one", "AJEST ([arXiv")), ("Muon", ("makes updates of matrices",))):
        first = re.search(rf"\b{term}\b", text)
        assert first is None or any(words in text[first.start() - 60 : first.start() + 120] for words in said)


def test_the_tree_of_files_is_what_stands_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    block = text.split("    src/ajest/\n")[1].split("\n\n")[0]
    place, named = ROOT / "src" / "ajest", set()
    for line in block.splitlines():
        depth, name = len(line) - len(line.lstrip()), line.split()[0]
        path = {4: ROOT, 6: place, 8: place / "tasks"}[depth] / name
        assert path.exists(), line
        named.add(path)
    packages = {path.parent for path in place.glob("*/__init__.py")} | {
        p.parent for p in place.glob("tasks/*/__init__.py")
    }
    assert packages <= named


@pytest.mark.parametrize("path", [".ci/run", "CONTRIBUTING.md", ".pre-commit-config.yaml", *(
    f".github/workflows/{name}.yml" for name in ("tests", "docs", "release")
)])  # fmt: skip
def test_scripts_that_are_named_can_be_run(path):
    named = set(re.findall(r"\bscripts/[\w.-]*\w|\.ci/run", (ROOT / path).read_text()))
    assert named
    for script in named:
        place = ROOT / script
        assert place.suffix == ".py" or place.stat().st_mode & 0o111, script
        assert place.exists(), script


#: What commands write, but for an introduction, of which `test_prose` looks at the sentences; and lists of what was
#: measured and changed.
MADE = ("results-*.md", "study-*.md", "docs/claims*.md", "benchmarks/README.md", "CHANGELOG.md")


def paragraphs(page: str) -> list[str]:
    """The prose of a page: no code, tables, formulas, pictures or heads; a list's items by themselves."""
    text = re.sub(r"```.*?```|\$\$.*?\$\$|<[^>]*>", "\n\n", page, flags=re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\*\*|(?<![\w`])\*|\*(?![\w`])", "", text)
    found, blocks = [], re.split(r"\n\s*\n|\n(?=\s*(?:- |\d+\. ))", text)
    for block in blocks:
        lines = [line for line in block.splitlines() if not re.match(r"\||#|    ", line)]
        paragraph = " ".join(re.sub(r"^(- |\d+\. )", "", line.strip()) for line in lines)
        found.append(re.sub(r"\$[^$]*\$", "x", paragraph))
    return found


@pytest.mark.parametrize(
    "path",
    [p for p in PAGES if not any(p.match(made) for made in MADE)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_pages_are_for_readers_in_a_hurry(path):
    """No sentence is long, holds many numbers or is a riddle."""
    assert not faults(paragraphs(path.read_text()))
