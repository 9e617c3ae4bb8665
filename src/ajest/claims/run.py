"""Running the benches by which claims are judged, one after the other; each is resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ajest.bench.plan.budgets import End
from ajest.bench.plan.config import BenchConfig, run_folder
from ajest.bench.plan.tuning import Tuning
from ajest.bench.run.bench import run_bench
from ajest.errors import UserError, check
from ajest.jobs.base import Report
from ajest.jobs.local import Local
from ajest.jobs.pool import sayer
from ajest.jobs.progress import board
from ajest.selection.arm import Arm
from ajest.storage.checkpoint import write_sealed
from ajest.storage.config import to_json
from ajest.study.plan import Study
from ajest.study.run import run_guides, tune_study
from ajest.training.probe import probe

from .catalogue import GROUPS, Claim, Group
from .levels import TUNED_LEVELS, tune_levels
from .settings import FIRST_SEED, Setting

#: File in the folder of a bench with what the gradients of its first run of the baseline say, and of how many.
PROBE, PROBED = "probe.json", 1024

#: Told of a piece, and why it was not made if it was not.
Told = Callable[["Piece", UserError | None], None]

#: On these seeds the weight of each guide is chosen.
WEIGHT_SEEDS = tuple(range(2003, 2008))


@dataclass(frozen=True)
class Piece:
    """One bench of the whole, or one comparison of guides.

    Attributes:
        setting: on what.
        group: of the claims.
        end: what is equal.
        claims: that it judges.
        seeds, iterations: see `Setting.bench`.
    """

    setting: Setting
    group: Group
    end: End
    claims: tuple[Claim, ...]
    seeds: int | None = None
    iterations: int | None = None

    def __str__(self) -> str:
        return f"{self.setting.name}, {self.group}, equal {self.end}"

    def folder(self, root: Path) -> Path:
        """Where it is kept."""
        return root / self.setting.name / f"{self.group}-{self.end}"

    @property
    def needs_levels(self) -> bool:
        """Whether one of its controls are levels that are found first."""
        return any(TUNED_LEVELS in claim.controls for claim in self.claims)

    def study(self) -> Study:
        """What compares guides of the baseline; see `ajest.study.guides`."""
        base = self.setting.plain(self.iterations)
        count = self.setting.seeds if self.seeds is None else self.seeds
        return Study(
            task=base.task,
            recipe=base.recipe,
            guide_recipe=base.guide_recipe,
            rules=(),
            grids=(),
            iterations=base.iterations,
            guide_iterations=base.guide_iterations,
            strong_iterations=base.strong_iterations,
            screening_seeds=WEIGHT_SEEDS,
            final_seeds=tuple(range(FIRST_SEED, FIRST_SEED + count)),
            screening_ends=("time",),
            n=base.n_final,
            weight=base.weight,
            guides=base.guides,
            tuning=Tuning(shared=True),
        )

    def config(self, levels: Arm | None = None) -> BenchConfig:
        """The bench, with the levels that were found in this setting, if it needs any."""
        more = () if levels is None else (levels,)
        return self.setting.bench(self.claims, self.end, self.seeds, self.iterations, more)


_BY_TIME: tuple[End, ...] = ("time",)


@dataclass(frozen=True)
class Probed:
    """What is looked at: the gradients of a run.

    Attributes:
        name: for people.
        bench: folder of the bench, which is to have a `PROBE`.
        run: folder of the run.
        device: where to compute.
    """

    name: str
    bench: Path
    run: Path
    device: str


def pieces(
    claims: Sequence[Claim],
    settings: Sequence[Setting],
    ends: Sequence[End] = ("time", "samples", "flops"),
    seeds: int | None = None,
    iterations: int | None = None,
) -> Iterator[Piece]:
    """The benches that judge some claims. All claims of a group that are asked for are arms of one bench; where no arm
    takes more or fewer examples a step than the baseline, all budgets but equal time are equal steps and one bench.

    Args:
        claims: to be judged.
        settings: on what.
        ends: what is equal.
        seeds, iterations: see `Setting.bench`.
    """
    for setting in settings:
        for group in GROUPS:
            mine = tuple(claim for claim in claims if claim.group == group and setting.judges(claim))
            alike = all(claim.moves_only_noise for claim in mine)
            # Guides are judged by one bench, where what their training takes is charged as time.
            for end in _BY_TIME if group == "guides" else ends:
                if mine and not (alike and end == "flops" and "samples" in ends):
                    yield Piece(setting, group, end, mine, seeds, iterations)


def run_pieces(root: Path, asked: Sequence[Piece], launch: Local, device: str, told: Told) -> None:
    """Make what is not there yet of each bench, and look at the gradients of its baseline. One that fails is said, and
    those after it are made.

    Args:
        root: folder of all.
        asked: the benches.
        launch, device: see `run_bench`.
        told: called after each, with why it was not made or None.

    Raises:
        UserError: some were not made, see `run_bench`; all others are.
    """
    failed = list[str]()
    for piece in asked:
        try:
            _run(root, piece, launch, device)
        except UserError as error:  # others are none the worse for it
            failed.append(f"{piece}: {error}")
            told(piece, error)
        else:
            told(piece, None)
    check(not failed, f"{len(failed)} of {len(asked)} benches were not made; {'; '.join(failed[:1])}")


def _run(root: Path, piece: Piece, launch: Local, device: str) -> None:
    folder, levels = piece.folder(root), None
    if piece.group == "guides":
        run_guides(folder, tune_study(folder, piece.study(), launch, device), launch, device)
        return
    if piece.needs_levels:
        base = piece.setting.plain(piece.iterations)
        levels = tune_levels(
            root / piece.setting.name / TUNED_LEVELS, base, lambda at, bench: run_bench(at, bench, launch, device)
        )
    config = piece.config(levels)
    run_bench(folder, config, launch, device)
    if (folder / PROBE).exists():
        return
    run = run_folder(folder, config.baseline, config.seeds[0])
    job = Probed(f"gradients of {piece.setting.name}", folder, run, device)
    if launch.near(device):
        look(job, lambda *_: None)
    else:
        with board(f"probing {folder}", {job.name: 1.0}) as lines:
            launch.work(look, [job], device, launch.threads(device), lines, sayer(), folder)


def look(job: Probed, report: Report) -> list[str]:
    """Look at the gradients of a run, and keep what they say in the folder of its bench."""
    examined = probe(job.run, PROBED, device=job.device, say=lambda done, total: report(job.name, done, total, ""))
    write_sealed(job.bench / PROBE, to_json(examined))
    return []
