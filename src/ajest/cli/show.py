"""The verbs that only look: report, plan, arms, status."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from ajest.errors import UserError, check, unknown

from .bench import _print_verdict
from .console import console
from .options import File, Files, load_rules, share_of, shown


def report(folder: Positional[Path], bundle: File = None, parquet: bool = False) -> None:
    """Write the report of a bench again, from whatever is in its folder.

    Example: ajest report runs/tree-quick
             ajest report runs/tree-quick --parquet
             ajest report runs/tree-quick --bundle fault.zip

    Args:
        folder: of the bench; it may be half-finished.
        bundle: write no report, but a .zip for a report of a fault: configs, versions and the ends of ledgers, no
            data and no weights. The folder may be that of a study or a run, too.
        parquet: write results.parquet beside it, for tables of many benches.
    """
    _known(folder)
    if bundle is not None:
        from ajest.bench.report.bundle import write_bundle

        names = write_bundle(folder, bundle)
        print(f"{bundle}: {len(names)} files, without data and weights. Configs name your data and classes.")
        return
    from ajest.bench.report.page import write_report
    from ajest.bench.report.parquet import check_library, write_parquet
    from ajest.runtime.threads import configure_threads

    if parquet:
        check_library()
    configure_threads(1)  # many small operations: threads only get into each other's way
    findings = write_report(folder)
    _print_verdict(findings)
    if parquet:
        print(f"\n{folder / 'results.parquet'}: {write_parquet(folder / 'results.parquet', findings)} rows")
    print(f"\nReport: {folder / 'report.html'}")


def plan(folder: Positional[Path], detect: Annotated[str, shown("X%")] = "5%") -> None:
    """Say how many seeds show a difference, and which metrics do, from a pilot.

    Example: ajest plan runs/tree-quick --detect 5%

    Args:
        folder: of the bench that is the pilot; it has two seeds or more.
        detect: the difference to be found, in per cent of the baseline's value.
    """
    from ajest.bench.read.folder import read
    from ajest.bench.read.power import detectable, plan_table
    from ajest.bench.read.resolution import resolution_table, resolutions
    from ajest.bench.read.verdict import decisive
    from ajest.bench.report.tables import rich_table

    share = share_of(detect, "--detect")
    _known(folder)
    results = read(folder)
    found = detectable(results, decisive(results))
    check(bool(found), f"{folder} has no two seeds of two arms yet: a spread of differences needs a finished pilot")
    for table in (plan_table(results, found, share), resolution_table(results, resolutions(results))):
        console().print(rich_table(table))
        for note in table.notes:
            console().print(note)


def _known(folder: Path) -> None:
    """Raise where there is no such folder but others in runs/, with the nearest of these."""
    if not folder.exists():
        configs = (path for name in ("bench", "study", "config") for path in Path("runs").glob(f"*/{name}.json"))
        others = {str(path.parent) for path in configs}
        if others:
            raise unknown("folder", str(folder), others)


def arms(rules: Files = None) -> None:
    """List the arms: ways of choosing examples, of noising and of training.

    Example: ajest arms
             ajest arms --rules my_rules.py

    Args:
        rules: Python files that register policies, triggers, ways of noising or arms of one's own, see
            docs/extending.md.
    """
    from rich.markup import escape
    from rich.table import Table

    from ajest.bench.plan.objectives import objective_of
    from ajest.bench.plan.operations import passes_text
    from ajest.selection.catalogue import ARMS
    from ajest.selection.rules import place_of
    from ajest.tasks.tree.task import TreeTask

    load_rules(rules)
    table = Table(box=None, pad_edge=False)
    for heading in ("arm", "keeps", "reference", "passes", "objective", "from", "what it does"):
        table.add_column(heading)
    tree = TreeTask().source("cpu")
    for axis in dict.fromkeys(arm.axis for arm in ARMS.values()):
        if axis:
            table.add_section()
            table.add_row(f"[bold]{escape(axis)}[/bold]")
        for arm in (arm for arm in ARMS.values() if arm.axis == axis):
            place = Path(place_of(arm.rules)).name or arm.paper
            told = (objective_of(arm, tree), place, arm.summary)
            table.add_row(*map(escape, (arm.name, f"{arm.keep:.0%}", arm.reference, passes_text(arm), *told)))
    console().print(table)
    console().print(
        "passes: forward passes of the learner for each example trained on, its update included; g is one of the "
        "guide, and the exact denoiser counts as one of the learner.\n"
        "objective: whether the tree's expected objective stays the same; or what share of it lies at other noise "
        "levels, taken where the errors of the best denoiser would lead."
    )


def status(folder: Positional[Path], watch: float = 0.0) -> None:
    """Show where the runs of a bench or study stand, while it is at work or after.

    Example: ajest status runs/tree-quick --watch 5

    Args:
        folder: of the bench or study.
        watch: look again every so many seconds until all have ended; 0 looks once.
    """
    import time

    from rich.live import Live

    from ajest.bench.read.status import look

    check(0 <= watch < math.inf, f"--watch {watch:g}: seconds between looks, or 0 to look once")
    _known(folder)
    out = console()
    table, ended = look(folder)
    if not watch:
        out.print(table)
        return
    with Live(table, console=out, auto_refresh=False) as live:
        while not ended:
            time.sleep(watch)
            table, ended = look(folder)
            live.update(table, refresh=True)


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers from text such as "0-31,40".

    Raises:
        UserError: the text is something else.
    """
    found: list[int] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        low, dash, high = part.partition("-")
        if not low.isdigit() or (dash and not high.isdigit()):
            raise UserError(f"{text!r}: seeds are whole numbers and ranges, such as 0-31,40")
        if dash and int(high) < int(low):
            raise UserError(f"{text!r}: the range {part} is empty: write the smaller number first")
        found += range(int(low), int(high or low) + 1)
    return tuple(dict.fromkeys(found))
