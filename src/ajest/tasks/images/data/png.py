"""What Pillow passes over in PNG files, or refuses sound ones for."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Bytes of text, after inflation, that are left in a file: what holds more is cut out. Pillow would refuse the file.
MAX_TEXT = 1 << 20
MAX_TEXTS = 32 << 20
MAX_PROFILE = 8 << 20  # of a colour profile, inflated
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of each chunk of a PNG file, as far as they are whole; length and checksum included."""
    start = len(SIGNATURE)
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        if end > len(data):
            return
        yield data[start + 4 : start + 8], start, end
        start = end


def lightened(data: bytes) -> tuple[bytes, bytes | None]:
    """(The file without what Pillow would refuse it for although its pixels are sound, its profile if that was cut).

    This is texts and profiles that are too long, and chunks beside the pixels whose checksum is wrong. A profile that
    is damaged, or of more than `MAX_PROFILE` bytes, comes back as b"".
    """
    cuts: list[tuple[int, int]] = []
    profile, texts = None, 0
    for kind, start, end in chunks(data):
        if kind[0] & 32 == 0 or kind == b"tRNS":  # of the pixels
            continue
        sound = zlib.crc32(data[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
        said = _text(kind, data[start + 8 : end - 4]) if sound else b""
        if kind == b"iCCP":
            cut = not said or len(said) > MAX_TEXT
            profile = (said if len(said) <= MAX_PROFILE else b"") if cut else None
        else:
            texts += len(said)
            cut = not sound or len(said) > MAX_TEXT or texts > MAX_TEXTS
        if cut:
            cuts.append((start, end))
    if not cuts:
        return data, profile
    edges = [0, *(edge for cut in cuts for edge in cut), len(data)]
    return b"".join(data[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)), profile


def _text(kind: bytes, body: bytes) -> bytes:
    """What a chunk of text or a profile says (PNG, third edition, section 11.3.3), little more than Pillow takes at the
    longest; b"" where it is damaged, and of other chunks."""
    most = MAX_PROFILE if kind == b"iCCP" else MAX_TEXT
    _, _, rest = body.partition(b"\0")  # after the keyword
    if kind == b"iTXt":  # flag, method, language, translated keyword
        compressed, rest = rest[:1] == b"\1", rest[1:2] + rest[2:].split(b"\0", 2)[-1]
    else:
        compressed = kind in (b"iCCP", b"zTXt")
    if not compressed:
        return rest[: most + 1] if kind in _TEXTS else b""
    try:
        return zlib.decompressobj().decompress(rest[1:], most + 1) if rest[:1] == b"\0" else b""
    except zlib.error:
        return b""


def key_mask(data: bytes, key: tuple[int, int, int]) -> Image.Image:
    """Opacity (mode L) of RGB with 16 bits, of which one colour is transparent: all bits are compared, as the standard
    asks (PNG, third edition, section 11.3.1.1), where Pillow keeps the upper ones alone."""
    same = np.array(True)
    for rawmode, shift in (("RGB;16B", 8), ("RGB;16L", 0)):  # the latter takes the lower bytes for the upper ones
        image: Any = Image.open(io.BytesIO(data), formats=("PNG",))
        image.tile = [(*tile[:3], rawmode) for tile in image.tile]
        same = same & (np.asarray(image) == [k >> shift & 255 for k in key]).all(2)
    return Image.fromarray(np.where(same, 0, 255).astype(np.uint8))
