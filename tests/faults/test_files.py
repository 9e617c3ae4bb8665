"""Disks that are full or read-only, files that are cut off or altered."""

import math
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from harm import assert_same_end, victim
from victims import SCHEDULE, config, make_guide

from ajest.errors import Corrupt, UserError
from ajest.storage import checkpoint, jsonl
from ajest.training import recorder
from ajest.training.networks import load_network
from ajest.training.run import execute
from ajest.training.run_folder import read_config


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("faults")
    make_guide(root / "guide")
    assert execute(root / "unbroken", config(), SCHEDULE) == "done"
    return root


@pytest.fixture
def cut_off(runs, tmp_path, monkeypatch):
    """A run in its middle, with its two last checkpoints."""
    monkeypatch.setattr(recorder, "COPYING_SHARE", math.inf)
    (tmp_path / "guide").symlink_to(runs / "guide")
    stopped = tmp_path / "run"

    def stop(step, trainer):
        if step == 150:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(stopped, config(), SCHEDULE, progress=stop)
    assert len(checkpoint.stems(stopped, "checkpoint")) == 2
    return stopped


def parts(run):
    """The two files of the last checkpoint."""
    last = max(checkpoint.stems(run, "checkpoint").values())
    return [last.with_suffix(suffix) for suffix in (".json", ".safetensors")]


def found(run):
    complaints = []
    stored = checkpoint.latest(run, "checkpoint", complaints.append)
    return stored.facts["step"], complaints


def test_a_checkpoint_cut_off_at_every_64th_byte_is_named_and_the_one_before_is_used(cut_off):
    before, last = checkpoint.stems(cut_off, "checkpoint")
    for path in parts(cut_off):
        whole = path.read_bytes()
        for size in range(0, len(whole), 64):
            path.write_bytes(whole[:size])
            step, complaints = found(cut_off)
            assert step == before
            assert len(complaints) == 1
            assert path.name in complaints[0]
        path.write_bytes(whole)
    assert found(cut_off) == (last, [])


def test_a_checkpoint_with_a_bit_flipped_is_named_and_the_one_before_is_used(cut_off):
    chance, before = random.Random(0), min(checkpoint.stems(cut_off, "checkpoint"))
    for path in parts(cut_off):
        whole = path.read_bytes()
        for _ in range(100):
            harmed = bytearray(whole)
            harmed[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
            path.write_bytes(harmed)
            step, complaints = found(cut_off)
            assert step == before
            assert len(complaints) == 1
            assert path.name in complaints[0]
        path.write_bytes(whole)


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one_to_the_same_bits(cut_off, runs):
    path = parts(cut_off)[1]
    path.write_bytes(path.read_bytes()[:-1])
    complaints = []
    assert execute(cut_off, config(), SCHEDULE, warn=complaints.append) == "done"
    assert len(complaints) == 1
    assert path.name in complaints[0]
    assert_same_end(cut_off, runs / "unbroken")


def test_what_a_kill_left_between_two_files_is_tidied_up(runs, tmp_path):
    """Killed at the very end: before the checkpoints but the last were deleted, in the middle of deleting another."""
    (tmp_path / "guide").symlink_to(runs / "guide")
    run = tmp_path / "run"
    shutil.copytree(runs / "unbroken", run)
    (run / "status.json").unlink()
    (last,) = checkpoint.stems(run, "checkpoint").values()
    for older in (238, 245):
        for suffix in (".json", ".safetensors"):
            shutil.copy(last.with_suffix(suffix), run / f"checkpoint-{older:07d}{suffix}")
    shutil.copy(last.with_suffix(".safetensors"), run / "checkpoint-0000231.safetensors")
    shutil.copy(last.with_suffix(".safetensors"), run / "snapshots" / "snapshot-0000251.safetensors")
    (run / ".status.json.abcd_123.tmp").write_text("{")
    assert execute(run, config(), SCHEDULE, warn=pytest.fail) == "done"
    assert_same_end(run, runs / "unbroken")


def test_without_a_whole_checkpoint_a_run_begins_anew(cut_off, runs):
    for path in cut_off.glob("checkpoint-*.safetensors"):
        path.write_bytes(b"")
    complaints = []
    assert execute(cut_off, config(), SCHEDULE, warn=complaints.append) == "done"
    assert len(complaints) == 2
    assert_same_end(cut_off, runs / "unbroken")


def test_a_line_of_a_ledger_with_a_bit_flipped_is_passed_over(runs, tmp_path):
    chance, path = random.Random(0), tmp_path / "ledger.jsonl"
    whole = (runs / "unbroken" / "ledger.jsonl").read_bytes()
    path.write_bytes(whole)
    lines = jsonl.read(path)
    for _ in range(200):
        harmed = bytearray(whole)
        place = chance.randrange(len(whole))
        harmed[place] ^= 1 << chance.randrange(8)
        path.write_bytes(harmed)
        left = jsonl.read(path)
        lost = len(lines) - len(left)  # two, where the end of a line was hit
        assert 1 <= lost <= 2
        assert all(line in lines for line in left)


def flips(whole: bytes):
    for place in range(len(whole)):
        for bit in range(8):
            yield whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]


