"""A residual MLP as a denoiser, with the preconditioning of EDM or a prediction of another kind."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ajest.diffusion.objectives.parametrisations import parametrisation_named

FREQUENCIES = 32  # of the noise level, each a sine and a cosine
SKETCH = 64  # numbers in a sketch of a gradient


def _linear(fan_in: int, fan_out: int, generator: torch.Generator | None, gain: float = 1.0) -> nn.Linear:
    """A layer of weights N(0, gain^2 / fan_in), drawn on the CPU, and biases 0."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, fan_in, fan_out)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(fan_out, fan_in, generator=generator).mul_(gain / fan_in**0.5))
        layer.bias.zero_()
    return layer


class _Block(nn.Module):
    """`h + W2 silu(LN(W1 h) * (1 + a) + b)`, a and b linear in the embedding; an untrained one is the identity."""

    def __init__(self, hidden: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.inner = _linear(hidden, hidden, generator)
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False)
        self.modulate = _linear(hidden, 2 * hidden, generator, 0.1)
        self.outer = _linear(hidden, hidden, generator, 0.0)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulate(embedding).chunk(2, 1)
        return h + self.outer(silu(torch.addcmul(shift, self.norm(self.inner(h)), 1 + scale)))


class VectorDenoiser(nn.Module):
    """`D(x) = c_skip x + c_out F(c_in x, c_noise)` (EDM, arXiv 2206.00364, equation 7 and table 1), F an MLP. Where F
    predicts something else, c_skip and c_out are of that (docs/method.md#objectives).

    Random Fourier features of `c_noise = ln(sigma) / 4` and an embedding of the label modulate its residual blocks.
    The last layer begins at 0, so that an untrained network answers `c_skip x`.

    Args:
        dimensions: of the vectors, d.
        classes: numbers of labels; 0 for none. A label of -1, and no label at all, is the unconditional one.
        hidden: width.
        blocks: residual blocks.
        sigma_data: standard deviation of the data.
        generator: for the initial weights (drawn on the CPU).
        objective: what F predicts, a name in `ajest.diffusion.PARAMETRISATIONS`.
    """

    frequencies: Tensor

    def __init__(
        self,
        dimensions: int,
        classes: int = 0,
        hidden: int = 128,
        blocks: int = 4,
        sigma_data: float = 1.0,
        generator: torch.Generator | None = None,
        objective: str = "edm",
    ) -> None:
        super().__init__()
        self.sigma_data = sigma_data
        self._predicts = None if objective == "edm" else parametrisation_named(objective)
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(FREQUENCIES, generator=generator))
        self.level = _linear(2 * FREQUENCIES, hidden, generator)
        # The row after the last class is that of no label.
        self.label = nn.Parameter(torch.randn(classes + 1, hidden, generator=generator)) if classes else None
        self.first = _linear(dimensions, hidden, generator)
        self.blocks = nn.ModuleList(_Block(hidden, generator) for _ in range(blocks))
        self.norm = nn.LayerNorm(hidden)
        self.last = _linear(hidden, dimensions, generator, 0.0)

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """The denoised x, shape (n, d), for sigma of shape (n,) and labels of shape (n,), int64, or None."""
        return self._denoised(x, sigma, self._hidden(x, sigma, label)[0])

    @property
    def middle_shape(self) -> tuple[int, int]:
        """(numbers in the middle layer, coordinates)."""
        return self.last.in_features, self.last.out_features

    def middle(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(the denoised x, what the blocks before the middle make of it, normalised, shape (n, hidden))."""
        hidden, middle = self._hidden(x, sigma, label)
        return self._denoised(x, sigma, hidden), silu(self.norm(middle))

    def sketched(
        self, x: Tensor, sigma: Tensor, label: Tensor | None, target: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(denoised x, sketch of shape (n, 64) of the gradient of each example's loss for the last layer's weights).

        That gradient is the outer product of the error and the last hidden layer; random signs on both sides make
        inner products of sketches estimate those of gradients.
        """
        hidden, _ = self._hidden(x, sigma, label)
        denoised = self._denoised(x, sigma, hidden)
        error = (denoised - target) * (weight * self._scales(sigma)[1])[:, None]
        signs = torch.Generator().manual_seed(0)
        left, right = (
            (torch.randint(2, (part.shape[1], SKETCH), generator=signs) * 2.0 - 1).to(part) for part in (error, hidden)
        )
        return denoised, (error @ left) * (hidden @ right) / SKETCH**0.5

    def flops(self) -> int:
        """Floating-point operations of denoising one example, in its matrix products; backward costs twice as many."""
        return sum(2 * layer.weight.numel() for layer in self.modules() if isinstance(layer, nn.Linear))

    def sketch_flops(self) -> int:
        """Operations of `sketched` for one example."""
        return self.flops() + 2 * SKETCH * (self.last.in_features + self.last.out_features)

    def _scales(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c_skip, c_out, c_in, shape (n,) each."""
        c_in = torch.rsqrt(sigma.square() + self.sigma_data**2)
        if self._predicts is None:
            return (self.sigma_data * c_in).square(), sigma * self.sigma_data * c_in, c_in
        skip, out = self._predicts.coefficients(sigma / self.sigma_data)
        return skip, self.sigma_data * out, c_in

    def _denoised(self, x: Tensor, sigma: Tensor, hidden: Tensor) -> Tensor:
        c_skip, c_out, _ = self._scales(sigma)
        return c_skip[:, None] * x + c_out[:, None] * self.last(hidden)

    def _hidden(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """(the last hidden layer, the stream in the middle), shape (n, hidden)."""
        angles = (sigma.log() / 4)[:, None] * self.frequencies
        embedding = self.level(torch.cat([angles.cos(), angles.sin()], 1) * 2**0.5)
        if self.label is not None:
            nobody = len(self.label) - 1
            known = sigma.new_full((len(x),), nobody, dtype=torch.int64) if label is None else label
            embedding = embedding + self.label[torch.where(known < 0, nobody, known)]
        embedding = silu(embedding)
        h = self.first(x * self._scales(sigma)[2][:, None])
        middle = h
        for i, block in enumerate(self.blocks):
            if i == len(self.blocks) // 2:
                middle = h
            h = block(h, embedding)
        return silu(self.norm(h)), middle
