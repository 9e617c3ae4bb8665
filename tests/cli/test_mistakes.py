"""Words that no command takes: one line that names the thing and the mend."""

import re
import shlex
from inspect import unwrap

import pytest

from ajest.cli.data import DATA_VERBS
from ajest.cli.main import VERBS
from ajest.cli.mistakes import mistake
from ajest.errors import UserError
from conftest import small_bench

COMMANDS = {f"ajest {name}": function for name, function in VERBS.items()} | {
    f"ajest data {name}": function for name, function in DATA_VERBS.items()
}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("bench tree --seeds 0,1", "--seeds 0,1: whole numbers are separated by spaces: --seeds 0 1"),
        ("bench tree --seeds a", "--seeds takes whole numbers with spaces between them, not 'a'"),
        ("bench tree --iterations x", "--iterations takes a whole number, not 'x'"),
        ("bench tree --weight 2,5", "--weight takes a number, not '2,5'"),
        ("train tree --recipe bst --out x", "unknown value of --recipe, 'bst': did you mean 'best'? known are best"),
        ("bench tree --seed 0", "unknown option '--seed': did you mean '--seeds'? `ajest bench --help` lists all"),
        ("bench tree --frob=3", "unknown option '--frob': `ajest bench --help` lists all"),
        ("bench tree -x", "unknown option '-x': `ajest bench --help` lists all"),
        ("bench tree --weight", "--weight lacks its value: --weight X"),
        ("bench tree --weight --tune", "--weight lacks its value: --weight X"),
        ("sample runs/x --interval 3", "--interval lacks its value: --interval LOW HIGH"),
        ("bench tree --tune=3", "--tune takes no value: leave out 3"),
        ("bench images --compiled maybe", "unknown value of --compiled, 'maybe': "),
        ("bench", "ajest bench lacks TASK: `ajest bench --help` says what that is"),
        ("train tree", "ajest train lacks --out PATH: `ajest train --help` says what that is"),
        ("data kept a", "ajest data kept lacks OUT: `ajest data kept --help` says what that is"),
        ("bench tree extra", "leave out extra: ajest bench takes TASK and options"),
        ("claims ends", "leave out ends: ajest claims takes options"),
        ("data prune a b --by cluster --keep 3%", "unknown value of --by, 'cluster': did you mean 'clusters'?"),
    ],
)
def test_a_mistake_is_one_line_with_its_mend(refused, words, says):
    refused(*words.split(), says=f"^ajest: {re.escape(says)}")


def test_what_only_the_parser_understands_is_one_line_as_well(refused, monkeypatch):
    monkeypatch.setattr("ajest.cli.main.mistake", lambda *_: None)
    refused("bench", "tree", "--iterations", "x", says="^ajest: Value error Error parsing --iterations: .*'x'")


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_wrong_with_what_the_help_shows(name):
    text = (unwrap(COMMANDS[name]).__doc__ or "").split("Example: ")[1].split("\n\n")[0]
    lines = [line.strip() for line in text.splitlines()]
    words = [shlex.split(line.removeprefix(name)) for line in lines if line.startswith(f"{name} ")]
    assert words or name == "ajest doctor"
    assert [mistake(name, COMMANDS[name], found) for found in words] == [None] * len(words)
    assert "unknown option" in (mistake(name, COMMANDS[name], ["--nothing-like-it"]) or "")


def test_the_list_of_commands_names_all_that_look_into_data(command):
    shown = command("--help").out
    assert f"Look into data sets of images, and pack them: {', '.join(DATA_VERBS)}." in " ".join(shown.split())


@pytest.mark.parametrize("verb", ["bench", "study", "claims"])
def test_the_least_number_of_steps_is_in_the_help_and_refused_below(command, verb):
    assert "32 or more" in " ".join(command(verb, "--help").out.split())
    with pytest.raises(UserError, match="at least 32 iterations, not 31"):
        small_bench(iterations=31)


def test_numbers_below_zero_and_switches_turned_off_are_no_options():
    words = ["tree", "--p-mean", "-0.8", "--no-tune", "--super_batch", "64", "--weight=None"]
    assert mistake("ajest bench", VERBS["bench"], words) is None


def test_what_a_command_itself_says_is_said_as_it_is_done(command, monkeypatch, capsys):
    """The parser's words are held back, those of commands are not."""
    monkeypatch.setattr("ajest.cli.main.VERBS", {"doctor": lambda: print("done", file=__import__("sys").stderr)})
    assert command("doctor").err == "done\n"
