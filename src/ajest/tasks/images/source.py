"""Noised images with their clean targets (docs/method.md#notation)."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ajest.diffusion.batch import Batch
from ajest.diffusion.conditions import drop
from ajest.diffusion.denoising import Denoiser, LogNormal, edm_weight
from ajest.diffusion.noising.ingredients import Ingredients, Target
from ajest.diffusion.noising.weights import Weighting
from ajest.errors import NotFinite, UserError
from ajest.runtime.counter import CounterStream, Rows, below, normal, numbers_of, uniform
from ajest.runtime.seeding import substream
from ajest.runtime.transfer import to_device
from ajest.tasks.sources import Subset

from .pixels import USUAL, Loading, Pixels

#: torch's CPU generator makes normals 16 at a time: a draw of fewer is no prefix of a longer one.
_UNIT = 16


def check_levels(images: Tensor | np.ndarray) -> None:
    """Make sure that these are images of 8 bits. Numbers of another type are never guessed at.

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
    """uint8 images to float32 in [-1, 1].

    Raises:
        UserError: see `check_levels`.
    """
    check_levels(images)
    return images.float().div_(127.5).sub_(1)


def to_uint8(x: Tensor) -> Tensor:
    """Images in [-1, 1] to uint8, rounded and clipped.

    Raises:
        NotFinite: some are NaN, which would become black without a word.
    """
    if bool(x.isnan().any()):
        raise NotFinite("images are NaN: the network overflows; sample at a higher precision or with less guidance")
    return x.mul(127.5).add(127.5).round_().clamp_(0, 255).to(torch.uint8)


