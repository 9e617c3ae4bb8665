"""Jobs on worker processes: at most so many at a time, with so many threads each, shown as they go."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

import torch

from ..errors import UserError
from .progress import Board, Message


class Named(Protocol):
    @property
    def name(self) -> str: ...


J = TypeVar("J", bound=Named)

#: Tells what a job is doing: what, how much of it is done, of how much, and a note.
Report = Callable[[str, float, float, str], None]


def cores() -> int:
    return os.cpu_count() or 1


def limited(threads: int) -> int:
    """So many threads, or fewer where OMP_NUM_THREADS says so."""
    wish = os.environ.get("OMP_NUM_THREADS", "")
    return min(threads, int(wish)) if wish.isdigit() and int(wish) else threads


def default_workers(device: str) -> int:
    return cores() if device == "cpu" else 1


def settle(threads: int | None = None) -> None:
    """Compute with this many threads (None: one a core, or as many as OMP_NUM_THREADS says), and keep freed memory.

    By default the C library gives every large temporary back to the kernel and faults it in again, page by page:
    half of the time of a step on some machines.
    """
    torch.set_num_threads(limited(cores()) if threads is None else threads)
    if sys.platform == "linux":
        mmap_threshold, trim_threshold = -3, -1  # of mallopt(3)
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):
            library.mallopt(mmap_threshold, 1 << 28)
            library.mallopt(trim_threshold, 1 << 30)


def work(
    do: Callable[[J, Report], list[str]],
    jobs: Sequence[J],
    workers: int,
    threads: int,
    lines: Board,
    say: Callable[[str], None],
) -> None:
    """Do the jobs, `workers` at a time with `threads` each, and show how they go.

    Args:
        do: does one in a worker (a function of a module) and returns complaints worth showing.
        jobs: what to do.
        workers, threads: how.
        lines: the display.
        say: told the complaints.

    Raises:
        UserError: a worker was killed from outside.
    """
    if not jobs:
        return
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    executor = ProcessPoolExecutor(
        min(workers, len(jobs)), mp_context=context, initializer=_begin, initargs=(messages, threads)
    )
    pending: dict[Future[list[str]], J] = {}
    try:
        pending = {executor.submit(_done, do, job): job for job in jobs}
        while pending:
            done, _ = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            _drain(messages, lines)
            for future in done:
                job = pending.pop(future)
                for complaint in future.result():
                    say(f"{job.name}: {complaint}")
                lines.finish(job.name)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker was killed from outside (perhaps for want of memory: try fewer --workers); what is done is "
            "kept, start the same command again to go on"
        ) from error
    finally:
        for future in pending:
            future.cancel()
        _end(executor)


def _end(executor: ProcessPoolExecutor) -> None:
    """Stop the workers at once: whatever they do is resumable."""
    processes = list((getattr(executor, "_processes", None) or {}).values())
    executor.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def _drain(messages: Any, lines: Board) -> None:
    while True:
        try:
            lines.update(messages.get_nowait())
        except queue.Empty:
            return


_messages: Any = None


def _begin(messages: Any, threads: int) -> None:
    global _messages
    _messages = messages
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    settle(threads)


def _end_with_parent() -> None:
    """A worker whose parent was killed lets go of its folders, so that the bench can be started again."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _done(do: Callable[[J, Report], list[str]], job: J) -> list[str]:
    """A job, in a worker."""
    last = 0.0

    def report(what: str, done: float, total: float, note: str = "") -> None:
        nonlocal last
        if time.monotonic() - last > 0.25:
            last = time.monotonic()
            message: Message = (job.name, what, done, total, note)
            _messages.put(message)

    return do(job, report)


def sayer() -> Callable[[str], None]:
    """Prints to stderr if that is a terminal."""
    if sys.stderr.isatty():
        return lambda text: print(text, file=sys.stderr, flush=True)
    return lambda text: None
