"""Shards of images: tar archives as WebDataset has them, and Parquet."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from ajest.errors import UserError
from ajest.tasks.images.data import open_images


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (level, 0, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def tar(path, files, **changes):
    """An archive of these files; `changes` are of the first member."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as out:
        for number, (name, data) in enumerate(files):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for key, value in changes.items() if not number else ():
                setattr(member, key, value)
            out.addfile(member, io.BytesIO(data))
    return path


def read(*spec, tmp_path, **settings):
    said = []
    found = open_images([str(s) for s in spec], 16, cache=tmp_path / "cache", warn=said.append, **settings)
    return found, said


def samples(numbers, label=lambda n: ("cls", str(n % 2).encode())):
    """WebDataset's: an image and its class for each number."""
    for n in numbers:
        yield f"{n:03d}.png", png(n)
        suffix, data = label(n)
        yield f"{n:03d}.{suffix}", data


def as_json(n):
    return "json", json.dumps({"caption": f"number {n}", "label": ["cat", "dog"][n % 2], "width": 16}).encode()


@pytest.mark.parametrize(("label", "classes"), [(None, ("0", "1")), (as_json, ("cat", "dog"))])
def test_shards_of_a_folder_are_one_data_set_with_stable_ids(tmp_path, label, classes):
    given = {} if label is None else {"label": label}
    for shard in range(3):
        tar(tmp_path / "set" / f"shard-{shard:04d}.tar", samples(range(4), **given))  # keys that count anew
    found, said = read(tmp_path / "set", tmp_path=tmp_path)
    assert (found.classes, said) == (classes, [])
    assert found.ids.tolist() == [f"shard-{shard:04d}-{n:03d}.png" for shard in range(3) for n in range(4)]
    assert found.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3] * 3
    assert found.labels.tolist() == [0, 1] * 6
    again, _ = read(tmp_path / "set", tmp_path=tmp_path)
    assert again.digest == found.digest


def test_one_archive_and_several_by_name(tmp_path):
    one = tar(tmp_path / "a.tar", samples(range(4)))
    other = tar(tmp_path / "b.tar", samples(range(4, 6)))
    found, _ = read(one, other, tmp_path=tmp_path)
    assert found.ids.tolist() == [f"{n:03d}.png" for n in range(6)]
    folders = tar(tmp_path / "c.tar", [(f"./{c}/{n}.png", png(n)) for c in ("cat", "dog") for n in range(2)])
    found, _ = read(folders, tmp_path=tmp_path)
    assert (found.classes, found.ids.tolist()) == (("cat", "dog"), ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"])


def test_shards_of_parts_are_told_by_their_names(tmp_path):
    for name, numbers in (("train-0000", range(4)), ("train-0001", range(4, 8)), ("val-0000", range(8, 10))):
        tar(tmp_path / "set" / f"{name}.tar", samples(numbers))
    found, said = read(tmp_path / "set", tmp_path=tmp_path)
    assert len(found) == 8
    assert said == [f"{tmp_path / 'set'}: 2 of 3 archives are read: those of the other parts are left out"]
    assert len(read(tmp_path / "set", tmp_path=tmp_path, split="val")[0]) == 2


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("../../up.png", {}, "its name leads outside the archive"),
        ("/up.png", {}, "its name leads outside the archive"),
        ("link.png", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0}, "not a plain file"),
        ("device.png", {"type": tarfile.CHRTYPE, "size": 0}, "not a plain file"),
    ],
)
def test_members_that_are_no_files_of_the_archive_are_refused(tmp_path, name, changes, said):
    archive = tar(tmp_path / "a.tar", [(name, png(1)), ("1.png", png(1)), ("2.png", png(2))], **changes)
    with pytest.raises(UserError, match=rf"1 file cannot be read \(.*{said}"):
        read(archive, tmp_path=tmp_path)
    assert len(read(archive, tmp_path=tmp_path, skip_bad=True)[0]) == 2


