"""Embeddings as conditions, guided both ways at once: python examples/captions.py [--steps 600]

Each point of a ring is described by two features of its angle, as a picture would be by features of its caption. A
tenth of the descriptions is dropped. Samples of one description are then drawn with both guidances.
"""

import argparse
from functools import partial

import torch
from torch import Tensor, nn

from ajest import PowerEMA, per_example_loss, sample, sigma_schedule
from ajest.diffusion import LearnedNull, LogNormal
from ajest.tasks import Guided, TensorSource


class Described(nn.Module):
    """Yours, any: `label` holds embeddings, shape (n, 2); sequences of shape (n, length, d) pass through likewise."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.point, self.text, self.last = nn.Linear(3, width), nn.Linear(2, width), nn.Linear(width, 2)

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        sigma = sigma[:, None]
        scale = (1 + sigma**2).sqrt()
        hidden = self.point(torch.cat([x / scale, sigma.log() / 4], 1)) + self.text(label)
        return x / scale**2 + sigma / scale * self.last(nn.functional.silu(hidden))


def train(width: int, steps: int, source: TensorSource, seed: int) -> nn.Module:
    """The average of a network's weights; `LearnedNull` puts what it learns in the place of dropped descriptions."""
    torch.manual_seed(seed)
    network = LearnedNull(Described(width), (2,))
    adam, ema = torch.optim.Adam(network.parameters(), lr=1e-2), PowerEMA(network, widths=(0.1,))
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        batch = source.complete(source.draw(512, generator))
        per_example_loss(network(batch.x, batch.sigma, batch.label), batch).mean().backward()
        adam.step()
        adam.zero_grad()
        ema.update(step + 1)
    return ema[0.1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    steps = parser.parse_args().steps
    generator = torch.Generator().manual_seed(0)
    angle = 2 * torch.pi * torch.rand(4000, generator=generator)
    described = torch.stack([angle.cos(), angle.sin()], 1)
    x0 = described + 0.2 * torch.randn(4000, 2, generator=generator)
    source = TensorSource(x0, LogNormal(-1.2, 1.2), label=described, label_dropout=0.1)
    main_network, guide = train(64, steps, source, 1), train(8, steps // 4, source, 2)
    start, label = 10 * torch.randn(2000, 2, generator=generator), torch.tensor([[1.0, 0.0]]).expand(2000, 2)
    drawn = partial(sample, start=start, sigmas=sigma_schedule(steps=16, sigma_max=10), label=label)
    for name, model in {
        "alone": Guided(main_network),
        "classifier-free": Guided(main_network, cfg=1.5),
        "both": Guided(main_network, guide, weight=1.5, cfg=1.5),
    }.items():
        x = drawn(model.denoiser)
        print(f"{name}: samples lie at {x[:, 0].mean():.2f}, {x[:, 1].mean():.2f}, spread {x.std(0).mean():.2f}")


if __name__ == "__main__":
    main()
