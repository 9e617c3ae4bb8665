"""Names and links in folders and archives as other systems write them."""

from __future__ import annotations

import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from ajest.errors import UserError
from ajest.tasks.images.data import open_images


def png(level: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (level, 9, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def read(spec, **options):
    said: list[str] = []
    found = open_images([str(spec)], 8, warn=said.append, **options)
    return found, [text.partition(": ")[2] for text in said]


def raw(path, names: list[bytes]) -> str:
    """A zip whose names are these bytes, not marked as Unicode."""
    with zipfile.ZipFile(path, "w") as out:
        for i, name in enumerate(names):
            out.writestr(chr(97 + i) * len(name), png(i))
    data = path.read_bytes()
    for i, name in enumerate(names):
        data = data.replace((chr(97 + i) * len(name)).encode(), name)
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("separator", [b"\\", b"/", b"\\.\\"])
def test_folders_in_archives_from_windows(tmp_path, separator):
    names = [separator.join((b"pets", c, b"%d.png" % i)) for c in (b"cat", b"dog") for i in range(3)]
    found, said = read(raw(tmp_path / "w.zip", names))
    assert (found.classes, found.labels.tolist(), said) == (("cat", "dog"), [0, 0, 0, 1, 1, 1], [])
    assert str(found.ids[0]) == "cat/0.png"


@pytest.mark.parametrize("name", [b"..\\up.png", b"a\\..\\..\\up.png", b"\\root.png", b"C:\\x.png", b"\\\\host\\x.png"])
def test_folders_that_lead_outside_are_refused_however_written(tmp_path, name):
    spec = raw(tmp_path / "w.zip", [b"cat/1.png", b"dog/1.png", name])
    with pytest.raises(UserError, match=r"1 file cannot be read .* leads outside the archive"):
        read(spec)
    assert read(spec, skip_bad=True)[0].classes == ("cat", "dog")


def test_one_name_written_in_two_ways_is_there_twice(tmp_path):
    with pytest.raises(UserError, match=r"cat/1\.png: the archive holds it twice"):
        read(raw(tmp_path / "w.zip", [b"cat/1.png", b"cat\\1.png"]))


@pytest.mark.parametrize(
    ("codec", "names", "said"),
    [
        ("utf-8", ("猫", "犬"), []),
        ("utf-8", ("kočka", "pes"), []),
        (
            "gbk",
            ("猫猫", "大狗"),
            ["names that are not marked as Unicode are taken for Chinese names, in GBK: 猫猫/1.png"],
        ),
        ("cp437", ("Müller", "café"), ["names that are not marked as Unicode are taken for names in code page 437: "]),
        ("cp437", ("niño", "über"), ["names that are not marked as Unicode are taken for names in code page 437: "]),
    ],
)
def test_names_in_archives_that_are_not_marked_as_unicode(tmp_path, codec, names, said):
    found, notes = read(raw(tmp_path / "w.zip", [f"{name}/1.png".encode(codec) for name in names]))
    assert set(found.classes) == set(names)
    assert len(notes) == len(said)
    assert all(note.startswith(text) for note, text in zip(notes, said, strict=True))


def test_names_that_are_marked_as_unicode(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as out:
        for name in ("猫", "é"):
            out.writestr(f"{name}/1.png", png())
    found, said = read(tmp_path / "w.zip")
    assert (set(found.classes), said) == ({"猫", "é"}, [])


def test_files_that_a_zip_from_windows_was_unpacked_to(tmp_path):
    for i, name in enumerate(("cat\\1.png", "dog\\1.png", "..\\up.png")):
        (tmp_path / "d").mkdir(exist_ok=True)
        (tmp_path / "d" / name).write_bytes(png(i))
    with pytest.raises(UserError, match=r"1 file cannot be read \(\.\./up\.png"):
        read(tmp_path / "d")
    found, _ = read(tmp_path / "d", skip_bad=True)
    assert (found.classes, found.images[:, 0, 0, 0].tolist()) == (("cat", "dog"), [0, 1])


def test_links_are_refused_with_the_mend(tmp_path):
    for c in ("cat", "dog"):
        (tmp_path / "store" / c).mkdir(parents=True)
        (tmp_path / "files" / c).mkdir(parents=True)
        (tmp_path / "folders").mkdir(exist_ok=True)
        (tmp_path / "store" / c / "1.png").write_bytes(png())
        (tmp_path / "folders" / c).symlink_to(tmp_path / "store" / c)
        (tmp_path / "files" / c / "1.png").symlink_to(tmp_path / "store" / c / "1.png")
    for name, says in (
        ("folders", "a link to a folder is not followed: copy what it leads to (cp -rL), or name the folders"),
        ("files", "a link that leads outside the folder is not followed: copy what it leads to (cp -rL)"),
    ):
        with pytest.raises(UserError) as caught:
            read(tmp_path / name)
        assert says in str(caught.value)
    (tmp_path / "whole").symlink_to(tmp_path / "store")
    assert read(tmp_path / "whole")[0].classes == ("cat", "dog")
    (tmp_path / "store" / "dog" / "2.png").symlink_to(tmp_path / "store" / "cat" / "1.png")
    assert len(read(tmp_path / "store")[0]) == 3


def test_links_in_hidden_folders_do_not_matter(tmp_path):
    (tmp_path / "d" / ".venv").mkdir(parents=True)
    (tmp_path / "d" / ".venv" / "lib64").symlink_to(tmp_path)
    (tmp_path / "d" / "1.png").write_bytes(png())
    assert read(tmp_path / "d")[1] == []


def test_links_in_archives_are_refused_with_the_mend(tmp_path):
    link = zipfile.ZipInfo("cat/link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as out:
        out.writestr("cat/1.png", png())
        out.writestr(link, "../1.png")
    with pytest.raises(UserError, match=r"a link is not followed: zip what it leads to \(zip -r, without -y\)"):
        read(tmp_path / "x.zip")


def test_what_lies_in_the_place_of_images_is_named(tmp_path):
    for name in ("train-1of2.zip", "train-2of2.zip", "test.tar.gz"):
        (tmp_path / name).write_bytes(b"")
    says = r"holds no image, but test\.tar\.gz, train-1of2\.zip, .*: name the archives themselves and unpack them"
    with pytest.raises(UserError, match=says):
        read(tmp_path)
    with pytest.raises(UserError, match=r"neither a folder nor a whole zip archive .*: unpack other archives"):
        read(tmp_path / "test.tar.gz")


def test_names_that_are_no_unicode(tmp_path):
    for i, name in enumerate((b"caf\xe9", b"caf\xe8")):
        folder = tmp_path / "d" / os.fsdecode(name)
        folder.mkdir(parents=True)
        for k in range(70):
            (folder / f"{k}.png").write_bytes(png(70 * i + k))
    found, said = read(tmp_path / "d")
    assert found.classes == (r"caf\udce8", r"caf\udce9")
    assert said == [r"names of classes that are not Unicode are written with escapes: caf\udce8, caf\udce9"]
    assert "".join([*found.names, *found.ids]).encode()


def test_suffixes_of_archives_are_read_in_any_case(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 8, 8, 3), np.uint8))
    (tmp_path / "x.npz").rename(tmp_path / "X.NPZ")
    assert len(read(tmp_path / "X.NPZ")[0]) == 2
    (tmp_path / "d.npz").mkdir()
    (tmp_path / "d.npz" / "1.png").write_bytes(png())
    assert len(read(tmp_path / "d.npz")[0]) == 1
