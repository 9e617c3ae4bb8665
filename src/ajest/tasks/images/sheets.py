"""Many images as one."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

GAP = 3  # pixels between images


def mosaic(images: Sequence[np.ndarray] | np.ndarray, columns: int) -> np.ndarray:
    """uint8 images (3, h, w), or (1, h, w) in grey, in rows of `columns` on white, shape (H, W, 3)."""
    if not len(images):
        return np.full((GAP, GAP, 3), 255, dtype=np.uint8)
    _, h, w = images[0].shape
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    sheet = np.full((rows * (h + GAP) - GAP, columns * (w + GAP) - GAP, 3), 255, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (h + GAP), i % columns * (w + GAP)
        sheet[top : top + h, left : left + w] = image.transpose(1, 2, 0)
    return sheet


def encode(image: Image.Image, **options: int) -> bytes:
    """An image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", **options)
    return buffer.getvalue()


def png(pixels: np.ndarray) -> bytes:
    """Pixels (h, w, 3) as PNG."""
    return encode(Image.fromarray(np.ascontiguousarray(pixels)))
