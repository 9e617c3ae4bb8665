"""What the tests of faults have in common: starting victims, finding what is not whole, comparing ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from ajest.errors import Corrupt
from ajest.storage import checkpoint, jsonl
from forked import FORKED

#: The whole number of kills and inputs, which takes half an hour: AJEST_FAULTS=full.
FULL = os.environ.get("AJEST_FAULTS") == "full"

VICTIMS = Path(__file__).with_name("victims.py")


def command(verb: str, folder: Path, *numbers: int) -> list[str]:
    return [str(VICTIMS), verb, str(folder), *map(str, numbers)]


def victim(verb: str, folder: Path, *numbers: int, before: tuple[str, ...] = ()) -> Any:
    """Run a verb of victims.py to its end and return what it says.

    Args:
        verb, folder, numbers: of victims.py.
        before: words of a command that starts it.
    """
    words = command(verb, folder, *numbers)
    if before:
        done = subprocess.run([*before, sys.executable, *words], capture_output=True, text=True, timeout=900)
    else:
        done = FORKED.run(words)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def not_whole(root: Path) -> list[str]:
    """Files below a folder that a kill has left half-written, temporary ones apart; a log's last line may be torn."""
    found = []
    for path in (p for p in sorted(root.rglob("*")) if p.is_file() and not p.name.startswith(".")):
        if path.suffix == ".jsonl":
            *lines, _ = path.read_bytes().split(b"\n")
            if len(jsonl.read(path)) < len(lines):
                found.append(str(path))
        elif path.suffix == ".json":
            try:
                pair = path.with_suffix(".safetensors").exists() or path.stem.startswith(("checkpoint", "snapshot"))
                checkpoint.load(path.with_suffix("")) if pair else checkpoint.read_json(path)
            except Corrupt as error:
                found.append(str(error))
    return found


def assert_same_end(folder: Path, other: Path) -> None:
    """Two runs ended with the same bits, whatever happened on their way, and left nothing unfinished."""
    final = [checkpoint.latest(f, "checkpoint", _fail) for f in (folder, other)]
    assert final[0].facts["step"] == final[1].facts["step"]
    assert final[0].tensors.keys() == final[1].tensors.keys()
    for key, value in final[0].tensors.items():
        assert torch.equal(value, final[1].tensors[key]), key
    for key in ("trained", "scored", "drawn", "by_kind", "flops"):
        assert final[0].facts["ledger"][key] == final[1].facts["ledger"][key]
    ledgers = [[(x["step"], x["loss"]) for x in jsonl.read(f / "ledger.jsonl")] for f in (folder, other)]
    assert ledgers[0] == ledgers[1]
    names = [{str(p.relative_to(f)) for p in f.rglob("*") if p.is_file()} for f in (folder, other)]
    assert names[0] ^ names[1] == set()
    for stem in checkpoint.stems(folder / "snapshots", "snapshot").values():
        stored = [checkpoint.load(s).tensors for s in (stem, other / "snapshots" / stem.name)]
        assert all(torch.equal(v, stored[1][k]) for k, v in stored[0].items()), stem


def _fail(text: str) -> None:
    raise AssertionError(text)
