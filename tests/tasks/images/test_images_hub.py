"""Data sets of the hub: which columns and splits are read, and what is said of rows that cannot be."""

from __future__ import annotations

import io
import sys
import types

import numpy as np
import pytest
from PIL import Image

from ajest.errors import UserError
from ajest.tasks.images.data import describe, open_images


def png(level: int, size=(8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (level, 9, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def feature(kind: str, **facts):
    return type(kind, (), facts)()


IMAGE, INTEGER, TEXT = feature("Image"), feature("Value", dtype="int64"), feature("Value", dtype="string")
ANIMALS = feature("ClassLabel", names=["cat", "dog"])


class Table:
    """What a table of the library does, as far as it is used."""

    _fingerprint = "abc"

    def __init__(self, columns, features):
        self.columns, self.features = columns, features

    def select_columns(self, names):
        return Table({n: self.columns[n] for n in names}, self.features)

    def cast_column(self, name, feature):
        assert feature == "stored"
        return self

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key):
        if isinstance(key, str):
            return self.columns[key]
        return {name: values[key] for name, values in self.columns.items()}


@pytest.fixture
def hub(monkeypatch):
    """Puts a table in the place of the hub's; its images may be given as levels of red."""

    def place(splits=("train",), **columns):
        features = {name: kind for name, (kind, _) in columns.items()}
        values = {name: list(map(stored, cells)) if kind is IMAGE else cells for name, (kind, cells) in columns.items()}
        asked = []
        stub = types.SimpleNamespace(
            load_dataset=lambda name, split: asked.append((name, split)) or Table(values, features),
            get_dataset_split_names=lambda name: list(splits),
            Image=lambda decode: "stored",
        )
        monkeypatch.setitem(sys.modules, "datasets", stub)
        return asked

    def stored(cell):
        return {"bytes": png(cell), "path": None} if isinstance(cell, int) else cell

    return place


def read(spec="hf:pets", **options):
    said: list[str] = []
    found = open_images([spec], 8, warn=said.append, **options)
    return found, said


def test_the_hub_is_read_through_its_library(hub, monkeypatch):
    asked = hub(img=(IMAGE, [0, 1, 2, 3]), label=(ANIMALS, [0, 1, 1, 0]))
    found, said = read("hf:someone/pets:train[:4]")
    assert asked == [("someone/pets", "train[:4]")]
    assert found.labels.tolist() == [0, 1, 1, 0]
    assert found.classes == ("cat", "dog")
    assert said == []
    assert str(found.ids[3]) == "train[:4]/0000003"
    assert np.array_equal(found.images[:, 0, 0, 0], [0, 1, 2, 3])
    assert describe(["hf:someone/pets:test"], 8).sizes == {(8, 8): 4}
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"ajest\[hf\]"):
        open_images(["hf:someone/pets"])


def test_labels_may_be_numbers_or_words(hub):
    hub(image=(IMAGE, [0, 1, 2, 3]), label=(INTEGER, [7, 11, 7, 7]))
    assert read()[0].classes == ("7", "11")
    hub(image=(IMAGE, [0, 1]), caption=(TEXT, ["a", "b"]), species=(TEXT, ["dog", "cat"]))
    found, said = read()
    assert (found.classes, found.labels.tolist(), said) == (("cat", "dog"), [1, 0], [])


def test_columns_that_nobody_reads_are_named(hub):
    hub(image=(IMAGE, [0, 1]), caption=(TEXT, ["a", "b"]), hue=(INTEGER, [1, 2]))
    found, said = read()
    assert found.labels is None
    assert said == ["hf:pets: no classes are read from its columns caption, hue: choose one by :label=COLUMN"]
    assert read("hf:pets:label=hue")[0].classes == ("1", "2")


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"label": (INTEGER, [0, 1])}, "no column of images, only label"),
        ({"image": (IMAGE, [0, 1]), "mask": (IMAGE, [0, 1])}, "images, image, mask: choose one by :image=COLUMN"),
        ({"image": (IMAGE, [0, 1]), "fine": (ANIMALS, [0, 1]), "coarse": (ANIMALS, [0, 0])}, "classes, fine, coarse"),
        ({"image": (IMAGE, [0, 1]), "class": (TEXT, "ab"), "target": (TEXT, "ab")}, "classes, class, target"),
    ],
)
def test_several_columns_are_refused_by_name(hub, columns, says):
    hub(**columns)
    with pytest.raises(UserError, match=says):
        read()


