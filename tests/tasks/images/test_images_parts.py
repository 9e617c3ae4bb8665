"""Parts of a data set by the names of folders: what is learned from, what is held out, what is a class after all."""

from __future__ import annotations

import io
import zipfile

import pytest
from PIL import Image

from ajest.errors import UserError
from ajest.tasks.images.data import describe, open_images
from ajest.tasks.images.data.splits import roles_of


def png(level: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (level % 256, level // 256, 9)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def archive(tmp_path):
    """A zip of images by name; a name that ends in / is a folder, another than .png an empty file."""

    def make(*names):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as out:
            for i, name in enumerate(names):
                out.writestr(name, png(i) if name.endswith(".png") else b"")
        return str(tmp_path / "x.zip")

    return make


def read(spec, split="train"):
    said: list[str] = []
    found = open_images([spec], 8, split, warn=said.append)
    return found.classes, list(map(str, found.ids)), [text.partition(": ")[2] for text in said]


@pytest.mark.parametrize(
    ("train", "other"),
    [
        ("Training", "Testing"),
        ("train", "test"),
        ("TRAIN_SET", "test-set"),
        ("trainset", "testset"),
        ("train_images", "test_images"),
        ("seg_train", "seg_test"),
        ("train2017", "val2017"),
        ("trainImages", "devImages"),
        ("asl_alphabet_train", "asl_alphabet_test"),
        ("training", "holdout"),
    ],
)
@pytest.mark.parametrize("wrapper", ["", "archive/", "data/brain mri/"])
def test_parts_by_any_usual_name(archive, wrapper, train, other):
    spec = archive(*(f"{wrapper}{part}/{c}/{i}.png" for part in (train, other) for c in ("cat", "dog") for i in (1, 2)))
    for split, part, rest in (("train", train, other), ("val", other, train)):
        classes, ids, said = read(spec, split)
        assert classes == ("cat", "dog")
        assert [i.partition("/")[0] for i in ids] == [part] * 4
        assert said == [f"{part} is read (4 images); left out: {rest} (4)"]


def test_unlabeled_images_are_left_out_and_counted(archive):
    spec = archive(*(f"{p}/{c}/1.png" for p in ("train", "test") for c in "ab"), "unlabeled/1.png", "unlabeled/2.png")
    classes, ids, said = read(spec)
    assert (classes, ids) == (("a", "b"), ["train/a/1.png", "train/b/1.png"])
    assert said == ["train is read (2 images); left out: test (2), unlabeled (2)"]
    classes, ids, said = read(archive("cat/1.png", "dog/1.png", "Unlabelled/1.png"))
    assert (classes, said) == (("cat", "dog"), ["left out: Unlabelled (1)"])


@pytest.mark.parametrize("nested", ["seg_train/{0}/", "images/{0}/", "{0}/images/", "{0}/"])
def test_folders_that_say_nothing_more_are_no_classes(archive, nested):
    spec = archive(
        *(f"{part}/{nested.format(c)}1.png" for part in ("seg_train", "seg_test") for c in ("sea", "street"))
    )
    assert read(spec)[0] == ("sea", "street")


def test_parts_within_classes(archive):
    names = [f"{c}/{part}/{i}.png" for c in ("bottle", "cable") for part in ("train/good", "test/torn") for i in (1, 2)]
    classes, ids, said = read(archive(*names, "bottle/ground_truth/torn/1.png"))
    assert classes == ("bottle", "cable")
    assert all("/train/" in i for i in ids)
    assert said == [
        "train is read (4 images); left out: ground_truth (1), test (4)",
        "the classes are the folders around train, not those in it",
    ]


def test_a_class_may_be_called_train_or_test(archive):
    classes, _, said = read(archive("train/1.png", "bus/1.png", "tram/1.png"))
    assert classes == ("bus", "train", "tram")
    assert said == ["beside other folders, train is taken for a class: name its folder if it is a part"]
    assert read(archive("bullet train/1.png", "freight train/1.png"))[0] == ("bullet train", "freight train")
    assert read(archive("test tube/1.png", "bullet train/1.png"))[0] == ("bullet train", "test tube")
    inside = read(archive(*(f"{part}/{c}/1.png" for part in ("train", "test") for c in ("car", "train", "test"))))
    assert inside[0] == ("car", "test", "train")


def test_folders_beside_parts_are_named(archive):
    names = [f"{part}/{c}/1.png" for part in ("train", "test") for c in ("cat", "dog")]
    classes, _, said = read(archive(*names, "samples/1.png", "cover.png"))
    assert classes == ("cat", "dog")
    assert said == ["train is read (2 images); left out: images beside the folders (1), samples (1), test (2)"]


@pytest.mark.parametrize(
    ("names", "split", "says"),
    [
        (("train/a/1.png", "train/b/1.png"), "val", "no held-out part, only train: name the folder itself"),
        (("train/1.png", "unlabeled/1.png"), "val", "no held-out part, only train, unlabeled"),
        (("test/a/1.png",), "train", "no part to learn from, only test"),
        (("val/a/1.png", "test/a/1.png"), "train", "no part to learn from, only test, val"),
    ],
)
def test_no_part_stands_for_another(archive, names, split, says):
    with pytest.raises(UserError, match=says):
        read(archive(*names), split)


def test_one_part_alone_may_be_learned_from_but_for_a_test(archive):
    assert read(archive("val/a/1.png", "val/b/1.png"))[0] == ("a", "b")
    assert read(archive("unlabeled/1.png", "unlabeled/2.png"))[:2] == ((), ["unlabeled/1.png", "unlabeled/2.png"])


def test_a_folder_may_be_called_like_its_part(archive):
    """training_data/{train,val} is a wrapper, not a training part with classes train and val."""
    spec = archive(*(f"training_data/{part}/{c}/1.png" for part in ("train", "val") for c in ("cat", "dog")))
    assert read(spec)[1] == ["train/cat/1.png", "train/dog/1.png"]
    assert read(spec, "val")[1] == ["val/cat/1.png", "val/dog/1.png"]


def test_empty_class_folders_are_named(archive, tmp_path):
    spec = archive("cat/1.png", "dog/1.png", "bird/", "fish/notes.txt")
    assert read(spec)[2] == ["no image in bird, fish: left out"]
    assert describe([spec], 8).notes == (f"{spec}: no image in bird, fish: left out",)
    spec = archive("train/cat/1.png", "train/dog/", "test/cat/1.png")
    assert read(spec)[2][1:] == ["no image in dog: left out"]
    for name in ("cat", "dog", ".git/objects"):
        (tmp_path / "d" / name).mkdir(parents=True)
    (tmp_path / "d/cat/1.png").write_bytes(png())
    assert read(str(tmp_path / "d"))[2] == ["no image in dog: left out"]


def test_folders_that_are_called_like_no_class_are_named(archive):
    classes, _, said = read(archive("images/1.png", "masks/1.png"))
    assert classes == ("images", "masks")
    assert said == ["taken for classes, though nothing is called so: images, masks"]


def test_a_lone_folder_of_images_has_no_class(archive):
    assert read(archive("images/1.png", "images/2.png"))[0] == ()
    assert read(archive("train/images/1.png", "train/images/2.png"))[0] == ()


def test_classes_of_which_nothing_can_be_read_are_left_out(tmp_path):
    for name, data in {"cat/1.png": png(), "dog/1.png": b"no", "owl/1.png": png(3)}.items():
        (tmp_path / "d" / name).parent.mkdir(parents=True)
        (tmp_path / "d" / name).write_bytes(data)
    for _ in range(2):  # decoded, and out of the cache
        said: list[str] = []
        found = open_images([str(tmp_path / "d")], 8, skip_bad=True, warn=said.append)
        assert (found.classes, found.labels.tolist()) == (("cat", "owl"), [0, 1])
        assert said[1:] == ["no image that can be read is of dog: left out"]


def test_roles_of_names():
    assert roles_of(["train", "Valid", "DEV", "test1", "extra"]) == {
        "train": "train",
        "Valid": "val",
        "DEV": "val",
        "test1": "test",
        "extra": "unlabeled",
    }
    assert roles_of(["trains", "contest", "latest", "valley", "trained"]) == {}
    assert roles_of(["x_train", "x_test", "y_train", "y_test"]).keys() == {"x_train", "x_test", "y_train", "y_test"}
