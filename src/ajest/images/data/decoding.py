"""One picture from its bytes."""

from __future__ import annotations

import io
import threading

import numpy as np
from PIL import Image, ImageOps

from .files import Unreadable

MAX_PIXELS = 50_000_000
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")
#: Pillow's decoders for these, whatever a file is called: others are little audited, and EPS would start Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_opening = threading.Lock()


def is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def read_header(data: bytes) -> Image.Image:
    """The picture, not decoded yet: its size and mode are known.

    Raises:
        Unreadable: no picture, or one of more than 50 million pixels.
    """
    try:
        # Pillow warns of large pictures by a global limit; ours is an error, and smaller.
        with _opening:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(io.BytesIO(data), formats=_FORMATS)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except Exception as error:  # decoders of broken files raise anything
        raise Unreadable("not a picture" if data else "an empty file") from error
    if image.width * image.height > MAX_PIXELS:
        raise Unreadable(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
    return image


def whole(image: Image.Image) -> None:
    """Decode the pixels.

    Raises:
        Unreadable: the file is truncated or damaged.
    """
    try:
        image.load()
    except Exception as error:  # decoders of broken files raise anything
        raise Unreadable(f"truncated or damaged ({error})") from error


def decode(data: bytes, resolution: int) -> np.ndarray:
    """The picture as uint8 (3, resolution, resolution): upright, RGB, centre-cropped to a square, resized (Lanczos).

    Transparent pixels lie on white.

    Raises:
        Unreadable: see `read_header`; or the file is truncated.
    """
    image = read_header(data)
    whole(image)
    try:
        image = _square(_rgb(_upright(image)), resolution)
    except Exception as error:  # decoders of broken files raise anything
        raise Unreadable(f"cannot be made RGB ({error})") from error
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF says nothing about the pixels, which are whole
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        # 16-bit grey, of which a plain conversion would clip all but the darkest. "I" and "F" may hold either range.
        levels = np.nan_to_num(np.asarray(image, dtype=np.float64))
        wide = image.mode.startswith("I;16") or levels.max() > 255
        return Image.fromarray(np.clip(levels / 257 if wide else levels, 0, 255).round().astype(np.uint8)).convert(
            "RGB"
        )
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")


def _square(image: Image.Image, resolution: int) -> Image.Image:
    if image.size == (resolution, resolution):
        return image
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    # Cropped first: `resize` with a box would look at pixels outside of it.
    square = image.crop((left, top, left + side, top + side))
    return square.resize((resolution, resolution), Image.Resampling.LANCZOS)
