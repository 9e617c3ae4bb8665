"""Guides that no one trained, and rules by which a guide steers (docs/method.md#free-guides)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from ajest.errors import check
from ajest.runtime.seeding import drawing_from, generator

from .denoising import Denoiser
from .guidance import autoguide

Rule = Literal["autoguide", "apg", "reg"]


def noisier(denoiser: Denoiser, factor: float) -> Denoiser:
    """The denoiser told a noise level so many times the true one, as a guide for itself (self-guidance, arXiv
    2412.05827): it smooths more than it should."""

    def told(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        return denoiser(x, factor * sigma, label)

    return told


def dropped_out(network: nn.Module, share: float) -> Denoiser:
    """The network with dropout on, as a guide for itself (in-situ guidance, arXiv 2510.17136).

    What is dropped follows from the noise level, so that samples are the same each time.

    Args:
        network: one with dropout: modules of torch's, or with a number `dropout` of their own by which they go in
            training. It is left as it was after each answer.
        share: of the activations that are dropped, in the place of the network's own.

    Raises:
        UserError: it has none.
    """
    places = _dropouts(network)
    check(bool(places), f"the guide's network, {type(network).__name__}, has no dropout to turn on: name another guide")
    check(0 < share < 1, f"a guide's dropout must lie between 0 and 1, not {share}")

    @contextmanager
    def on() -> Iterator[None]:
        before = [(module, name, getattr(module, name), module.training) for module, name in places]
        try:
            for module, name in places:
                setattr(module, name, share)
                module.training = True
            yield
        finally:
            for module, name, own, training in before:
                setattr(module, name, own)
                module.training = training

    def dropping(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        stream = generator(0, "guide", "dropout", f"{sigma.max().item():.6g}", device=x.device)
        with on(), drawing_from(stream):
            found: Tensor = network(x, sigma, label)
        return found

    return dropping


def has_dropout(network: nn.Module) -> bool:
    """Whether a network has dropout that could be turned on."""
    return bool(_dropouts(network))


def _dropouts(network: nn.Module) -> list[tuple[nn.Module, str]]:
    """Modules with dropout, and the name of their share."""
    names = ((m, "p" if isinstance(m, nn.modules.dropout._DropoutNd) else "dropout") for m in network.modules())
    return [(module, name) for module, name in names if isinstance(getattr(module, name, None), float)]


def within(guided: Denoiser, main: Denoiser, interval: tuple[float, float] | None) -> Denoiser:
    """The guided denoiser where `low <= sigma <= high` (arXiv 2404.07724), the plain one elsewhere."""
    if interval is None:
        return guided
    low, high = interval

    def limited(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        inside = (sigma >= low) & (sigma <= high)
        if bool(inside.all()):
            return guided(x, sigma, label)
        plain = main(x, sigma, label)
        if not bool(inside.any()):
            return plain
        return torch.where(inside.view(-1, *[1] * (x.ndim - 1)), guided(x, sigma, label), plain)

    return limited


def apg(
    main: Denoiser,
    guide: Denoiser,
    weight: float,
    threshold: float = math.inf,
    parallel: float = 0.0,
    momentum: float = 0.0,
) -> Denoiser:
    """Adaptive projected guidance (arXiv 2410.02416, algorithm 1): `D + (w - 1) d'`, d' from `d = D - D_guide`.

    Args:
        main, guide, weight: as of `autoguide`, to which it comes down with a `parallel` of 1 and nothing else.
        threshold: the length of d of each example is cut off there.
        parallel: share that is kept of d's part along D, which saturates.
        momentum: the last d is added times this, below 0 in the paper; forgotten where the noise is as high as it ever
            was, which is where sampling begins.
    """
    last: dict[str, Tensor] = {}

    def guided(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        answer = main(x, sigma, label)
        d = answer - guide(x, sigma, label)
        if momentum:
            begins = "sigma" not in last or bool(sigma.max() >= last["sigma"]) or last["d"].shape != d.shape
            if not begins:
                d = d + momentum * last["d"]
            last.update(d=d, sigma=sigma.max() if begins else last["sigma"])
        flat, along = d.flatten(1), answer.flatten(1)
        if threshold < math.inf:
            flat = flat * (threshold / flat.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
        length = along.square().sum(1, keepdim=True).clamp_min(1e-12)
        part = (flat * along).sum(1, keepdim=True) / length * along
        return answer + (weight - 1) * (flat - (1 - parallel) * part).view_as(x)

    return guided


def reg(main: Denoiser, guide: Denoiser, weight: float) -> Denoiser:
    """Rectified gradient guidance (arXiv 2501.18865): `D + (w - 1) J (D - D_guide)` element by element, with J the
    derivative of the sum of D for each element of x. It takes a backward pass."""

    def guided(x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            answer = main(at, sigma, label)
            (slope,) = torch.autograd.grad(answer.sum(), at)
        answer = answer.detach()
        return answer + (weight - 1) * slope * (answer - guide(x, sigma, label))

    return guided


#: By name: how a guide steers, from (what is steered, guide, weight).
RULES: dict[Rule, Callable[[Denoiser, Denoiser, float], Denoiser]] = {"autoguide": autoguide, "apg": apg, "reg": reg}
