"""Files of images for tests."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def folder(root: Path, members: dict[str, bytes]) -> str:
    """A folder with these files."""
    for name, data in members.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return str(root)
