"""Colours to sRGB by the profile that an image brings."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

#: What a profile's space is called, and the mode of pixels it speaks of.
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
#: Levels of 255 by which sRGB by another name may differ from sRGB.
_SAME = 2


class Unusable(Exception):
    """A profile that is damaged, or speaks of other pixels."""


def to_srgb(image: Image.Image, profile: bytes) -> tuple[Image.Image, bool]:
    """(Pixels of mode L, RGB or CMYK as RGB in the colours of sRGB, whether that changed them).

    Relative colorimetric with black point compensation, by LittleCMS.

    Raises:
        Unusable: the profile is damaged or of another colour space.
    """
    mode, transform = _transform(profile)
    if image.mode != mode:
        if not (image.mode == "L" and mode == "RGB"):
            raise Unusable(f"it speaks of {mode}, the pixels are {image.mode}")
        image = image.convert("RGB")
    if transform is None:
        return image.convert("RGB"), False
    from PIL import ImageCms

    found = ImageCms.applyTransform(image, transform)
    if found is None:
        raise Unusable("LittleCMS made nothing of it")
    return found, True


@lru_cache(maxsize=16)
def _transform(profile: bytes) -> tuple[str, ImageCmsTransform | None]:
    """(The mode of pixels that a profile speaks of, its transform to sRGB; None where that would change nothing).

    Raises:
        Unusable: see `to_srgb`.
    """
    try:
        from PIL import ImageCms

        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _MODES[source.profile.xcolor_space.strip()]
        # Without LittleCMS's cache of one pixel, threads may share a transform.
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        transform = ImageCms.buildTransform(source, srgb, mode, "RGB", intent, flags)
        probe = _probe(mode)
        seen = ImageCms.applyTransform(probe, transform)
        if seen is None:
            raise ValueError("no image")
    except Exception as error:  # a missing LittleCMS, KeyError, OSError, PyCMSError: of damaged profiles anything
        raise Unusable(str(error)) from error
    off = np.abs(np.asarray(seen, dtype=np.int16) - np.asarray(probe.convert("RGB"), dtype=np.int16)).max()
    return mode, None if mode != "CMYK" and off <= _SAME else transform


def _probe(mode: str) -> Image.Image:
    """Colours from all over the cube."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    if mode == "L":
        return Image.fromarray(levels[None])
    channels = len(mode)
    grid = np.stack(np.meshgrid(*[levels[:: 1 if channels == 3 else 4]] * channels, indexing="ij"), -1)
    return Image.frombytes(mode, (grid.size // channels, 1), grid.tobytes())
