"""What is asked of a network, and what is taken where it is offered: its operations, sketches of its gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol, TypeGuard
from warnings import catch_warnings, filterwarnings
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ajest.runtime.compiling import uncompiled
from ajest.runtime.seeding import drawing_from, generator

from .batch import Batch
from .denoising import Denoiser


class Network(Denoiser, Protocol):
    """A denoiser that can be trained: any `nn.Module` that is called as `network(x, sigma, label)`.

    More is taken where it is offered, and may be left out:

    - `flops()`: floating-point operations of denoising one example; else they are counted, see `flops_of`.
    - `sketched(...)`: for arms that compare gradients of examples, see `SketchingNetwork`.
    - `sketch_flops()`: operations of `sketched` for one example; else they are counted, see `sketch_flops_of`.
    - `uncertainty(sigma)`: the learned log-variance of the loss, see `denoising.objective`.
    - `scalars()`: numbers that tell its state, by name, which ledgers and reports show, see `scalars_of`.
    """

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is trained, as `torch.nn.Module` has it."""
        ...


class SketchingNetwork(Network, Protocol):
    """A network that sketches what each example would teach it."""

    def sketched(
        self, x: Tensor, sigma: Tensor, label: Tensor | None, target: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(denoised x, a sketch of the gradient of each example's loss with respect to the last layer's weights, shape
        (n, d), up to a common factor)."""
        ...


def sketches(network: object) -> TypeGuard[SketchingNetwork]:
    """Whether a network is a `SketchingNetwork`."""
    return callable(getattr(network, "sketched", None))


class ExactDenoiser(nn.Module):
    """The best denoiser there is, for a distribution that is known; nothing of it is trained.

    Args:
        denoise: E[x0 | x], as a `Denoiser`.
        flops: floating-point operations of denoising one example.
    """

    def __init__(self, denoise: Denoiser, flops: float) -> None:
        super().__init__()
        self._denoise, self._flops = denoise, flops

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """The posterior mean, of the shape of `x`."""
        return self._denoise(x, sigma, label)

    def flops(self) -> float:
        """Operations of denoising one example."""
        return self._flops


def scalars_of(network: object) -> dict[str, float]:
    """Numbers that tell a network's state, by name: what its own `scalars()` says, {} without that."""
    own = getattr(network, "scalars", None)
    return {} if own is None else own()


@contextmanager
def evaluation_mode(network: object) -> Iterator[None]:
    """Within, a network answers as it does when it is sampled from: dropout is off, running statistics stay as they
    are. After it each of its modules is in the mode in which it was. What is no module is left alone."""
    training = [m for m in network.modules() if m.training] if isinstance(network, nn.Module) else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def flops_of(network: Network | None, example: Callable[[], Batch]) -> float:
    """Floating-point operations of denoising one example; a backward pass costs twice as many again.

    They are what the network's own `flops()` says. Without one, products of matrices, convolutions and attention are
    counted in one forward pass of one example, in evaluation mode, and remembered as long as the network lives.

    Args:
        network: the denoiser; None has none.
        example: gives a batch of at least one example, of which the first is taken; called only to count.
    """
    if network is None:
        return 0.0
    own = getattr(network, "flops", None)
    if own is not None:
        return float(own())
    return _counted(network, "forward", example, lambda part: network(part.x, part.sigma, part.label))


def sketch_flops_of(network: SketchingNetwork, example: Callable[[], Batch]) -> float:
    """Operations of `sketched` for one example: what the network's own `sketch_flops()` says, or as `flops_of`."""
    own = getattr(network, "sketch_flops", None)
    if own is not None:
        return float(own())

    def sketch(part: Batch) -> object:
        return network.sketched(part.x, part.sigma, part.label, torch.zeros_like(part.x), part.weight)

    return _counted(network, "sketch", example, sketch)


_COUNTED: WeakKeyDictionary[object, dict[str, float]] = WeakKeyDictionary()


def _counted(network: Network, what: str, example: Callable[[], Batch], run: Callable[[Batch], object]) -> float:
    """Operations of `run` on one example, at least 1, so that networks can be compared."""
    known = _COUNTED.setdefault(network, {})
    if what not in known:
        device = next((p.device for p in network.parameters()), torch.device("cpu"))
        part = example()[:1].to(device)
        stream = generator(0, "flops", device=device)  # numbers that a network draws are no others' for it
        with ExitStack() as stack:
            for context in (drawing_from(stream), evaluation_mode(network), torch.no_grad(), catch_warnings()):
                stack.enter_context(context)
            filterwarnings("ignore", "Using `torch.compile", UserWarning)  # of the counter's own hooks
            # The counter sees nothing of what is compiled, nor of the fused attention of CPUs.
            stack.enter_context(uncompiled())
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            counter = stack.enter_context(FlopCounterMode(display=False))
            run(part)
        known[what] = max(float(counter.get_total_flops()), 1.0)
    return known[what]
