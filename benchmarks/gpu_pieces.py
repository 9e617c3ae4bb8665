"""What `gpu.py` measures, one piece a process, printed as Markdown.

    PYTHONPATH=src python benchmarks/gpu_pieces.py xxs --device cuda [--rounds 7] [--kernels kernels.txt]

On the CPU networks of a few channels take the place of the published ones: to see that a piece runs.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.utils import counters
from torch.profiler import ProfilerActivity, profile

from ajest.bench.plan.presets import GPU_MINI
from ajest.runtime.compiling import CompileCounts, compile_network, so_far
from ajest.runtime.seeding import Drawing, Streams
from ajest.runtime.threads import configure_threads
from ajest.selection.catalogue import ARMS, KEEP
from ajest.selection.flow import Networks
from ajest.tasks.images.architecture import SIZES, Architecture, NetworkSettings, Precision
from ajest.tasks.images.setup import image_task
from ajest.tasks.images.task import ImageTask
from ajest.training.recipe import LearningRate, Recipe
from ajest.training.trainer import Trainer
from images import guided_sampling, operations_of, trainer_of
from timing import matrix_product, settle, timed

WARMUP_STEPS = 5  # the first compiles, the next are recorded where graphs are replayed
PROFILED_STEPS = 3
TINY = Architecture(channels=4, multipliers=(1, 2), blocks=1, attention=(8,))


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


def task_of(learner: NetworkSettings, guide: NetworkSettings, device: str) -> ImageTask:
    """`gpu-mini` with these networks; on the CPU with tiny ones."""
    data = tuple(shlex.split(os.environ.get("AJEST_GPU_DATA", "shapes")))
    settings = GPU_MINI.settings(data) | {"learner": learner, "guide": guide, "resolution": 64}
    if device == "cpu":
        data = ("shapes:512",)
        settings |= {"learner": TINY, "guide": half(TINY), "resolution": 16, "sampler_steps": 4,
                     "precision": "float32"}  # fmt: skip
    return image_task(data, warn=lambda text: print(text, file=sys.stderr), **settings)  # type: ignore[arg-type]


def half(architecture: Architecture) -> Architecture:
    return replace(architecture, channels=architecture.channels // 2)


def training(name: str, size: int, asked: Asked) -> None:
    """A uniform step and an AJEST step of a learner with a guide half as wide, each trained by itself."""
    size = size if asked.device == "cuda" else 10
    task = task_of(SIZES[name], half(SIZES[name]), asked.device)
    recipe = Recipe(size, LearningRate(0.01, 0), ema_widths=(0.1, 0.05), not_finite="zero")
    learner, guide = operations_of(task, "learner"), operations_of(task, "guide")
    top = _dense_rate(asked)
    if asked.rounds:
        print(
            f"{name}, {size} images a step, {task.precision}, compiled; {learner / 1e9:.1f} GFLOP a forward pass of an "
            f"image, guide of {guide / learner:.2f} of that; a dense bf16 matrix product {top / 1e12:.1f} TFLOP/s.\n"
        )
        _print_table(HEADING, [])
    # A gradient step costs three forward passes; scoring costs one of the learner and one of the guide.
    passes = {"baseline": 3.0, "ajest": 3 * KEEP + 1 + guide / learner}
    found = {}
    for (arm, cost), drawing in itertools.product(passes.items(), DRAWINGS if asked.rounds else DRAWINGS[:1]):
        drawn = replace(recipe, drawing=drawing)
        t = found[arm, drawing] = trained(partial(trainer_of, task, drawn, asked.device, arm), asked)
        if asked.rounds:
            rate = cost * learner * size / t.step
            _print_row((
                f"{arm}, drawn on the {drawing}", f"{t.step * 1e3:.1f} ms", f"{size / t.step:,.0f}",
                f"{rate / 1e12:.1f}", f"{rate / top:.2f}",
                f"{t.gib[0]:.1f} GiB, {t.gib[1]:.1f} reserved", f"{t.kernels:,.0f}", f"{t.busy / t.step:.0%}",
                f"{t.warmup:.1f} s", f"{t.first.compilations} in {t.first.seconds:.1f} s", str(t.later.compilations),
                str(t.later.eager_calls), t.shares,
            ))  # fmt: skip
    if asked.rounds:
        print()
        for drawing in DRAWINGS:
            uniform, ajest = (found[arm, drawing].step for arm in passes)
            print(
                f"- Drawn on the {drawing}: a uniform step reaches {3 * learner * size / uniform / top:.2f} of the "
                f"dense rate (wanted: at least 0.40); an AJEST step takes {ajest / uniform:.2f} of it (wanted: at most "
                f"0.65; by operations alone {passes['ajest'] / 3:.2f})."
            )
        print(f"- Cache of compiled graphs: {_cache()}.")


def _back_and_forth(network: torch.nn.Module, *inputs: torch.Tensor) -> None:
    network(*inputs).square().mean().backward()
    network.zero_grad(set_to_none=True)


def compiling(asked: Asked) -> None:
    """Forward and backward of XXS as it is written, compiled, and compiled to graphs that are replayed."""
    architecture = SIZES["xxs"] if asked.device == "cuda" else TINY
    sizes, side = ((256, 51), 64) if asked.device == "cuda" else ((10, 2), 16)
    precision: Precision = "bfloat16" if asked.device == "cuda" else "float32"
    rows, top = [], _dense_rate(asked)
    for how in ("as it is written", "compiled", "compiled, replayed"):
        torch._dynamo.reset()
        os.environ["AJEST_REPLAY"] = "1" if how.endswith("replayed") else "0"
        network = architecture.denoiser(side, 200, precision=precision).to(asked.device).train()
        if how != "as it is written":
            compile_network(network.unet)
        for n in sizes:
            x, sigma = torch.randn(n, 3, side, side, device=asked.device), torch.rand(n, device=asked.device) + 0.1
            label = torch.arange(n, device=asked.device) % 200

            work = partial(_back_and_forth, network, x, sigma, label)
            before, start = so_far(), time.perf_counter()
            work()
            settle(asked.device)
            first, made = time.perf_counter() - start, so_far() - before
            t = timed({"ours": work}, max(asked.rounds, 1), asked.device)["ours"]
            rate = 3 * n * network.flops() / t
            rows.append((
                how, str(n), f"{t * 1e3:.1f} ms", f"{n / t:,.0f}", f"{rate / top:.3f}", f"{first:.1f} s",
                f"{made.compilations} in {made.seconds:.1f} s",
            ))  # fmt: skip
    heading = ("xxs, forward and backward", "images", "time", "images/s", "of the dense rate", "first call", "graphs")
    _print_table(heading, rows)


#: Where random numbers of examples are made, as in `Recipe.drawing`.
DRAWINGS: tuple[Drawing, ...] = ("host", "device")

#: Of the table of training.
HEADING = (
    "step",
    "time",
    "images/s drawn",
    "TFLOP/s",
    "of the dense rate",
    "peak memory",
    "kernels a step",
    "device busy",
    f"first {WARMUP_STEPS} steps",
    "graphs compiled",
    "graphs later",
    "eager calls later",
    "shares of a step",
)


def _dense_rate(asked: Asked) -> float:
    """Operations a second of a large dense bf16 matrix product."""
    product, operations = matrix_product(torch.bfloat16, asked.device, 8192 if asked.device == "cuda" else 512)
    return operations / timed({"product": product}, max(asked.rounds, 1), asked.device)["product"]


@dataclass(frozen=True)
class Trained:
    """What training was like.

    Attributes:
        step: seconds of a step, by the clock on the wall over a row of steps.
        phases: seconds by phase, medians of the ledger's.
        gib: peak memory on the device, that of tensors and what was reserved for it; 0 on a CPU.
        warmup: seconds of the first steps, which compile.
        first: what was compiled in these.
        later: what was compiled after these.
        kernels: launched in a step.
        busy: seconds of a step in which a kernel ran.
    """

    step: float
    phases: dict[str, float]
    gib: tuple[float, float]
    warmup: float
    first: CompileCounts
    later: CompileCounts
    kernels: float
    busy: float

    @property
    def shares(self) -> str:
        whole = sum(self.phases.values())
        return ", ".join(f"{phase} {s / whole:.1%}" for phase, s in self.phases.items() if s > 0)


def guide_of_bench(asked: Asked) -> None:
    """Compiles what trains the guide of `gpu-mini`."""
    task = task_of(GPU_MINI.learner, GPU_MINI.guide, asked.device)
    recipe = GPU_MINI.bench(task).recipe if asked.device == "cuda" else Recipe(20, ema_widths=(0.1,))
    networks = Networks(task.network("guide", 0).to(asked.device))
    trained(lambda: Trainer(task.source(asked.device), networks, recipe, ARMS["baseline"], Streams(0)), asked)


def trained(make: Callable[[], Trainer], asked: Asked) -> Trained:
    """Steps of a trainer, after those that compile; it is let go afterwards, so that memory is that of one training."""
    gc.collect()
    if asked.device == "cuda":
        torch.cuda.empty_cache()
    trainer = make()
    settle(asked.device)
    start, counts = time.perf_counter(), [so_far()]
    for _ in range(WARMUP_STEPS):
        trainer.step()
    settle(asked.device)
    warmup = time.perf_counter() - start
    counts.append(so_far())
    print(f"{trainer.arm.name}: {WARMUP_STEPS} first steps took {warmup:.1f} s", file=sys.stderr, flush=True)
    if asked.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    taken = [trainer.step() for _ in range(asked.rounds)]
    settle(asked.device)
    step = (time.perf_counter() - start) / max(asked.rounds, 1)
    phases = {p: statistics.median(s.seconds[p] for s in taken) for p in (taken[0].seconds if taken else ())}
    gib = (0.0, 0.0)
    if asked.device == "cuda":
        gib = torch.cuda.max_memory_allocated() / 2**30, torch.cuda.max_memory_reserved() / 2**30
    kernels, busy = profiled(trainer, asked) if taken else (0.0, 0.0)
    counts.append(so_far())
    return Trained(step, phases, gib, warmup, counts[1] - counts[0], counts[2] - counts[1], kernels, busy)


def profiled(trainer: Trainer, asked: Asked) -> tuple[float, float]:
    """(kernels and copies of a step, seconds of a step in which one ran); the table of kernels goes to a file."""
    cuda = asked.device == "cuda"
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda) as found:
        for _ in range(PROFILED_STEPS):
            trainer.step()
        settle(asked.device)
    events = found.key_averages()
    kernels = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA and not _annotates(e)]
    busy = sum(e.self_device_time_total for e in kernels) / 1e6 / PROFILED_STEPS
    if asked.kernels is not None:
        by = "self_device_time_total" if cuda else "self_cpu_time_total"
        table = events.table(sort_by=by, row_limit=25, max_name_column_width=60)
        calls = {e.key: round(e.count / PROFILED_STEPS, 1) for e in events if e.key in CALLS}
        with asked.kernels.open("a") as file:
            print(f"== {trainer.arm.name}, {PROFILED_STEPS} steps; calls a step: {calls}\n{table}", file=file)
    return sum(e.count for e in kernels) / PROFILED_STEPS, busy


def _annotates(event: Any) -> bool:
    """Whether it only names a stretch of time in which kernels ran."""
    return bool(getattr(event, "is_user_annotation", False)) or "#" in event.key or "Region" in event.key


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
    """Images a second that a learner samples with a guide, and what compiling it took."""
    task, n = task_of(learner, guide, asked.device), 256 if asked.device == "cuda" else 8
    start = time.perf_counter()
    guided_sampling(replace(task, sampler_steps=2), n, "", asked.device, 1)
    first, before = time.perf_counter() - start, so_far()
    if asked.rounds:
        what, seconds, _, rate = guided_sampling(task, n, name, asked.device, 1)
        _print_table(
            ("what", "time", "rate", "three samples of two steps before it", "graphs compiled", "later", "eager later"),
            [(what, seconds, rate, f"{first:.1f} s", f"{before.compilations} in {before.seconds:.1f} s",
              str(so_far().compilations - before.compilations), str(so_far().eager_calls - before.eager_calls))],
        )  # fmt: skip


def _print_table(heading: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    for row in (heading, ("---",) * len(heading), *rows):
        _print_row(row)


def _print_row(row: tuple[str, ...]) -> None:
    print("| " + " | ".join(row) + " |", flush=True)


PIECES: dict[str, Callable[[Asked], None]] = {
    "machine": machine,
    "compiling": compiling,
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
