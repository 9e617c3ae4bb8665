"""Everything that can only be measured on a GPU, in one command: tests, speed, whole benches.

    scripts/gpu.sh OUT [piece ...]      (without pieces all of them; `scripts/gpu.sh --list` names them)

It needs one GPU, torch and the packages of the core, and installs nothing. Each piece is a process of its own under a
limit of time; one that fails stops no other. OUT/results.md is written as pieces end, and the same command goes on with
those that are not in it. What is slow to compile is compiled first, all beside each other.

    GPU_MINUTES=8      how long all of it may take; what no longer fits is left out, and said to be
    GPU_DRY_RUN=1      on the CPU, with tiny networks: whether the pieces run
    AJEST_GPU_DATA=... training images of the bench, in place of shapes
    GPU_BENCH=...      more words for the bench on images, such as "--iterations 160 --sampler-steps 8"
    GPU_WORK=...       folder of unfinished benches and of compiled code, by default OUT-work beside OUT
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gpu_plan import DEVICE, DRY, HERE, Folders, Piece, pieces

#: Seconds that a process has to save what it did, after it was told to end.
GRACE = 15

#: By name of what is imported: what is installed.
CORE = {
    "torch": "torch", "numpy": "numpy", "scipy": "scipy", "safetensors": "safetensors", "matplotlib": "matplotlib",
    "tyro": "tyro", "rich": "rich", "jinja2": "jinja2", "cattrs": "cattrs", "PIL": "pillow",
}  # fmt: skip


class Results:
    """OUT/results.md: a section a piece, whose state stands in a comment."""

    SECTION = re.compile(r"<!-- piece (\S+) -->\n(.*?)\n<!-- end (\w+) -->\n", re.S)

    def __init__(self, path: Path, order: Sequence[str]) -> None:
        self.path, self.order = path, order
        text = path.read_text() if path.exists() else ""
        found = self.SECTION.findall(text)
        self.done = {name: body for name, body, state in found if state == "done"}
        self._others = {name: body for name, body, state in found if state != "done"}
        self.notes: list[str] = []

    def put(self, piece: Piece, output: str, state: str, said: str = "") -> None:
        """A section as far as it is known; `state` is "running", "failed" or "done"."""
        output = re.sub(r"\x1b\[[0-9;]*m", "", output).strip()
        body = f"```\n{output}\n```" if piece.plain and output else output
        body = "\n\n".join(filter(None, (f"## {piece.title}", f"**{said}**" if said else "", body)))
        self._others.pop(piece.name, None)
        (self.done if state == "done" else self._others)[piece.name] = body
        self.save(state if state == "running" else None)

    def save(self, running: str | None = None) -> None:
        head = ["# Measured on one GPU" if not DRY else "# Dry run on a CPU: no figure here means anything"]
        head += [f"Made by `scripts/gpu.sh`. bf16 and compiled where nothing else is said.\n{''.join(self.notes)}"]
        parts = ["\n\n".join(head).rstrip() + "\n"]
        for name in self.order:
            for sections, state in ((self.done, "done"), (self._others, running or "failed")):
                if name in sections:
                    parts.append(f"<!-- piece {name} -->\n{sections[name]}\n<!-- end {state} -->\n")
        text = "\n".join(parts)
        beside = self.path.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self.path)

    def note(self, text: str | None) -> None:
        """What a reader must know of all of it, if anything."""
        if text is None:
            return
        print(text, flush=True)
        self.notes.append(f"\n- {text}")
        self.save()


@dataclass
class Running:
    """A command at work, its output in a file."""

    process: subprocess.Popen[bytes]
    output: Path
    began: float

    @classmethod
    def begin(cls, command: Sequence[str], name: str, folders: Folders, **settings: str) -> Running:
        output = folders.work / f"{name}.out"
        with output.open("wb") as out, folders.log.open("ab") as err:
            err.write(f"\n== {name}: {shlex.join(command)}\n".encode())
            err.flush()
            process = subprocess.Popen(
                command,
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                cwd=HERE.parent,
                env=os.environ | settings,
                start_new_session=True,
            )
        return cls(process, output, time.monotonic())

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def end(self) -> None:
        """Tell it to end, then make it."""
        for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, 10)):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)


def run(piece: Piece, results: Results, folders: Folders, seconds: float) -> None:
    """One piece, for at most so many seconds."""
    print(f"{piece.name}: {shlex.join(piece.command)}", flush=True)
    running = Running.begin(piece.command, piece.name, folders)
    shown = ""
    try:
        while running.process.poll() is None and running.seconds < seconds:
            with suppress(subprocess.TimeoutExpired):
                running.process.wait(1)
            if running.said != shown:
                shown = running.said
                results.put(piece, shown, "running")
        late = running.process.poll() is None
    finally:
        running.end()
    code, took = running.process.returncode, running.seconds
    if late and piece.leaves:  # a bench that was stopped has something to say
        _report(folders, piece)
    for name, file in piece.leaves.items():
        if file.exists():
            shutil.copy(file, folders.out / name)
    why = ""
    if late:
        why = f"Stopped after {took:.0f} s, for want of time"
    elif code:
        why = f"Failed with exit code {code}: see log.txt"
        print(_tail(folders.log), flush=True)
    print(f"{running.said}\n{piece.name}: {why or 'done'}, {took:.0f} s\n", flush=True)
    results.put(piece, running.said, "failed" if why else "done", why)


def _report(folders: Folders, piece: Piece) -> None:
    folder = next(iter(piece.leaves.values())).parent
    with folders.log.open("ab") as log, suppress(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-m", "ajest", "report", str(folder)], stdout=log, stderr=log, timeout=60)


def _tail(log: Path, lines: int = 25) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


class Compilation:
    """Compilers at work for several pieces, all beside each other: they fill one cache, and are work of processors."""

    def __init__(self, wanted: Sequence[Piece], folders: Folders) -> None:
        self._began = time.monotonic()
        commands = {piece.name: piece.compiles for piece in wanted if piece.compiles}
        threads = str(max(2, (os.cpu_count() or 1) // max(len(commands), 1)))  # each would start one a core
        self._left = {
            name: Running.begin(words, f"compile-{name}", folders, TORCHINDUCTOR_COMPILE_THREADS=threads)
            for name, words in commands.items()
        }
        if commands:
            print(f"compiling for {', '.join(commands)} beside each other", flush=True)

    def wait(self, seconds: float) -> str | None:
        """Until all have ended, at most so many seconds; what they took, once."""
        if not self._left:
            return None
        took: list[str] = []
        until = time.monotonic() + seconds
        while self._left and time.monotonic() < until:
            time.sleep(0.2)
            for name in [name for name, running in self._left.items() if running.process.poll() is not None]:
                ended = self._left.pop(name)
                took.append(f"{name} {ended.seconds:.0f} s{'' if ended.process.returncode == 0 else ' (failed)'}")
        took += [f"{name} not in {running.seconds:.0f} s" for name, running in self._left.items()]
        self.end()
        return f"Compiled beforehand, beside each other, in seconds of whole processes: {', '.join(took)}."

    def end(self) -> None:
        for running in self._left.values():
            running.end()
        self._left = {}


def missing(packages: Mapping[str, str]) -> list[str]:
    """Of these, what is not installed."""
    return [installed for name, installed in packages.items() if importlib.util.find_spec(name) is None]


def mend(packages: Iterable[str]) -> str:
    names = shlex.join(packages)
    return (
        f"missing here: {names}\n"
        f"  pip install {names}\n"
        f"or, where no registry is in reach, elsewhere with the same version of Python\n"
        f"  pip download --only-binary=:all: -d wheels {names}\n"
        "and here\n"
        "  python3 -m pip install --no-index --no-deps --target /tmp/site wheels/*.whl; export PYTHONPATH=/tmp/site"
    )


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is running is ended, too
    words = sys.argv[1:]
    if not words or words[0].startswith("-"):
        print(__doc__ if words != ["--list"] else "\n".join(p.name for p in pieces(Folders.of(Path("out")))))
        sys.exit(0 if words else 2)
    folders = Folders.of(Path(words[0]))
    known = {piece.name: piece for piece in pieces(folders)}
    if unknown := [name for name in words[1:] if name not in known]:
        sys.exit(f"there is no piece {', '.join(unknown)}: {', '.join(known)}")
    if absent := missing(CORE):
        sys.exit(mend(absent))
    minutes = float(os.environ.get("GPU_MINUTES", "inf"))
    deadline = time.monotonic() + 60 * minutes
    for folder in (folders.out, folders.work):
        folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folders.work / "inductor"))
    os.environ["PYTHONUNBUFFERED"] = "1"
    os.environ["AJEST_TEST_DEVICE"] = DEVICE
    results = Results(folders.out / "results.md", list(known))
    measure(wanted_of(known, words[1:], results), results, folders, deadline)


def wanted_of(known: Mapping[str, Piece], names: Sequence[str], results: Results) -> list[Piece]:
    """The pieces asked for that are not there yet and have what they need."""
    wanted = []
    for name, piece in known.items():
        if names and name not in names:
            continue
        if name in results.done:
            print(f"{name}: is there already", flush=True)
        elif absent := missing(piece.needs):
            results.note(f"`{name}` was left out: {mend(absent)}")
        else:
            wanted.append(piece)
    return wanted


def measure(wanted: Sequence[Piece], results: Results, folders: Folders, deadline: float) -> None:
    """All of them one after the other, as far as the time goes. What is compiled beforehand is compiled beside pieces
    that time nothing."""
    compilation: Compilation | None = None
    try:
        for piece in wanted:
            if compilation is None and piece.name != "machine":
                compilation = Compilation(wanted, folders)
            if compilation is not None and piece.measures:
                results.note(compilation.wait(min(600.0, deadline - time.monotonic() - 60)))
            left = deadline - time.monotonic() - GRACE
            if left < piece.least:
                results.note(
                    f"`{piece.name}` was left out: {max(left, 0):.0f} s were left, and it takes {piece.least}."
                )
                continue
            run(piece, results, folders, min(left, piece.most))
    finally:
        if compilation is not None:
            compilation.end()
    print(f"\n{results.path}", flush=True)


if __name__ == "__main__":
    main()
