import json
import os
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ajest.errors import Corrupt, UserError
from ajest.storage import checkpoint, config_file, jsonl
from ajest.storage.config import to_json
from ajest.storage.lock import locked
from ajest.training.recipe import Recipe


def saved(folder, number, value):
    checkpoint.save(folder / f"state-{number}", {"w": torch.full((64,), float(value))}, {"step": number})


def test_what_is_saved_is_loaded(tmp_path):
    saved(tmp_path, 3, 7)
    stored = checkpoint.load(tmp_path / "state-3")
    assert torch.equal(stored.tensors["w"], torch.full((64,), 7.0))
    assert stored.facts["step"] == 3
    assert checkpoint.facts(tmp_path / "state-3") == stored.facts
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("harm", ["truncate", "flip", "empty", "header", "json", "missing"])
def test_a_damaged_file_is_named_and_the_one_before_is_used(tmp_path, harm):
    saved(tmp_path, 1, 1)
    saved(tmp_path, 20, 2)
    path = tmp_path / "state-20.safetensors"
    data = bytearray(path.read_bytes())
    if harm == "truncate":
        path.write_bytes(data[:-5])
    elif harm == "empty":
        path.write_bytes(b"")
    elif harm == "flip":
        data[-9] ^= 4
        path.write_bytes(data)
    elif harm == "header":
        path.write_bytes(b"\xff" * len(data))
    elif harm == "json":
        (tmp_path / "state-20.json").write_text('{"step": 20, "sha')
    else:
        path.unlink()
    with pytest.raises(Corrupt, match=r"state-20\."):
        checkpoint.load(tmp_path / "state-20")
    complaints = []
    assert checkpoint.latest(tmp_path, "state", complaints.append).facts["step"] == 1
    assert len(complaints) == 1
    assert "state-20" in complaints[0]


@given(st.binary(max_size=200), st.binary(max_size=60))
def test_any_bytes_are_refused_without_a_crash(tmp_path_factory, tensors, facts):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "s-1.safetensors").write_bytes(tensors)
    (folder / "s-1.json").write_bytes(facts)
    assert checkpoint.latest(folder, "s", lambda _: None) is None


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    in_the_way = rf"cannot write .*: {tmp_path / 'file'} is a file, no folder; name another folder with --out$"
    with pytest.raises(UserError, match=in_the_way):
        checkpoint.write_atomic(tmp_path / "file" / "x.json", "{}")
    with pytest.raises(UserError, match=in_the_way):
        jsonl.append(tmp_path / "file" / "x.jsonl", {})
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=in_the_way), locked(folder):
            pass


@pytest.mark.parametrize("age", [-1e6, 0, 1e6])
def test_what_a_killed_writer_left_is_swept_away(tmp_path, age):
    left = tmp_path / "below" / ".a.json.x1y2_abc.tmp"
    left.parent.mkdir()
    for name in (left.name, "a.json", ".lock"):
        (left.parent / name).write_text("{")
    os.utime(left, (time.time() - age, time.time() - age))
    checkpoint.sweep(tmp_path, idle=60)
    assert left.exists() == (age < 60)
    checkpoint.sweep(tmp_path)
    assert sorted(p.name for p in left.parent.iterdir()) == [".lock", "a.json"]


def test_weights_and_hidden_files_of_others_are_not_swept_away(tmp_path):
    (tmp_path / "vae").mkdir()
    mine = [tmp_path / "vae" / "diffusion_pytorch_model.safetensors", tmp_path / "model.safetensors"]
    mine += [tmp_path / ".vim.tmp", tmp_path / ".notes.tmp"]
    ours = [tmp_path / f"{name}-0000008.safetensors" for name in ("checkpoint", "snapshot", "step")]
    for path in (*mine, *ours):
        path.write_bytes(b"x")
    checkpoint.sweep(tmp_path)
    assert all(path.exists() for path in mine)
    assert not any(path.exists() for path in ours)


def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    checkpoint.write_json(path, [1])

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        checkpoint.write_json(path, [2])
    assert json.loads(path.read_text()) == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@given(st.lists(st.dictionaries(st.text(), st.integers()), min_size=1), st.integers(1, 10))
def test_a_torn_line_spoils_only_itself(tmp_path_factory, values, torn):
    path = tmp_path_factory.mktemp("jsonl") / "x.jsonl"
    jsonl.append(path, *values)
    path.write_bytes(path.read_bytes() + b'{"step": 12345678'[:torn])
    jsonl.append(path, {"last": 1})
    assert jsonl.read(path) == [*values, {"last": 1}]


def test_a_folder_of_an_older_layout_is_said_to_be_one(tmp_path):
    path = tmp_path / "config.json"
    config_file.write_config(path, Recipe())
    assert config_file.read_config_file(path, Recipe) == Recipe()
    checkpoint.write_json(path, to_json(Recipe()))
    with pytest.raises(UserError, match=r"is of an older layout than this version of ajest reads: make it anew"):
        config_file.read_config_file(path, Recipe)
    checkpoint.write_json(path, {"layout": 99, **to_json(Recipe())})
    with pytest.raises(UserError, match=r"is of another layout"):
        config_file.read_config_file(path, Recipe)
