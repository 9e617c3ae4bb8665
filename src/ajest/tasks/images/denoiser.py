"""The EDM2 denoiser: a raw network, its preconditioning and its uncertainty head (docs/method.md#preconditioning)."""

from __future__ import annotations

import copy
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ajest.diffusion.objectives.parametrisations import parametrisation_named
from ajest.runtime.compiling import uncompiled

from .layers import Embedding, MPConv, MPFourier, renormalise

UNCERTAINTY_CHANNELS = 128


class EDM2Denoiser(nn.Module):
    """Preconditioning around a raw network, and the uncertainty head of training (EDM2 section 2 and equation 21).

    Args:
        unet: a raw network F, see `Embedding`.
        shape: (channels, height, width) of its images.
        sigma_data: standard deviation of the data.
        precision: in which `unet` computes; weights and preconditioning stay in float32.
        generator: for the head's initial weights.
        objective: what F predicts, a name in `ajest.diffusion.PARAMETRISATIONS` (docs/method.md#objectives).
    """

    def __init__(
        self,
        unet: Embedding,
        shape: tuple[int, int, int],
        sigma_data: float = 0.5,
        precision: torch.dtype = torch.float32,
        generator: torch.Generator | None = None,
        objective: str = "edm",
    ) -> None:
        super().__init__()
        self._predicts = None if objective == "edm" else parametrisation_named(objective)
        self.unet, self.shape, self.sigma_data, self.precision = unet, shape, sigma_data, precision
        self.logvar_fourier = MPFourier(UNCERTAINTY_CHANNELS, generator)
        self.logvar_linear = MPConv(UNCERTAINTY_CHANNELS, 1, 0, generator)

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """The denoised x in float32, shape of `x`; `sigma` has shape (n,)."""
        if self.training and torch.is_grad_enabled():
            renormalise(self._layers)
        x, level, scale = self._scaled(x, sigma)
        raw = self.unet((x * scale).to(self.precision), sigma.float().log() / 4, label)
        return self._denoised(x, raw, level, scale)

    @property
    def raw(self) -> Embedding:
        """The network without its preconditioning, which is what may be compiled."""
        return self.unet

    def sketched(
        self, x: Tensor, sigma: Tensor, label: Tensor | None, target: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(denoised x, sketch of shape (n, d) of the gradient of each example's loss for the last layer's weights).

        The sketch has the weights that act at a pixel itself, summed over pixels: (output channels) x (input
        channels) numbers, without the weights of neighbouring pixels.
        """
        x, level, scale = self._scaled(x, sigma)
        raw, hidden = self.unet((x * scale).to(self.precision), sigma.float().log() / 4, label, True)
        denoised = self._denoised(x, raw, level, scale)
        error = (denoised - target) * (weight[:, None, None, None] * self._coefficients(level, scale)[1])
        error = functional.pixel_unshuffle(error, self.unet.patch).flatten(2)
        return denoised, torch.einsum("ncp,nkp->nck", error, hidden.float()).flatten(1)

    def _scaled(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(x, sigma and c_in, both of shape (n, 1, 1, 1)) in float32."""
        level = sigma.float()[:, None, None, None]
        return x.float(), level, torch.rsqrt(level.square() + self.sigma_data**2)

    def _denoised(self, x: Tensor, raw: Tensor, level: Tensor, scale: Tensor) -> Tensor:
        skip, out = self._coefficients(level, scale)
        return x * skip + raw.float() * out

    def _coefficients(self, level: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """c_skip and c_out, of the shape of `level`."""
        if self._predicts is None:
            return (self.sigma_data * scale).square(), level * self.sigma_data * scale
        skip, out = self._predicts.coefficients(level / self.sigma_data)
        return skip, self.sigma_data * out

    @cached_property
    def _layers(self) -> list[MPConv]:
        """All layers whose weights are normalised."""
        return [module for module in self.modules() if isinstance(module, MPConv)]

    def uncertainty(self, sigma: Tensor) -> Tensor:
        """u(sigma), the learned log-variance of the loss at a noise level, shape (n,)."""
        return self.logvar_linear(self.logvar_fourier(sigma.log() / 4))[:, 0]

    def flops(self) -> int:
        """Floating-point operations of denoising one example; backward costs twice as many again."""
        return self._flops

    def sketch_flops(self) -> int:
        """Operations of `sketched` for one example: what it adds to a forward pass is as little as one convolution."""
        return self.flops()

    @cached_property
    def _flops(self) -> int:
        """Counted on a copy that has shapes and no numbers, once for all networks that are made alike."""
        made = _structure(self)
        if made in _FLOPS:
            return _FLOPS[made]
        shell = copy.deepcopy(self).to("meta").eval()
        x, sigma = torch.empty(1, *self.shape, device="meta"), torch.empty(1, device="meta")
        embedding = shell.unet.emb_label if isinstance(shell.unet, Embedding) else None
        label = None if embedding is None else torch.empty(1, embedding.weight.shape[1], device="meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad(), uncompiled():
            shell(x, sigma, label)
        return _FLOPS.setdefault(made, int(counter.get_total_flops()))


#: Operations by how a network is made: a bench has many that are alike, and counting takes as long as several steps.
_FLOPS: dict[tuple[object, ...], int] = {}


def _structure(network: nn.Module) -> tuple[object, ...]:
    """What operations hang on: all modules, shapes of their tensors and their settings."""
    return tuple(
        (
            name,
            type(module),
            *(tuple(tensor.shape) for tensor in (*module.parameters(False), *module.buffers(False))),
            *(
                (key, value)
                for key, value in vars(module).items()
                if key != "training" and isinstance(value, int | float | str | tuple)
            ),
        )
        for name, module in network.named_modules()
    )
