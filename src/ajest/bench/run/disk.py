"""How much disk runs take: said and looked for before they begin, and given back when they are read."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ajest.bench.plan.config import DRIFTS, BenchConfig, Costs, guide_folder, run_folder
from ajest.errors import check
from ajest.storage.checkpoint import delete
from ajest.training.run_folder import RunConfig, read_status, snapshots

from .reached import common_amounts, curve_points, reached

#: Checkpoints of a run at work: the newest two, and one that is being written.
_AT_WORK = 3


@dataclass(frozen=True)
class Claim:
    """What a run writes.

    Attributes:
        folder: of the run.
        config: of the run.
        snapshots: at most so many while it is at work.
        kept: at most so many of them when all is read.
    """

    folder: Path
    config: RunConfig
    snapshots: int
    kept: int


def claims(root: Path, config: BenchConfig) -> list[Claim]:
    """What the runs of a bench write, the references' too."""
    read = len(config.curve) + len(config.budgets)
    most = read + (len(DRIFTS) if "seconds" in config.budgets else 0)
    runs = [
        Claim(run_folder(root, arm.name, seed), config.run(arm, seed), most, read)
        for arm in config.arms
        for seed in config.seeds
    ]
    guided = len(config.guide_schedule().budgets["steps"])
    references = [Claim(guide_folder(root, k), config.guide(k), guided, guided) for k in range(1, config.guides + 1)]
    if any(arm.reference == "strong" for arm in config.arms):
        references.append(Claim(root / "strong", config.strong(), 1, 1))
    return references + runs


def check_room(root: Path, wanted: Sequence[Claim], at_once: int, say: Callable[[str], None]) -> None:
    """Say how much disk runs that have not ended will take, and make sure that it is there.

    Args:
        root: the folder above theirs; it need not be there yet.
        wanted: what the runs write.
        at_once: how many are at work at a time.
        say: told what they take.

    Raises:
        UserError: there is not enough.
    """
    sizes = _Sizes()
    begun = [claim for claim in wanted if not read_status(claim.folder)]
    if not begun:
        return
    each = [(sizes.snapshot(c.config), sizes.checkpoint(c.config), c) for c in begun]
    working = (_AT_WORK - 1) * sum(sorted((stored for _, stored, _ in each), reverse=True)[:at_once])
    most = working + sum(c.snapshots * shot + stored for shot, stored, c in each)
    least = sum(c.kept * shot + stored for shot, stored, c in each)
    there = sum(_bytes_in(c.folder) for c in begun)
    above = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(above).free
    what = f"{len(begun)} run{'s take' if len(begun) > 1 else ' takes'} up to {_readable(most)} of disk"
    check(
        most - there <= free,
        f"{root}: {what}, and {_readable(free)} are free there; free some space or name another folder with --out",
    )
    say(f"{what}, {_readable(least)} when all is read; {_readable(free)} are free")


def give_back(root: Path, config: BenchConfig, costs: Costs) -> None:
    """Delete the snapshots of a bench's runs that no budget and no learning curve needs: of those taken against drift
    all but one. The last one of a run stays."""
    common = common_amounts(root, config)
    for arm in config.arms:
        for seed in config.seeds:
            folder = run_folder(root, arm.name, seed)
            stored, crossed = snapshots(folder), reached(folder)
            read = {crossed[clock].get(amount) for clock, amount in common.items()}
            read |= {*curve_points(crossed, config, costs), max(stored, default=None)}
            known = {step for steps in crossed.values() for step in steps.values()}
            for step in known - read:  # one that cannot be read is left to be seen
                delete(stored[step])


class _Sizes:
    """Bytes of what runs store, each network made once."""

    def __init__(self) -> None:
        self._networks: dict[str, tuple[int, int]] = {}

    def snapshot(self, config: RunConfig) -> int:
        """All averages."""
        return len(config.recipe.ema_widths) * self._network(config, config.role)[0]

    def checkpoint(self, config: RunConfig) -> int:
        """Network, what the optimizer keeps and the averages, a proxy too; what memories and counts take is not known
        before the data."""
        roles = [config.role, *(["proxy"] if config.arm.scoring.scorer == "proxy" else [])]
        return self.snapshot(config) + sum(
            state + config.recipe.of(config.arm).moments * parameters
            for state, parameters in (self._network(config, role) for role in roles)
        )

    def _network(self, config: RunConfig, role: str) -> tuple[int, int]:
        if role not in self._networks:
            network: nn.Module = config.task.network(role, 0)  # type: ignore[arg-type]
            self._networks[role] = (
                sum(t.numel() * t.element_size() for t in network.state_dict().values()),
                sum(p.numel() * p.element_size() for p in network.parameters()),
            )
        return self._networks[role]


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _readable(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
