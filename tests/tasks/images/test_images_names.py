"""Names of classes as keys, names of files and items of lists."""

from __future__ import annotations

import io
import unicodedata
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ajest.cli.asked import class_names
from ajest.errors import UserError
from ajest.tasks.images.data import of_classes, open_images
from ajest.tasks.images.figures import file_names, write_images
from ajest.tasks.images.setup import image_task

NAMES = ["Müller", "Žluťoučký kůň", "café", "plain"]


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (level % 256, level // 256, 9)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def archive(tmp_path):
    def make(name, folders, each=1, first=0):
        with zipfile.ZipFile(tmp_path / name, "w") as out:
            for c, folder in enumerate(folders):
                for i in range(each):
                    out.writestr(f"{folder}/{i}.png", png(first + 50 * c + i))
        return str(tmp_path / name)

    return make


def composed(form, names=NAMES):
    return [unicodedata.normalize(form, name) for name in names]


def read(*spec):
    said: list[str] = []
    return open_images(spec, 8, warn=said.append), [text.partition(": ")[2] for text in said]


def test_class_keys_are_of_one_unicode_form(archive):
    for form in ("NFC", "NFD", "NFKD"):
        found, said = read(archive("x.zip", composed(form)))
        assert (found.classes, said) == (tuple(sorted(NAMES)), [])


def test_classes_of_two_unicode_forms_are_one_and_it_is_said(archive):
    found, said = read(archive("x.zip", dict.fromkeys([*composed("NFC"), *composed("NFD")])))
    assert found.classes == tuple(sorted(NAMES))
    assert sorted(found.labels.tolist()) == [0, 0, 1, 1, 2, 3, 3]
    assert said == ["classes whose names differ in their Unicode form alone are one: Müller, café, Žluťoučký kůň"]


def test_classes_that_differ_by_case_are_two_and_it_is_said(archive):
    found, said = read(archive("x.zip", ["cat", "Cat", "dog"]))
    assert found.classes == ("Cat", "cat", "dog")
    assert said == ["classes whose names differ by case alone are taken for different ones: Cat, cat"]


def test_held_out_classes_are_compared_as_they_are_read_by_people(archive):
    spec = archive("train.zip", composed("NFD"), each=40)
    task = image_task((spec,), (archive("val.zip", composed("NFC"), 10, 900),), resolution=16)
    assert task.classes == tuple(sorted(NAMES))
    assert len(task.image_set("val")) == 40


def test_held_out_images_of_strange_classes_are_named(archive):
    said: list[str] = []
    train = archive("train.zip", ["pet0", "pet1", "pet2", "pet3"], each=40)
    val = archive("val.zip", ["pet0", "Pet1", "Pet3", "newt"], 20, 900)
    task = image_task((train,), (val,), resolution=16, warn=said.append)
    assert len(task.image_set("val")) == 20
    assert said == [
        "60 of 80 held-out images are left out, as no training image is of Pet1, Pet3, newt "
        "(is it another spelling of pet1, pet3?)",
        "no held-out image is of pet1, pet2, pet3",
    ]
    with pytest.raises(UserError, match="no image has one of the classes pet0"):
        image_task((train,), (archive("other.zip", ["newt"], 20, 900),), resolution=16, warn=said.append)


def test_held_out_classes_that_are_not_learned_are_no_surprise(archive):
    known = tuple(f"c{i}" for i in range(5))
    held_out, _ = read(archive("val.zip", known))
    found, notes = of_classes(held_out, known, ("c1", "c4"))
    assert (found.classes, found.labels.tolist(), notes) == (("c1", "c4"), [0, 1], [])


def test_held_out_classes_of_an_unconditional_network_do_not_matter(archive, tmp_path):
    said: list[str] = []
    (tmp_path / "flat").mkdir()
    for i in range(128):
        (tmp_path / "flat" / f"{i}.png").write_bytes(png(i))
    task = image_task((str(tmp_path / "flat"),), (archive("val.zip", "ab", 10, 900),), resolution=16, warn=said.append)
    assert (task.classes, task.image_set("val").labels) == ((), None)
    assert said == [f"{tmp_path / 'flat'}: no classes, so the network is unconditional"]


def test_a_class_with_a_comma_can_be_named(archive):
    spec = archive("x.zip", ["salt, pepper", "cat"], each=140)
    for text in ('"salt, pepper"', '"salt, pepper",cat'):
        assert "salt, pepper" in image_task((spec,), resolution=16, classes=class_names(text)).classes
    with pytest.raises(UserError, match=r"unknown class 'salt': .*; a name with a comma in it stands in double"):
        image_task((spec,), resolution=16, classes=class_names("salt, pepper"))


def test_one_class_or_none_is_said(archive):
    said: list[str] = []
    spec = archive("x.zip", ["faces"], each=140)
    image_task((spec,), resolution=16, warn=said.append)
    assert said == [f"{spec}: one class, faces"]


AWKWARD = [
    "hot dog",
    "hot-dog",
    "+",
    "-",
    "字" * 80,
    "字" * 81,
    "a/b",
    "a,b",
    "CON",
    "con",
    "x\ny",
    "..",
    "",
    "caf\udce9",
]


def test_every_class_has_files_of_its_own(tmp_path):
    names = file_names(AWKWARD)
    assert len({name.lower() for name in names}) == len(AWKWARD)
    captions = [(name, seed) for name in names for seed in (0, 1)]
    paths = write_images(torch.zeros(len(captions), 3, 4, 4, dtype=torch.uint8), captions, 4, tmp_path / "s")
    assert len(list((tmp_path / "s").iterdir())) == len(set(paths)) == len(captions) + 1
    assert file_names(["cat", "Großer Hund"]) == ["cat", "großer-hund"]


@given(st.lists(st.text(max_size=6) | st.sampled_from([*AWKWARD, "a-0", "a-1", "a", "A"]), max_size=12))
def test_file_names_differ_whatever_classes_are_called(classes):
    names = file_names(classes)
    assert len({name.lower() for name in names}) == len(classes)
    assert all(0 < len(f"{name}-seed0000.png".encode()) < 200 and "/" not in name for name in names)


def test_a_keyword_hides_no_folder_without_a_word(archive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read("shapes:8")[1] == []
    Path("shapes").mkdir()
    Path("shapes/1.png").write_bytes(png(1))
    found, said = read("shapes:8")
    assert len(found) == 8
    assert said == ["shapes is a word of this program: what is called shapes here is meant by ./shapes"]
    assert len(read("./shapes")[0]) == 1
    Path("shapes").rename("hf")
    assert len(read("hf")[0]) == 1  # the word needs its colon