def test_a_class_that_is_missing_is_named(tmp_path):
    archive = tar(tmp_path / "a.tar", [*samples(range(3)), ("extra.png", png(9))])
    with pytest.raises(UserError, match=r"extra.png has no class in a .cls of its name \(1 such images\)"):
        read(archive, tmp_path=tmp_path)


def test_archives_that_cannot_be_read_in_place_are_refused(tmp_path):
    whole = tar(tmp_path / "a.tar", samples(range(6))).read_bytes()
    damaged = bytearray(whole)
    damaged[4 * 1024 + 150] ^= 0xFF  # in a header: the library would end there without a word
    long = tarfile.TarInfo("x" * 150)
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    for name, data, said in (
        ("cut", whole[:3000], "unexpected end of data"),
        ("damaged", bytes(damaged), "it is damaged at byte"),
        ("packed", b"\x1f\x8b\x08\0" + bytes(600), "it is compressed: decompress it"),
        ("other", b"no archive at all", "cannot be read as a tar archive"),
        ("long", long.tobuf(tarfile.GNU_FORMAT)[-512:] + bytes(1024), "cannot be read as a tar archive"),
    ):
        (tmp_path / f"{name}.tar").write_bytes(data)
        with pytest.raises(UserError, match=said):
            read(tmp_path / f"{name}.tar", tmp_path=tmp_path)


def parquet(path, numbers, rows_together=3, data=png, **others):
    """A file as `datasets` writes it."""
    arrow, library = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        "image": arrow.array([{"bytes": data(n), "path": f"{n}.png"} for n in numbers]),
        "label": arrow.array([n % 2 for n in numbers]),
    }
    table = arrow.table(columns | {name: arrow.array(column) for name, column in others.items()})
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    library.write_table(table, path, row_group_size=rows_together)
    return path


def test_parquet_files_of_a_folder_are_one_data_set_with_stable_ids(tmp_path):
    names = [f"train-{number:05d}-of-00002" for number in range(2)]
    for number, name in enumerate(names):
        parquet(tmp_path / "set" / "data" / f"{name}.parquet", range(7 * number, 7 * number + 7))
    parquet(tmp_path / "set" / "data" / "test-00000-of-00001.parquet", range(20, 22))
    found, said = read(tmp_path / "set", tmp_path=tmp_path)
    assert (found.classes, len(found)) == (("cat", "dog"), 14)
    assert found.ids.tolist() == [f"{name}/{row:07d}" for name in names for row in range(7)]
    assert found.images[:, 0, 0, 0].tolist() == list(range(14))
    assert found.labels.tolist() == [n % 2 for n in range(14)]
    assert said == [f"{tmp_path / 'set'}: 2 of 3 files are read; left out are those of other parts"]
    assert len(read(tmp_path / "set", tmp_path=tmp_path, split="val")[0]) == 2


def test_parquet_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    whole = parquet(tmp_path / "a.parquet", range(6))
    (tmp_path / "cut.parquet").write_bytes(whole.read_bytes()[:900])
    with pytest.raises(UserError, match=r"cut.parquet cannot be read as Parquet"):
        read(tmp_path / "cut.parquet", tmp_path=tmp_path)
    with pytest.raises(UserError, match="several columns of bytes, image, img: call the one of images image"):
        read(parquet(tmp_path / "b.parquet", range(2), img=[b"1", b"2"]), tmp_path=tmp_path)
    monkeypatch.setattr("ajest.tasks.images.data.parquet.MAX_GROUP", 100)
    with pytest.raises(UserError, match=r"row groups of .* which are read whole: write it with row_group_size=1000"):
        read(whole, tmp_path=tmp_path)


def test_damaged_bytes_in_parquet_are_named_or_left_out(tmp_path):
    path = parquet(tmp_path / "a.parquet", range(6), rows_together=2, data=lambda n: png(n)[: 40 if n == 3 else None])
    found, said = read(path, tmp_path=tmp_path, skip_bad=True)
    assert found.ids.tolist() == [f"a/{row:07d}" for row in (0, 1, 2, 4, 5)]
    assert np.array_equal(found.images[:, 0, 0, 0], [0, 1, 2, 4, 5])
    assert "a/0000003" in said[0]
