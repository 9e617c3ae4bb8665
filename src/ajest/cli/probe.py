"""The verb probe."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from tyro.conf import Positional

from .console import Device, console, device_of
from .options import File, Number, Whole, verb


@verb
def probe(
    run: Positional[Path],
    *,
    examples: int = 1024,
    step: Whole = None,
    width: Number = None,
    json: File = None,
    device: Device = "auto",
) -> None:
    """Say from a run's gradients what claims could gain on it at most.

    Example: ajest probe runs/tree-quick/arms/baseline/seed-0
             ajest probe runs/mine --examples 4096 --json probe.json

    - How much of their variance lies between noise levels and between examples
      bounds stratified or other levels, choosing examples, and several levels
      an example. Nothing is trained.
    - The run may still be going on: its latest snapshot is looked at.

    Args:
        run: folder of the run.
        examples: gradients to look at, one forward and backward pass each.
        step: of the snapshot; without it the latest.
        width: EMA width of the network; without it the first that was kept.
        json: write the numbers into this file, too.
        device: where to compute.
    """
    from ajest.bench.read.probed import probe_sentences, probe_table
    from ajest.bench.report.tables import rich_table
    from ajest.runtime.threads import configure_threads
    from ajest.storage.checkpoint import write_json
    from ajest.training.probe import probe as look

    configure_threads(1)  # gradients of single examples: threads only get into each other's way
    found = look(run, examples, step, width, device_of(device))
    sentences = probe_sentences(found)
    if json is not None:
        write_json(json, {**asdict(found), "sentences": sentences})
    table = probe_table(found)
    console().print(rich_table(table))
    for line in (*table.notes, *sentences):
        print(line)
