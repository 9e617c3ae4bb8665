"""The command that measures everything on a GPU, as far as a CPU shows it."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def gpu(monkeypatch):
    """The module, on a CPU."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delenv("GPU_WORK", raising=False)
    monkeypatch.setenv("GPU_DRY_RUN", "1")
    monkeypatch.delitem(sys.modules, "gpu", raising=False)
    module = importlib.import_module("gpu")
    yield module
    del sys.modules["gpu"]


def piece(gpu, name, code, least=1, most=60, **more):
    return gpu.Piece(name, f"About {name}", (sys.executable, "-c", code), least, most, **more)


def measure(gpu, out, pieces, seconds=100):
    """What stands in results.md after these pieces, in so many seconds."""
    folders = gpu.Folders.of(out)
    for folder in (folders.out, folders.work):
        folder.mkdir(parents=True, exist_ok=True)
    known = {p.name: p for p in pieces}
    results = gpu.Results(out / "results.md", list(known))
    deadline = gpu.time.monotonic() + gpu.GRACE + seconds
    gpu.measure(gpu.wanted_of(known, (), results), results, folders, deadline)
    return (out / "results.md").read_text()


def test_a_piece_that_fails_or_hangs_stops_no_other_and_is_tried_again(gpu, tmp_path, capsys):
    flag = tmp_path / "flag"
    bad = f"import pathlib; print('so far', flush=True); pathlib.Path({str(flag)!r}).read_text(); print('well')"
    pieces = [
        piece(gpu, "machine", "print('| a card |')"),
        piece(gpu, "bad", bad),
        piece(gpu, "slow", "import time; print('began', flush=True); time.sleep(60)", most=1),
        piece(gpu, "good", "import sys; print('fine'); print('aside', file=sys.stderr)", plain=True),
    ]
    text = measure(gpu, tmp_path / "out", pieces)
    assert "## About machine\n\n| a card |\n<!-- end done -->" in text
    assert "## About bad\n\n**Failed with exit code 1: see log.txt**\n\nso far\n<!-- end failed -->" in text
    assert "**Stopped after 1 s, for want of time**\n\nbegan\n<!-- end failed -->" in text
    assert "```\nfine\n```\n<!-- end done -->" in text
    assert "aside" in (tmp_path / "out" / "log.txt").read_text()
    assert "FileNotFoundError" in capsys.readouterr().out

    flag.write_text("")
    again = measure(gpu, tmp_path / "out", pieces)
    said = capsys.readouterr().out
    assert "machine: is there already" in said
    assert "good: is there already" in said
    assert "so far\nwell\n<!-- end done -->" in again
    assert again.count("<!-- piece ") == 4


def test_what_no_longer_fits_is_left_out_and_said_to_be(gpu, tmp_path):
    pieces = [piece(gpu, "long", "print(1)", least=50), piece(gpu, "short", "print(2)", least=2)]
    text = measure(gpu, tmp_path / "out", pieces, seconds=20)
    assert "`long` was left out: 20 s were left, and it takes 50" in text
    assert "## About long" not in text
    assert "## About short\n\n2" in text


def test_compilers_run_beside_what_times_nothing_and_before_what_does(gpu, tmp_path):
    order = tmp_path / "order"
    add = f"open({str(order)!r}, 'a').write"
    slow = (sys.executable, "-c", f"import time; time.sleep(1); {add}('c')")
    pieces = [
        piece(gpu, "machine", f"{add}('m')"),
        piece(gpu, "tests", f"{add}('t')", measures=False),
        piece(gpu, "xxs", f"{add}('x')", compiles=slow),
        piece(gpu, "xs", f"{add}('y')", compiles=(sys.executable, "-c", "raise SystemExit(4)")),
    ]
    text = measure(gpu, tmp_path / "out", pieces)
    assert order.read_text() == "mtcxy"
    assert "xs 0 s (failed), xxs 1 s" in text or "xs 1 s (failed), xxs" in text


def test_a_bench_that_is_stopped_leaves_its_report(gpu, tmp_path):
    work = gpu.Folders.of(tmp_path / "out").work
    assert work == tmp_path / "out-work"  # beside what is kept, where the same command finds it
    leaves = {"bench.html": work / "bench" / "report.html"}
    hangs = f"import time, pathlib; p = pathlib.Path({str(work)!r}, 'bench'); p.mkdir(); " \
            "(p / 'report.html').write_text('so far'); time.sleep(60)"  # fmt: skip
    measure(gpu, tmp_path / "out", [piece(gpu, "bench", hangs, most=2, leaves=leaves)])
    assert (tmp_path / "out" / "bench.html").read_text() == "so far"


def test_what_is_missing_is_named_with_the_mend(gpu, tmp_path):
    assert gpu.missing(gpu.CORE) == []
    assert gpu.missing({"torch": "torch", "no_such_package": "no-such==1"}) == ["no-such==1"]
    text = measure(gpu, tmp_path / "out", [piece(gpu, "x", "", needs={"no_such_package": "no-such==1"})])
    assert "`x` was left out: missing here: no-such==1" in text
    assert "pip install no-such==1" in text


def command(tmp_path, *pieces, code=0):
    settings = {"GPU_DRY_RUN": "1", "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    settings |= {"PYTHON": sys.executable, "TORCH_COMPILE_DISABLE": "1"}  # compilers take a minute on a CPU
    words = [ROOT / "scripts" / "gpu.sh", "out", *pieces]
    done = subprocess.run(words, env=os.environ | settings, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def test_the_cheap_pieces_run_dry(tmp_path):
    command(tmp_path, "machine", "xxs", "sampling-xxs")
    text = (tmp_path / "out" / "results.md").read_text()
    assert text.count("<!-- end done -->") == 3, text
    assert "Dry run" in text
    assert "dense bf16 matrix product, measured" in text
    for words in (
        "| baseline, drawn on the host |",
        "| ajest, drawn on the device |",
        "an AJEST step takes",
        "4 Heun steps",
    ):
        assert words in text
    assert (tmp_path / "out" / "kernels.txt").read_text().count("calls a step") == 4
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["kernels.txt", "log.txt", "results.md"]
    assert (tmp_path / "out-work" / "machine.out").exists()
    assert "there is no piece xxl" in command(tmp_path, "xxl", code=1)


def test_several_processes_and_a_whole_bench_run_dry(tmp_path):
    command(tmp_path, "several", "bench-tree", "compiling")
    text = (tmp_path / "out" / "results.md").read_text()
    assert text.count("<!-- end done -->") == 3, text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(("| 1 | ", "| 2 | "))]
    assert [(row[0], row[1], row[4]) for row in rows] == [
        (f"| {n}", arm, "yes") for n in (1, 2) for arm in ("baseline", "ajest")
    ]
    assert all(float(row[5].rstrip(" |")) < 1e-5 for row in rows)
    assert "| compiled, replayed | 10 |" in text
    out = tmp_path / "out"
    assert {"bench-tree.html", "bench-tree.md"} < {p.name for p in out.iterdir()}
    assert (out / "bench-tree.md").read_text().startswith("# ")
