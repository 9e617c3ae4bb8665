"""A network with its optimiser: gradients of a batch, a step by them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ajest.diffusion.batch import Batch
from ajest.diffusion.denoising import objective, per_example_loss
from ajest.diffusion.ema import PowerEMA
from ajest.errors import check
from ajest.runtime import compiling, distributed, interrupts

from .muon import Muon
from .recipe import Recipe
from .schedule_free import OwnAverage, ScheduleFree


def optimizers_of(network: nn.Module, recipe: Recipe) -> dict[str, torch.optim.Optimizer]:
    """What makes the steps of a network's parameters, by the name that their states are kept under.

    Raises:
        UserError: Muon is to train a network without matrices.
    """
    parameters, rate, betas = list(network.parameters()), recipe.learning_rate.peak, recipe.betas
    if recipe.optimizer == "schedule-free":
        return {"schedule-free": ScheduleFree(parameters, lr=rate, betas=betas)}
    found: dict[str, torch.optim.Optimizer] = {}
    if recipe.optimizer == "muon":
        matrices, parameters = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim < 2]
        check(bool(matrices), "muon trains matrices, and this network has none: choose another optimizer")
        found["muon"] = Muon(matrices, lr=rate)
    if parameters:
        found["adam"] = torch.optim.Adam(parameters, lr=rate, betas=betas, fused=True)
    return found


class OptimizedNetwork:
    """A network with its optimizer.

    Args:
        network: to be trained, on its device.
        recipe: how.
    """

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        self.network, self.recipe = network.train(), recipe
        self._module = distributed.averaging(network)
        self.optimizers = optimizers_of(network, recipe)
        self.rate = recipe.learning_rate.peak  # of the step to come
        # To look for the weights of a small network takes longer than to copy them.
        self._parameters: list[Tensor] = list(network.parameters())
        self._has_buffers = any(True for _ in network.buffers())
        self._replayed = compiling.is_replayed(network)
        self._before: list[list[Tensor]] = []  # the step: weights and buffers, in storage that is used again
        self._undoable = False

    def gradients(
        self, batch: Batch, rate: float, weight: Tensor | None = None, total: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Forward and backward on these examples alone. Returns their losses, shape (n,): those of all processes, each
        of which has its `distributed.rank_slice` of them; and whether they and their gradient are finite, a bool on
        the device, for which whoever reads it waits.

        Until the `step` it can be undone, and is where it does not come to its end.

        Args:
            batch: what this process is to train on, completed.
            rate: the learning rate of the `step` to come.
            weight: importance weights of these, shape (n,), or None.
            total: examples of all processes; None: there is one.

        Raises:
            UserError: there are fewer examples than processes.
            KeyboardInterrupt: it was given up (see `interrupts`).
        """
        total = len(batch) if total is None else total
        check(total >= distributed.world(), f"{total} examples a step are too few for {distributed.world()} processes")
        self.rate = rate
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate
        self._remember()
        try:
            with interrupts.undoable():
                return self._gradients(batch, weight, total)
        except BaseException:
            self.undo()
            raise

    @torch.no_grad()
    def undo(self) -> None:
        """Be as before the last `gradients`, bit for bit: a network that normalises its own weights in each forward
        pass too. Without any since the last step there is nothing to undo."""
        self._drop_gradients()
        if self._undoable:
            for tensors, before in zip(self._tensors(), self._before, strict=True):
                torch._foreach_copy_(tensors, before)
        self._undoable = False

    @torch.no_grad()
    def _remember(self) -> None:
        if not self._before:
            self._before = [[torch.empty_like(tensor) for tensor in tensors] for tensors in self._tensors()]
        for tensors, before in zip(self._tensors(), self._before, strict=True):
            torch._foreach_copy_(before, tensors)
        self._undoable = True

    def _tensors(self) -> list[list[Tensor]]:
        """Weights, and buffers where there are any, which are often of another type."""
        return [self._parameters, *([list(self.network.buffers())] if self._has_buffers else [])]

    def _gradients(self, batch: Batch, weight: Tensor | None, total: int) -> tuple[Tensor, Tensor]:
        found = []
        size = self.recipe.micro_batch or len(batch)
        for i, part in enumerate(batch.split(size)):
            last = (i + 1) * size >= len(batch)
            with nullcontext() if last or self._module is self.network else self._module.no_sync():  # type: ignore[operator]
                losses = per_example_loss(self._module(part.x, part.sigma, part.label), part)
                minimised = objective(losses, part, self.network)
                if weight is not None:
                    minimised = minimised * weight[i * size : i * size + len(part)]
                # Gradients are averaged over processes, which may differ by an example.
                (minimised.sum() / (total / distributed.world())).backward()
            if i == 0 and self._replayed:
                self._own_gradients()
            found.append(losses.detach())
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        losses = distributed.gather(torch.cat(found), total)
        return losses, torch.isfinite(torch.stack(torch._foreach_norm(gradients)).sum() + losses.sum())

    def _own_gradients(self) -> None:
        """Gradients of a compiled network on CUDA lie where its next call writes, or that of a network beside it."""
        borrowed = {p: p.grad for p in self._parameters if p.grad is not None}
        owned = [torch.empty_like(gradient) for gradient in borrowed.values()]
        torch._foreach_copy_(owned, list(borrowed.values()))
        for parameter, gradient in zip(borrowed, owned, strict=True):
            parameter.grad = gradient

    def step(self, finite: bool) -> None:
        """A step by what `gradients` left, unless that is not finite and to be skipped. Buffers take nothing of a pass
        that is not finite: averages would keep it for good."""
        if not finite and self.recipe.not_finite != "zero":
            self.undo()
            return
        if not finite:
            self._zero()
        for optimizer in self.optimizers.values():
            optimizer.step()
        self._drop_gradients()
        self._undoable = False

    @torch.no_grad()
    def _zero(self) -> None:
        """Zeros in the place of gradients that are not finite, and buffers as they were."""
        for parameter in self._parameters:
            if parameter.grad is not None:
                torch.nan_to_num_(parameter.grad, nan=0.0, posinf=0.0, neginf=0.0)
        for buffers, before in zip(self._tensors()[1:], self._before[1:], strict=True):
            torch._foreach_copy_(buffers, before)

    def _drop_gradients(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def averages(self) -> PowerEMA:
        """Averages of its weights from here on, of the recipe's widths; or that of an optimizer that keeps its own."""
        own = self.optimizers.get("schedule-free")
        if isinstance(own, ScheduleFree):
            return OwnAverage(self.network, self.recipe.ema_widths, own)
        return PowerEMA(self.network, self.recipe.ema_widths)

    def state(self) -> dict[str, Tensor]:
        tensors = {f"network/{k}": v for k, v in self.network.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            for i, slots in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}/{i}/{k}": v for k, v in slots.items()}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        self.network.load_state_dict(strip_prefix("network/", tensors))
        for name, optimizer in self.optimizers.items():
            slots: dict[int, dict[str, Tensor]] = {}
            for key, value in strip_prefix(f"{name}/", tensors).items():
                index, slot = key.split("/")
                slots.setdefault(int(index), {})[slot] = value
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": slots, "param_groups": groups})
            _lay_out(optimizer)


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Let what an optimizer keeps of each weight lie in memory as the weight does, such as channels last: a file has
    all in one order, and fused steps pair numbers by where they lie."""
    for weight, slots in optimizer.state.items():
        for name, value in slots.items():
            if value.shape == weight.shape and value.stride() != weight.stride():
                slots[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def strip_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
