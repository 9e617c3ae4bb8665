"""What `gpu.py` measures, one piece a process, printed as Markdown.

    PYTHONPATH=src python benchmarks/gpu_pieces.py xxs --device cuda [--rounds 7] [--kernels kernels.txt]

On the CPU networks of a few channels take the place of the published ones: to see that a piece runs.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch._dynamo.utils import counters
from torch.profiler import ProfilerActivity, profile

from ajest.bench.plan.presets import GPU_MINI
from ajest.runtime.seeding import Streams
from ajest.runtime.threads import configure_threads
from ajest.selection.catalogue import ARMS
from ajest.selection.flow import Networks
from ajest.tasks.images.architecture import SIZES, Architecture
from ajest.tasks.images.setup import image_task
from ajest.tasks.images.task import ImageTask
from ajest.training.recipe import LearningRate, Recipe
from ajest.training.trainer import Trainer
from images import guided_sampling, trainer_of
from timing import matrix_product, settle, timed

WARMUP_STEPS = 3
PROFILED_STEPS = 3
TINY = Architecture(channels=8, multipliers=(1, 2), blocks=1, attention=(8,))


@dataclass(frozen=True)
class Asked:
    """How to measure.

    Attributes:
        device: "cuda" or "cpu".
        rounds: of which medians are taken; 0 only compiles.
        kernels: file to which tables of kernels are added.
    """

    device: str
    rounds: int
    kernels: Path | None


def machine(asked: Asked) -> None:
    """The card and its software, its rate and bandwidth."""
    product, operations = matrix_product(torch.bfloat16, asked.device, 8192 if asked.device == "cuda" else 512)
    size = 2**32 if asked.device == "cuda" else 2**22
    here, there = (torch.empty(size, dtype=torch.uint8, device=asked.device) for _ in range(2))
    t = timed({"product": product, "copy": lambda: there.copy_(here)}, max(asked.rounds, 1), asked.device)
    rows = [("Python, torch", f"{platform.python_version()}, {torch.__version__}")]
    if asked.device == "cuda":
        card = torch.cuda.get_device_properties(0)
        rows = [
            ("card", f"{card.name}, {card.total_memory / 2**30:.0f} GiB, {card.multi_processor_count} multiprocessors"),
            ("driver", _driver()),
            *rows,
            ("CUDA, cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}"),
        ]
    rows += [
        ("dense bf16 matrix product, measured", f"{operations / t['product'] / 1e12:,.1f} TFLOP/s"),
        ("copy on the device, read and written", f"{2 * size / t['copy'] / 1e12:.2f} TB/s"),
    ]
    _print_table(("what", "here"), rows)


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.split("\n")[0] or "unknown"
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"


def task_of(learner: Architecture, guide: Architecture, device: str) -> ImageTask:
    """`gpu-mini` with these networks; on the CPU with tiny ones."""
    data = tuple(shlex.split(os.environ.get("AJEST_GPU_DATA", "shapes")))
    settings = GPU_MINI.settings() | {"learner": learner, "guide": guide, "resolution": 64}
    if device == "cpu":
        data = ("shapes:512",)
        settings |= {"learner": TINY, "guide": half(TINY), "resolution": 16, "sampler_steps": 4}
    return image_task(data, warn=lambda text: print(text, file=sys.stderr), **settings)  # type: ignore[arg-type]


def half(architecture: Architecture) -> Architecture:
    return replace(architecture, channels=architecture.channels // 2)


def training(name: str, size: int, asked: Asked) -> None:
    """A uniform step and an AJEST step of a learner with a guide half as wide, each trained by itself."""
    size = size if asked.device == "cuda" else 20
    task = task_of(SIZES[name], half(SIZES[name]), asked.device)
    recipe = Recipe(size, LearningRate(0.01, 0), ema_widths=(0.1, 0.05), not_finite="zero")
    learner, guide = (task.network(role, 0).flops() for role in ("learner", "guide"))  # type: ignore[arg-type]
    product, operations = matrix_product(torch.bfloat16, asked.device, 8192 if asked.device == "cuda" else 512)
    top = operations / timed({"product": product}, max(asked.rounds, 1), asked.device)["product"]
    found = {arm: trained(partial(trainer_of, task, recipe, asked.device, arm), asked) for arm in ("baseline", "ajest")}
    if not asked.rounds:
        return
    uniform, ajest = found["baseline"].step, found["ajest"].step
    kept = 0.2
    # A gradient step costs three forward passes, scoring one of the learner and one of the guide.
    operations_of = {"baseline": 3.0, "ajest": 3 * kept + 1 + guide / learner}
    print(f"{name}, {size} images a step, {task.precision}, compiled; {learner / 1e9:.1f} GFLOP a forward pass of an "
          f"image, guide of {guide / learner:.2f} of that; measured dense bf16 rate {top / 1e12:.1f} TFLOP/s.\n")  # fmt: skip
    rows = []
    for arm, t in found.items():
        rate = operations_of[arm] * learner * size / t.step
        rows.append((
            arm, f"{t.step * 1e3:.1f} ms", f"{size / t.step:,.0f}", f"{rate / 1e12:.1f}", f"{rate / top:.2f}",
            f"{t.gib:.1f} GiB", f"{t.compiling:.1f} s", str(t.recompiled), f"{t.kernels:,.0f}",
            f"{t.busy / t.step:.0%}",
        ))  # fmt: skip
    _print_table(
        ("step", "time", "images/s drawn", "TFLOP/s", "share of the dense rate", "peak memory", "compiling and warm-up",
         "graphs compiled after it", "kernels a step", "device busy"),
        rows,
    )  # fmt: skip
    print()
    phases = [phase for phase in found["ajest"].phases if any(t.phases.get(phase, 0) > 0 for t in found.values())]
    shares = [(arm, *(f"{t.share(phase):.1%}" for phase in phases)) for arm, t in found.items()]
    _print_table(("share of a step", *phases), shares)
    print(f"\n- Uniform step: {3 * learner * size / uniform / top:.2f} of the dense rate "
          f"(wanted: at least 0.40).\n- AJEST step over uniform step: {ajest / uniform:.2f} (wanted: at most 0.65; by "
          f"operations alone {operations_of['ajest'] / 3:.2f}).\n- Compilation cache: {_cache()}.")  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """What training was like.

    Attributes:
        step: seconds of a step, by the clock on the wall over a row of steps.
        phases: seconds by phase, medians of the ledger's.
        gib: peak memory on the device; 0 on a CPU.
        compiling: seconds of the first steps beyond what such steps take later.
        recompiled: graphs compiled after these.
        kernels: launched in a step.
        busy: seconds of a step in which a kernel ran.
    """

    step: float
    phases: dict[str, float]
    gib: float
    compiling: float
    recompiled: int
    kernels: float
    busy: float

    def share(self, phase: str) -> float:
        return self.phases.get(phase, 0.0) / max(sum(self.phases.values()), 1e-9)


def guide_of_bench(asked: Asked) -> None:
    """Compiles what trains the guide of `gpu-mini`."""
    task = task_of(GPU_MINI.learner, GPU_MINI.guide, asked.device)
    recipe = GPU_MINI.bench(task).recipe if asked.device == "cuda" else Recipe(20, ema_widths=(0.1,))
    networks = Networks(task.network("guide", 0).to(asked.device))
    trained(lambda: Trainer(task.source(asked.device), networks, recipe, ARMS["baseline"], Streams(0)), asked)


def trained(make: Callable[[], Trainer], asked: Asked) -> Trained:
    """Steps of a trainer, after those that compile; it is let go afterwards, so that memory is that of one training."""
    if asked.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    trainer = make()
    settle(asked.device)
    start = time.perf_counter()
    for _ in range(WARMUP_STEPS):
        trainer.step()
    settle(asked.device)
    first = time.perf_counter() - start
    print(f"{trainer.arm.name}: {WARMUP_STEPS} first steps took {first:.1f} s", file=sys.stderr, flush=True)
    if not asked.rounds:
        return Trained(0, {}, 0, first, 0, 0, 0)
    compiled = counters["stats"]["unique_graphs"]
    start = time.perf_counter()
    taken = [trainer.step() for _ in range(asked.rounds)]
    settle(asked.device)
    step = (time.perf_counter() - start) / asked.rounds
    phases = {p: statistics.median(s.seconds[p] for s in taken) for p in taken[0].seconds}
    gib = torch.cuda.max_memory_allocated() / 2**30 if asked.device == "cuda" else 0.0
    kernels, busy = profiled(trainer, asked)
    recompiled = counters["stats"]["unique_graphs"] - compiled
    return Trained(step, phases, gib, max(0.0, first - WARMUP_STEPS * step), recompiled, kernels, busy)


def profiled(trainer: Trainer, asked: Asked) -> tuple[float, float]:
    """(kernels launched in a step, seconds of a step in which one ran); the table of kernels goes to a file."""
    cuda = asked.device == "cuda"
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda) as found:
        for _ in range(PROFILED_STEPS):
            trainer.step()
        settle(asked.device)
    events = found.key_averages()
    on_device = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(e.self_device_time_total for e in on_device) / 1e6 / PROFILED_STEPS
    if asked.kernels is not None:
        by = "self_device_time_total" if cuda else "self_cpu_time_total"
        table = events.table(sort_by=by, row_limit=25, max_name_column_width=60)
        calls = {e.key: e.count / PROFILED_STEPS for e in events if e.key in CALLS and e.count}
        with asked.kernels.open("a") as file:
            print(f"== {trainer.arm.name}, {PROFILED_STEPS} steps; calls a step: {calls}\n{table}", file=file)
    return sum(e.count for e in on_device) / PROFILED_STEPS, busy


#: What stops the processor or moves data, in the profiler's words.
CALLS = (
    "cudaLaunchKernel",
    "cudaLaunchKernelExC",
    "cuLaunchKernel",
    "cuLaunchKernelEx",
    "cudaGraphLaunch",
    "cudaDeviceSynchronize",
    "cudaStreamSynchronize",
    "cudaEventSynchronize",
    "cudaMemcpyAsync",
    "cudaMemsetAsync",
    "aten::item",
    "aten::copy_",
)


def _cache() -> str:
    """What the cache of compiled graphs gave."""
    kinds = {"autograd_cache_hit": "hits", "autograd_cache_miss": "misses", "autograd_cache_bypass": "bypassed"}
    found = counters["aot_autograd"]
    return ", ".join(f"{found[key]} {name}" for key, name in kinds.items())


def sampling(learner: Architecture, guide: Architecture, name: str, asked: Asked) -> None:
    """Images a second that a learner samples with a guide, and the seconds of compiling it."""
    cuda = asked.device == "cuda"
    task, n = task_of(learner, guide, asked.device), 256 if cuda else 8
    compiling = _compile_for_sampling(task, n, asked.device)
    if not asked.rounds:
        return
    row = guided_sampling(task, n, name, asked.device, 1)
    _print_table(("what", "time", "images/s", "compiling"), [(row[0], row[1], row[3], f"{compiling:.1f} s")])


def _compile_for_sampling(task: ImageTask, n: int, device: str) -> float:
    """Seconds of the first sample of two steps."""
    start = time.perf_counter()
    guided_sampling(replace(task, sampler_steps=2), n, "", device, 1)
    return time.perf_counter() - start


def _print_table(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    for line in (heading, ("---",) * len(heading), *rows):
        print("| " + " | ".join(line) + " |")
    sys.stdout.flush()


PIECES: dict[str, Callable[[Asked], None]] = {
    "machine": machine,
    "xxs": partial(training, "xxs", 256),
    "xs": partial(training, "xs", 128),
    "xs-256": partial(training, "xs", 256),
    "guide": guide_of_bench,
    "sampling-xxs": partial(sampling, SIZES["xxs"], half(SIZES["xxs"]), "xxs guided by one half as wide"),
    "sampling-xs": partial(sampling, SIZES["xs"], SIZES["xxs"], "xs guided by xxs"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("piece", choices=PIECES)
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--kernels", type=Path)
    options = parser.parse_args()
    configure_threads()
    PIECES[options.piece](Asked(options.device, options.rounds, options.kernels))


if __name__ == "__main__":
    main()
