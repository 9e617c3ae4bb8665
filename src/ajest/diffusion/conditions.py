"""Conditions of examples, and what stands where there is none.

The label of a `Batch` is passed on to the network as it is: class numbers, shape (n,), int64; or embeddings, floats of
shape (n, d), or (n, l, d) such as the features of a text. An example that has lost its label has -1 for a class, and
zeros for an embedding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ajest.errors import check


def check_droppable(label: Tensor) -> None:
    """Make sure that a label of this kind can say that there is none.

    Raises:
        UserError: it is a plain number, whose zero means something.
    """
    check(
        not _plain(label),
        f"labels of shape {(*label.shape,)} that are no class numbers cannot be dropped: give embeddings of shape "
        "(N, d), whose zeros are none",
    )


def drop(label: Tensor, dropped: Tensor) -> Tensor:
    """Labels of which some are lost.

    Args:
        label: shape (n, ...).
        dropped: which, bool, shape (n,).
    """
    return torch.where(dropped.view(-1, *[1] * (label.dim() - 1)), _none(label), label)


def is_none(label: Tensor) -> Tensor:
    """Which labels are lost ones, bool, shape (n,)."""
    if _plain(label):
        return torch.zeros_like(label, dtype=torch.bool)
    lost = label == 0 if label.is_floating_point() else label < 0
    return lost.flatten(1).all(1) if label.dim() > 1 else lost


def without(label: Tensor | None) -> Tensor | None:
    """What a network is asked with in the place of these labels to answer without: None in the place of class numbers
    and plain numbers, lost ones in the place of embeddings."""
    return torch.zeros_like(label) if label is not None and label.is_floating_point() and label.dim() > 1 else None


class LearnedNull(nn.Module):
    """A network whose lost or absent embeddings are replaced by one that is learned, as in classifier-free guidance
    (arXiv 2207.12598).

    Args:
        network: called with x, a noise level or time of shape (n,), and embeddings; it is given some at every call.
        shape: of the embedding of one example, (d,) or (l, d).
    """

    def __init__(self, network: Callable[[Tensor, Tensor, Tensor], Tensor], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.null = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
        """What the network answers; `label` has shape (n, *shape) or is None.

        Raises:
            UserError: embeddings of another shape.
        """
        null = self.null.expand(len(x), *self.null.shape)
        if label is None:
            return self.network(x, level, null)
        check(label.shape == null.shape, f"embeddings have shape {(*label.shape,)}, not {(*null.shape,)} as learned")
        lost = is_none(label).view(-1, *[1] * (label.dim() - 1))
        return self.network(x, level, torch.where(lost, null.to(label.dtype), label))


def _plain(label: Tensor) -> bool:
    """Whether labels are plain numbers, such as a temperature."""
    return label.is_floating_point() and label.dim() == 1


def _none(label: Tensor) -> Tensor:
    return label.new_zeros(()) if label.is_floating_point() else label.new_full((), -1)
