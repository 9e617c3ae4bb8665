"""Storing tensors while training goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from . import checkpoint
from .packing import Packed, pack


class Writer:
    """Stores tensors as `checkpoint.save` does, from copies and in a thread of its own, one pair after the other in the
    order asked for. On leaving its context all is written.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "writer")
        self._pending: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether the last pair is still being written."""
        return self._pending is not None and not self._pending.done()

    def save(
        self,
        stem: Path,
        tensors: Mapping[str, Tensor],
        facts: Mapping[str, Any],
        then: Callable[[float], None] = lambda copying: None,
    ) -> None:
        """Copy tensors and facts and have them written. A pair before them that is still being written is waited for,
        so that memory holds one copy at a time.

        Args:
            stem, tensors, facts: as for `checkpoint.save`.
            then: what to do in the same thread once they are written; told the seconds for which copying held up
                training.

        Raises:
            UserError: the pair before it could not be written.
        """
        self.wait()
        self._pending = self._thread.submit(self._write, stem, pack(tensors), deepcopy(dict(facts)), then)

    def check(self) -> None:
        """Raise what `wait` would, without waiting."""
        if not self.busy:
            self.wait()

    def wait(self) -> None:
        """Wait until all is written.

        Raises:
            UserError: it could not be; said once.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(self, stem: Path, packed: Packed, facts: dict[str, Any], then: Callable[[float], None]) -> None:
        checkpoint.write(stem, packed, facts)
        then(packed.settle())

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._thread.shutdown()
        if kind in (None, GeneratorExit):  # beside another error it would only say that writing failed too
            self.wait()
