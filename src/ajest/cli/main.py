"""The command line: parse, call, print."""

from __future__ import annotations

import io
import re
import sys
import textwrap
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, redirect_stderr
from functools import partial, wraps
from inspect import cleandoc, unwrap
from typing import Any

import tyro

from ajest.errors import Corrupt, PeerError, UserError, unknown
from ajest.runtime import interrupts
from ajest.runtime.launcher import half_set, place

from .bench import bench
from .claims import claims
from .console import readable, warn
from .data import DATA_VERBS
from .doctor import doctor
from .evaluate import evaluate
from .export import export
from .mistakes import mistake
from .probe import probe
from .sample import sample
from .show import arms, plan, report, status
from .study import study
from .train import train

VERBS: dict[str, Callable[..., Any]] = {
    "bench": bench,
    "train": train,
    "sample": sample,
    "evaluate": evaluate,
    "export": export,
    "probe": probe,
    "report": report,
    "plan": plan,
    "status": status,
    "study": study,
    "claims": claims,
    "arms": arms,
    "doctor": doctor,
}

#: What `ajest` alone says.
START = """An equal-budget test bench for training diffusion models. Begin with:

  ajest doctor                       what this machine has, and how fast it is
  ajest bench tree                   a first verdict, in 5 minutes on 2 cores
  ajest bench vectors --data x.npy   the same on a table of your own

All commands: ajest --help. One command: ajest bench --help."""


def main() -> None:
    """Entry point. Exit code 2 for the user's mistakes, 1 for ours, 130 for Ctrl-C, 141 where nobody reads on."""
    with readable():
        _main()


def _main() -> None:
    words = sys.argv[1:]
    if words == ["--version"]:
        from ajest import __version__

        print(f"ajest {__version__}")
        return
    if not words:
        print(START)
        return
    interrupts.listen()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged files, which are named by what is read
    try:
        with _together(words[:1]):
            if words[0] == "data":
                _call("ajest data", DATA_VERBS, f"{_ABOUT_DATA}.", words[1:] or ["--help"])
            else:
                _call(
                    "ajest", VERBS | {"data": _data}, "An equal-budget test bench for training diffusion models.", words
                )
    except PeerError:
        raise SystemExit(2) from None
    except (UserError, Corrupt) as error:
        print(f"ajest: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("\najest: stopped. What is done is kept: start the same command again to go on.", file=sys.stderr)
        raise SystemExit(130) from None


def _data() -> None: ...


_ABOUT_DATA = "Look into data sets of images, and pack them"
_data.__doc__ = f"{_ABOUT_DATA}: {', '.join(DATA_VERBS)}."


def _call(program: str, verbs: dict[str, Callable[..., Any]], about: str, words: list[str]) -> None:
    """Do what the words ask for, or list the verbs."""
    first = words[0]
    if first in ("-h", "--help"):
        print(f"usage: {program} COMMAND ...\n\n{about}\n")
        for name, function in verbs.items():
            print(
                textwrap.fill(
                    (function.__doc__ or "").split("\n")[0],
                    80,
                    initial_indent=f"  {name:<10}",
                    subsequent_indent=12 * " ",
                )
            )
        print(f"\nWhat a command takes, with an example: {program} COMMAND --help")
    elif first not in verbs:
        raise unknown("command", first, verbs)
    else:
        for function in verbs.values():
            unwrap(function).__doc__ = _flowing(function.__doc__ or "")
        _read(program, verbs, about, words)()


def _read(program: str, verbs: dict[str, Callable[..., Any]], about: str, words: list[str]) -> Callable[[], Any]:
    """What the words ask for, not done yet.

    Raises:
        UserError: they ask for nothing that there is; in one line, in place of the parser's box of many.
    """
    later = {name: _later(function) for name, function in verbs.items()}
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            return tyro.extras.subcommand_cli_from_dict(later, prog=program, description=about, args=words)
    except SystemExit as end:
        if not end.code:
            raise
        verb, *others = words
        plain = " ".join(" ".join(line.strip(_FRAME) for line in box.getvalue().splitlines()).split())
        raise UserError(mistake(f"{program} {verb}", verbs[verb], others) or plain) from None


#: What the parser draws its boxes with, and blanks.
_FRAME = "╭╮╰╯│─+|- "


def _later(function: Callable[..., Any]) -> Callable[..., Callable[[], Any]]:
    """A command that is not done where its words are read: what it says is not the parser's."""

    @wraps(function)
    def asked(*args: Any, **options: Any) -> Callable[[], Any]:
        return partial(function, *args, **options)

    return asked


def _flowing(text: str) -> str:
    """A docstring with what it says of each argument on one line. The parser of options keeps the breaks of ours, and
    would break lines twice where the terminal is narrower."""
    about, args, arguments = cleandoc(text).partition("\nArgs:\n")
    return about + args + re.sub(r"\n {8,}", " ", arguments)


def _together(words: list[str]) -> AbstractContextManager[None]:
    """The processes that torchrun started, if it did and the verb is one that several can do together."""
    if words not in (["train"], ["sample"], ["evaluate"]):
        if words in (["bench"], ["study"]) and place().world > 1:
            raise UserError(f"{' '.join(words)} shares its work out by itself: start it without torchrun")
        return nullcontext()
    if half_set():
        warn(half_set())
    if place().world == 1:
        return nullcontext()
    from ajest.runtime.distributed import joined

    return joined()
