"""Many pictures as one."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

GAP = 3  # pixels between pictures


def mosaic(pictures: Sequence[np.ndarray] | np.ndarray, columns: int) -> np.ndarray:
    """uint8 pictures (3, h, w) in rows of `columns` on white, shape (H, W, 3)."""
    if not len(pictures):
        return np.full((GAP, GAP, 3), 255, dtype=np.uint8)
    _, h, w = pictures[0].shape
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (h + GAP) - GAP, columns * (w + GAP) - GAP, 3), 255, dtype=np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * (h + GAP), i % columns * (w + GAP)
        sheet[top : top + h, left : left + w] = picture.transpose(1, 2, 0)
    return sheet


def encode(image: Image.Image, **options: int) -> bytes:
    """A picture as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", **options)
    return buffer.getvalue()


def png(pixels: np.ndarray) -> bytes:
    """Pixels (h, w, 3) as PNG."""
    return encode(Image.fromarray(np.ascontiguousarray(pixels)))
