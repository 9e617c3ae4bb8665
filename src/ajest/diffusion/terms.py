"""Terms beside the denoising loss, of what a network holds in its middle (docs/method.md#terms)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from ajest.errors import UserError, check, unknown

from .batch import Batch
from .denoising import per_example_loss

TermName = Literal["head", "dispersive"]
TEMPERATURE = 0.5  # of dispersion
AMONG = 256  # examples that are dispersed together: the squared distances of all of a large batch are too many


@runtime_checkable
class MiddleNetwork(Protocol):
    """A denoiser that shows a hidden layer from its middle.

    Attributes:
        sigma_data: standard deviation of the data.
        middle_shape: (numbers in that layer, d; coordinates of x).
    """

    sigma_data: float
    middle_shape: tuple[int, int]

    def middle(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(denoised x, the layer, shape (n, d)) in one pass."""


@dataclass(frozen=True)
class Term:
    """What is added to the loss.

    Attributes:
        name: "head": the denoising loss of a second answer, read off the middle by one linear layer, which can guide
            the first (Internal Guidance, arXiv 2512.24176); "dispersive": the logarithm of the mean over pairs of
            exp(-|h - h'|^2 / (d t)), t = 0.5, of hidden layers h of d numbers (arXiv 2506.09027).
        weight: of it.
    """

    name: TermName
    weight: float = 0.5

    def __post_init__(self) -> None:
        if self.name not in get_args(TermName):
            raise unknown("term", self.name, get_args(TermName))
        check(self.weight > 0, f"term {self.name!r}: its weight must be above 0, not {self.weight:g}")

    def __str__(self) -> str:
        return f"{self.name} {self.weight:g}"

    def check_parts(self, examples: int, processes: int, micro_batch: int | None) -> None:
        """Raise a UserError unless it is the same term however a step's examples are parted.

        Args:
            examples: trained on in a step, of all processes together.
            processes: that share them evenly.
            micro_batch: how many of its own each has in the network at a time; None: all.
        """
        if self.name != "dispersive":
            return
        own = examples / processes
        parted = micro_batch is not None and micro_batch < own and micro_batch % AMONG
        check(
            not parted and (processes == 1 or own % AMONG == 0),
            f"the term dispersive acts among {AMONG} examples: give each of {processes} processes and each micro-batch "
            "a multiple of them, or take one process and no micro-batches",
        )


class WithTerm(nn.Module):
    """A network whose training also minimises a term. In all else it is the network.

    Args:
        network: shows its middle.
        term: of which.

    Raises:
        UserError: the network shows no middle.
    """

    def __init__(self, network: nn.Module, term: Term) -> None:
        super().__init__()
        if not isinstance(network, MiddleNetwork):
            raise UserError(
                f"the term {term.name!r} asks for the middle of a network, which {type(network).__name__} does not "
                "show: give it the members of ajest.diffusion.terms.MiddleNetwork, or leave the arm out"
            )
        self.network, self.term = network, term
        # At 0 like the last layer of most denoisers: an untrained head answers c_skip x.
        where = next(network.parameters())
        self.head = nn.Parameter(where.new_zeros(network.middle_shape)) if term.name == "head" else None
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None

    def __getattr__(self, name: str) -> Any:
        """What else the network has."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """The denoised x; where gradients are taken, the middle is kept for `extra`."""
        if not torch.is_grad_enabled():
            return self.network(x, sigma, label)
        denoised, hidden = self.network.middle(x, sigma, label)
        self._seen = x, sigma, hidden
        return denoised

    def extra(self, batch: Batch) -> Tensor:
        """The term of the last pass with gradients, times its weight, shape (n,)."""
        assert self._seen is not None
        x, sigma, hidden = self._seen
        self._seen = None
        if self.head is None:
            parts = [dispersion(part) * len(part) for part in hidden.split(AMONG)]
            return self.term.weight * (torch.stack(parts).sum() / len(hidden)).expand(len(hidden))
        return self.term.weight * per_example_loss(self._answer(x, sigma, hidden), batch)

    def aside(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """The denoised x of the head.

        Raises:
            UserError: it has none.
        """
        check(self.head is not None, f"a network with the term {self.term.name!r} has no second answer")
        return self._answer(x, sigma, self.network.middle(x, sigma, label)[1])

    def _answer(self, x: Tensor, sigma: Tensor, hidden: Tensor) -> Tensor:
        """Preconditioned as in EDM (arXiv 2206.00364, table 1)."""
        scale = torch.rsqrt(sigma.square() + self.network.sigma_data**2)
        c_skip, c_out = (self.network.sigma_data * scale).square(), sigma * self.network.sigma_data * scale
        assert self.head is not None
        return c_skip[:, None] * x + c_out[:, None] * (hidden @ self.head)


def with_term(network: Any, term: Term | None) -> Any:
    """A network with a term in training; the network itself without one, or if it has it already.

    Raises:
        UserError: see `WithTerm`.
    """
    return network if term is None or isinstance(network, WithTerm) else WithTerm(network, term)


def dispersion(hidden: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """ln of the mean over all pairs, a row with itself too, of exp(-|h - h'|^2 / (d t)), for h of shape (n, d)."""
    squares = hidden.square().sum(1)
    distance = (squares[:, None] + squares - 2 * hidden @ hidden.T).clamp_min(0)
    n, d = hidden.shape
    return (-distance / (d * temperature)).flatten().logsumexp(0) - 2 * math.log(n)
