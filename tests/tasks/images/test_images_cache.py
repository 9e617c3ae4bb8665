"""The cache of decoded images: one writer, others wait; what killed writers left goes; few images are ahead."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ajest.errors import UserError
from ajest.runtime import distributed
from ajest.tasks.images.data import cache as cached
from ajest.tasks.images.data import loading, open_images, prepare
from ajest.tasks.images.setup import image_task
from image_files import encoded, folder

#: Opens a data set, and waits with each image until a file is there; says how many images it decoded.
SCRIPT = """
import sys, time
from pathlib import Path
from ajest.tasks.images.data import decoding, open_images
spec, cache, begun, gate = sys.argv[1:]
really, seen = decoding.from_image, []
def slow(*arguments):
    seen.append(1)
    Path(begun).touch()
    while not Path(gate).exists():
        time.sleep(0.01)
    return really(*arguments)
decoding.from_image = slow
found = open_images([spec], 8, cache=Path(cache), warn=lambda text: print(text, flush=True))
print("decoded", len(seen), "digest", found.digest, flush=True)
"""


def image_set(root: Path, count: int = 40) -> str:
    return folder(root, {f"cat/{i:03}.png": encoded(Image.new("RGB", (8, 8), (i, 9, 9))) for i in range(count)})


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def until(truth) -> None:
    for _ in range(3000):
        if truth():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come about")


def test_two_processes_decode_a_set_once(tmp_path):
    spec, cache = image_set(tmp_path / "x"), tmp_path / "cache"
    first = start(spec, cache, tmp_path / "1", tmp_path / "gate")
    until((tmp_path / "1").exists)
    second = start(spec, cache, tmp_path / "2", tmp_path / "gate")
    assert second.stdout
    waits = second.stdout.readline()
    (tmp_path / "gate").touch()
    (one, _), (two, _) = first.communicate(), second.communicate()
    assert f"process {first.pid} of" in waits
    assert "waiting for it" in waits
    assert "decoded 40 digest" in one
    assert "decoded 0 digest" in two
    assert one.split()[-1] == two.split()[-1]
    assert [path.name[0] for path in (cache / "images").iterdir()] != ["."]


def test_what_a_killed_writer_left_is_swept_and_a_living_ones_is_not(tmp_path):
    spec, cache = image_set(tmp_path / "x"), tmp_path / "cache"
    killed = start(spec, cache, tmp_path / "1", tmp_path / "never")
    until((tmp_path / "1").exists)
    (left,) = (cache / "images").iterdir()
    assert left.name.startswith(".making-")
    open_images([image_set(tmp_path / "y", 3)], 8, cache=cache)  # another set: its writer lives
    assert left.exists()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    open_images([image_set(tmp_path / "z", 4)], 8, cache=cache)
    assert not left.exists()
    assert len(open_images([spec], 8, cache=cache)) == 40
    assert not [path for path in (cache / "images").iterdir() if path.name.startswith(".")]


def test_what_a_killed_packer_left_is_swept(tmp_path):
    out = tmp_path / "a[1].npz"
    left, working, other = (tmp_path / name for name in (".a[1].npz.x", ".a[1].npz.y", ".a1.npz.x"))
    for path in (left, working, other):
        path.write_bytes(b"")
    with working.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        prepare([image_set(tmp_path / "x", 2)], out, 8)
    assert out.exists()
    assert (left.exists(), working.exists(), other.exists()) == (False, True, True)


def test_threads_of_one_process_decode_once(tmp_path, monkeypatch):
    spec, really, made = image_set(tmp_path / "x", 3), cached._made, []

    def counted(*arguments):
        made.append(1)
        time.sleep(0.1)
        return really(*arguments)

    monkeypatch.setattr(cached, "_made", counted)
    said: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(open_images, [spec], 8, cache=tmp_path, warn=said.append) for _ in range(4)]
    assert len({f.result().digest for f in found}) == 1
    assert len(made) == 1
    assert len(said) == 3


def test_the_first_rank_speaks_for_all(tmp_path, monkeypatch):
    spec = folder(tmp_path / "x", {"1.png": encoded(Image.new("RGBA", (8, 8))), "2.png": b"no"})
    said: list[str] = []
    monkeypatch.setattr("ajest.tasks.images.data.sets.rank", lambda: 1)
    open_images([spec], 8, skip_bad=True, warn=said.append)
    assert not said
    monkeypatch.setattr("ajest.tasks.images.data.sets.rank", distributed.rank)
    open_images([spec], 8, skip_bad=True, warn=said.append)
    assert [text[:6] for text in said] == ["1 file", str(tmp_path)[:6]]


def test_few_images_are_ahead_of_who_takes_them(monkeypatch):
    alive, most = 0, 0
    really = ThreadPoolExecutor.submit

    def submit(self, *arguments):
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        return really(self, *arguments)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)
    for i, found in enumerate(loading.in_order(lambda x: 2 * x, range(3000))):
        assert found == 2 * i  # in order
        alive -= 1
    assert i == 2999
    assert most <= 256


def test_who_stops_early_leaves_no_work_behind():
    begun, before = [], set(threading.enumerate())
    with pytest.raises(ZeroDivisionError):
        for _ in loading.in_order(lambda x: begun.append(x) or 1 / (3 - x), range(100_000)):
            pass
    assert len(begun) <= 260
    assert set(threading.enumerate()) <= before


def test_a_file_system_without_locks_costs_the_wait_only(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    assert len(open_images([image_set(tmp_path / "x", 3)], 8, cache=tmp_path / "cache")) == 3
    assert len(list((tmp_path / "cache/images").iterdir())) == 1


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room on the disk cannot be reserved here")
def test_a_full_disk_is_said_with_the_room_that_is_needed(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    spec, said = image_set(tmp_path / "x", 3), []
    monkeypatch.setattr(os, "posix_fallocate", full)
    open_images([spec], 8, cache=tmp_path / "cache", warn=said.append)
    assert "GiB of decoded images cannot be kept in" in said[0]
    assert "(No space left on device), so they are held in memory: set AJEST_CACHE" in said[0]
    monkeypatch.setattr(np, "empty", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(UserError, match="neither on the disk nor into memory"):
        open_images([spec], 8, cache=tmp_path / "cache", warn=said.append)


def test_a_disk_that_fills_up_later_is_an_error_of_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    spec = folder(tmp_path / "x", {"1.png": encoded(Image.new("RGB", (8, 8))), "2.png": b"no"})
    monkeypatch.setattr(cached, "_shorten", full)
    with pytest.raises(UserError, match=r"\(No space left on device\): free some space, or set AJEST_CACHE"):
        open_images([spec], 8, skip_bad=True, cache=tmp_path / "cache", warn=lambda _: None)
    assert not list((tmp_path / "cache/images").iterdir())


def test_a_ready_array_is_read_through_once(tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 8, 8, 3), dtype=np.uint8))
    really, made = cached.content_digest, []

    def counted(*arguments):
        made.append(1)
        time.sleep(0.1)
        return really(*arguments)

    monkeypatch.setattr(cached, "content_digest", counted)
    with ThreadPoolExecutor(4) as pool:
        spec = [str(tmp_path / "x.npz")]
        found = [pool.submit(open_images, spec, 8, cache=tmp_path, warn=lambda _: None) for _ in range(4)]
    assert len({f.result().digest for f in found}) == 1
    assert len(made) == 1


def test_what_is_true_of_one_archive_is_said_once(tmp_path):
    members = {
        f"{part}/cat/{i:03}.png": encoded(Image.new("RGB", (8, 8), (i, 9, len(part))))
        for part in ("train", "val")
        for i in range(130)
    }
    spec, said = folder(tmp_path / "x", members | {"readme.heic": b"\0\0\0\x18ftypheic"}), []
    image_task((spec,), (spec,), resolution=16, warn=said.append)
    assert len([text for text in said if "heic" in text]) == 1
