"""Jobs of a Slurm cluster, handed in through submitit."""

from __future__ import annotations

import re
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ajest.errors import Corrupt, UserError, check
from ajest.runtime import interrupts
from ajest.runtime.threads import configure_threads
from ajest.storage import checkpoint

from .base import Do, J, Named
from .failures import Failure, Kind, give_up, note, tail
from .progress import Board

#: What Slurm calls the end of a job, and why it failed; other states are of jobs that wait or run.
_STATES: dict[str, Kind] = {
    "COMPLETED": "crashed",  # without an outcome
    "FAILED": "crashed",
    "CANCELLED": "killed",
    "OUT_OF_MEMORY": "memory",
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
    "PREEMPTED": "preempted",
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
}


_NO_MEMORY = re.compile("exceeded .*memory limit|oom[-_ ]kill|out of memory", re.IGNORECASE)


_PATIENCE = 5  # looks at which a job is not named before it is given up


@dataclass(frozen=True)
class Slurm:
    """Jobs of a Slurm cluster, handed in through submitit. All machines see the same folders.

    Attributes:
        partition: of the cluster; empty takes its default one.
        gpus_per_run, cpus_per_run: of each job.
        gpu_kind: what the cluster calls the cards that jobs ask for, such as a100; empty takes any. Steps are timed
            once, on one machine, so that a bench is fair on cards of one kind alone.
        memory: of each job in GB; 0 leaves it to the cluster.
        max_parallel: jobs that run at the same time.
        hours: that a job may take; one that takes longer goes on in another.
        poll: seconds between looks.
    """

    partition: str = ""
    gpus_per_run: int = 0
    cpus_per_run: int = 4
    gpu_kind: str = ""
    memory: float = 0.0
    max_parallel: int = 20
    hours: float = 24.0
    poll: float = 5.0

    def __post_init__(self) -> None:
        check(self.gpus_per_run >= 0, f"gpus_per_run must be at least 0, not {self.gpus_per_run}")
        check(
            not self.gpu_kind or self.gpus_per_run >= 1,
            f"no cards are asked for: --gpu-kind {self.gpu_kind} needs --gpus-per-run 1",
        )
        check(self.max_parallel >= 1, f"max_parallel must be at least 1, not {self.max_parallel}")
        check(self.cpus_per_run >= 1, f"cpus_per_run must be at least 1, not {self.cpus_per_run}")
        check(self.hours > 0, f"hours must be positive, not {self.hours}")

    def near(self, device: str) -> bool:
        return False

    def count(self, device: str) -> int:
        """Jobs at the same time."""
        return self.max_parallel

    def threads(self, device: str) -> int:
        """Threads of each job."""
        return self.cpus_per_run

    def room(self, device: str) -> None:
        """Which machines jobs will come to is not known before."""

    def work(
        self,
        do: Do[J],
        jobs: Sequence[J],
        device: str,
        threads: int,
        lines: Board,
        say: Callable[[str], None],
        folder: Path,
    ) -> None:
        executor = self._executor(folder)
        waiting = [(job, 1) for job in jobs]
        at_work: list[tuple[Any, Path, J, int]] = []
        failed: list[Failure] = []
        unseen: dict[str, int] = {}
        try:
            while waiting or at_work:
                if waiting:
                    places = [_outcome(folder, job, attempt) for job, attempt in waiting]
                    with executor.batch():
                        handles = [
                            executor.submit(_remote, do, job, threads, place)
                            for (job, _), place in zip(waiting, places, strict=True)
                        ]
                    at_work += [(h, p, *w) for h, p, w in zip(handles, places, waiting, strict=True)]
                    waiting = []
                time.sleep(self.poll)
                states = _states([handle.job_id for handle, *_ in at_work])
                still = []
                for handle, place, job, attempt in at_work:
                    said = _read(place)
                    state, code = states[handle.job_id]
                    unseen[handle.job_id] = unseen.get(handle.job_id, 0) + 1 if state == "GONE" else 0
                    gone = unseen[handle.job_id] > _PATIENCE
                    if (said is None or said == ["stopped"]) and state not in _STATES and not gone:
                        still.append((handle, place, job, attempt))
                        continue
                    said = said or _read(place)  # it may have ended between the two looks
                    stopped = said == ["stopped"]
                    if said is not None and said[0] == "done":
                        for complaint in said[1]:
                            say(f"{job.name}: {complaint}")
                        lines.finish(job.name)
                        continue
                    if said is not None and said[0] == "mistake":
                        raise UserError(said[1])
                    crashed = said is not None and not stopped
                    log = said[1] if said and crashed else handle.stderr() or handle.stdout() or ""
                    kind = "crashed" if crashed else _kind(state, code, log, stopped)
                    failure = Failure(job.name, kind, attempt, tail(log))
                    note(folder, failure)
                    say(str(failure))
                    if failure.final:
                        failed.append(failure)
                    else:
                        waiting.append((job, attempt + 1))
                at_work = still
        finally:
            if at_work:
                subprocess.run(["scancel", *(handle.job_id for handle, *_ in at_work)], check=False)
        give_up(folder, failed, len(jobs))

    def _executor(self, folder: Path) -> Any:
        try:
            import submitit
        except ImportError as error:
            raise UserError("--launch slurm needs submitit: pip install 'ajest[slurm]'") from error
        executor = submitit.SlurmExecutor(folder=folder.resolve() / "slurm")
        executor.update_parameters(
            job_name="ajest",
            partition=self.partition or None,
            gpus_per_node=f"{self.gpu_kind}:{self.gpus_per_run}" if self.gpu_kind else self.gpus_per_run or None,
            cpus_per_task=self.cpus_per_run,
            mem=f"{round(self.memory * 1024)}M" if self.memory else None,
            time=max(1, round(self.hours * 60)),
            array_parallelism=self.max_parallel,
        )
        return executor


