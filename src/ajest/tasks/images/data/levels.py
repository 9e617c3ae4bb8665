"""Images of more than 8 bits a channel: which number is white."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .files import Unreadable

FLOATS, WHOLE, DEEP = "floats", "whole numbers of 32 bits", "16 bits a channel"
_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF


@dataclass(frozen=True)
class Levels:
    """What was made of an image's numbers, to be judged with the others of its data set (`contradiction`).

    Attributes:
        kind: FLOATS, WHOLE, DEEP, or fewer bits that the file tells.
        white: the number that was taken for white.
        high: the largest that there is.
        told: whether the file itself says what white is.
    """

    kind: str
    white: int
    high: float
    told: bool = False


def eight_bits(image: Image.Image) -> tuple[np.ndarray, Levels]:
    """(An image of mode I, F or I;16 as uint8, what it was taken for).

    Packed bits and PNM say what white is. 16 bits are taken whole. Floats from 0 to 1 are scaled by 255. Floats up to
    255 are taken as they are, and so are whole numbers of 32 bits.

    Raises:
        Unreadable: floats that are not finite, or numbers outside of these ranges.
    """
    numbers = np.asarray(image, dtype=np.float64)
    tags = getattr(image, "tag_v2", {})
    bits = max(tags.get(_BITS, (16,))) if image.mode.startswith("I;16") else 32
    kind, whites = DEEP if bits >= 16 else f"{bits} bits a channel", [min((1 << bits) - 1, 65535)]
    if image.mode == "F":
        kind, whites = FLOATS, [1, 255]
    elif image.mode == "I" and image.format not in ("PNG", "PPM"):
        kind, whites = WHOLE, [255]
    if not np.isfinite(numbers).all():
        raise Unreadable("floats that are not finite (NaN or infinity)")
    low, high = float(numbers.min()), float(numbers.max())
    # What rounds to a level from 0 to 255 is in range.
    fits = [white for white in whites if low >= -white / 510 and high <= white * (1 + 1 / 510)]
    if not fits:
        mend = "0 to 1, or to 0 to 255" if kind == FLOATS else "0 to 255, or save them with 16 bits"
        raise Unreadable(f"{kind} from {low:,.6g} to {high:,.6g}: scale them to {mend}")
    white = fits[0]
    found = np.clip(numbers * (255 / white), 0, 255).round().astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero: Pillow minds this at 8 bits alone
        found = 255 - found
    return found, Levels(kind, white, high, told=bits < 16 or (kind == DEEP and image.format == "PPM"))


def contradiction(largest: dict[tuple[str, int], tuple[float, str]]) -> str | None:
    """Why images of one data set cannot have been what they were taken for; None where nothing speaks against it.

    Args:
        largest: by kind and white of `Levels`: the largest number of all images, and which image has it.
    """
    seen = {key: found for key, found in largest.items() if found[0] > 0}  # black is black on any scale
    for (kind, white), (high, name) in seen.items():
        others = [(w, found) for (k, w), found in seen.items() if k == kind and w > white]
        if others:
            (_, (other, other_name)) = others[0]
            return (
                f"images of {kind} reach {high:,.4g} in {name} and {other:,.4g} in {other_name}: these cannot have "
                "one scale; save them with 8 bits"
            )
        if kind == FLOATS and white == 255 and high <= 16:
            return (
                f"images of floats reach {high:,.4g} ({name}), so they run neither from 0 to 1 nor from 0 to 255: "
                "scale them to one of these"
            )
        if white == 65535 and high < 1 << 14:
            bits = int(high).bit_length()
            return (
                f"images of {kind} use {bits} of 16 bits at most (the largest number is {high:,.0f}, in {name}) and "
                f"would be nearly black: multiply them by {1 << 16 - bits}, or save them with 8 bits"
            )
    return None
