"""Noised pictures with their clean targets (docs/method.md#notation)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ajest.diffusion.batch import Batch
from ajest.diffusion.denoising import LogNormal, edm_weight
from ajest.errors import NotFinite, UserError
from ajest.runtime.seeding import substream

#: torch's CPU generator makes normals 16 at a time: a draw of fewer is no prefix of a longer one.
_UNIT = 16
#: Decoded pictures up to this many bytes live on the GPU.
_RESIDENT = 4 << 30


def check_levels(images: Tensor | np.ndarray) -> None:
    """Make sure that these are pictures of 8 bits. Numbers of another type are never guessed at.

    Raises:
        UserError: another type or shape than uint8 (N, channels, height, width); the message tells the range and the
            mend.
    """
    kind = str(images.dtype).removeprefix("torch.")
    if kind == "uint8" and images.ndim == 4:
        return
    text = f"images must be uint8 of shape (N, channels, height, width), not {kind} of {(*images.shape,)}"
    if kind != "uint8" and len(images):
        some = torch.as_tensor(images[:1024]).double()
        low, high = some.min().item(), some.max().item()
        mend = "bring them to levels from 0 to 255"
        if low >= 0 and high <= 255:
            mend = "multiply by 255, round" if high <= 1 else "round them to uint8"
        text += f" from {low:.4g} to {high:.4g}: {mend}"
    raise UserError(text)


def to_float(images: Tensor) -> Tensor:
    """uint8 pictures to float32 in [-1, 1].

    Raises:
        UserError: see `check_levels`.
    """
    check_levels(images)
    return images.float().div_(127.5).sub_(1)


def to_uint8(x: Tensor) -> Tensor:
    """Pictures in [-1, 1] to uint8, rounded and clipped.

    Raises:
        NotFinite: some are NaN, which would become black without a word.
    """
    if bool(x.isnan().any()):
        raise NotFinite("pictures are NaN: the network overflows; sample at a higher precision or with less guidance")
    return x.mul(127.5).add(127.5).round_().clamp_(0, 255).to(torch.uint8)


class ImageSource:
    """Draws `x = x0 + sigma eps`, x0 uniformly with replacement; `id` is the number of the picture.

    Picture and noise level are drawn on the CPU, so that all devices see the same; eps is drawn where it is used.

    Args:
        images: uint8, shape (N, channels, height, width); may be memory-mapped.
        labels: int64, shape (N,), or None.
        noise: distribution of the noise levels.
        sigma_data: standard deviation of the data, for the loss weight.
        flip: mirror every second picture, at random.
        device: where batches are wanted.
        label_dropout: share of examples whose label is -1, which is none. It is drawn with the example, so that
            learner, reference and all arms agree about it.

    Raises:
        UserError: images of another type or shape.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None,
        noise: LogNormal,
        sigma_data: float = 0.5,
        flip: bool = False,
        device: torch.device | str = "cpu",
        label_dropout: float = 0.0,
    ) -> None:
        check_levels(images)
        self.label_dropout = label_dropout
        self.device = torch.device(device)
        self.noise, self.sigma_data, self.flip = noise, sigma_data, flip
        self._labels = None if labels is None else torch.from_numpy(np.array(labels))
        self._host = images
        resident = self.device.type != "cpu" and images.nbytes <= _RESIDENT
        self._images = torch.from_numpy(np.array(images)).to(self.device) if resident else None

    def draw(self, count: int, generator: torch.Generator, eps: torch.Generator | None = None) -> Batch:
        picture, level, mirror = (substream(generator) for _ in range(3))
        # Of the example, not of its noise: another draw of that loses the same labels.
        lost = substream(mirror) if self.label_dropout else mirror
        index = torch.randint(len(self._host), (count,), generator=picture)
        sigma = self.noise(torch.randn(-(-count // _UNIT) * _UNIT, generator=level)[:count]).to(self.device)
        x0 = to_float(self._gather(index))
        if self.flip:
            mirrored = torch.rand(count, generator=mirror).to(self.device) < 0.5
            x0 = torch.where(mirrored[:, None, None, None], x0.flip(3), x0)
        noise = substream(generator if eps is None else eps, self.device)
        x = torch.randn(x0.shape, generator=noise, device=self.device)
        x = x.mul_(sigma[:, None, None, None]).add_(x0)
        label = None if self._labels is None else self._labels[index]
        if label is not None:
            if self.label_dropout:
                label = torch.where(torch.rand(count, generator=lost) < self.label_dropout, -1, label)
            label = label.to(self.device)
        weight = edm_weight(sigma, self.sigma_data)
        return Batch(x=x, sigma=sigma, weight=weight, id=index.to(self.device), target=x0, label=label)

    def complete(self, batch: Batch) -> Batch:
        """The batch as it is: the target is the clean picture itself."""
        return batch

    def halved(self, batch: Batch) -> Batch:
        """The batch at half the resolution: means of 2 x 2 pixels, which halves the noise level."""
        if batch.target is None:
            raise ValueError("the batch has no target yet")
        x, target, sigma = avg_pool2d(batch.x, 2), avg_pool2d(batch.target, 2), batch.sigma / 2
        return replace(batch, x=x, target=target, sigma=sigma, weight=edm_weight(sigma, self.sigma_data))

    def _gather(self, index: Tensor) -> Tensor:
        if self._images is not None:
            return self._images[index.to(self.device)]
        return torch.from_numpy(self._host[index.numpy()]).to(self.device)
