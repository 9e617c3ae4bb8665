"""Which examples runs drew and trained on, and how often."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ajest.bench.plan.config import BenchConfig
from ajest.errors import UserError, check, unknown
from ajest.storage import checkpoint
from ajest.storage.config_file import read_config_file
from ajest.training.run_folder import RunConfig, read_config


@dataclass(frozen=True)
class Kept:
    """How often examples were drawn and trained on.

    Attributes:
        names: of the examples by number.
        by_arm: by the arm's name, sums over its runs: drawn and trained on, int64, shape (2, N).
        step: up to which a run alone has counted; 0 of a bench.
    """

    names: Sequence[str]
    by_arm: dict[str, Tensor]
    step: int = 0

    def of(self, arm: str | None) -> Kept:
        """That of one arm alone; None where there is but one.

        Raises:
            UserError: there is no such arm, or several.
        """
        check(
            arm is not None or len(self.by_arm) == 1,
            f"the bench has the arms {', '.join(self.by_arm)}: choose one with --arm",
        )
        name = next(iter(self.by_arm)) if arm is None else arm
        if name not in self.by_arm:
            raise unknown("arm", name, self.by_arm)
        return Kept(self.names, {name: self.by_arm[name]}, self.step)

    def top(self, share: float) -> Kept:
        """A share of the examples: of one arm, those that it trained on most often; of equals the first ones."""
        (name,) = self.by_arm
        order = self.by_arm[name][1].argsort(descending=True, stable=True)
        rows = order[: max(1, round(share * len(order)))].sort().values
        return Kept([self.names[row] for row in rows.tolist()], {name: self.by_arm[name][:, rows]}, self.step)

    def as_csv(self) -> str:
        """A line for each example, which begins with its name; with the arm before each heading where there are
        several."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        several = len(self.by_arm) > 1
        heads = [f"{arm} {what}" if several else what for arm in self.by_arm for what in ("drawn", "trained")]
        writer.writerow(["id", *heads])
        columns = [column for counts in self.by_arm.values() for column in counts.tolist()]
        writer.writerows(zip(self.names, *columns, strict=True))
        return text.getvalue()


def kept_of(folder: Path, warn: Callable[[str], None]) -> Kept:
    """Of the runs of a bench as far as they are made, or of a run alone.

    Raises:
        UserError: the folder is neither, or nothing was counted yet.
    """
    config: BenchConfig | RunConfig
    if (folder / "bench.json").exists():
        config = read_config_file(folder / "bench.json", BenchConfig)
        runs = {arm.name: sorted((folder / "arms" / arm.name).glob("seed-*")) for arm in config.arms}
    else:
        config = read_config(folder)
        runs = {config.arm.name: [folder]}
    found = {arm: [counts for run in of_arm if (counts := _counts(run, warn))] for arm, of_arm in runs.items()}
    found = {arm: counts for arm, counts in found.items() if counts}
    if not found:
        raise UserError(f"{folder} has no checkpoint that counts examples: train it first")
    names = list(map(str, config.task.example_names()))
    n = max(len(names), *(counts.shape[1] for of_arm in found.values() for counts, _ in of_arm))
    by_arm = {a: torch.stack([_as_long(counts, n) for counts, _ in of_arm]).sum(0) for a, of_arm in found.items()}
    step = next(iter(found.values()))[0][1] if isinstance(config, RunConfig) else 0
    return Kept(names or list(map(str, range(n))), by_arm, step)


def _counts(run: Path, warn: Callable[[str], None]) -> tuple[Tensor, int] | None:
    """(drawn and trained on, shape (2, n), n as long as the largest id asked; up to which step)."""
    stored = checkpoint.latest(run, "checkpoint", warn)
    if stored is None or "example_counts/drawn" not in stored.tensors:
        return None
    both = [stored.tensors[f"example_counts/{what}"] for what in ("drawn", "trained")]
    return torch.stack(both), int(stored.facts["step"])


def _as_long(counts: Tensor, n: int) -> Tensor:
    return torch.nn.functional.pad(counts, (0, n - counts.shape[1]))