def _outcome(folder: Path, job: Named, attempt: int) -> Path:
    """Where a job says how it ended; what an earlier bench said there is taken away."""
    name = "".join(c if c.isalnum() else "-" for c in job.name)
    place = folder.resolve() / "slurm" / "outcomes" / f"{name}-{attempt}.json"
    place.unlink(missing_ok=True)
    return place


def _read(place: Path) -> list[Any] | None:
    try:
        return checkpoint.read_json(place)
    except Corrupt:
        return None


def _remote(do: Do[J], job: J, threads: int, place: Path) -> None:
    """A job, on a machine of the cluster. How it ended is said in a file of JSON: nothing is unpickled here."""
    interrupts.listen(interrupts.leave, signal.SIGUSR2)  # which submitit has Slurm send before the time is over
    configure_threads(threads)
    try:
        said: list[Any] = ["done", do(job, lambda what, done, total, note: None)]
    except UserError as error:
        said = ["mistake", str(error)]
    except KeyboardInterrupt:  # where it stands was saved
        checkpoint.write_json(place, ["stopped"])
        raise
    except Exception:
        said = ["crashed", traceback.format_exc()]
    checkpoint.write_json(place, said)


def _states(ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    """(state, exit code) of each job as Slurm tells them; "GONE" for those that it does not name."""
    shown = subprocess.run(["scontrol", "--oneliner", "show", "job"], capture_output=True, text=True, check=False)
    if shown.returncode:
        return dict.fromkeys(ids, ("UNKNOWN", ""))  # the controller does not answer: it is asked again
    told, waiting = {}, set()
    for line in shown.stdout.splitlines():
        fields = dict(part.split("=", 1) for part in line.split() if "=" in part)
        state = fields.get("JobState", ""), fields.get("ExitCode", "")
        task = fields.get("ArrayTaskId", "")
        told[f"{fields['ArrayJobId']}_{task}" if task.isdigit() else fields.get("JobId", "")] = state
        if task and not task.isdigit():  # those of an array that wait stand in one line
            waiting.add(fields["ArrayJobId"])
    pending, gone = ("PENDING", ""), ("GONE", "")
    return {name: told.get(name, pending if name.split("_")[0] in waiting else gone) for name in ids}


def _kind(state: str, code: str, log: str, stopped: bool = False) -> Kind:
    """Why a job ended that has not said it, or only that it was told to: by itself before its time was over."""
    kind = _STATES.get(state, "node")
    if stopped and kind == "crashed":
        return "timeout"
    if kind == "crashed" and _NO_MEMORY.search(log):
        return "memory"
    by_signal = code.startswith("137:") or not code.endswith(":0")
    return "killed" if kind == "crashed" and by_signal else kind
