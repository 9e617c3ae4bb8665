"""One file becomes one image: formats by content, depths, transparency, frames, colours, and what is said of them."""

from __future__ import annotations

import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin, features

from ajest.errors import UserError
from ajest.tasks.images.data import describe, formats, open_images, png
from ajest.tasks.images.data.decoding import decode, decoded, from_image, read_header
from ajest.tasks.images.data.files import Unreadable, reason
from forked import FORKED
from image_files import encoded, folder

RED = (200, 30, 40)


def photo(seed: int = 0, mode: str = "RGB", side: int = 16) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).convert(mode)


def read(spec: str, **options):
    """(The set, what was said)."""
    said: list[str] = []
    return open_images([spec], 16, warn=said.append, **options), " ".join(said)


def grey(values) -> Image.Image:
    return Image.fromarray(np.asarray(values))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deep_png(pixels: np.ndarray, colour: int, *more: bytes) -> bytes:
    """PNG of 16 bits, written by hand: Pillow writes grey alone."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour, 0, 0, 0)
    return (
        png.SIGNATURE
        + chunk(b"IHDR", header)
        + b"".join(more)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


# Formats


FORMS = {
    "jfif": "JPEG", "JPE": "JPEG", "dib": "BMP", "pgm": "PPM", "pnm": "PPM", "tga": "TGA", "jp2": "JPEG2000",
    "avif": "AVIF", "apng": "PNG", "webp": "WEBP", "mpo": "MPO",
}  # fmt: skip


@pytest.mark.parametrize("suffix", FORMS)
def test_every_format_that_people_have_is_read(tmp_path, suffix):
    optional = formats._OPTIONAL.get(FORMS[suffix])
    if optional and optional not in features.get_supported():
        pytest.skip(f"this Pillow has no {optional}")
    data = encoded(photo(), FORMS[suffix])
    found, said = read(folder(tmp_path, {f"cat/1.{suffix}": data, "dog/1.png": encoded(photo())}))
    assert found.classes == ("cat", "dog")
    assert np.abs(found.images[0].astype(int) - found.images[1]).mean() < 30
    assert said == ""


def test_images_that_are_not_read_are_counted_by_suffix(tmp_path):
    heic = b"\0\0\0\x18ftypheic" + bytes(300)
    others = {f"cat/{i}.HEIC": heic for i in range(3)} | {"cat/1.psd": b"8BPS", "cat/noname": encoded(photo(), "JPEG")}
    junk = {"Thumbs.db": b"\xd0\xcf", "@eaDir/1.png/thumb.jpg": b"", "cat/notes.txt": b"x", "cat/model.bin": b"BM"}
    found, said = read(folder(tmp_path, {"cat/1.png": encoded(photo())} | others | junk))
    assert len(found) == 1
    assert (
        "5 files look like images and are not read: 3 .heic, 1 without a suffix (JPEG inside: name them so), 1 .psd"
        in said
    )
    assert "\n" not in said
    assert "3 .heic" in describe([str(tmp_path)], 8).notes[0]


def test_many_unknown_suffixes_are_one_bounded_line():
    names = [f"{i}.x{i % 200}y" for i in range(5000)] + [f"{i}.heic" for i in range(2000)]
    text = formats.overlooked(names, lambda name: png.SIGNATURE)
    assert text.startswith("3,575 files")
    assert "2,000 .heic" in text
    assert len(text) < 400


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(300), "HEIC, which cannot be read: convert it"),
        (b"8BPS" + bytes(300), "PSD, which cannot be read"),
        (b"\xff\x0a" + bytes(300), "JPEG XL, which cannot be read"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS: run git lfs pull"),
        (b"<!DOCTYPE html><html>404", "not an image but an HTML page: download the file again"),
        (b"hello", "not an image"),
        (b"", "an empty file"),
        (png.SIGNATURE + b"rest", "PNG that is damaged"),
        (encoded(photo(), "JPEG")[:300], "JPEG that is damaged"),
        (encoded(photo(), "JPEG")[:-20], "truncated or damaged JPEG"),
    ],
)
def test_refusals_name_what_the_file_is(data, message):
    with pytest.raises(Unreadable, match=message):
        decode(data, 8)


def test_a_command_speaks_for_the_decoders(tmp_path):
    """Pillow warns of some damage before it refuses a file."""
    spec = folder(tmp_path / "x", {"1.tif": encoded(photo(), "TIFF")[:90], "2.png": encoded(photo())})
    done = FORKED.run(["ajest", "data", "prepare", spec, tmp_path / "x.npz"])
    assert done.returncode == 2
    assert done.stderr.startswith("ajest: 1 file cannot be read (1.tif: TIFF that is damaged")
    assert done.stderr.count("\n") == 1


def test_the_content_decides_whatever_the_name_says(tmp_path, monkeypatch):
    if "avif" not in features.get_supported():
        pytest.skip("this Pillow has no AVIF")
    spec = folder(tmp_path, {"a.jpg": encoded(photo(), "AVIF"), "b.png": encoded(photo(), "WEBP", lossless=True)})
    assert len(read(spec)[0]) == 2
    monkeypatch.setattr(formats, "_supported", frozenset)
    with pytest.raises(UserError, match=r"a\.jpg: AVIF, which this build of Pillow cannot decode"):
        read(spec, cache=tmp_path / "other")


def test_messages_hold_no_addresses():
    assert reason(OSError("cannot identify <_io.BytesIO object at 0x7f00>\nmore")) == "cannot identify the file"
    for data in (encoded(photo(), "TIFF")[:60], b"II*\0" + bytes(40), b"P6\n9 9\n255\n", b"GIF89a" + bytes(20)):
        with pytest.raises(Unreadable) as caught:
            decode(data, 8)
        assert not re.search(r"0x[0-9a-f]{4}", str(caught.value))


# Depths


def test_floats_are_scaled_by_the_range_they_have(tmp_path):
    levels = np.asarray(photo(mode="L"))
    units = {f"{i}.tif": encoded(grey((levels / 255).astype(np.float32)), "TIFF") for i in range(2)}
    found, said = read(folder(tmp_path / "units", units | {"black.tif": encoded(grey(np.zeros((9, 9), "f4")), "TIFF")}))
    assert np.array_equal(found.images[0, 0], levels)
    assert "3 of floats (reduced to 8 bits, 1 being white)" in said
    full = folder(tmp_path / "full", {"0.tif": encoded(grey(levels.astype(np.float32)), "TIFF")})
    assert np.array_equal(read(full)[0].images[0, 0], levels)
    pfm = b"Pf\n16 16\n-1.0\n" + (levels[::-1] / 255).astype("<f4").tobytes()
    assert np.array_equal(read(folder(tmp_path / "pfm", {"0.pfm": pfm}))[0].images[0, 0], levels)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[-1.0, 1.0]], "floats from -1 to 1: scale them to 0 to 1"),
        ([[0.0, 4095.0]], "floats from 0 to 4,095"),
        ([[0.0, np.nan]], "not finite"),
        ([[np.inf, 0.0]], "not finite"),
    ],
)
def test_floats_of_other_ranges_are_refused_by_name(tmp_path, values, message):
    spec = folder(tmp_path, {"cat/7.tif": encoded(grey(np.array(values, np.float32)), "TIFF")})
    with pytest.raises(UserError, match=rf"cat/7\.tif: .*{message}"):
        read(spec)


def test_floats_that_contradict_each_other_are_refused(tmp_path):
    def tif(high):
        return encoded(grey(np.full((4, 4), high, np.float32)), "TIFF")

    with pytest.raises(UserError, match=r"a\.tif and 200 in b\.tif: these cannot have one scale"):
        read(folder(tmp_path / "x", {"a.tif": tif(0.5), "b.tif": tif(200)}))
    with pytest.raises(UserError, match=r"reach 1\.5 \(a\.tif\), so they run neither from 0 to 1"):
        read(folder(tmp_path / "y", {"a.tif": tif(1.5), "b.tif": tif(1.2)}))
    assert len(read(folder(tmp_path / "z", {"a.tif": tif(0), "b.tif": tif(200)}))[0]) == 2
    assert "one scale" in describe([str(tmp_path / "x")], 8).notes[-1]


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_twelve_bits_in_sixteen_are_no_black_images(tmp_path, form):
    spec = folder(tmp_path, {"cat/1.x": b"", "cat/2.tif": encoded(grey(np.full((8, 8), 3987, np.uint16)), form)})
    with pytest.raises(UserError, match=r"use 12 of 16 bits .*3,987, in cat/2\.tif.*multiply them by 16"):
        read(spec)
    (tmp_path / "cat/3.tif").write_bytes(encoded(grey(np.full((8, 8), 60_000, np.uint16)), form))
    found, said = read(spec)  # one scale for all
    assert found.images[:, 0, 0, 0].tolist() == [16, 233]
    assert "2 of 16 bits a channel (reduced to 8 bits, 65,535 being white)" in said


def test_twelve_bits_in_sixteen_of_colour(tmp_path):
    dark = deep_png(np.full((8, 8, 3), 4000), 2)
    with pytest.raises(UserError, match=r"use 12 of 16 bits"):
        read(folder(tmp_path, {"1.png": dark}))


def test_bits_that_the_file_tells_are_minded():
    pgm = b"P5\n8 8\n4095\n" + np.full((8, 8), 2048, ">u2").tobytes()
    assert decode(pgm, 8)[0, 0, 0] == 128
    assert decoded(pgm, 8).levels.told
    packed = bytearray(encoded(grey(np.zeros((8, 8), np.uint16)), "TIFF"))  # to be 12 bits a pixel
    packed[packed.index(struct.pack("<HHI", 258, 3, 1)) + 8] = 12
    packed[-128:] = bytes([0x80, 0x08, 0x00]) * 42 + b"\0\0"
    found = decoded(bytes(packed), 8)
    assert np.unique(found.pixels).tolist() == [128]
    assert next(iter(found.changes)) == "of 12 bits a channel (reduced to 8 bits, 4,095 being white)"
    dark = b"P5\n8 8\n65535\n" + np.full((8, 8), 200, ">u2").tobytes()
    assert decode(dark, 8).max() == 1


def test_whole_numbers_of_32_bits(tmp_path):
    def tif(high):
        return encoded(grey(np.full((4, 4), high, np.int32)), "TIFF")

    assert decode(tif(200), 4).max() == 200
    for high in (-1, 256, 70_000):  # nothing tells what white is
        with pytest.raises(UserError, match=rf"b\.tif: whole numbers of 32 bits from {high:,} to {high:,}: scale them"):
            read(folder(tmp_path, {"a.tif": tif(200), "b.tif": tif(high)}))


def test_white_may_be_zero_in_sixteen_bits():
    data = bytearray(encoded(grey(np.full((4, 4), 65535, np.uint16)), "TIFF"))
    at = data.index(struct.pack("<HHI", 262, 3, 1))
    data[at + 8] = 0
    assert decode(bytes(data), 4).max() == 0


# Transparency and frames


def test_transparency_lies_on_white_in_every_mode():
    clear = struct.pack(">H", 1000)
    assert decode(deep_png(np.full((8, 8), 1000), 0, chunk(b"tRNS", clear)), 8).min() == 255
    assert decode(deep_png(np.full((8, 8), 1001), 0, chunk(b"tRNS", clear)), 8).max() == 4
    half = np.tile(np.array([0, 32768]), (8, 8, 1))
    assert abs(int(decode(deep_png(half, 4), 8)[0, 0, 0]) - 127) <= 1
    assert abs(int(decode(encoded(Image.new("LA", (8, 8), (0, 128))), 8)[0, 0, 0]) - 127) <= 1
    assert decode(encoded(photo(mode="P"), transparency=bytes(256)), 16).min() == 255
    assert decode(encoded(Image.new("1", (8, 8)), transparency=0), 8).min() == 255
    found = decoded(encoded(Image.new("RGBA", (8, 8), (*RED, 255))), 8)
    assert found.pixels[:, 0, 0].tolist() == list(RED)
    assert not found.changes  # nothing was transparent


def test_a_transparent_colour_of_sixteen_bits_is_told_by_all_bits():
    key = (513, 1027, 60_000)
    pixels = np.full((8, 8, 3), key)
    pixels[:, 4:] = (514, 1027, 60_000)  # its upper bytes are the same
    found = decoded(deep_png(pixels, 2, chunk(b"tRNS", struct.pack(">HHH", *key))), 8)
    assert found.pixels[:, 0, 0].tolist() == [255, 255, 255]
    assert found.pixels[:, 0, 7].tolist() == [2, 4, 234]


def test_the_first_of_several_frames_is_used_and_said_once(tmp_path):
    more = {"save_all": True, "append_images": [Image.new("RGB", (16, 16), "blue")]}
    red = Image.new("RGB", (16, 16), RED)
    members = {f"1.{s}": encoded(red, form, **more) for s, form in (("gif", "GIF"), ("tif", "TIFF"), ("png", "PNG"))}
    spec = folder(tmp_path, members | {"2.png": encoded(red)})
    for _ in range(2):  # decoded, then from the cache
        found, said = read(spec)
        assert found.images[:, :, 3, 3].tolist() == [list(RED)] * 4
        assert "3 with several frames or pages (the first is used)" in said


# Colours


def profile_of(space: bytes, **tags: bytes) -> bytes:
    """A colour profile, written by hand."""
    table, body, at = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += name.encode() + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI", at + len(body), b"none", 0x02100000) + b"mntr" + space + b"XYZ " + bytes(12) + b"acsp"
    return head + bytes(28) + xyz(0.9642, 1, 0.82491)[8:] + bytes(48) + table + body


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(x * 65536)) for x in values)


def wide_profile() -> bytes:
    """Adobe RGB (1998): primaries, white point, gamma 563/256."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, 563) + b"\0\0"
    return profile_of(
        b"RGB ",
        desc=b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + bytes(77),
        wtpt=xyz(0.9642, 1, 0.82491),
        rXYZ=xyz(0.60974, 0.31111, 0.01947),
        gXYZ=xyz(0.20528, 0.62567, 0.06087),
        bXYZ=xyz(0.14919, 0.06322, 0.74457),
        rTRC=curve,
        gTRC=curve,
        bTRC=curve,
    )


