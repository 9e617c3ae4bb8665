"""Names in zip archives as old programs and other systems write them."""

from __future__ import annotations

import zipfile
from pathlib import PurePosixPath

from ajest.errors import listed


def names_of(members: list[zipfile.ZipInfo]) -> tuple[list[str], tuple[str, ...]]:
    """(Names of members with / between folders, notes on them). A name that is not marked as Unicode may be UTF-8 or
    GBK all the same; if these do not fit all such names, they are of code page 437, as the format says."""
    raw = {i: data for i, info in enumerate(members) if (data := _unmarked(info))}
    codec = next((c for c in ("utf-8", "gbk") if all(_reads_as(data, c) for data in raw.values())), "cp437")
    names = []
    for i, info in enumerate(members):
        name = (raw[i].decode(codec) if i in raw else info.filename).replace("\\", "/")  # of archivers on Windows
        plain = not name.startswith("./") and "//" not in name and "/./" not in name
        names.append(name if plain else f"{PurePosixPath(name)}{'/' if name.endswith('/') else ''}")
    if codec == "utf-8":
        return names, ()
    said = {"gbk": "Chinese names, in GBK", "cp437": "names in code page 437"}[codec]
    return names, (f"names that are not marked as Unicode are taken for {said}: {listed([names[min(raw)]])}",)


def _unmarked(info: zipfile.ZipInfo) -> bytes:
    """The bytes of a name that is neither plain ASCII nor marked as Unicode."""
    if info.flag_bits & 0x800 or info.filename.isascii():
        return b""
    try:
        return info.filename.encode("cp437")
    except UnicodeEncodeError:  # from the extra field for Unicode names
        return b""


def _reads_as(data: bytes, codec: str) -> bool:
    try:
        text = data.decode(codec)
    except UnicodeDecodeError:
        return False
    # GBK makes something of most accented letters of code page 437. These lie below B0, common Chinese signs above.
    signs = [c.encode("gbk") for c in text if not c.isascii()] if codec == "gbk" else []
    return codec != "gbk" or (
        any(sign[0] >= 0xB0 for sign in signs) and all(sign[0] >= 0xB0 or min(sign) >= 0xA1 for sign in signs)
    )
