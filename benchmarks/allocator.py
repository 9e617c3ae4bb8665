"""What of a speed is our code and what is the memory allocator's setting: ours and the straightforward way, each
with freed memory kept by the process and with the C library's default, all four timed in turns.

    python benchmarks/allocator.py [--rounds 9] [--only network tree] [--threads 2] > table.md
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ajest.runtime.seeding import Streams
from ajest.runtime.threads import keep_freed_memory
from ajest.selection.catalogue import ARMS
from ajest.selection.flow import Networks
from ajest.tasks.images.architecture import SIZES, Precision
from ajest.tasks.tree.task import TreeTask
from ajest.training.recipe import Recipe
from ajest.training.trainer import Trainer
from plain_unet import PlainDenoiser
from straightforward import PlainTree, plain_step

Contestants = dict[str, Callable[[], object]]
#: Whether freed memory is kept: a setting of a whole process, so each has a process of its own.
SETTINGS = {"kept": True, "returned": False}


def network(channels: int, precision: Precision, n: int = 8) -> Contestants:
    """Forward and backward of configuration G at 64x64, ours and a plain one of the same weights."""
    dials = replace(SIZES["xxs"], channels=channels)
    ours = dials.denoiser(64, 200, precision=precision).train()
    plain = PlainDenoiser(dials, 64, 200, getattr(torch, precision)).train()
    for gain in (p for p in ours.parameters() if p.ndim == 0):
        gain.data.fill_(0.5)  # at 0, as they start, whole branches would do nothing
    plain.load_state_dict(ours.state_dict())
    x, sigma, label = torch.randn(n, 3, 64, 64), torch.rand(n) + 0.1, torch.arange(n)

    exact = 1e-4 if precision == "float32" else 0.1
    torch.testing.assert_close(plain(x, sigma, label), ours(x, sigma, label), rtol=exact, atol=exact)

    def work(net: torch.nn.Module) -> None:
        net(x, sigma, label).square().mean().backward()

    return {"ours": partial(work, ours), "plain": partial(work, plain)}


def tree() -> Contestants:
    """A uniform step on 4,096 examples, ours and a straightforward one (an eigen-solve per component)."""
    task = TreeTask()
    trainer = Trainer(task.source("cpu"), Networks(task.network("learner", 0)), Recipe(), ARMS["baseline"], Streams(0))
    net, exact = task.network("learner", 0), PlainTree(per_pair=False)
    adam = torch.optim.Adam(net.parameters(), betas=(0.9, 0.99))
    batch = trainer.selector.source.draw(4096, torch.Generator().manual_seed(0))
    return {"ours": trainer.step, "plain": lambda: plain_step(exact, net, adam, batch.x, batch.sigma)}


def timed_by_setting(make: Callable[[], Contestants], rounds: int, threads: int) -> dict[tuple[str, str], float]:
    """Median seconds by (setting, contestant), after two warm-up rounds."""
    context = multiprocessing.get_context("spawn")
    workers: dict[str, tuple[Any, Any]] = {}
    for setting, keep in SETTINGS.items():
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, make, keep, threads), daemon=True)
        process.start()
        workers[setting] = here, process
    names = {setting: pipe.recv() for setting, (pipe, _) in workers.items()}
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(rounds + 2):
        for setting, (pipe, _) in workers.items():
            for name in names[setting]:
                pipe.send(name)
                seconds = pipe.recv()
                if turn >= 2:
                    times.setdefault((setting, name), []).append(seconds)
    for pipe, process in workers.values():
        pipe.send(None)
        process.join()
    return {key: statistics.median(t) for key, t in times.items()}


def _serve(pipe: Any, make: Callable[[], Contestants], keep: bool, threads: int) -> None:
    if keep:
        keep_freed_memory()
    torch.set_num_threads(threads)
    contestants = make()
    pipe.send(list(contestants))
    while (name := pipe.recv()) is not None:
        start = time.perf_counter()
        contestants[name]()
        pipe.send(time.perf_counter() - start)


CASES: dict[str, dict[str, Callable[[], Contestants]]] = {
    "network": {
        f"forward and backward, {channels} channels, {precision}, 8 images": partial(network, channels, precision)
        for channels in (16, 32, 64)
        for precision in ("float32", "bfloat16")
    },
    "tree": {"a uniform step on the tree": tree},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", choices=CASES, default=tuple(CASES))
    options = parser.parse_args()
    print(f"{options.threads} threads, {platform.machine()}; Python {platform.python_version()}, torch "
          f"{torch.__version__}\n")  # fmt: skip
    print("| what | ours, kept | plain, kept | plain / ours | ours, returned | plain, returned | plain / ours |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in options.only:
        for what, make in CASES[name].items():
            found = timed_by_setting(make, options.rounds, options.threads)
            cells = []
            for setting in SETTINGS:
                ours, plain = found[setting, "ours"], found[setting, "plain"]
                cells += [f"{ours * 1e3:.0f} ms", f"{plain * 1e3:.0f} ms", f"{plain / ours:.2f}"]
            print(f"| {what} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
