"""Runs of one seed made in turns, so that what they all draw is drawn once.

Arms of a seed see the same examples and noise at the same step (common random numbers), and on the tree the exact
target of those costs more than the network. One draw then serves all runs that are at this step. Weights are those of
runs made one by one, bit for bit: a shared batch is the same batch. Time is not: the first run pays for all, so such
runs are compared by calibrated clocks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import ExitStack

import torch

from ajest.diffusion.batch import Batch, Source, draws_rows
from ajest.runtime.counter import CounterStream, Rows

from .trainer import Trainer

_KEPT = 24  # draws: of a step for every size of draw, a second noise, and those for measuring reliability


class SharedDraws:
    """A source that remembers its last draws and their targets.

    Args:
        source: the source. Generators must be fresh: a draw is known by their seeds.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._drawn: OrderedDict[Hashable, Batch] = OrderedDict()
        self._completed: OrderedDict[int, tuple[Batch, Batch]] = OrderedDict()

    def __getattr__(self, name: str) -> object:
        return getattr(self.source, name)

    def draw(self, count: int, generator: torch.Generator, eps: torch.Generator | None = None) -> Batch:
        key = (count, generator.initial_seed(), None if eps is None else eps.initial_seed())
        return self._once(key, lambda: self.source.draw(count, generator, eps))

    def draw_rows(self, rows: Rows, stream: CounterStream, eps: CounterStream) -> Batch:
        source = self.source
        assert draws_rows(source)  # whoever asks has made sure
        if not isinstance(rows, range):
            return source.draw_rows(rows, stream, eps)
        return self._once((rows, stream, eps), lambda: source.draw_rows(rows, stream, eps))

    def complete(self, batch: Batch) -> Batch:
        known = self._completed.get(id(batch))
        if known is None:
            # The batch is kept beside its completed self, so that its id stays its own.
            known = batch, self.source.complete(batch)
            if any(batch is drawn for drawn in self._drawn.values()):
                self._completed[id(batch)] = known
                _forget(self._completed)
        return known[1]

    def _once(self, key: Hashable, draw: Callable[[], Batch]) -> Batch:
        if key not in self._drawn:
            self._drawn[key] = draw()
            _forget(self._drawn)
        self._drawn.move_to_end(key)
        return self._drawn[key]


def _forget(kept: OrderedDict) -> None:
    while len(kept) > _KEPT:
        kept.popitem(last=False)


def in_turns(
    runs: Sequence[Generator[Trainer, None, None]], progress: Callable[[int, int, int], None] | None = None
) -> None:
    """Make runs of one seed step by step, always the one that is furthest behind, to their ends.

    Args:
        runs: what `run.execution` gives, with one `SharedDraws` for all.
        progress: told (least steps taken, most steps taken, runs that go on) now and then.
    """
    places: dict[int, int] = {}

    def advance(i: int) -> None:
        trainer = next(runs[i], None)
        if trainer is None:
            places.pop(i, None)
        else:
            places[i] = trainer.steps_taken

    with ExitStack() as stack:
        for run in runs:
            stack.callback(run.close)  # also where one was told to end: the others save where they stand
        for i in range(len(runs)):
            advance(i)
        while places:
            behind = min(places.values())
            for i in [i for i, at in places.items() if at == behind]:
                advance(i)
            if progress is not None and places:
                progress(behind, max(places.values()), len(places))
