"""A network, data and metric of one's own, benched at equal time: python examples/custom_task.py"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ajest import LogNormal, sample, sigma_schedule
from ajest.bench import Bench
from ajest.tasks import LARGE, Evaluation, Guided, Measurement, Metric, Task, TensorSource, drawing_from, generator


class Network(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        scale = (1 + sigma[:, None] ** 2).sqrt()
        return x / scale**2 + sigma[:, None] / scale * self.layers(torch.cat([x / scale, sigma[:, None].log()], 1))


@dataclass(frozen=True)
class Ring(Task):
    name: str = "ring"
    metrics = (Metric("radius", "distance from the ring", "lower", "Mean distance of samples.", headline="both"),)

    def source(self, device: torch.device | str) -> TensorSource:
        angle = torch.linspace(0, 2 * torch.pi, 10_000)
        return TensorSource(torch.stack([angle.cos(), angle.sin()], 1), LogNormal(-1.2, 1.2), device=device)

    def network(self, role: str, seed: int) -> Network:
        with drawing_from(generator(seed, role, "weights")):  # weights follow from the seed
            return Network(64 if role in LARGE else 16)

    def evaluate(self, model: Guided, how: Measurement) -> Evaluation:
        start = 5 * torch.randn(how.n, 2, generator=generator(how.seed, "evaluation"))
        x = sample(model.denoiser, start.to(how.device), sigma_schedule(16, 5.0, 0.01))
        return Evaluation({"radius": (x.norm(dim=1) - 1).abs().mean().item()})


if __name__ == "__main__":
    print(Bench(Ring(), "quick").run("runs/ring"))
