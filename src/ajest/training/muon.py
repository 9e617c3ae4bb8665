"""Muon for networks of convolutions, whose kernels are matrices to it (arXiv 2502.16982)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class KernelMuon(torch.optim.Muon):
    """Muon, to which a weight of more than two dimensions is the matrix (outputs, all else): that is what a kernel
    multiplies each patch by. A matrix is one already.

    Its steps are as large as Adam's (arXiv 2502.16982, section 2.2), so that one rate does for both.

    Args:
        parameters: to be trained, of two dimensions or more.
        lr: may be set anew before each step.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        self._whole = list(parameters)
        matrices = [nn.Parameter(_matrix(p.detach(), p)) for p in self._whole]
        super().__init__(matrices, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """A step by the gradients that are there."""
        matrices = self.param_groups[0]["params"]
        for whole, matrix in zip(self._whole, matrices, strict=True):
            matrix.grad = None if whole.grad is None else _matrix(whole.grad, whole)
        super().step()
        super().zero_grad(set_to_none=True)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As torch's, of the parameters that were named."""
        for whole in self._whole:
            if set_to_none:
                whole.grad = None
            elif whole.grad is not None:
                whole.grad.zero_()


def _matrix(tensor: Tensor, like: Tensor) -> Tensor:
    """A parameter or its gradient as a matrix, in the same storage where it lies as the parameter does."""
    return (tensor if like.is_contiguous() else tensor.movedim(1, -1)).reshape(len(tensor), -1)