def in_wide(colour: tuple[int, int, int]) -> Image.Image:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(wide_profile()))
    image = Image.new("RGB", (16, 16), colour)
    found = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), profile, outputMode="RGB")
    found.info.clear()
    return found


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_colours_of_a_profile_become_srgb(form):
    found = decoded(encoded(in_wide(RED), form, icc_profile=wide_profile()), 16)
    assert np.abs(found.pixels[:, 8, 8].astype(int) - RED).max() <= 4
    assert [text for text in found.changes if "converted to sRGB" in text]
    assert abs(int(decode(encoded(in_wide(RED), form), 16)[0, 8, 8]) - RED[0]) > 20  # without it they are others


def test_a_profile_counts_below_transparency_too():
    image = in_wide(RED).convert("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 0))
    found = decode(encoded(image, icc_profile=wide_profile()), 16)
    assert np.abs(found[:, 8, 8].astype(int) - RED).max() <= 2
    assert found[:, 0, 0].tolist() == [255] * 3


def test_srgb_by_any_name_is_left_alone_and_broken_profiles_are_said(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = decoded(encoded(photo()), 16)
    for mode in ("RGB", "L"):
        found = decoded(encoded(photo(mode=mode), icc_profile=srgb), 16)
        assert np.array_equal(found.pixels, decode(encoded(photo(mode=mode)), 16))
        assert not found.changes
    broken = {
        f"{i}.png": encoded(photo(), icc_profile=bad) for i, bad in enumerate((bytes(200), srgb[:300], b"x" * 99))
    }
    alien = {"cmyk.jpg": encoded(photo(mode="CMYK"), "JPEG", icc_profile=srgb)}
    found, said = read(folder(tmp_path, broken | alien))
    assert np.array_equal(found.images[0], plain.pixels)
    assert "4 with a colour profile that cannot be used (taken for sRGB)" in said


def test_grey_has_profiles_too():
    linear = profile_of(b"GRAY", wtpt=xyz(0.9642, 1, 0.82491), kTRC=b"curv" + bytes(8))  # light in proportion
    wanted = round(255 * (1.055 * (128 / 255) ** (1 / 2.4) - 0.055))  # IEC 61966-2-1
    for image in (Image.new("L", (8, 8), 128), Image.new("LA", (8, 8), (128, 255))):
        assert abs(int(decode(encoded(image, icc_profile=linear), 8)[0, 0, 0]) - wanted) <= 1
    deep = grey(np.full((8, 8), 128 * 257, np.uint16))
    assert abs(int(decode(encoded(deep, icc_profile=linear), 8)[0, 0, 0]) - wanted) <= 1
    found = decoded(encoded(photo(), icc_profile=linear), 16)  # of grey, with pixels of colour
    assert "cannot be used" in next(iter(found.changes))


def test_cmyk_without_a_profile_and_lab():
    data = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")
    assert np.abs(decode(data, 8)[:, 4, 4].astype(int) - (255, 0, 0)).max() < 6
    assert [text for text in decoded(data, 8).changes if "CMYK without a profile" in text]
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (8, 8), RED), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert np.abs(decode(encoded(lab, "TIFF"), 8)[:, 4, 4].astype(int) - RED).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "TIFF", "PNG"])
def test_every_orientation_is_upright(orientation, form):
    image = Image.new("RGB", (16, 16))
    image.paste("white", (0, 0, 8, 4))  # tells all eight apart
    exif = Image.Exif()
    exif[0x0112] = orientation
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # what a camera would have stored
    back = {4: 2, 2: 4}
    turn = turns.get(orientation)
    stored = image if turn is None else image.transpose(Image.Transpose(back.get(turn, turn)))
    found = decode(encoded(stored, form, exif=exif), 16)
    assert (found[0, 1:3, 1:7] > 200).all()
    assert (found[0, 6:, :] < 60).all()
    assert (found[0, :, 10:] < 60).all()


