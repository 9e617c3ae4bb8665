"""Jobs on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ajest.errors import check
from ajest.runtime import cards
from ajest.runtime.threads import configure_threads, cores, limited

from . import pool
from .base import Do, J, Room
from .progress import Board


@dataclass(frozen=True)
class Local:
    """Processes on this machine. On CUDA each sees one card alone, as "cuda"; they take the cards in turn.

    Attributes:
        workers: how many; None is one a core on a CPU and one a card on CUDA.
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        check(self.workers is None or self.workers >= 1, f"workers must be at least 1, not {self.workers}")

    def near(self, device: str) -> bool:
        """On a CPU alone: of another device each process that has computed on it keeps memory until it ends."""
        return device == "cpu"

    def count(self, device: str) -> int:
        """Jobs at the same time."""
        if self.workers is not None:
            return self.workers
        return cores() if device == "cpu" else len(_cards(device)) or 1

    def threads(self, device: str) -> int:
        """Threads of each job."""
        return limited(max(1, cores() // self.count(device)))

    def room(self, device: str) -> Room | None:
        """What a job has of a card; see `Launch.room`."""
        found = _cards(device)
        return _room(found, -(-self.count(device) // len(found))) if found else None

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
        """Do all jobs; see `pool.work`."""
        pool.work(do, jobs, self._seats(device), threads, lines, say, folder)

    def _seats(self, device: str) -> list[dict[str, str]]:
        """What each process finds in its environment."""
        found = _cards(device)
        seat = [{"CUDA_VISIBLE_DEVICES": card.id} for card in found] or [{}]
        return [seat[k % len(seat)] for k in range(self.count(device))]


@dataclass(frozen=True)
class InProcess:
    """Jobs one after the other in this process: for what no other process could read, such as a task of a notebook."""

    def near(self, device: str) -> bool:
        return True

    def count(self, device: str) -> int:
        """Jobs at the same time."""
        return 1

    def threads(self, device: str) -> int:
        """Threads of each job."""
        return limited(cores())

    def room(self, device: str) -> Room | None:
        """The first card's, on which this process computes."""
        found = _cards(device)
        return _room(found[:1], 1) if found else None

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
        """Do all jobs; what one raises ends them all."""
        configure_threads(threads)
        for job in jobs:

            def report(what: str, done: float, total: float, note: str, name: str = job.name) -> None:
                lines.update((name, what, done, total, note))

            for complaint in do(job, report):
                say(f"{job.name}: {complaint}")
            lines.finish(job.name)


def _cards(device: str) -> tuple[cards.Card, ...]:
    """The cards that jobs compute on; none on a CPU."""
    return cards.of_one_kind() if device == "cuda" else ()


def _room(found: Sequence[cards.Card], sharing: int) -> Room:
    least = min(found, key=lambda card: card.free)
    return Room(least.name, least.total, least.free // sharing, sharing)
