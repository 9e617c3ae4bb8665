"""Which class of ImageNet a class is, and what is said where none is known."""

import json
from dataclasses import replace

import pytest

from ajest.errors import UserError
from ajest.tasks.images.imagenet import class_indices, read_indices, strangers
from conftest import small_images


def test_classes_are_known_by_wordnet_id_or_name():
    assert class_indices(["n01443537", "n01440764", "n15075141"]) == (1, 0, 999)
    assert class_indices(("a", "b", "c"), ("GOLDFISH", "great_white_shark", "Carassius auratus")) is None  # 1 twice
    assert class_indices(("a", "b"), ("GOLDFISH", "great_white_shark")) == (1, 2)
    assert class_indices(("n01443537", "teapot")) == (1, 849)
    assert class_indices(("n01443537", "circle")) is None
    assert class_indices(("goldfish", "crane")) is None  # a bird and a machine
    assert class_indices(("goldfish", "crane bird")) == (1, 134)
    assert class_indices(("0", "1")) is None  # numbers of a data set's own
    assert class_indices(("n00000000",)) is None
    assert class_indices([]) is None
    assert strangers(("a", "b", "c"), ("goldfish", "star", "Carassius auratus")) == [
        "goldfish",
        "star",
        "Carassius auratus",
    ]


def test_a_file_says_which_classes_are_meant(tmp_path):
    path = tmp_path / "classes.json"
    keys, names = ("a", "b", "c"), ("fish", "bird", "tea")

    def given(value: object) -> tuple[int, ...]:
        path.write_text(json.dumps(value))
        return read_indices(path, keys, names)

    assert given({"a": 1, "bird": "n02012849", "c": "Teapot", "more": 5}) == (1, 134, 849)
    for value, message in (
        ({"a": 1}, "does not say which class of ImageNet is meant by b, c"),
        ({"a": 1, "b": 1000, "c": "crane"}, "1000, crane: no index below 1000, WordNet id or single class"),
        ({"a": 1, "b": True, "c": 2.0}, "True, 2.0: no index"),
        ({"a": 1, "b": "goldfish", "c": 2}, "gives fish, bird the same class"),
        ([1, 2, 3], "must hold one JSON object"),
    ):
        with pytest.raises(UserError, match=message):
            given(value)
    path.write_text("a: 1")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        read_indices(path, keys, names)
    with pytest.raises(UserError, match="cannot be read as JSON"):
        read_indices(tmp_path / "none.json", keys, names)


def test_why_no_class_accuracy_is_shown():
    def said(**changes: object) -> str:
        task = replace(small_images(), **changes)
        assert [m.name for m in task.metrics if m.name.startswith("top")] == (
            [] if len(task.notes(9)) > 2 else ["top1"]
        )
        return " ".join(task.notes(9)[2:])

    assert "10 of the 10 classes cannot be found in ImageNet" in said()
    assert "(circle, cross, diamond, heart, hexagon and 5 more): --imagenet FILE says which they are" in said()
    assert "have no classes" in said(classes=(), names=())
    fish = ("goldfish", "tench")
    assert said(classes=fish, names=fish) == ""
    assert "only lite0 tells classes" in said(classes=fish, names=fish, extractors=("dinov2",))
    assert said(classes=("x", "y"), names=("x", "y"), imagenet=(3, 4)) == ""
