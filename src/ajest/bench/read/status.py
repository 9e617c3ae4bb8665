"""Where the runs of a bench or study stand, read from their folders while others work in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from ajest.bench.plan.config import BenchConfig, Costs, run_folder
from ajest.bench.run.calibration import calibrated_costs
from ajest.errors import UserError
from ajest.jobs.failures import WORDS, noted
from ajest.jobs.progress import clock
from ajest.storage import jsonl
from ajest.storage.lock import in_use
from ajest.training.run_folder import read_status

from .folder import read_bench

STATES = ("done", "running", "waiting", "failed", "diverged")


@dataclass(frozen=True)
class Standing:
    """Where one run stands.

    Attributes:
        name: of the run.
        state: one of `STATES`.
        share: of its training that is done.
        rate: steps a second of training, 0 where it is not known.
        left: seconds of training that are left, by its own pace so far; 0 where it is not known.
        measured: evaluations made.
        why: it failed.
    """

    name: str
    state: str
    share: float = 0.0
    rate: float = 0.0
    left: float = 0.0
    measured: int = 0
    why: str = ""


def benches_in(folder: Path) -> list[Path]:
    """The folders of the benches in a folder: itself, or those of a study's stages.

    Raises:
        UserError: there is none.
    """
    found = sorted(path.parent for pattern in ("", "*/", "*/*/") for path in folder.glob(f"{pattern}bench.json"))
    if not found:
        raise UserError(f"{folder} holds no bench and no study: name the folder that --out named, or one in runs/")
    return found


def standings(root: Path) -> list[Standing]:
    """Where all runs of a bench stand, arm by arm."""
    config, costs = read_bench(root), calibrated_costs(root)
    failures = {failure.job: WORDS[failure.kind] for failure in noted(root) if failure.final}
    found = []
    for arm in config.arms:
        for seed in config.seeds:
            name = f"{arm.name}, seed {seed}"
            found.append(_standing(name, run_folder(root, arm.name, seed), config, costs, failures.get(name, "")))
    return found


def _standing(name: str, folder: Path, config: BenchConfig, costs: Costs, failure: str) -> Standing:
    measured = len(jsonl.read(folder / "metrics.jsonl"))
    ended = read_status(folder)
    if ended:
        return Standing(name, str(ended["state"]), 1.0, measured=measured, why=str(ended.get("why", "")))
    working = in_use(folder)
    state = "running" if working else "failed" if failure else "waiting"
    lines = jsonl.read(folder / "ledger.jsonl")
    if not lines or not (costs or config.end == "steps"):
        return Standing(name, state, why="" if working else failure)
    now, seconds = (lines[-1]["clocks"][k] for k in (config.final_budget, "seconds"))
    share = min(1.0, now / config.total(costs))
    rate = lines[-1]["clocks"]["steps"] / seconds if seconds > 0 else 0.0
    left = seconds * (1 - share) / share if share > 0 else 0.0
    return Standing(name, state, share, rate, left, measured, "" if working else failure)


def look(folder: Path) -> tuple[Table, bool]:
    """(a table for people: the runs of a bench, or a line for each bench of a study; whether all have ended)."""
    roots = benches_in(folder)
    everything = {root: standings(root) for root in roots}
    runs = [s for part in everything.values() for s in part]
    table = Table(title=_count(runs), title_justify="left", box=None)
    heads = ("bench", *STATES) if len(roots) > 1 else ("run", "state", "trained", "steps/s", "left", "measured", "why")
    for head in heads:
        table.add_column(head, justify="left" if head in ("bench", "run", "state", "why") else "right")
    for root, part in everything.items():
        if len(roots) > 1:
            counts = (sum(s.state == state for s in part) for state in STATES)
            table.add_row(escape(str(root.relative_to(folder))), *(str(n) if n else "" for n in counts))
            continue
        for s in part:
            rate, left = (f"{s.rate:.3g}" if s.rate else "", clock(s.left) if s.left else "")
            cells = (f"{s.share:.0%}", rate, left, str(s.measured) if s.measured else "", escape(s.why))
            table.add_row(escape(s.name), s.state, *cells)
    if len(roots) > 1:  # a study's jobs are groups of runs
        table.caption = "\n".join(escape(f"failed: {failure}") for failure in noted(folder) if failure.final) or None
    return table, all(s.state in ("done", "failed", "diverged") for s in runs)


def _count(found: list[Standing]) -> str:
    counts = {state: sum(s.state == state for s in found) for state in STATES}
    return f"{len(found)} runs: " + ", ".join(f"{n} {state}" for state, n in counts.items() if n)
