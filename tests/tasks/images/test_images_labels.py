"""What tells the classes of images: dataset.json, tables beside them, arrays of an .npz. Nothing is guessed."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from ajest.errors import UserError
from ajest.tasks.images.data import open_images
from ajest.tasks.images.data.edm import label_table
from ajest.tasks.images.data.tables import is_label_table

FORM = r'wanted is \{"labels": \[\["name", whole number\], ...\]\}'


def png(level: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (level % 256, level // 256, 9)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def archive(tmp_path):
    """A zip of texts by name; those named .png are images, whatever is given."""

    def make(**members):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as out:
            for i, (name, text) in enumerate(members.items()):
                out.writestr(name, png(i) if name.endswith(".png") else text)
        return str(tmp_path / "x.zip")

    return make


def read(spec, split="train"):
    said: list[str] = []
    found = open_images([spec], 8, split, warn=said.append)
    keys = [found.classes[k] for k in found.labels] if found.labels is not None else []
    return dict(zip(map(str, found.ids), keys, strict=False)), [text.partition(": ")[2] for text in said]


# dataset.json


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"labels": [["a.png", 0], ["b.png", 0.5]]}, rf"b\.png has the label 0\.5: {FORM}"),
        ({"labels": [["a.png", 1.0], ["b.png", 0]]}, rf"a\.png has the label 1\.0: {FORM}"),
        ({"labels": [["a.png", [1, 0]], ["b.png", [0, 1]]]}, rf"a\.png has the label \[1, 0\]: {FORM}"),
        ({"labels": [["a.png", "cat"], ["b.png", "dog"]]}, rf'a\.png has the label "cat": {FORM}'),
        ({"labels": [["a.png", None], ["b.png", 0]]}, rf"a\.png has the label null: {FORM}"),
        ({"labels": [["a.png", True], ["b.png", 0]]}, rf"a\.png has the label true: {FORM}"),
        ({"labels": [["a.png", -1], ["b.png", 0]]}, r"a label is below 0: a\.png"),
        ({"labels": [["a.png", 0], ["b.png", 1], ["./a.png", 1]]}, r"labels a\.png twice, 0 and 1"),
        ({"labels": [["a.png", 0], ["b.png"]]}, rf'entry 1 of `labels` is \["b\.png"\]: {FORM}'),
        ({"labels": [["a.png", 0, 1]]}, "entry 0 of `labels`"),
        ({"labels": [[3, 0]]}, "entry 0 of `labels`"),
        ({"labels": {"a.png": 0, "b.png": 1}}, rf"`labels` is a table: {FORM}"),
        ({"labels": []}, "`labels` is empty"),
        ({"labels": "a.png"}, "`labels` is a text"),
        ({"a.png": 0, "b.png": 1}, r"no `labels`, only a\.png, b\.png: it belongs to another tool, or wanted"),
        ({"images": [{"file_name": "a.png"}], "dataset": "flickr"}, "no `labels`, only images, dataset"),
        ([["a.png", 0], ["b.png", 1]], rf"holds a list: {FORM}"),
        (None, rf"holds null: {FORM}"),
        ({"labels": [["a.png", 0]]}, r"no label for b\.png \(1 such images\)"),
        ({"labels": [["a.png", 0], ["b.png", 2]], "classes": ["x", "y"]}, "label 2 has no class, as there are 2"),
        ({"labels": [["a.png", 0], ["b.png", 1]], "classes": ["x", "x"]}, "`classes` must differ: x"),
        ({"labels": [["a.png", 0], ["b.png", 1]], "classes": ["x", "y"], "names": ["x"]}, "2 `classes` and 1 `names`"),
        ({"labels": [["a.png", 0], ["b.png", 1]], "classes": {"x": 0}}, "`classes` must be a list of names"),
        ({"labels": [["a.png", 0], ["b.png", 1]], "ids": {"a.png": 3}}, "`ids` must be an object of names"),
    ],
)
def test_a_dataset_json_of_another_form_is_refused_by_its_entry(archive, facts, says):
    with pytest.raises(UserError, match=says) as caught:
        read(archive(**{"a.png": "", "b.png": "", "dataset.json": json.dumps(facts)}))
    assert not any(word in str(caught.value) for word in ("NoneType", "int()", "attribute", "unpack"))


def test_labels_of_images_that_are_not_there_are_named(archive):
    facts = {"labels": [["a.png", 0], [".\\b.png", 1], ["c.png", 1]], "names": ["cat", "dog"]}
    spec = archive(**{"a.png": "", "b.png": "", "dataset.json": json.dumps(facts)})
    assert read(spec) == (
        {"a.png": "0", "b.png": "1"},
        ["dataset.json labels what is not there: c.png"],
    )
    assert open_images([spec], 8, warn=lambda _: None).names == ("cat", "dog")


def test_a_part_may_have_a_dataset_json_of_its_own(archive):
    labels = json.dumps({"labels": [["00000/1.png", 3], ["00001/2.png", 3]]})
    members = {f"{part}/{name}": "" for part in ("train", "test") for name in ("00000/1.png", "00001/2.png")}
    found, _ = read(archive(**members, **{"train/dataset.json": labels, "test/dataset.json": labels}))
    assert found == {"train/00000/1.png": "3", "train/00001/2.png": "3"}


def test_many_entries_make_no_long_line():
    labels = [[f"{i}.png", 0] for i in range(3_000)]
    table = label_table(json.dumps({"labels": labels}).encode(), ["0.png"], ["0.png"], "x")
    assert len(table.absent) == 2_999
    with pytest.raises(UserError) as caught:
        label_table(json.dumps(dict(labels)).encode(), ["0.png"], [], "x")
    assert len(str(caught.value)) < 1_000


# Tables beside images

PETS = {"1.png": "cat", "2.png": "dog", "3.png": "cat", "4.png": "dog"}


def csv(rows, header="file_name,label", form="{},{}"):
    return "\n".join(([header] if header else []) + [form.format(*row) for row in rows.items()])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", csv(PETS)),
        ("metadata.csv", csv(PETS, "label,file_name", "{1},{0}")),
        ("metadata.csv", csv(PETS, "\ufefffile_name;text;label", "{0};a photo, of {0};{1}")),
        ("metadata.csv", csv(PETS, "file_name,text,label", '{0},"a photo,\nof {0}",{1}')),
        ("Labels.CSV", csv(PETS, "", "{},{}")),
        ("labels.tsv", csv(PETS, "image\tspecies", "{}\t{}")),
        ("labels.csv", csv({n[0]: c for n, c in PETS.items()}, "id,breed")),
        ("train_labels.csv", csv({f"somewhere\\{n}": c for n, c in PETS.items()}).replace("somewhere\\", "./")),
        ("trainLabels.csv", csv(PETS, "name,what")),
        ("metadata.jsonl", "\n".join(json.dumps({"file_name": n, "box": [1], "label": c}) for n, c in PETS.items())),
    ],
)
def test_a_table_of_labels_is_read(archive, tmp_path, name, text):
    found, said = read(archive(**dict.fromkeys(PETS, ""), **{name: text}))
    assert found == PETS
    assert len(said) == 1
    assert said[0].startswith(f"the classes are those of {name}, column ")
    (tmp_path / "d").mkdir()
    for image in PETS:
        (tmp_path / "d" / image).write_bytes(png())
    (tmp_path / "d" / name).write_text(text, "utf-8")
    assert read(str(tmp_path / "d"))[0] == PETS


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (csv({n: n * 3 for n in PETS}, "file_name,text"), "nearly every image has a text of its own"),
        (csv(dict.fromkeys(PETS, "0.25")), "its column label holds numbers that are no classes, such as 0.25"),
        (csv(dict.fromkeys(PETS, "a,8"), "file_name,class,target"), "several columns may be the label: class, target"),
        (csv(dict.fromkeys(PETS, "2,8"), "file_name,width,height"), "it has no column `label`, only width, height"),
        (csv(PETS) + "\n1.png,dog", "it gives several labels to 1.png"),
        (csv({"9.png": "cat"}), "it names none of the images"),
        ("", "it names none of the images"),
        (b"file_name,label\n1.png,caf\xe9", "it is not in UTF-8"),
    ],
)
def test_a_table_that_is_not_used_is_named(archive, text, says):
    found, said = read(archive(**dict.fromkeys(PETS, ""), **{"metadata.csv": text}))
    assert found == {}
    assert said == [f"metadata.csv is not used: {says}"]


def test_whole_numbers_may_have_a_point(archive):
    text = csv(dict(zip(PETS, ("1.0", "2.0", "1.0", "10.0"), strict=True)))
    found, _ = read(archive(**dict.fromkeys(PETS, ""), **{"labels.csv": text}))
    assert list(found.values()) == ["1", "2", "1", "10"]


def test_a_table_of_some_images_only_is_refused(archive):
    text = csv({"1.png": "cat", "2.png": "dog"})
    with pytest.raises(UserError, match=r"metadata\.csv has no label for 3\.png \(2 such images\): add the labels"):
        read(archive(**dict.fromkeys(PETS, ""), **{"metadata.csv": text}))


def test_a_table_beside_class_folders(archive):
    names = ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"]
    agreeing = csv({n: f"Class {n[:3]}" for n in names})
    assert read(archive(**dict.fromkeys(names, ""), **{"metadata.csv": agreeing}))[1] == []
    other = csv(dict(zip(names, "abab", strict=True)))
    found, said = read(archive(**dict.fromkeys(names, ""), **{"metadata.csv": other}))
    assert list(found.values()) == ["a", "b", "a", "b"]
    assert said == ["the classes are those of metadata.csv, column label, not the folders"]
    found, said = read(archive(**dict.fromkeys(names, ""), **{"labels.csv": csv({"cat": "Felis", "dog": "Canis"})}))
    assert list(found.values()) == ["cat", "cat", "dog", "dog"]
    assert said == ["labels.csv is not used: it names none of the images"]


def test_each_part_has_its_table(archive):
    members = {f"{part}/{n}": "" for part in ("train", "test") for n in PETS}
    tables = {f"{part}/metadata.csv": csv({n: part + c for n, c in PETS.items()}) for part in ("train", "test")}
    spec = archive(**members, **tables)
    assert set(read(spec)[0].values()) == {"traincat", "traindog"}
    assert set(read(spec, "val")[0].values()) == {"testcat", "testdog"}
    above = {f"{part}.csv": csv({f"{part}/{n}": part + c for n, c in PETS.items()}) for part in ("train", "test")}
    spec = archive(**members, **above)
    assert set(read(spec)[0].values()) == {"traincat", "traindog"}
    assert set(read(spec, "val")[0].values()) == {"testcat", "testdog"}


def test_images_in_a_folder_beside_their_table(archive):
    found, _ = read(archive(**{f"images/{n}": "" for n in PETS}, **{"labels.csv": csv(PETS)}))
    assert list(found.values()) == list(PETS.values())


def test_files_that_may_tell_classes_are_named(archive):
    text = {"instances.json": "{}", "README.txt": "", "boxes.xml": "", "bad.csv": "1.png,blurred", "list.txt": ""}
    found, said = read(archive(**dict.fromkeys(PETS, ""), **text))
    assert (found, said) == ({}, ["no classes are read from bad.csv, boxes.xml, instances.json, list.txt"])


def test_names_of_tables():
    said = ["metadata.csv", "labels.jsonl", "train.csv", "train_labels.csv", "image_labels.tsv", "trainLabels.csv"]
    assert all(is_label_table(name, ("train",)) for name in said)
    others = ["test.csv", "test_labels.csv", "class_names.csv", "bad_images.csv", "labels.txt", "sizes.csv", "csv"]
    assert not any(is_label_table(name, ("train",)) for name in others)


# Arrays

IMAGES = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
LABELS = np.array([0, 2, 1, 0])


@pytest.fixture
def npz(tmp_path):
    def make(**arrays):
        np.savez(tmp_path / "x.npz", **arrays)
        return str(tmp_path / "x.npz")

    return make


@pytest.mark.parametrize("name", ["targets", "label", "y", "arr_1", "target", "class", "Labels", "class_labels"])
@pytest.mark.parametrize("image_set", ["images", "x", "arr_0", "data"])
def test_labels_by_any_usual_name(npz, name, image_set):
    found, said = read(npz(**{image_set: IMAGES, name: LABELS[:, None]}))
    assert list(found.values()) == ["0", "2", "1", "0"]
    assert said == [f"the labels are those of {name}: call it otherwise to have it ignored"]


def test_parts_of_an_npz(npz):
    spec = npz(x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:2], y_test=LABELS[:2], x_val=IMAGES[:3], y_val=LABELS[:3])
    for split, n, left in (
        ("train", 4, "x_test, x_val, y_test, y_val"),
        ("val", 3, "x_test, x_train, y_test, y_train"),
    ):
        found, said = read(spec, split)
        assert list(found.values()) == LABELS[:n].astype(str).tolist()
        assert said[1:] == [f"x_{split} is read ({n} images); left out: {left}"]
    both = [open_images([spec], 8, split, warn=lambda _: None) for split in ("train", "val")]
    assert both[0].digest != both[1].digest
    with pytest.raises(UserError, match="no held-out part, only x_extra, x_train: call the right array `images`"):
        read(npz(x_train=IMAGES, x_extra=IMAGES), "val")


def test_words_are_classes_and_names_name_them(npz):
    assert list(read(npz(images=IMAGES, labels=np.array(["b", "a", "b", "é"])))[0].values()) == ["b", "a", "b", "é"]
    found = open_images([npz(images=IMAGES, labels=LABELS, names=np.array(["cat", "dog", "owl"]))], 8)
    assert (found.classes, found.names) == (("0", "1", "2"), ("cat", "dog", "owl"))


def test_arrays_that_nobody_reads_are_named(npz):
    assert read(npz(images=IMAGES, boxes=LABELS, hue=LABELS, names=LABELS))[1] == ["arrays not used: boxes, hue, names"]
    objects = np.array([{}, [], "x", 3], dtype=object)
    assert read(npz(images=IMAGES, labels=LABELS, meta=objects))[1] == ["array not used: meta"]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"images": IMAGES, "fine_labels": LABELS, "coarse_labels": LABELS}, "the labels, fine_labels, coarse_labels"),
        ({"left": IMAGES, "right": IMAGES}, "the images, left, right: call the right one `images`"),
        ({"images": IMAGES, "labels": LABELS, "ids": np.array(["a", "b"])}, "ids must be 4 different names, not 2"),
        ({"images": IMAGES, "labels": LABELS, "ids": np.array(list("abca"))}, "ids must be 4 .* of which 3 differ"),
        ({"images": IMAGES, "labels": np.eye(4)}, r"labels must be 4 .*: of rows with a single 1, save argmax\(1\)"),
        ({"images": IMAGES, "labels": LABELS / 2}, "labels must be 4 whole numbers from 0 on, or names, not float64"),
        ({"images": IMAGES, "labels": LABELS - 1}, "and one is -1"),
        ({"images": IMAGES, "targets": LABELS[:3]}, "targets must be 4 whole numbers"),
        ({"images": IMAGES, "labels": LABELS, "names": np.array(["a", "b"])}, "label 2 has no class, as there are 2"),
        ({"images": IMAGES, "labels": LABELS, "classes": np.array(list("aab"))}, "`classes` must differ: a"),
        ({"images": IMAGES, "labels": np.array([0, "a", None, 1], dtype=object)}, "labels holds objects of Python"),
        ({"images": IMAGES.transpose(0, 3, 1, 2)}, r"must be uint8 of shape \(N, H, W, 3\), not uint8 \(4, 3, 8, 8\)"),
    ],
)
def test_arrays_that_cannot_be_meant_are_refused_by_name(npz, arrays, says):
    with pytest.raises(UserError, match=says):
        read(npz(**arrays))


def test_false_sizes_of_arrays_cost_no_memory(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 8, 8, 3)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as out:
        out.writestr("images.npy", header.getvalue())
    with pytest.raises(UserError, match=r"images\.npy says that it is larger than it is"):
        read(str(tmp_path / "x.npz"))