def test_a_column_is_chosen_by_name(hub):
    columns = {"image": (IMAGE, [5]), "mask": (IMAGE, [6]), "fine": (ANIMALS, [1]), "coarse": (ANIMALS, [0])}
    asked = hub(**columns)
    found, _ = read("hf:pets:train:image=mask:label=fine")
    assert asked == [("pets", "train")]
    assert (found.classes, int(found.images[0, 0, 0, 0])) == (("dog",), 6)
    assert read("hf:pets:image=image:label=")[0].labels is None
    for spec, says in (("hf:pets:image=fine", "column of images 'fine'"), ("hf:pets:mask=mask", "each once")):
        with pytest.raises(UserError, match=says):
            read(spec)


def test_rows_without_a_class_are_named(hub):
    for labels in ([None, 0, -1], [None, 0, 2]):
        hub(image=(IMAGE, [0, 1, 2]), label=(ANIMALS, labels))
        with pytest.raises(UserError, match=r"images without a class, 2 in all \(label is empty in row 0, 2\)"):
            read()


def test_rows_without_a_sound_image_are_named(hub, tmp_path):
    broken = {"bytes": b"junk", "path": None}
    here = {"bytes": None, "path": str(tmp_path / "x.png")}
    (tmp_path / "x.png").write_bytes(png(7))
    gone = {"bytes": None, "path": str(tmp_path / "gone.png")}
    hub(image=(IMAGE, [3, None, broken, here, gone]), label=(INTEGER, [0] * 5))
    with pytest.raises(UserError, match=r"^3 files cannot be read \(") as caught:
        read(cache=tmp_path / "cache")
    assert "train/0000001: the row has no image; train/0000002: " in str(caught.value)
    assert "object at" not in str(caught.value)
    found, _ = read(cache=tmp_path / "cache", skip_bad=True)
    assert found.images[:, 0, 0, 0].tolist() == [3, 7]
    assert sorted(describe(["hf:pets"], 8).bad) == [f"train/{i:07}" for i in (1, 2, 4)]


def test_two_classes_of_one_name_stay_two(hub):
    hub(image=(IMAGE, [0, 1]), label=(feature("ClassLabel", names=["crane", "crane"]), [0, 1]))
    found, _ = read()
    assert (found.classes, found.names) == (("0", "1"), ("crane", "crane"))


@pytest.mark.parametrize(
    ("splits", "train", "val"),
    [
        (("train", "test"), "train", "test"),
        (("test", "validation", "train", "unsupervised"), "train", "validation"),
        (("full",), "full", "has the splits full"),
        (("a", "b"), "has the splits a, b", "has the splits a, b"),
        (("train",), "train", "no held-out part, only train"),
        (("test",), "no part to learn from, only test", "test"),
    ],
)
def test_the_split_is_that_which_is_there(hub, splits, train, val):
    for split, expected in (("train", train), ("val", val)):
        asked = hub(splits, image=(IMAGE, [0]))
        if expected in splits:
            read(split=split)
            assert asked == [("pets", expected)]
        else:
            with pytest.raises(UserError, match=expected):
                read(split=split)


def test_the_library_itself(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    rows = {"image": [{"bytes": png(9), "path": None}, None], "label": ["cat", "dog"]}
    (tmp_path / "d" / "data").mkdir(parents=True)
    table = datasets.Dataset.from_dict(rows, features=features)
    table.to_parquet(str(tmp_path / "d" / "data" / "train-00000-of-00001.parquet"))
    found, said = read(f"hf:{tmp_path / 'd'}", skip_bad=True)
    assert (found.names, found.images[0, 0, 0, 0]) == (("cat",), 9)
    assert said[0].startswith("1 file cannot be read (train/0000001: the row has no image)")
