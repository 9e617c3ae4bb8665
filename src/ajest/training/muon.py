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
#: Numbers of the matrices that are made orthogonal together, so that memory does not grow with the network.
_TOGETHER = 1 << 24


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
        alike: dict[object, list[Tensor]] = defaultdict(list)
        for p in moved:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            alike[_rows_and_columns(p), p.device, p.dtype].append(p)
        for found in alike.values():
            together = max(1, _TOGETHER // found[0].numel())
            for start in range(0, len(found), together):
                self._step_alike(found[start : start + together], group["lr"], group["momentum"])

    def _step_alike(self, moved: list[Tensor], rate: float, b: float) -> None:
        """A step of weights that are matrices of one shape."""
        gradients = [p.grad for p in moved if p.grad is not None]
        kept = [self.state[p]["momentum_buffer"] for p in moved]
        torch._foreach_lerp_(kept, gradients, 1 - b)
        ahead = torch._foreach_lerp(gradients, kept, b)
        steps = orthogonal(torch.stack([_matrix(x, p) for x, p in zip(ahead, moved, strict=True)]))
        size = rate * _SIZE * max(steps.shape[1:]) ** 0.5
        for p, step in zip(moved, steps, strict=True):
            p.add_(_weight(step, p), alpha=-size)


def orthogonal(x: Tensor) -> Tensor:
    """Matrices with all singular values between about 0.7 and 1.2, and the singular vectors that they had; of shape
    (k, m, n) and the type of x. By an odd polynomial of the matrix, five times over."""
    wide = x.mT if x.shape[1] > x.shape[2] else x
    wide = wide.to(_type_on(x.device))
    wide = wide / torch.linalg.matrix_norm(wide.float(), keepdim=True).clamp_min(1e-7).to(wide.dtype)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        square = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(square, square, square, beta=b, alpha=c), wide, beta=a)
    return (wide.mT if x.shape[1] > x.shape[2] else wide).to(x.dtype)


def _type_on(device: torch.device) -> torch.dtype:
    """What matrices are made orthogonal in, which need few digits."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def _rows_and_columns(p: Tensor) -> tuple[int, int]:
    return len(p), p.numel() // len(p)


def _matrix(tensor: Tensor, like: Tensor) -> Tensor:
    """A weight's gradient as a matrix (outputs, all else), without a copy where it lies as the weight does."""
    return (tensor if like.is_contiguous() else tensor.movedim(1, -1)).reshape(len(tensor), -1)


def _weight(matrix: Tensor, like: Tensor) -> Tensor:
    """What `_matrix` made, of a weight's shape again."""
    if like.is_contiguous():
        return matrix.reshape(like.shape)
    return matrix.reshape(like.movedim(1, -1).shape).movedim(-1, 1)
