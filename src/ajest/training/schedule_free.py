"""AdamW without a schedule of the learning rate, and the average that it keeps (arXiv 2405.15682, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ajest.diffusion.ema import PowerEMA


class ScheduleFree(torch.optim.Optimizer):
    """Gradients are taken at y, steps at z, and what is sampled from is their running mean x:

        y = (1 - b1) z + b1 x;  v = b2 v + (1 - b2) g(y)^2;  z -= c g / (sqrt(v) + eps), c = lr sqrt(1 - b2^t)
        x += c^2 / (c_1^2 + ... + c_t^2) (z - x)

    Between steps the parameters are y. No weight decay. A parameter has a gradient at every step or at none.

    Args:
        parameters: to be trained.
        lr: may be set anew before each step.
        betas: b1 and b2.
        eps: beside the root of v.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-8
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """A step by the gradients that are there; none at a rate of 0."""
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if moved and group["lr"]:
                self._step(moved, group)

    def _step(self, moved: list[Tensor], group: dict[str, Any]) -> None:
        for p in moved:
            if not self.state[p]:
                begins = {"z": p.detach().clone(), "x": p.detach().clone(), "v": torch.zeros_like(p)}
                # torch keeps a "step" as it is, on the CPU: number of steps, and the sum of c^2 so far.
                self.state[p].update(begins, step=torch.zeros(2, dtype=torch.float64))
        z, x, v, steps = ([self.state[p][key] for p in moved] for key in ("z", "x", "v", "step"))
        g, (b1, b2) = [p.grad for p in moved if p.grad is not None], group["betas"]
        c = group["lr"] * (1 - b2 ** (steps[0][0].item() + 1)) ** 0.5
        torch._foreach_add_(steps, [torch.tensor([1.0, c**2], dtype=torch.float64)] * len(steps))
        torch._foreach_mul_(v, b2)
        torch._foreach_addcmul_(v, g, g, 1 - b2)
        root = torch._foreach_sqrt(v)
        torch._foreach_add_(root, group["eps"])
        torch._foreach_addcdiv_(z, g, root, -c)
        torch._foreach_lerp_(x, z, c**2 / steps[0][1].item())
        torch._foreach_copy_(moved, torch._foreach_lerp(z, x, b1))

    def averages(self, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        """x of each; before its first step the parameter itself."""
        return [self.state[p]["x"] if p in self.state else p for p in parameters]


class OwnAverage(PowerEMA):
    """The optimizer's own average in the place of every width. Buffers are those of the network in training.

    Args:
        network, widths: see `PowerEMA`.
        optimizer: whose average it is.
    """

    def __init__(self, network: nn.Module, widths: Sequence[float], optimizer: ScheduleFree) -> None:
        super().__init__(network, widths)
        self.optimizer = optimizer

    @torch.no_grad()
    def update(self, t_next: float, t_delta: float = 1.0) -> None:
        """Take over the present average; times say nothing here."""
        live = list(self.network.buffers()) if self._has_buffers else []
        own = [*self.optimizer.averages(self._parameters[0]), *live]
        for module, parameters in zip(self.averages.values(), self._parameters[1:], strict=True):
            torch._foreach_copy_([*parameters, *(module.buffers() if self._has_buffers else ())], own)
