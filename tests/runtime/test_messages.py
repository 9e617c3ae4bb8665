"""Lines for people: what bounds them, and what they may hold."""

from __future__ import annotations

from ajest.errors import listed, unknown
from ajest.tasks.images.data.joining import reasons


def test_a_list_in_a_line_has_a_bound():
    assert listed([]) == ""
    assert listed(range(3)) == "0, 1, 2"
    assert listed(range(20)).endswith(", 19")
    assert listed(range(1_500)).endswith("18, 19 and 1,480 more")
    assert len(listed(["x" * 10_000] * 10_000)) < 4_000
    assert len(str(unknown("class", "person 9" * 1_000, (f"person {i:04}" for i in range(1_500))))) < 1_500


def test_names_are_one_line_whatever_they_hold():
    assert listed(["a\nb", "\x1b[31m", "caf\udce9", "Žluťoučký kůň"]) == r"a\nb, \x1b[31m, caf\udce9, Žluťoučký kůň"


def test_files_of_one_reason_are_named_together():
    assert reasons({"a": "empty", "b": "torn", "c": "empty"}) == "a, c: empty; b: torn"
    many = {f"{i}.jpg": "empty" for i in range(2_000)} | {"last.jpg": "torn"}
    assert reasons(many).endswith("9.jpg and 1,990 more: empty; last.jpg: torn")
    assert len(reasons({f"{i}.jpg": f"reason {i}" for i in range(2_000)})) < 1_000
