"""A velocity network of one's own, learned by flow matching: python examples/flow_objective.py

Benches two arms at equal time, then samples along the flow's own time.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ajest import load_network
from ajest.bench import Bench
from ajest.diffusion import RectifiedFlow, as_denoiser, flow_times, sample_flow
from ajest.tasks import LARGE, drawing_from, generator
from ajest.tasks.vectors import VectorsTask, vectors_task


class Velocity(nn.Module):
    """Yours, any: it is shown z = (1 - t) x0 + t eps, is told t, and answers with eps - x0."""

    def __init__(self, d: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(d + 3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, d)
        )

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        t = t[:, None]
        return self.layers(torch.cat([z, t, (6.28 * t).sin(), (6.28 * t).cos()], 1))


@dataclass(frozen=True)
class Flow(VectorsTask):
    name: str = "flow"

    def network(self, role: str, seed: int) -> nn.Module:
        with drawing_from(generator(seed, role, "weights")):  # weights follow from the seed
            return as_denoiser(Velocity(self.dimensions, 128 if role in LARGE else 32), "flow", RectifiedFlow())


def make_task() -> VectorsTask:
    """Learned in the velocity's squared error, at logit-normal times: ln sigma ~ N(0, 1)."""
    return vectors_task(("two-moons",), kind=Flow, objective="flow", p_mean=0.0, p_std=1.0)


if __name__ == "__main__":
    print(Bench(make_task(), "quick", arms=("baseline", "random"), seeds=range(3)).run("runs/flow"))
    learned, _ = load_network(Path("runs/flow/arms/baseline/seed-0"))
    velocity = learned.get_submodule("network")  # yours itself, which knows pure noise
    print(sample_flow(velocity, torch.randn(4, 2), flow_times(32)))
