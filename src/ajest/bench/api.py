"""A bench from Python: build, run, read, print, without a folder of one's own."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ajest.bench.plan.config import BenchConfig, altered
from ajest.bench.plan.presets import bench_of
from ajest.bench.read.findings import Findings
from ajest.bench.read.results import Results
from ajest.bench.read.verdict import is_decided
from ajest.bench.report.page import html_findings, write_report
from ajest.bench.report.terminal import print_findings
from ajest.bench.run.bench import run_bench
from ajest.jobs.base import Launch
from ajest.jobs.local import InProcess, Local
from ajest.runtime import plugins
from ajest.runtime.device import Device, device_of
from ajest.selection.arm import Arm
from ajest.selection.catalogue import arms_named
from ajest.tasks import registry
from ajest.tasks.base import Task


class Bench:
    """Arms on seeds, compared at equal budgets.

    Args:
        task: what is learned: a task, the name of one, or where its maker stands, see `ajest.tasks.from_spec`.
        preset: whose settings hold where none are given; None takes the task's first.
        arms: which arms, by name or as such; None takes the preset's.
        max_seeds: add seeds in stages until every comparison with the baseline is decided, up to so many; None takes
            the seeds, or the preset's plan, as they are.
        settings: other fields of `BenchConfig` in place of the preset's, such as `seeds`, `iterations`, `end`,
            `weight`, `guides`, `n_final` or `recipe`.

    Raises:
        UserError: an unknown task, preset or arm, or settings that cannot be.

    Example:
        >>> found = Bench("tree", arms=("baseline", "random"), seeds=range(5)).run()  # doctest: +SKIP
        >>> print(found)  # doctest: +SKIP
    """

    def __init__(
        self,
        task: Task | str,
        preset: str | None = None,
        arms: Sequence[str | Arm] | None = None,
        max_seeds: int | None = None,
        **settings: Any,
    ) -> None:
        if isinstance(task, str) and plugins.is_spec(task):
            task = registry.from_spec(task)
        config = bench_of(task, preset)
        if arms is not None:
            settings["arms"] = tuple(arms_named((arm,))[0] if isinstance(arm, str) else arm for arm in arms)
        settings = {name: tuple(v) if isinstance(v, range | list) else v for name, v in settings.items()}
        config = altered(config, **settings)
        self.config: BenchConfig = config if max_seeds is None else config.until_certain(max_seeds)

    def run(
        self,
        folder: Path | str | None = None,
        *,
        workers: int | None = None,
        launch: Launch | None = None,
        device: Device = "auto",
    ) -> Outcome:
        """Train and evaluate what is not there yet, and read what came out.

        Args:
            folder: of the bench, in which it resumes; None takes a temporary one that is there as long as the outcome.
            workers: processes; None is one a core on a CPU and one a card on CUDA. 0 is this process alone, as it is
                for a task that no other process could read, such as one of a notebook.
            launch: in place of workers, such as `ajest.jobs.slurm.Slurm()`.
            device: "auto", "cpu" or "cuda".

        Raises:
            UserError: the folder holds another bench, runs failed for good, or a file that holds the task calls this
                whenever it is read.
        """
        plugins.check_not_reading("a bench")
        root = Path(tempfile.mkdtemp(prefix="ajest-")) / "bench" if folder is None else Path(folder)
        if launch is None:
            alone = workers == 0 or (workers is None and not registry.elsewhere(self.config.task))
            launch = InProcess() if alone else Local(workers)
        run_bench(root, self.config, launch, device_of(device), decided=is_decided)
        outcome = Outcome(write_report(root), root)
        if folder is None:
            weakref.finalize(outcome, shutil.rmtree, root.parent, ignore_errors=True)
        return outcome


@dataclass(frozen=True)
class Outcome:
    """What a bench found; prints as tables and verdict.

    Attributes:
        findings: everything that a report says.
        folder: of the bench, with report.html, results.csv and figures/.
    """

    findings: Findings
    folder: Path

    @property
    def results(self) -> Results:
        """Every number, by budget, arm, metric, guidance weight and seed."""
        return self.findings.results

    @property
    def verdict(self) -> tuple[str, ...]:
        """Answer, verdict and notes: sentences in the order of importance."""
        return self.findings.sentences

    @property
    def figures(self) -> list[Path]:
        """Files of all figures."""
        return sorted((self.folder / "figures").iterdir())

    def __str__(self) -> str:
        text = io.StringIO()
        console = Console(file=text, width=120 if not sys.stdout.isatty() else None)
        print_findings(console, self.findings)
        return text.getvalue()

    def _repr_html_(self) -> str:
        """The tables and the verdict, for a notebook."""
        return html_findings(self.findings)
