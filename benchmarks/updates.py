"""What an update of the weights takes: Muon of ours, torch's, and Adam, on the networks of the presets.

    python benchmarks/updates.py [--rounds 40] [--device cuda] > table.md

All are timed in turns, on one core of a CPU. Torch's Muon takes matrices alone: it gets kernels as those of their
outputs, so that both do the same work.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

import torch
from torch import nn

from ajest.tasks import Task
from ajest.tasks.images.architecture import SIZES
from ajest.tasks.images.setup import image_task
from ajest.tasks.tree.task import TreeTask
from ajest.tasks.vectors.setup import vectors_task
from ajest.training.muon import Muon
from timing import Row, print_tables, timed

_RATE = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print_tables([rows], asked.device, asked.rounds)


def rows(device: str, rounds: int) -> list[Row]:
    """Ours against either yardstick, for each network."""
    tasks: dict[str, Task] = {"the tree": TreeTask(), "digits": vectors_task(("digits",))}
    for size in ("nano", "mini"):
        tasks[f"images, {size}"] = image_task(("shapes:128",), resolution=16, learner=SIZES[size])
    found = []
    for name, task in tasks.items():
        weights = [p for p in task.network("learner", 0).to(device).parameters() if p.ndim > 1]
        steps: dict[str, Callable[[], object]] = {
            "ours": _step(Muon(_trained(weights), lr=_RATE)),
            "torch's": _step(torch.optim.Muon(_trained([w.flatten(1) for w in weights]), lr=_RATE, weight_decay=0.0)),
            "Adam": _step(torch.optim.Adam(_trained(weights), lr=_RATE, fused=True)),
        }
        seconds = timed(steps, rounds, device)
        for yardstick, what in (("torch's", "Muon of torch"), ("Adam", "Adam")):
            ratio = seconds[yardstick] / seconds["ours"]
            said = f"{ratio:.1f} times as fast" if ratio >= 1 else f"{1 / ratio:.1f} times as long"
            many = f"Muon, {name}, {len(weights)} matrices; {what}"
            found.append((many, f"{1e3 * seconds['ours']:.2f} ms", f"{1e3 * seconds[yardstick]:.2f} ms", said))
    return found


def _trained(weights: Iterable[torch.Tensor]) -> list[nn.Parameter]:
    """Copies with gradients."""
    copies = [nn.Parameter(w.detach().clone()) for w in weights]
    for copy in copies:
        copy.grad = torch.randn_like(copy)
    return copies


def _step(optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    return lambda: optimizer.step()


if __name__ == "__main__":
    main()
