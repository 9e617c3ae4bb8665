"""Pairings: which noise an example gets, of several that were drawn (docs/method.md#pairing).

The literature calls it the coupling of noise and data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ajest.errors import check

from .ingredients import Ingredients, by_example
from .parameters import Function, check_named, words_of

#: A sampler starts from x0 + sigma_max eps with eps independent of x0. Paired ones differ from that by at most
#: 2 sigma_data / sigma_max in variance, so with less than this many sigma_data it starts from other points.
LEAST_START = 50.0


def assignment(x0: Tensor, noise: Tensor) -> Tensor:
    """The pairs whose squared distances have the least sum: immiscible diffusion's linear assignment (arXiv
    2406.12303); for equally many of equal weight also the plan of optimal transport (arXiv 2302.00482)."""
    from scipy.optimize import linear_sum_assignment  # whose import takes longer than most of what needs none of it

    pool = noise.flatten(0, 1)
    distance = pool.square().sum(1) - 2 * x0 @ pool.T  # and |x0|^2, which is the same for all of a row
    return torch.from_numpy(linear_sum_assignment(distance.cpu().numpy())[1]).to(x0.device)


def nearest(x0: Tensor, noise: Tensor) -> Tensor:
    """The nearest of each example's own noises (arXiv 2505.18521)."""
    count, own, _ = noise.shape
    distance = torch.linalg.vector_norm(noise, dim=2).square() - 2 * torch.bmm(noise, x0[:, :, None])[:, :, 0]
    return torch.arange(0, count * own, own, device=x0.device) + distance.argmin(1)


#: Of examples, shape (n, d), and noises drawn for each, shape (n, k, d), its own first: the number of the noise that
#: each gets among all n k of them, shape (n,), int64.
PAIRINGS: dict[str, Function] = {"assignment": assignment, "nearest": nearest}


@dataclass(frozen=True)
class Pairing:
    """A choice of noise by the example. It changes what is learned: see docs/method.md#pairing.

    Attributes:
        name: of a registered pairing.
        among: consecutive examples that are paired together, those of a class by themselves; 1 looks at each alone.
        candidates: noises drawn for each example.
        with_replacement: draw pairs from those found, with replacement, as minibatch optimal transport does.
        norms_only: keep the direction of the example's own noise, and take the length alone of the one that it would
            have got: a control, in which nothing is nearer.
        parameters: of the pairing, in its order.
    """

    name: str
    among: int = 1
    candidates: int = 1
    with_replacement: bool = False
    norms_only: bool = False
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_named("pairing", self.name, PAIRINGS, self.parameters, leading=2)
        check(
            min(self.among, self.candidates) >= 1 and self.among * self.candidates > 1,
            f"pairing {self.name!r}: {self.candidates} noises for each of {self.among} examples leave nothing to "
            "choose: set among or candidates to 2 or more",
        )
        check(
            self.among > 1 or not self.with_replacement,
            f"pairing {self.name!r}: pairs of one example cannot be drawn with replacement: set among",
        )

    def __str__(self) -> str:
        words = [
            words_of(self.name, *self.parameters),
            f"among {self.among}" if self.among > 1 else "",
            f"of {self.candidates}" if self.candidates > 1 else "",
            "with replacement" if self.with_replacement else "",
            "norms" if self.norms_only else "",
        ]
        return " ".join(word for word in words if word)

    def paired(self, parts: Ingredients, noise: Tensor, among: int) -> Ingredients:
        """The ingredients with the noise that each example gets.

        Args:
            parts: whole groups of `among`.
            noise: `candidates` for each, shape (n, k, ...); the first is replaced by the example's own.
            among: consecutive examples that are paired together.

        Raises:
            UserError: the examples have conditions that are no classes, so that none has others of its own.
        """
        noise[:, 0] = parts.eps
        pool = noise.flatten(2)
        index = self._index(parts.x0.flatten(1), pool, parts.label, among)
        given = pool.flatten(0, 1)[index].view_as(parts.eps)
        if self.norms_only:
            wanted, own = (torch.linalg.vector_norm(eps.flatten(1), dim=1) for eps in (given, parts.eps))
            given = parts.eps * by_example(wanted / own, given)
        return replace(parts, eps=given)

    def _index(self, x0: Tensor, noise: Tensor, label: Tensor | None, among: int) -> Tensor:
        pair = PAIRINGS[self.name]
        if among == 1:
            return pair(x0, noise, *self.parameters)
        numbers = torch.arange(noise.shape[0] * noise.shape[1], device=x0.device).view(noise.shape[:2])
        found = numbers.new_empty(len(x0))
        for members in _groups(len(x0), among, label):
            members = members.to(x0.device)
            chosen = pair(x0[members], noise[members], *self.parameters)
            found[members] = numbers[members].flatten()[chosen]
        return found


def _groups(count: int, among: int, label: Tensor | None) -> Iterator[Tensor]:
    """The numbers of examples that are paired together, of each group."""
    if label is None:
        yield from torch.arange(count).split(among)
        return
    check(
        label.dim() == 1 and not label.is_floating_point(),
        "noise is paired within a class, and these examples have conditions that are none: take a pairing of each "
        "example alone, such as nearest",
    )
    for start, part in zip(range(0, count, among), label.cpu().split(among), strict=True):
        for one in part.unique():
            yield start + torch.nonzero(part == one).flatten()
