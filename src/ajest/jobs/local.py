"""Jobs on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ajest.errors import check
from ajest.runtime.threads import configure_threads, cores, limited

from . import pool
from .base import Do, J
from .pool import default_workers
from .progress import Board


@dataclass(frozen=True)
class Local:
    """Processes on this machine.

    Attributes:
        workers: how many; None is one a core on a CPU and one on a GPU.
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        check(self.workers is None or self.workers >= 1, f"workers must be at least 1, not {self.workers}")

    @property
    def near(self) -> bool:
        return True

    def count(self, device: str) -> int:
        """Jobs at the same time."""
        return default_workers(device) if self.workers is None else self.workers

    def threads(self, device: str) -> int:
        """Threads of each job."""
        return limited(max(1, cores() // self.count(device)))

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
        pool.work(do, jobs, self.count(device), threads, lines, say, folder)


@dataclass(frozen=True)
class InProcess:
    """Jobs one after the other in this process: for what no other process could read, such as a task of a notebook."""

    @property
    def near(self) -> bool:
        return True

    def count(self, device: str) -> int:
        """Jobs at the same time."""
        return 1

    def threads(self, device: str) -> int:
        """Threads of each job."""
        return limited(cores())

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
