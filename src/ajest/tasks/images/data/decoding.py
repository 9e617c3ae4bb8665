"""One image from its bytes."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from PIL import Image

from . import png
from .colour import Unusable, to_srgb
from .files import Unreadable, reason
from .formats import decoder
from .levels import DEEP, Levels, eight_bits

VERSION = 3  # of the pixels that come out: a change makes caches anew
MAX_PIXELS = 50_000_000
_opening = threading.Lock()
T = TypeVar("T")

#: What may be done to an image that its owner does not expect, as it is said of a number of them.
ON_WHITE = "with transparency (laid on white)"
ALL_CLEAR = "wholly transparent (white, then)"
FIRST_FRAME = "with several frames or pages (the first is used)"
CONVERTED = "with a colour profile (converted to sRGB)"
BAD_PROFILE = "with a colour profile that cannot be used (taken for sRGB)"
NO_PROFILE = "in CMYK without a profile (converted by the plain formula)"

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Decoded:
    """A decoded image.

    Attributes:
        pixels: uint8, shape (3, R, R).
        size: (width, height) as stored.
        mode: of the stored pixels (RGB, L, CMYK, ...).
        changes: what was done to it that its owner may not expect.
        levels: what its numbers were taken for, where they have more than 8 bits.
    """

    pixels: np.ndarray = field(repr=False)
    size: tuple[int, int]
    mode: str
    changes: frozenset[str] = frozenset()
    levels: Levels | None = None


def read_header(data: bytes) -> Image.Image:
    """The image, not decoded yet: its size and mode are known.

    Raises:
        Unreadable: no image, one of a kind that cannot be decoded, or one of more than 50 million pixels.
    """
    return _opened(data)[0]


def _opened(data: bytes) -> tuple[Image.Image, bytes]:
    """See `read_header`; with the bytes that it was read from."""
    profile = None
    if data.startswith(png.SIGNATURE):
        data, profile = png.lightened(data)
    kind, refusal = decoder(data)
    if refusal:
        raise Unreadable(refusal)
    try:
        # Pillow warns of large images by a global limit; ours is an error, and smaller.
        with _opening:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(io.BytesIO(data), formats=(kind,))
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except Exception as error:  # decoders of broken files raise anything
        raise Unreadable(
            f"{kind} that is damaged, cut short or of a rare kind (save it anew, with 8 bits a channel)"
        ) from error
    if image.width * image.height > MAX_PIXELS:
        raise Unreadable(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
    if profile is not None:
        image.info["icc_profile"] = profile
    return image, data


def size_of(data: bytes) -> tuple[int, int]:
    """(width, height) of a stored image, without decoding it.

    Raises:
        Unreadable: see `read_header`.
    """
    return read_header(png.lightened(data)[0] if data.startswith(png.SIGNATURE) else data).size


def decode(data: bytes, resolution: int) -> np.ndarray:
    """The pixels of `image`, uint8 (3, resolution, resolution)."""
    return decoded(data, resolution).pixels


def decoded(data: bytes, resolution: int) -> Decoded:
    """An image from the bytes of its file: upright, sRGB, centre-cropped to a square, resized (Lanczos).

    Transparent pixels lie on white. Of several frames the first is taken. Embedded colour profiles are obeyed; other
    hints at colours (gAMA and cHRM of PNG, EXIF's Adobe RGB) are not.

    Raises:
        Unreadable: see `read_header`; the file is truncated, or `eight_bits` cannot tell what white is.
    """
    image, data = _opened(data)
    key, opacity = image.info.get("transparency"), None
    if isinstance(key, tuple) and _is_deep(image):
        opacity = _unless_damaged(image, lambda: png.key_mask(data, key))
    return from_image(image, resolution, opacity)


def from_image(image: Image.Image, resolution: int, opacity: Image.Image | None = None) -> Decoded:
    """See `image`.

    Args:
        image: as Pillow opened it.
        resolution: height and width that are wanted.
        opacity: of its pixels (mode L), where the image itself does not tell it.
    """
    size, mode, deep = image.size, image.mode, _is_deep(image)
    changes = {FIRST_FRAME} if _has_frames(image) else set()
    _unless_damaged(image, image.load)
    try:
        plain, opacity, levels = _plain(image, deep, opacity)
        rgb = _srgb(plain, image, changes)
        if opacity is not None and np.asarray(opacity).min() < 255:
            changes.add(ON_WHITE if np.asarray(opacity).any() else ALL_CLEAR)
            rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), opacity)
        pixels = np.asarray(_square(_upright(rgb, image), resolution))
    except Unreadable:
        raise
    except Exception as error:  # decoders of broken files raise anything
        raise Unreadable(f"cannot be made RGB ({reason(error)})") from error
    if levels is not None:
        changes.add(f"of {levels.kind} (reduced to 8 bits, {levels.white:,} being white)")
    return Decoded(np.ascontiguousarray(pixels.transpose(2, 0, 1)), size, mode, frozenset(changes), levels)


def _unless_damaged(image: Image.Image, decode: Callable[[], T]) -> T:
    try:
        return decode()
    except Exception as error:  # decoders of broken files raise anything
        raise Unreadable(f"truncated or damaged {image.format or ''} ({reason(error)})".replace("  ", " ")) from error


def _has_frames(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a broken second frame says nothing about the first
        return False


def _is_deep(image: Image.Image) -> bool:
    """Whether the file has 16 bits a channel; known until the pixels are decoded."""
    layouts = [tile[3] for tile in getattr(image, "tile", ())]
    return any(";16" in str(x if isinstance(x, str) or not x else x[0]) for x in layouts)


def _plain(
    image: Image.Image, deep: bool, opacity: Image.Image | None
) -> tuple[Image.Image, Image.Image | None, Levels | None]:
    """(Pixels of 8 bits without transparency, of mode L, RGB or CMYK; their opacity; what they were taken for)."""
    key = image.info.get("transparency")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        if isinstance(key, int):
            opacity = Image.fromarray(np.where(np.asarray(image) == key, 0, 255).astype(np.uint8))
        pixels, levels = eight_bits(image)
        return Image.fromarray(pixels), opacity, levels
    grey = image.mode in ("1", "L", "LA", "La")
    if opacity is None and deep and isinstance(key, tuple):
        raise Unreadable("one transparent colour in 16 bits: save it with 8 bits a channel")
    if opacity is None and (key is not None or image.mode in ("RGBA", "RGBa", "LA", "La", "PA")):
        image = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        opacity = image.getchannel("A")
    plain = image if image.mode == "CMYK" else image.convert("L" if grey else "RGB")
    if not deep or image.mode == "CMYK":
        return plain, opacity, None
    high = int(np.asarray(plain).max())
    return plain, opacity, Levels(DEEP, 65535, high << 8 | 255 if high else 0)  # the lower bytes are gone


def _srgb(plain: Image.Image, image: Image.Image, changes: set[str]) -> Image.Image:
    """Pixels as RGB, by the image's profile; adds to `changes`."""
    if "icc_profile" in image.info and image.mode != "LAB":  # Pillow obeys that of LAB
        try:
            found, changed = to_srgb(plain, image.info["icc_profile"] or b"")
        except Unusable:
            changes.add(BAD_PROFILE)
        else:
            changes.update({CONVERTED} if changed else ())
            return found
    elif plain.mode == "CMYK":
        changes.add(NO_PROFILE)
    return plain.convert("RGB")


def _upright(rgb: Image.Image, image: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken EXIF says nothing about the pixels, which are whole
        return rgb
    return rgb if turn is None else rgb.transpose(turn)


def _square(image: Image.Image, resolution: int) -> Image.Image:
    if image.size == (resolution, resolution):
        return image
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    # Cropped first: `resize` with a box would look at pixels outside of it.
    square = image.crop((left, top, left + side, top + side))
    return square.resize((resolution, resolution), Image.Resampling.LANCZOS)