def test_every_bit_of_a_sealed_text_counts(tmp_path):
    """Also in the last digit of a float and in the name of a key, where another text can stand for the same value."""
    value = {"step": 147, "seconds": 0.059063937987957615, "nothing": None, "by": {"é": [1e-07, True]}}
    assert float("0.059063937987957614") == value["seconds"]
    sealed, line = tmp_path / "facts.json", tmp_path / "ledger.jsonl"
    checkpoint.write_sealed(sealed, value)
    assert checkpoint.read_sealed(sealed) == value
    for harmed in flips(sealed.read_bytes()):
        sealed.write_bytes(harmed)
        with pytest.raises(Corrupt, match=r"facts\.json"):
            checkpoint.read_sealed(sealed)
    jsonl.append(line, value)
    assert jsonl.read(line) == [value]
    for harmed in flips(line.read_bytes()[:-1]):
        line.write_bytes(harmed)
        assert jsonl.read(line) == []


def test_a_damaged_config_is_named(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs / "unbroken", run)
    whole = (run / "config.json").read_text()
    for harmed in (whole[:-20], whole.replace('"seed"', '"sead"'), whole.replace("250", '"many"'), "[]", "{}", "null"):
        (run / "config.json").write_text(harmed)
        with pytest.raises((UserError, Corrupt), match=r"config\.json"):
            execute(run, config(), SCHEDULE)
        with pytest.raises(UserError, match=r"config\.json"):
            read_config(run)


def test_a_damaged_reference_is_named_and_the_snapshot_before_is_used(cut_off, capsys):
    last = max(checkpoint.stems(cut_off / "snapshots", "snapshot").values())
    path = last.with_name(last.name + ".safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    _, step = load_network(cut_off)
    assert step < int(last.name[-7:])
    assert path.name in capsys.readouterr().out


MOUNTS = ["unshare", "--user", "--map-root-user", "--mount"]


def may_mount() -> bool:
    if shutil.which("unshare") is None or not Path("/dev/shm").is_dir():
        return False
    tried = subprocess.run([*MOUNTS, "mount", "-t", "tmpfs", "none", "/dev/shm"], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.mark.skipif(not may_mount(), reason="may not mount a small file system of its own")
def test_a_full_disk_and_a_read_only_one_lose_nothing(runs, tmp_path):
    said = victim("starved", tmp_path, before=tuple(MOUNTS))
    place = tmp_path / "small" / "run"
    assert said["full"].startswith(f"cannot write {place}")
    assert "No space left on device; free some space or name another folder with --out" in said["full"]
    assert said["whole"] == []
    assert said["step"] > 0
    assert said["read-only"].startswith(f"cannot write {place}")
    assert "Read-only file system" in said["read-only"]
    assert_same_end(tmp_path / "run", runs / "unbroken")
