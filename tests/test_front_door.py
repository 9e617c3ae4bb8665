"""What whoever lands on the repository finds: the contributor's shelf says what is there."""

import re
from pathlib import Path

import pytest

import ajest

ROOT = Path(__file__).parents[1]


def test_the_version_stands_in_one_place_and_all_others_say_the_same():
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited[1] == ajest.__version__
    assert f"## {ajest.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
    assert "version = " not in (ROOT / "pyproject.toml").read_text().split("[tool")[0]


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
        assert (ROOT / script).stat().st_mode & 0o111, script
