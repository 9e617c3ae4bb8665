"""Jobs that failed: why, how often they are tried again, and what is told of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ajest.errors import UserError
from ajest.storage import jsonl

Kind = Literal["crashed", "killed", "memory", "timeout", "preempted", "node"]

#: Attempts that a job has in all. An error of ours will mostly come again; a pre-empted job has done nothing wrong.
ATTEMPTS: dict[Kind, int] = {"crashed": 2, "killed": 3, "memory": 2, "timeout": 10, "preempted": 50, "node": 5}

WORDS: dict[Kind, str] = {
    "crashed": "stopped with an error of its own",
    "killed": "was killed from outside",
    "memory": "was killed for want of memory: give it more, or run fewer at a time",
    "timeout": "ran out of its time",
    "preempted": "had to make room for another",
    "node": "lost its machine",
}

_TAIL = 12  # lines of a log that are kept


@dataclass(frozen=True)
class Failure:
    """One failed attempt at a job.

    Attributes:
        job: its name.
        kind: why.
        attempt: which one it was, from 1.
        log: the last lines of what it said.
    """

    job: str
    kind: Kind
    attempt: int
    log: str = ""

    @property
    def final(self) -> bool:
        """Whether it is not tried again."""
        return self.attempt >= ATTEMPTS[self.kind]

    def __str__(self) -> str:
        return f"{self.job} {WORDS[self.kind]} (attempt {self.attempt} of {ATTEMPTS[self.kind]})"


def tail(text: str) -> str:
    """The last lines of a log."""
    return "\n".join(text.rstrip().splitlines()[-_TAIL:])


def note(folder: Path, failure: Failure) -> None:
    """Write a failure down, for `ajest status`."""
    jsonl.append(folder / "failures.jsonl", asdict(failure))


def noted(folder: Path) -> list[Failure]:
    """The failures written down in a folder, in their order."""
    return [Failure(**line) for line in jsonl.read(folder / "failures.jsonl")]


def give_up(folder: Path, failed: list[Failure], jobs: int) -> None:
    """End with what could not be done, if there is any.

    Raises:
        UserError: names the jobs and what is to be done about them.
    """
    if not failed:
        return
    last = failed[-1].log.strip().splitlines()[-1:]
    said = f" ({last[0].strip()})" if last else ""
    raise UserError(
        f"{len(failed)} of {jobs} jobs failed; {failed[-1]}{said}. {folder / 'failures.jsonl'} has more. What is done "
        "is kept: start the same command again to go on"
    )
