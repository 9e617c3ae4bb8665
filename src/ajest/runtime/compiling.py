"""Compiled networks that say when they are not: compilations, their seconds and eager calls are counted.

All networks of one architecture share what was compiled, and their batch size is dynamic from the first call: a bench
compiles one graph to train by and one to score and sample by for each architecture, whatever its arms ask for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

#: Graphs that one function may have before the compiler gives up on it and runs it as it is written. Its own default of
#: 8 is used up by a few architectures in their modes.
GRAPHS = 64

Backend = Callable[[torch.fx.GraphModule, list[Tensor]], Callable[..., Any]]


@dataclass(frozen=True)
class CompileCounts:
    """What compiling cost this process.

    Attributes:
        compilations: graphs that were compiled.
        eager_calls: calls of compiled networks that ran as they are written all the same.
        seconds: of compiling, that of backward passes included.
    """

    compilations: int = 0
    eager_calls: int = 0
    seconds: float = 0.0

    def __sub__(self, other: CompileCounts) -> CompileCounts:
        return CompileCounts(
            self.compilations - other.compilations,
            self.eager_calls - other.eager_calls,
            self.seconds - other.seconds,
        )


class _Totals:
    """The running totals of this process."""

    def __init__(self) -> None:
        self.compilations = self.eager_calls = self.graph_calls = 0
        self.seconds = self._began = 0.0

    def begin(self, _: object) -> None:
        self._began = time.perf_counter()

    def end(self, _: object) -> None:
        self.seconds += time.perf_counter() - self._began


_TOTALS = _Totals()
_plain = False


def so_far() -> CompileCounts:
    """The totals of this process; what a part of it cost is the difference."""
    return CompileCounts(_TOTALS.compilations, _TOTALS.eager_calls, _TOTALS.seconds)


def inductor(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    """The backend of `torch.compile`; on CUDA with graphs that are replayed, if AJEST_REPLAY is not 0.

    A small U-Net takes 2,000 kernels a training step. Launched one by one they take longer than they run wherever the
    batch is small, as what is left of a super-batch is; replayed, they take what they run.
    """
    from torch._inductor.compile_fx import compile_fx

    replayed = _replays() and any(isinstance(value, Tensor) and value.is_cuda for value in inputs)
    run = compile_fx(graph, inputs, config_patches={"triton.cudagraphs": True} if replayed else None)
    assert callable(run)
    return run


def compile_network(module: nn.Module, backend: Backend | None = None) -> None:
    """Compile a module's forward, in place; its tensors' first dimension is the batch. Copies are compiled as well.

    Args:
        module: any.
        backend: that compiles a graph; None is `inductor`.
    """
    _listen()
    module.forward = _Compiled(module, inductor if backend is None else backend)


def is_replayed(network: nn.Module) -> bool:
    """Whether parts of a network are compiled to graphs that are replayed, into the same memory each time."""
    on_cuda = any(parameter.is_cuda for parameter in network.parameters())
    return on_cuda and _replays() and any(isinstance(module.forward, _Compiled) for module in network.modules())


def _replays() -> bool:
    return os.environ.get("AJEST_REPLAY") != "0"


@contextmanager
def uncompiled() -> Iterator[None]:
    """Within, compiled networks run as they are written, which counts as no eager call."""
    global _plain
    before, _plain = _plain, True
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        _plain = before


class _Compiled:
    """A module's forward, compiled. It stands on the module itself, so that a copy of the module has its own."""

    def __init__(self, module: nn.Module, backend: Backend) -> None:
        self._module, self._backend = module, backend
        self._plain = type(module).forward.__get__(module)
        self._run = torch.compile(self._plain, backend=_counted(backend))

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if _plain:
            return self._plain(*arguments, **named)
        for argument in (*arguments, *named.values()):
            if isinstance(argument, Tensor):
                torch._dynamo.maybe_mark_dynamic(argument, 0)
        before = _TOTALS.graph_calls
        out = self._run(*arguments, **named)
        _TOTALS.eager_calls += _TOTALS.graph_calls == before
        return out

    def __deepcopy__(self, memo: dict[int, Any]) -> _Compiled:
        # The module is being copied: it is in the memo before what stands on it.
        return _Compiled(memo[id(self._module)], self._backend)


@cache
def _counted(backend: Backend) -> Backend:
    """A backend that counts its graphs and their calls; one object a backend, or graphs would not be shared."""

    def compiled(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        _TOTALS.compilations += 1
        run = backend(graph, inputs)

        def counted(*arguments: Any) -> Any:
            _TOTALS.graph_calls += 1
            return run(*arguments)

        return counted

    return compiled


def _listen() -> None:
    """Take the time of all compilations from now on, and raise the compiler's limit."""
    from torch._dynamo import config
    from torch._dynamo.callback import callback_handler

    if _TOTALS.begin not in callback_handler.start_callbacks:
        callback_handler.register_start_callback(_TOTALS.begin)
        callback_handler.register_end_callback(_TOTALS.end)
    config.recompile_limit = max(config.recompile_limit, GRAPHS)
