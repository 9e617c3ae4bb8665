"""From a network of any parametrisation and process to a denoiser, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from ajest.diffusion.denoising import Denoiser
from ajest.diffusion.noising.ingredients import by_example
from ajest.errors import UserError, check

from .parametrisations import parametrisation_named
from .processes import Process

#: `network(z, time, label) -> prediction`: what a process shows, shape (n, ...); its times, shape (n,); any.
RawNetwork = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Preconditioned(nn.Module):
    """A denoiser D(x, sigma, label) = skip x + s out F(z, time, label) around a raw network F: an `ajest.Network`.

    Args:
        network: F, an `nn.Module` to be trained or a function; called with z, times of shape (n,) and the label.
        parametrisation: what F predicts, a name in `PARAMETRISATIONS`.
        process: what F is shown and told.

    Raises:
        UserError: an unknown parametrisation, or something else than a process.
    """

    def __init__(self, network: RawNetwork, parametrisation: str, process: Process) -> None:
        super().__init__()
        _check(parametrisation, process)
        self.network, self.parametrisation, self.process = network, parametrisation, process

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """The denoised x, in its shape and type; `sigma` has shape (n,)."""
        raw = self.network(self.process.shown(x, sigma), self.process.time(sigma), label)
        if raw.shape != x.shape:
            raise UserError(f"the network answers with shape {(*raw.shape,)} to an input of {(*x.shape,)}")
        skip, out = _coefficients(self.parametrisation, self.process, sigma, x)
        return skip * x + out * raw.to(x.dtype)


@dataclass(frozen=True)
class SeenAs:
    """A denoiser as a network of a parametrisation and process: `seen(z, time, label) -> prediction`.

    Attributes:
        denoiser: any, guided or not.
        parametrisation: what is to be predicted, a name in `PARAMETRISATIONS`.
        process: of z and of the times.
    """

    denoiser: Denoiser
    parametrisation: str
    process: Process

    def __post_init__(self) -> None:
        _check(self.parametrisation, self.process)

    def __call__(self, z: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """The prediction, of the shape of `z`; times have shape (n,).

        Raises:
            UserError: the process has no such time.
        """
        sigma = self.process.sigma(time)
        x = self.process.unshown(z, sigma)
        skip, out = _coefficients(self.parametrisation, self.process, sigma, x)
        return (self.denoiser(x, sigma, label) - skip * x) / out


def as_denoiser(network: RawNetwork, parametrisation: str, process: Process) -> Preconditioned:
    """A network of any parametrisation and process as a denoiser; see `Preconditioned`.

    Example: `as_denoiser(velocity, "flow", RectifiedFlow())`.
    """
    return Preconditioned(network, parametrisation, process)


def as_network(denoiser: Denoiser, parametrisation: str, process: Process) -> SeenAs:
    """A denoiser as a network of any parametrisation and process; see `SeenAs`. It undoes `as_denoiser`."""
    return SeenAs(denoiser, parametrisation, process)


def _check(parametrisation: str, process: Process) -> None:
    parametrisation_named(parametrisation)
    check(
        isinstance(process, Process),
        f"a process is one of ajest.diffusion.objectives, such as RectifiedFlow(), not {process!r}",
    )


def _coefficients(parametrisation: str, process: Process, sigma: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """(skip, s out), to be multiplied with examples such as `x`."""
    skip, out = parametrisation_named(parametrisation).coefficients(sigma / process.sigma_data)
    factor = process.sigma_data * (process.direction if parametrisation == "flow" else 1)
    return by_example(skip, x), by_example(factor * out, x)
