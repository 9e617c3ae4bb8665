"""Commands and options that pages name are those that there are, so that whoever copies one is understood."""

import re
import shlex
from collections.abc import Callable, Iterator
from functools import cache, wraps
from itertools import takewhile
from pathlib import Path

import pytest
import tyro
from test_front_door import PAGES, ROOT

from ajest.cli.data import DATA_VERBS
from ajest.cli.main import VERBS

#: Pages of what holds today; a list of changes names what once was, too.
TODAY = [page for page in PAGES if page.name != "CHANGELOG.md"]
COMMANDS = VERBS | {f"data {verb}": function for verb, function in DATA_VERBS.items()}
AJEST = re.compile(rf"(?:^|[\s/])ajest ({'|'.join(COMMANDS)})\b(.*)")
SCRIPT = re.compile(r"(?:^|[\s/])((?:benchmarks|scripts|examples|tests)/[\w/]+\.py)(?=\s|$)(.*)")
#: Of other programs.
FOREIGN = {"--extra-index-url", "--max-restarts"}

on_each_page = pytest.mark.parametrize("page", TODAY, ids=lambda page: str(page.relative_to(ROOT)))


def code(page: Path) -> list[str]:
    """Lines of code of a page, those that go on in one piece, and what a shell would put in."""
    text = page.read_text().replace("\\\n", " ").replace('"$@"', "")
    blocks = re.findall(r"^```\w*\n(.*?)^```|^    (.*)$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(r"\$\(.*?\)|\$\d", "1", line) for block in blocks for line in "".join(block).splitlines()]


def called(page: Path, pattern: re.Pattern[str]) -> Iterator[tuple[str, list[str]]]:
    """What lines of code call, and its words."""
    for found in filter(None, map(pattern.search, code(page))):
        words = shlex.split(found[2].split(";")[0], comments=True)
        yield found[1], list(takewhile(lambda word: word not in ("&&", "|", ">"), words))


def only_parsed(function: Callable) -> Callable:
    @wraps(function)
    def nothing(*_: object, **__: object) -> None: ...

    return nothing


@cache
def options_of(place: str) -> frozenset[str]:
    """Those of a script, by its source."""
    return frozenset(re.findall(r'"(--[a-z][\w-]*)"', (ROOT / place).read_text()))


def options_of_command(name: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Those of a command, by its help."""
    with pytest.raises(SystemExit):
        tyro.cli(COMMANDS[name], args=["--help"])
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", capsys.readouterr().out))


@on_each_page
def test_commands_of_a_page_are_understood(page, capsys):
    wrong = []
    for name, words in called(page, AJEST):
        try:
            tyro.cli(only_parsed(COMMANDS[name]), args=words)
        except SystemExit as end:
            wrong += [f"ajest {name} {shlex.join(words)}: {''.join(capsys.readouterr())}"] * bool(end.code)
    assert not wrong


@on_each_page
def test_scripts_of_a_page_are_there_and_take_its_options(page):
    for place, words in called(page, SCRIPT):
        unknown = {word for word in words if word.startswith("--")} - options_of(place)
        assert not unknown, f"{place} takes no {', '.join(unknown)}"


def test_options_that_pages_speak_of_exist(capsys):
    known = {name: options_of_command(name, capsys) for name in COMMANDS}
    scripts = [str(path.relative_to(ROOT)) for name in ("benchmarks", "scripts", "examples", "tests")
               for path in (ROOT / name).rglob("*.py")]  # fmt: skip
    all_known = FOREIGN.union(*known.values(), *map(options_of, scripts))
    unknown = []
    for page in TODAY:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for said in re.findall(r"`([^`]*--[a-z][^`]*)`", text):
            command = AJEST.search(said)
            wanted = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", said))
            unknown += [f"{page.name}: {said}: {o}" for o in wanted - (known[command[1]] if command else all_known)]
    assert not unknown