# Long metadata


def test_long_texts_and_profiles_leave_a_image_sound(tmp_path):
    text, xmp, plain = PngImagePlugin.PngInfo(), PngImagePlugin.PngInfo(), PngImagePlugin.PngInfo()
    text.add_text("prompt", "masterpiece, " * 120_000, zip=True)
    xmp.add_itxt("XML:com.adobe.xmp", "<x>" + "a" * 1_500_000 + "</x>", zip=True)
    for i in range(40):
        plain.add_text(f"k{i}", "b" * 1_000_000, zip=True)
    wanted = decode(encoded(photo()), 16)
    for info in (text, xmp, plain):
        found = decoded(encoded(photo(), pnginfo=info), 16)
        assert np.array_equal(found.pixels, wanted)
        assert not found.changes
        assert read_header(encoded(photo(), pnginfo=info)).size == (16, 16)
    long = wide_profile() + bytes(1_200_000)
    long = struct.pack(">I", len(long)) + long[4:]
    assert np.abs(decode(encoded(in_wide(RED), icc_profile=long), 16)[:, 8, 8].astype(int) - RED).max() <= 2
    huge = decoded(encoded(photo(), icc_profile=bytes(9_000_000)), 16)
    assert np.array_equal(huge.pixels, wanted)
    assert "cannot be used" in next(iter(huge.changes))


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        (chunk(b"tEXt", b"a\0b")[:-1] + b"?", 0),
        (chunk(b"pHYs", bytes(9))[:-1] + b"?", 0),
        (chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(300)))[:-1] + b"?", 1),
        (chunk(b"iCCP", b"a\0\7" + zlib.compress(bytes(300))), 1),
        (chunk(b"iCCP", b""), 1),
    ],
)
def test_damage_beside_the_pixels_leaves_a_image_sound(damaged, said):
    data = encoded(photo())
    found = decoded(data[:33] + damaged + data[33:], 16)
    assert np.array_equal(found.pixels, decode(data, 16))
    assert len(found.changes) == said
    at = data.index(b"IDAT") + 20
    with pytest.raises(Unreadable):  # damage of the pixels is damage
        decode(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :], 16)


def test_texts_of_usual_length_stay():
    info = PngImagePlugin.PngInfo()
    info.add_text("a", "b" * 1000, zip=True)
    data = encoded(photo(), pnginfo=info)
    assert png.lightened(data) == (data, None)
    assert png.lightened(data[:200])[0] == data[:200]


def test_images_that_another_library_opened():
    assert from_image(Image.new("F", (8, 8), 0.5), 8).pixels.max() == 128
    assert from_image(Image.new("I;16", (8, 8), 65535), 8).pixels.min() == 255
    assert from_image(Image.new("YCbCr", (8, 8)), 8).mode == "YCbCr"
