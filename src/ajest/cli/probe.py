"""The verb probe."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from tyro.conf import Positional

from ajest.errors import check

from .console import Device, console, device_of
from .options import File, Number, Whole, verb


@verb
def probe(
    run: Positional[Path],
    *,
    examples: int = 1024,
    step: Whole = None,
    width: Number = None,
    branch: Whole = None,
    repeats: int = 5,
    json: File = None,
    device: Device = "auto",
) -> None:
    """Say from a run's gradients what claims could gain on it at most.

    Example: ajest probe runs/tree-quick/arms/baseline/seed-0
             ajest probe runs/mine --examples 4096 --json probe.json
             ajest probe runs/mine --branch 262144

    - How much of their variance lies between noise levels and between examples
      bounds stratified or other levels, choosing examples, and several levels
      an example. Nothing is trained.
    - --branch trains on from the run's last checkpoint, with a quarter to four
      times its batch: up to which does an example teach as much?
    - The run may still be going on: its latest snapshot is looked at.

    Args:
        run: folder of the run.
        examples: gradients to look at, one forward and backward pass each.
        step: of the snapshot; without it the latest.
        width: EMA width of the network; without it the first that was kept.
        branch: examples of each branch; without it nothing is trained.
        repeats: of each branch, with other examples.
        json: write the numbers into this file, too.
        device: where to compute.
    """
    from ajest.bench.read.probed import branches_sentence, branches_table, probe_sentences, probe_table
    from ajest.bench.report.tables import rich_table
    from ajest.runtime.threads import configure_threads
    from ajest.storage.checkpoint import write_json
    from ajest.training.branches import branch as grow
    from ajest.training.probe import probe as look

    check(repeats >= 1, f"--repeats must be at least 1, not {repeats}")
    configure_threads(1)  # gradients of single examples: threads only get into each other's way
    where = device_of(device)
    found = look(run, examples, step, width, where)
    grown = None if branch is None else grow(run, branch, repeats=repeats, device=where)
    sentences = [*probe_sentences(found), *([] if grown is None else [branches_sentence(grown)])]
    if json is not None:
        branches = {} if grown is None else {"branches": asdict(grown)}
        write_json(json, {**asdict(found), **branches, "sentences": sentences})
    for table in (probe_table(found), *([] if grown is None else [branches_table(grown)])):
        console().print(rich_table(table))
        for note in table.notes:
            print(note)
    for sentence in sentences:
        print(sentence)