class ImageSource:
    """Draws `x = x0 + sigma eps`, x0 uniformly with replacement; `id` is the number of the image.

    On the host, image and noise level are drawn so that all devices see the same; eps is drawn where it is used.

    Args:
        images: uint8, shape (N, channels, height, width); may be memory-mapped.
        labels: int64, shape (N,); embeddings, float32, shape (N, ...); or None.
        noise: distribution of the noise levels.
        sigma_data: standard deviation of the data, for the loss weight.
        flip: mirror every second image, at random.
        device: where batches are wanted.
        label_dropout: share of examples that lose their label (`ajest.diffusion.conditions`). It is drawn with the
            example, so that learner, reference and all arms agree about it.
        loading: how images and noise come to the device.
        weighting: of the squared error, None for EDM's.

    Raises:
        UserError: images of another type or shape.
    """

    own_target: Target = "x0"
    _drawn_anew: ClassVar[bool] = False  # whether an image's x0 is another one each time
    exact: Denoiser | None = None

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None,
        noise: LogNormal,
        sigma_data: float = 0.5,
        flip: bool = False,
        device: torch.device | str = "cpu",
        label_dropout: float = 0.0,
        loading: Loading = USUAL,
        weighting: Weighting | None = None,
    ) -> None:
        self._check(images)
        self._weighting = weighting
        self.label_dropout = label_dropout
        self.device = torch.device(device)
        self.noise, self.sigma_data, self.flip = noise, sigma_data, flip
        self._labels = None if labels is None else torch.from_numpy(np.array(labels)).to(self.device)
        self._pixels = Pixels(images, self.device, loading)
        self._loading = loading
        self._subset = Subset(len(self._pixels))

    @staticmethod
    def _check(images: np.ndarray) -> None:
        check_levels(images)

    def restricted(self, rows: Tensor) -> ImageSource:
        """See `RestrictableSource`."""
        found = copy.copy(self)
        found._subset = Subset(len(self._pixels), rows, self.device)
        return found

    def draw(self, count: int, generator: torch.Generator, eps: torch.Generator | None = None) -> Batch:
        here, level, form, dropped = self._on_host(count, generator)
        index, sigma, form, dropped = to_device(self.device, here, self.noise(level), form, dropped)
        x0 = self._clean(index if self._pixels.resident else here, form)
        noise = self._eps(x0, generator if eps is None else eps)
        return self._noised(self._outline(index, sigma, self._label_of(index, dropped)), x0, noise)

    def ingredients(self, count: int, generator: torch.Generator, eps: torch.Generator | None = None) -> Ingredients:
        here, *rest = self._on_host(count, generator)
        index, level, form, dropped = to_device(self.device, here, *rest)
        x0 = self._clean(index if self._pixels.resident else here, form)
        noise = self._eps(x0, generator if eps is None else eps)
        return Ingredients(x0, noise, level, index, self._label_of(index, dropped))

    def outline(self, rows: Rows, stream: CounterStream) -> Batch:
        index, level, _, label = self._drawn(numbers_of(rows, self.device), stream)
        return self._outline(index, self.noise(level), label)

    def draw_rows(self, rows: Rows, stream: CounterStream, eps: CounterStream) -> Batch:
        parts = self.ingredients_of(rows, stream, eps)
        return self._noised(self._outline(parts.id, self.noise(parts.normal), parts.label), parts.x0, parts.eps)

    def ingredients_of(self, rows: Rows, stream: CounterStream, eps: CounterStream | None) -> Ingredients:
        numbers = numbers_of(rows, self.device)
        index, level, form, label = self._drawn(numbers, stream)
        if eps is None:
            nothing = level.new_empty(len(level), 0)
            return Ingredients(nothing, nothing, level, index, label)
        x0 = self._clean(index if self._pixels.resident else self._index(rows, stream), form)
        return Ingredients(x0, eps.normals(numbers, tuple(x0.shape[1:]), self.fused), level, index, label)

    @property
    def fused(self) -> bool:
        """Whether noise is made by one kernel, see `CounterStream.normals`."""
        return self._loading.fused

    def weight(self, sigma: Tensor) -> Tensor:
        own = self._weighting
        return edm_weight(sigma, self.sigma_data) if own is None else own(sigma, self.sigma_data)

    def _on_host(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(numbers of images, normal numbers of the levels, forms of the images, which labels are lost)."""
        image, level, mirror = (substream(generator) for _ in range(3))
        # Of the example, not of its noise: another draw of that loses the same labels.
        lost = substream(mirror) if self.label_dropout else mirror
        anew = substream(mirror) if self._drawn_anew else mirror
        index = self._subset[torch.randint(len(self._subset), (count,), generator=image)]
        normal_ = torch.randn(-(-count // _UNIT) * _UNIT, generator=level)[:count]
        mirrored = torch.rand(count if self.flip else 0, generator=mirror) < 0.5
        dropped = torch.rand(count if self.label_dropout else 0, generator=lost) < self.label_dropout
        words = torch.randint(1 << 32, (count if self._drawn_anew else 0,), generator=anew)
        return index, normal_, self._form(mirrored, words), dropped

    def _eps(self, x0: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(x0.shape, generator=substream(generator, self.device), device=self.device)

    @property
    def reads_ahead(self) -> bool:
        """Whether images are read before they are wanted, as they do not live on the device."""
        return self._pixels.ahead

    def expect(self, rows: range, stream: torch.Generator | CounterStream) -> None:
        """Begin to read the images of a draw that comes next, where they are read ahead at all.

        Args:
            rows: their numbers in the super-batch.
            stream: of the examples, as for `draw` or `draw_rows`.
        """
        if not self._pixels.ahead:
            return
        if isinstance(stream, CounterStream):
            index = self._index(rows, stream)
        else:
            index = self._subset[torch.randint(len(self._subset), (len(rows),), generator=substream(stream))]
        self._pixels.expect(index)

    def _index(self, rows: Rows, stream: CounterStream) -> Tensor:
        """Numbers of images, made on the host: whole numbers are the same there."""
        return self._subset[below(stream.words(numbers_of(rows), 2), len(self._subset))]

    def _drawn(self, numbers: Tensor, stream: CounterStream) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """(numbers of images, normal numbers of the levels, forms of the images, labels) of some rows."""
        words = stream.words(numbers, 7)
        index, level = self._subset[below(words[:, :2], len(self._subset))], normal(words[:, 2:4])[:, 0]
        mirrored, dropped = uniform(words[:, 4]) < 0.5, uniform(words[:, 5]) < self.label_dropout
        return index, level, self._form(mirrored, words[:, 6]), self._label_of(index, dropped)

    def _form(self, mirrored: Tensor, words: Tensor) -> Tensor:
        """Which form of each image is taken: mirrored or not; `words` are random ones of 32 bits, for other sources."""
        return mirrored

    def _label_of(self, index: Tensor, dropped: Tensor) -> Tensor | None:
        label = None if self._labels is None else self._labels[index]
        return label if label is None or not self.label_dropout else drop(label, dropped)

    def _outline(self, index: Tensor, sigma: Tensor, label: Tensor | None) -> Batch:
        return Batch(sigma.new_empty(len(sigma), 0), sigma, self.weight(sigma), index, None, label)

    def _clean(self, index: Tensor, form: Tensor) -> Tensor:
        x0 = to_float(self._pixels[index])
        return torch.where(form[:, None, None, None], x0.flip(3), x0) if self.flip else x0

    @staticmethod
    def _noised(known: Batch, x0: Tensor, normals: Tensor) -> Batch:
        """Examples from their outline; `normals` are used up."""
        x = normals.mul_(known.sigma[:, None, None, None]).add_(x0)
        return replace(known, x=x, target=x0)

    def complete(self, batch: Batch) -> Batch:
        """The batch as it is: the target is the clean image itself."""
        return batch

    def held(self, free: int) -> int:
        """Bytes of a device with so many free ones that images and their labels take for good."""
        size, labels = self._pixels.images.nbytes, self._labels
        told = 0 if labels is None else labels.numel() * labels.element_size()
        return told + (size if self._loading.fits(size, free) else 0)

    def halved(self, batch: Batch) -> Batch:
        """The batch at half the resolution: means of 2 x 2 pixels, which halves the noise level."""
        if batch.target is None:
            raise ValueError("the batch has no target yet")
        x, target, sigma = avg_pool2d(batch.x, 2), avg_pool2d(batch.target, 2), batch.sigma / 2
        return replace(batch, x=x, target=target, sigma=sigma, weight=self.weight(sigma))


#: What the latent of an image is drawn with, from the number of the draw.
_POSTERIOR = CounterStream.named("posterior")


class LatentSource(ImageSource):
    """Draws latents instead of images: x0 from the normal distribution that an autoencoder gives for each, anew each
    time; mirrored ones are those of the mirrored image. See `ImageSource`.

    Its `images` are means and log-variances, shape (N, 2, 2, channels, height, width): of the image as it is and
    mirrored.
    """

    _drawn_anew = True

    @staticmethod
    def _check(images: np.ndarray) -> None:
        assert images.ndim == 6

    def _form(self, mirrored: Tensor, words: Tensor) -> Tensor:
        """The number of the draw, and in its last bit whether the image is mirrored."""
        return (words << 1) + mirrored if self.flip else words << 1

    def _clean(self, index: Tensor, form: Tensor) -> Tensor:
        both = self._pixels[index]
        mean, log_variance = both[torch.arange(len(both), device=both.device), form & 1].float().unbind(1)
        drawn = _POSTERIOR.normals(form >> 1, tuple(mean.shape[1:]), self._loading.fused)
        return torch.addcmul(mean, (log_variance / 2).exp(), drawn)
