"""A progress display for many jobs at once; where the output is not a terminal, a plain line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ajest.errors import listed
from ajest.runtime import distributed

Message = tuple[str, str, float, float, str]
#: Seconds between two plain lines.
EVERY = 30.0


def clock(seconds: float) -> str:
    seconds = max(0, round(seconds))
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


class _Plain:
    """Says a line on stderr where that is not a terminal, unless one was said less than `EVERY` seconds ago. A process
    has one, as it has one stderr: stages shorter than that come to a line together."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, text: str) -> None:
        if time.monotonic() - self._last >= EVERY and not sys.stderr.isatty() and not distributed.rank():
            self._last = time.monotonic()
            print(f"ajest: {listed([text])}", file=sys.stderr, flush=True)


plainly = _Plain()


class Board:
    """Lines of progress: one for the whole, one for each job at work.

    A message is (job, what it does, done, total, rate); `done` and `total` are in the job's own unit. A job's
    `cost` is its share of the whole, in any unit, the same for all.
    """

    def __init__(self, title: str, progress: Progress, costs: dict[str, float]) -> None:
        self._title, self._progress, self._costs = title, progress, costs
        self._share = dict.fromkeys(costs, 0.0)
        self._lines: dict[str, TaskID] = {}
        self._started = time.monotonic()
        self._whole = progress.add_task("[bold]whole", total=1.0, note="")

    def update(self, message: Message) -> None:
        job, what, done, total, note = message
        if job not in self._lines:
            self._lines[job] = self._progress.add_task(escape(job), total=1.0, note="")
        self._progress.update(self._lines[job], completed=done / total, note=escape(f"{what}  {note}"))
        # A run's training is followed by its evaluation: about as long again.
        self._share[job] = min(0.99, done / total * (0.6 if what == "training" else 1.0))
        self._refresh()

    def finish(self, job: str) -> None:
        if job in self._lines:
            self._progress.remove_task(self._lines.pop(job))
        self._share[job] = 1.0
        self._refresh()

    def _refresh(self) -> None:
        done = sum(self._costs[j] * s for j, s in self._share.items()) / (sum(self._costs.values()) or 1)
        elapsed = time.monotonic() - self._started
        left = f"about {clock(elapsed * (1 - done) / done)} left" if done > 0.02 else ""
        jobs = f"{sum(s == 1.0 for s in self._share.values())} of {len(self._costs)} jobs"
        self._progress.update(self._whole, completed=done, note=f"{jobs}  {left}")
        plainly(", ".join(filter(None, (f"{self._title}: {done:.0%}", jobs, left))))


@contextmanager
def board(title: str, costs: dict[str, float]) -> Iterator[Board]:
    console = Console(stderr=True, quiet=distributed.rank() > 0)
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        if console.is_terminal:
            console.print(f"[bold]{escape(title)}")
        yield Board(title, progress, costs)
