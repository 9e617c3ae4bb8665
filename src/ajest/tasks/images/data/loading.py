"""Many images, loaded in threads: in order, and few ahead of who takes them."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from ajest.runtime.threads import cores

from .decoding import Decoded
from .files import Unreadable
from .parts import Part

T = TypeVar("T")
U = TypeVar("U")
_AHEAD = 256  # results that wait to be taken


def loaded(parts: Sequence[Part], order: Sequence[tuple[int, int]], title: str) -> Iterator[Decoded | str]:
    """The images of (part, number) in order, or why one cannot be read; with a progress bar on a terminal."""

    def load(where: tuple[int, int]) -> Decoded | str:
        part, number = where
        try:
            return parts[part].load(number)
        except Unreadable as error:
            return str(error)

    with progress(title, len(order)) as advance:
        for found in in_order(load, order):
            advance()
            yield found


def in_order(do: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """What `do` makes of each item, in threads; a bounded number is begun before it is asked for."""
    waiting: deque[Future[U]] = deque()
    with ThreadPoolExecutor(cores()) as pool:
        try:
            for item in items:
                if len(waiting) == _AHEAD:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(do, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(title), total=total)
        yield lambda: bar.advance(task)
