"""What a job is, and what does jobs: this machine, or a cluster. All jobs are resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from .progress import Board


class Named(Protocol):
    """A piece of work: a picklable value with a name for people."""

    @property
    def name(self) -> str: ...


J = TypeVar("J", bound=Named)

#: Tells what a job is doing: what, how much of it is done, of how much, and a note.
Report = Callable[[str, float, float, str], None]

#: Does a job in a worker (a function of a module), and returns complaints worth showing.
Do = Callable[[J, Report], list[str]]


@dataclass(frozen=True)
class Room:
    """What a job has of a device's memory.

    Attributes:
        name: of the device's kind.
        total: bytes of the whole device.
        free: bytes that one job may take.
        sharing: how many jobs share the device.
    """

    name: str
    total: int
    free: int
    sharing: int = 1

    @property
    def whole(self) -> int:
        """Bytes that all jobs of the device may take together."""
        return self.free * self.sharing


class Launch(Protocol):
    """A way of doing jobs. One that fails is tried again as often as its kind of failure deserves, and written down."""

    def near(self, device: str) -> bool:
        """Whether what all jobs wait for is done by this very process, and not as a job of its own."""
        ...

    def count(self, device: str) -> int:
        """Jobs at the same time."""
        ...

    def threads(self, device: str) -> int:
        """Threads of each job."""
        ...

    def room(self, device: str) -> Room | None:
        """What each job has of the device's memory; None where it is not known before, or not bounded.

        Raises:
            UserError: jobs would compute on devices of several kinds.
        """
        ...

    def work(
        self,
        do: Do[J],
        jobs: Sequence[J],
        device: str,
        threads: int,
        lines: Board,
        say: Callable[[str], None],
        folder: Path,
    ) -> None:
        """Do all jobs.

        Args:
            do: does one in a worker.
            jobs: what to do.
            device: "cpu" or "cuda".
            threads: of each job.
            lines: the display.
            say: told the complaints.
            folder: where failures are written down.

        Raises:
            UserError: a job's own, or some jobs failed for good; the others are done.
        """
        ...
