"""Jobs on worker processes: at most so many at a time, with so many threads each, shown as they go."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection
from pathlib import Path
from types import ModuleType
from typing import Any, Generic

from ajest.errors import UserError
from ajest.runtime import interrupts
from ajest.runtime.threads import configure_threads

from .base import J, Report
from .failures import Failure, Kind, give_up, note, tail
from .progress import Board, Message

_TERMINATED = 130  # exit code of a worker that was told to end


def work(
    do: Callable[[J, Report], list[str]],
    jobs: Sequence[J],
    seats: Sequence[Mapping[str, str]],
    threads: int,
    lines: Board,
    say: Callable[[str], None],
    folder: Path,
) -> None:
    """Do the jobs, one on each seat at a time with `threads` each, and show how they go. All processes have ended, and
    given back what they held, when it returns.

    A job whose process ends before it is tried again, in the end alone if memory was short; the others go on.

    Args:
        do: does one in a worker (a function of a module) and returns complaints worth showing.
        jobs: what to do. All are resumable.
        seats: what each process finds in its environment beside this one's; another that takes its place finds the
            same.
        threads: of each.
        lines: the display.
        say: told the complaints.
        folder: where failures are written down, and what workers say beside.

    Raises:
        UserError: a job's own, or some jobs failed for good; the others are done.
    """
    waiting = deque((job, 1) for job in jobs)
    crowded: deque[tuple[J, int]] = deque()  # for want of memory: alone, when the others are done
    team: list[_Worker[J]] = []
    numbers = itertools.count()  # of workers, those that died counted: each has a log of its own
    failed: list[Failure] = []
    context = _context(do, seats)
    try:
        while waiting or crowded or any(w.job for w in team):
            busy = sum(w.job is not None for w in team)
            source = waiting if waiting else crowded if not busy else deque()
            while source and busy < (len(seats) if source is waiting else 1):
                worker = next((w for w in team if w.job is None), None)
                if worker is None:
                    seat = min(set(range(len(seats))) - {w.seat for w in team})
                    with _environment(seats[seat]), _without_program():
                        worker = _Worker(context, seat, threads, folder / "logs" / f"worker-{next(numbers)}.log")
                    team.append(worker)
                worker.begin(do, *source.popleft())
                busy += 1
            connection.wait([w.connection for w in team if w.job is not None], timeout=0.2)
            for worker in [w for w in team if w.job is not None]:
                ended = worker.ended(lines)
                if ended is None:
                    continue
                job, attempt = worker.job, worker.attempt
                assert job is not None
                worker.job = None
                if isinstance(ended, Failure):
                    note(folder, ended)
                    say(str(ended))
                    if not worker.process.is_alive():
                        team.remove(worker)
                    if not ended.final:
                        (crowded if ended.kind == "memory" else waiting).append((job, attempt + 1))
                        continue
                    failed.append(ended)
                else:
                    for complaint in ended:
                        say(f"{job.name}: {complaint}")
                lines.finish(job.name)
    finally:
        for worker in team:  # at once: whatever they do is resumable
            worker.process.terminate()
        for worker in team:
            worker.process.join()
    give_up(folder, failed, len(jobs))


class _Worker(Generic[J]):
    """A process that does one job after the other.

    Attributes:
        seat: the number of its seat.
        job: what it does at present.
        attempt: which attempt that is.
    """

    def __init__(self, context: Any, seat: int, threads: int, log: Path) -> None:
        self.seat = seat
        self.job: J | None = None
        self.attempt, self._log, self._kills = 0, log, _memory_kills()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, threads, log, dict(os.environ)))
        self.process.start()
        other.close()

    def begin(self, do: Callable[[J, Report], list[str]], job: J, attempt: int) -> None:
        self.job, self.attempt = job, attempt
        with suppress(OSError):  # it is dead already: `ended` will see it
            self.connection.send((do, job))

    def ended(self, lines: Board) -> list[str] | Failure | None:
        """The job's complaints, or how it failed; None while it is at work, which is shown.

        Raises:
            UserError: the job's own.
        """
        assert self.job is not None
        while self.connection.poll():
            try:
                kind, said = self.connection.recv()
            except (EOFError, OSError):
                return Failure(self.job.name, self._death(), self.attempt, tail(self._log.read_text(errors="replace")))
            if kind == "progress":
                lines.update(said)
            elif kind == "mistake":
                raise UserError(said)
            else:
                return Failure(self.job.name, "crashed", self.attempt, tail(said)) if kind == "crashed" else said
        return None

    def _death(self) -> Kind:
        self.process.join()
        code = self.process.exitcode or 0
        if code == -signal.SIGKILL and _memory_kills() > self._kills:
            return "memory"
        return "killed" if code in (-signal.SIGKILL, -signal.SIGTERM, _TERMINATED) else "crashed"


def _context(do: Callable[..., Any], seats: Sequence[Mapping[str, str]]) -> Any:
    """How processes start. On Linux they are forked from one that has imported what they need, and done nothing else:
    beginning to train takes seconds of imports, which are then done once. Where a seat says which card to see, each
    begins anew, since CUDA counts its devices once."""
    if sys.platform != "linux" or any(seats):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", do.__module__])  # the first: by the first optimiser, see torch
    return context


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Processes that start inside find these, from the first module that they import: CUDA counts its devices once."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _without_program() -> Iterator[None]:
    """Processes that start inside do not run the program again, as `spawn` would: a script of a few lines that calls
    for a bench needs no guard against itself. What jobs need of the user's code they name by its file."""
    program = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


def _memory_kills() -> int:
    """How many processes the kernel has killed for want of memory so far."""
    total = 0
    for path in ("/proc/vmstat", "/sys/fs/cgroup/memory.events"):
        with suppress(OSError):
            for line in Path(path).read_text().splitlines():
                if line.startswith("oom_kill "):
                    total += int(line.split()[1])
    return total


def _serve(jobs: Any, threads: int, log: Path, environment: Mapping[str, str]) -> None:
    """A worker's life."""
    os.environ.clear()  # of a process that began earlier, perhaps
    os.environ.update(environment)
    with log.open("ab", buffering=0) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    interrupts.listen(lambda: os._exit(_TERMINATED))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    configure_threads(threads)
    while True:
        try:
            do, job = jobs.recv()
        except EOFError:
            return
        except UserError as error:  # a file of the user's that the job names is not what it was, or does not end
            jobs.send(("mistake", str(error)))
            continue
        try:
            jobs.send(("done", _done(do, job, jobs)))
        except KeyboardInterrupt:  # where it stands was saved, and the parent waits for this process to end
            os._exit(_TERMINATED)
        except UserError as error:
            jobs.send(("mistake", str(error)))
        except Exception:
            jobs.send(("crashed", traceback.format_exc()))


def _end_with_parent() -> None:
    """A worker whose parent was killed lets go of its folders, so that the bench can be started again."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _done(do: Callable[[J, Report], list[str]], job: J, parent: Any) -> list[str]:
    """A job, in a worker."""
    last = 0.0

    def report(what: str, done: float, total: float, note: str = "") -> None:
        nonlocal last
        if time.monotonic() - last > 0.25:
            last = time.monotonic()
            message: Message = (job.name, what, done, total, note)
            parent.send(("progress", message))

    return do(job, report)


def sayer() -> Callable[[str], None]:
    """Prints to stderr if that is a terminal."""
    if sys.stderr.isatty():
        return lambda text: print(text, file=sys.stderr, flush=True)
    return lambda text: None
