"""What a file is, by its name and by its first bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

from PIL import features


def _suffixes(text: str) -> frozenset[str]:
    return frozenset(f".{word}" for word in text.split())


#: Pillow's decoders in use, by the suffixes they are read under. The others are little audited.
_READ = {
    "JPEG": ".jpg .jpeg .jpe .jfif .jif .jfi .pjpeg .pjp .mpo",
    "PNG": ".png .apng",
    "BMP": ".bmp .dib",
    "GIF": ".gif",
    "WEBP": ".webp",
    "TIFF": ".tif .tiff",
    "PPM": ".ppm .pgm .pbm .pnm .pfm",
    "JPEG2000": ".jp2 .j2k .j2c .jpc .jpf .jpx",
    "AVIF": ".avif .avifs",
    "TGA": ".tga",
}
SUFFIXES = tuple(suffix for suffixes in _READ.values() for suffix in suffixes.split())
#: Where a build of Pillow may lack a decoder: what it is called there.
_OPTIONAL = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}
#: Images that cannot be read here, by suffix.
_FOREIGN = _suffixes(
    "heic heif hif jxl psd psb xcf kra ico cur icns svg svgz eps dds exr hdr dng cr2 cr3 nef nrw "
    "arw srf sr2 orf rw2 raf pef srw x3f fits fit dcm qoi pcx sgi ras xbm xpm wmf emf jxr wdp "
    "hdp bpg flif webp2 ktx ktx2"
)
#: Files that commonly lie beside images and are none: not looked into.
_OTHERS = _suffixes(
    "txt json jsonl csv tsv xml yaml yml md rst html htm pdf py ipynb npy npz pt pth pkl mat h5 "
    "zip tar gz bz2 xz 7z parquet arrow tfrecord safetensors mp4 avi mov mkv webm wav mp3 db ini "
    "log caption lock sh cfg toml xlsx xls doc docx bin"
)
_LOOKS = 16  # into files of one unknown suffix
HEAD = 512  # bytes that tell what a file is


def is_image(name: str) -> bool:
    """Whether the suffix is one that is read."""
    return name.lower().endswith(SUFFIXES)


def content(data: bytes) -> str:
    """What the first bytes say: a decoder of Pillow that is in use, or another thing's name, or "" where they say
    nothing."""
    for start, name in _STARTS:
        if data.startswith(start):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return _boxed(data)
    if data[:1] == b"P" and data[1:2] in (b"1", b"2", b"3", b"4", b"5", b"6", b"f", b"F") and data[2:3].isspace():
        return "PPM"
    if data[128:132] == b"DICM":
        return "DICOM"
    if data.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if data.lstrip()[:5].lower().startswith((b"<?xml", b"<svg")):
        return "SVG" if b"<svg" in data[:HEAD].lower() else "XML"
    return "TGA" if _is_tga(data) else ""


_STARTS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"8BPS", "PSD"),
    (b"gimp xcf", "XCF"),
    (b"\0\0\1\0", "ICO"),
    (b"DDS ", "DDS"),
    (b"v/1\1", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"SIMPLE  =", "FITS"),
    (b"qoif", "QOI"),
    (b"II\xbc", "JPEG XR"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file"),
    (b"IIRO", "a camera's raw file"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "PDF"),
    (b"version https://git-lfs", "a pointer of Git LFS"),
)
#: Things that are no image at all, with the mend.
_NO_IMAGE = {
    "an HTML page": "download the file again",
    "XML": "",
    "PDF": "",
    "PostScript": "",
    "a pointer of Git LFS": "run git lfs pull",
}


def _boxed(data: bytes) -> str:
    """A file of ISO boxes, by its brands."""
    size = int.from_bytes(data[:4], "big")
    brands = {data[8:12]} | {data[i : i + 4] for i in range(16, min(size, 256, len(data)), 4)}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if b"crx " in brands:
        return "a camera's raw file"
    return "HEIC" if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"} else "a video"


def _is_tga(data: bytes) -> bool:
    """A header of TGA, which has no mark of its own: every field must make sense."""
    if len(data) < 18:
        return False
    palette, kind, entry, bits, flags = data[1], data[2], data[7], data[16], data[17]
    size = int.from_bytes(data[12:14], "little") * int.from_bytes(data[14:16], "little")
    if kind in (1, 9):
        sound = palette == 1 and bits == 8 and entry in (15, 16, 24, 32)
    else:
        sound = palette == 0 and not any(data[3:8])
        sound &= (kind in (2, 10) and bits in (16, 24, 32)) or (kind in (3, 11) and bits in (8, 16))
    return sound and size > 0 and not flags & 0xC0 and flags & 15 <= 8


@cache
def _supported() -> frozenset[str]:
    """What this build of Pillow can do."""
    return frozenset(features.get_supported())


def decoder(data: bytes) -> tuple[str, str]:
    """(Pillow's decoder for these bytes, why there is none): one of both is "".

    The content decides: a file called .jpg may hold AVIF.
    """
    kind = content(data)
    if not kind:
        return "", "not an image" if data else "an empty file"
    if kind in _OPTIONAL and _OPTIONAL[kind] not in _supported():
        return "", f"{kind}, which this build of Pillow cannot decode: install another, or convert the file to PNG"
    if kind in _READ:
        return kind, ""
    if kind in _NO_IMAGE:
        mend = _NO_IMAGE[kind]
        return "", f"not an image but {kind}" + (f": {mend}" if mend else "")
    return "", f"{kind}, which cannot be read: convert it to PNG or JPEG"


def overlooked(names: Iterable[str], head: Callable[[str], bytes]) -> str:
    """Which files look like images and are not read, as a phrase; "" where there are none.

    Args:
        names: of all files.
        head: the first `HEAD` bytes of a file, b"" where they cannot be read. Of each suffix that tells nothing, the
            first 16 files are looked into.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        suffix = _suffix(name)
        if suffix not in _OTHERS and not is_image(name):
            groups.setdefault(suffix, []).append(name)
    found: dict[str, tuple[int, str]] = {}
    for suffix, group in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))[:64]:
        if suffix in _FOREIGN:
            found[suffix] = len(group), ""
            continue
        kinds = [content(head(name)) for name in group[:_LOOKS]]
        seen = [kind for kind in kinds if kind and kind not in _NO_IMAGE and kind not in ("a video", "TGA")]
        if seen:
            found[suffix] = len(group), seen[0]
    if not found:
        return ""
    total = sum(n for n, _ in found.values())
    shown = [_phrase(suffix, n, kind) for suffix, (n, kind) in list(found.items())[:8]]
    more = f" and {len(found) - 8} more suffixes" if len(found) > 8 else ""
    return (
        f"{total:,} file{'s look like images and are' if total > 1 else ' looks like an image and is'} not read: "
        f"{', '.join(shown)}{more}; convert to PNG or JPEG what is to be used"
    )


def _suffix(name: str) -> str:
    """The suffix of a file; "" also for a mere number (a file called 2019.0001)."""
    stem, dot, suffix = name.rpartition("/")[2].lower().rpartition(".")
    return f".{suffix}" if dot and stem and not suffix.isdecimal() and len(suffix) < 12 else ""


def _phrase(suffix: str, count: int, kind: str) -> str:
    mend = ": name them so" if kind in _READ else ""
    return f"{count:,} {suffix or 'without a suffix'}" + (f" ({kind} inside{mend})" if kind else "")
