"""The command line: parse, call, print."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import tyro

from ajest.errors import Corrupt, PeerError, UserError
from ajest.runtime import interrupts
from ajest.runtime.launcher import half_set, place

from .bench import bench
from .console import readable, warn
from .data import DATA_VERBS
from .evaluate import evaluate
from .sample import sample
from .show import arms, plan, report, status
from .study import study
from .train import train

VERBS: dict[str, Callable[..., Any]] = {
    "bench": bench,
    "train": train,
    "sample": sample,
    "evaluate": evaluate,
    "report": report,
    "plan": plan,
    "status": status,
    "study": study,
    "arms": arms,
}


def main() -> None:
    """Entry point. Exit code 2 for the user's mistakes, 1 for ours, 130 for Ctrl-C, 141 where nobody reads on."""
    with readable():
        _main()


def _main() -> None:
    if sys.argv[1:] == ["--version"]:
        from ajest import __version__

        print(f"ajest {__version__}")
        return
    interrupts.listen()
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of damaged files, which are named by what is read
    try:
        with _together(sys.argv[1:2]):
            if sys.argv[1:2] == ["data"]:
                about = "Look into data sets of images, and pack them."
                verbs = DATA_VERBS if sys.argv[2:3] and sys.argv[2] in DATA_VERBS else _in_a_line(DATA_VERBS)
                tyro.extras.subcommand_cli_from_dict(verbs, prog="ajest data", description=about, args=sys.argv[2:])
            else:
                about = (
                    "An equal-budget test bench for training diffusion models.\n\n"
                    "Example: ajest bench tree\n\nAbout data sets: ajest data --help"
                )
                verbs = VERBS if sys.argv[1:2] and sys.argv[1] in VERBS else _in_a_line(VERBS)
                tyro.extras.subcommand_cli_from_dict(verbs, prog="ajest", description=about)
    except PeerError:
        raise SystemExit(2) from None
    except (UserError, Corrupt) as error:
        print(f"ajest: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("\najest: stopped. What is done is kept: start the same command again to go on.", file=sys.stderr)
        raise SystemExit(130) from None


def _in_a_line(verbs: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """The verbs with the first line of what they do, for a list of all."""

    def listed(function: Callable[..., Any]) -> Callable[..., Any]:
        def verb() -> None:
            raise AssertionError("a verb in a list is not called")

        verb.__doc__ = (function.__doc__ or "").split("\n")[0]
        return verb

    return {name: listed(function) for name, function in verbs.items()}


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
