"""Muon: steps of momentum that are made orthogonal (arXiv 2502.16982), for matrices and for kernels of convolutions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

#: Of the polynomial whose iteration takes all singular values to between 0.7 and 1.2, and how often: torch's own.
_COEFFICIENTS = 3.4445, -4.775, 2.0315
_ITERATIONS = 5
#: A step has this root mean square, which is about that of Adam's (arXiv 2502.16982, section 2.2).
_SIZE = 0.2


class Muon(torch.optim.Optimizer):
    """With a matrix W of m x n, its gradient g and Nesterov's momentum:

        v += (1 - b) (g - v);  W -= 0.2 sqrt(max(m, n)) lr O((1 - b) g + b v)

    where O sets singular values to about 1. A weight of more than two dimensions is the matrix (outputs, all else):
    that is what a kernel multiplies each patch by. No weight decay. One rate does for these steps and Adam's.

    As `torch.optim.Muon`, which takes matrices alone, one by one, and always computes in bfloat16: many processors
    take several times as long for that. Here matrices of one shape go together, and in float32 on a CPU.

    Args:
        parameters: to be trained, of two dimensions or more.
        lr: may be set anew before each step.
        momentum: b.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """A step by the gradients that are there."""
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if moved:
                self._step(moved, group)

    def _step(self, moved: list[Tensor], group: dict[str, Any]) -> None:
        for p in moved:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        kept, b = [self.state[p]["momentum"] for p in moved], group["momentum"]
        gradients = [p.grad for p in moved if p.grad is not None]
        torch._foreach_lerp_(kept, gradients, 1 - b)
        alike: dict[tuple[torch.Size, torch.device], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for p, ahead in zip(moved, torch._foreach_lerp(gradients, kept, b), strict=True):
            matrix = _matrix(ahead, p)
            alike[matrix.shape, matrix.device].append((p, matrix))
        for (shape, _), found in alike.items():
            steps = orthogonal(torch.stack([matrix for _, matrix in found]))
            for (p, _), step in zip(found, steps, strict=True):
                p.add_(_weight(step, p), alpha=-group["lr"] * _SIZE * max(shape) ** 0.5)


def orthogonal(x: Tensor) -> Tensor:
    """Matrices with all singular values between about 0.7 and 1.2, and the singular vectors that they had; of shape
    (k, m, n) and the type of x. By an odd polynomial of the matrix, five times over."""
    wide = x.mT if x.shape[1] > x.shape[2] else x
    wide = wide.to(torch.float32 if x.device.type == "cpu" else torch.bfloat16)
    wide = wide / torch.linalg.matrix_norm(wide.float(), keepdim=True).clamp_min(1e-7).to(wide.dtype)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        square = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(square, square, square, beta=b, alpha=c), wide, beta=a)
    return (wide.mT if x.shape[1] > x.shape[2] else wide).to(x.dtype)


def _matrix(tensor: Tensor, like: Tensor) -> Tensor:
    """A weight's gradient as a matrix (outputs, all else), without a copy where it lies as the weight does."""
    return (tensor if like.is_contiguous() else tensor.movedim(1, -1)).reshape(len(tensor), -1)


def _weight(matrix: Tensor, like: Tensor) -> Tensor:
    """What `_matrix` made, of a weight's shape again."""
    if like.is_contiguous():
        return matrix.reshape(like.shape)
    return matrix.reshape(like.movedim(1, -1).shape).movedim(-1, 1)
