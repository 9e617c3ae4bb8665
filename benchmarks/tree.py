"""Speed on the tree: every figure beside its yardstick, timed in turns within one run.

    python benchmarks/tree.py [--device cuda] [--rounds 15] > table.md

Medians over rounds; a round times every contestant once, so a machine's drift hits all alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch

from ajest import Scores, autoguide, sample, select
from ajest.diffusion.batch import Source
from ajest.runtime.seeding import Streams
from ajest.runtime.threads import configure_threads
from ajest.selection.catalogue import ARMS
from ajest.selection.flow import Networks
from ajest.tasks.tree.network import EnergyMLP
from ajest.tasks.tree.task import TreeTask
from ajest.training.recipe import Recipe
from ajest.training.shared_draws import SharedDraws
from ajest.training.trainer import Trainer
from straightforward import PlainTree, dense_jest, keep_graph_step, plain_step
from timing import Row, print_tables, timed

SUPER_BATCH, KEPT = 4096, 819


def steps(device: str, rounds: int) -> list[Row]:
    """Steps on all cores against the straightforward ones."""
    task = TreeTask()
    uniform, ajest, guide = trainers(task, device)
    nets = [task.network("learner", 0).to(device) for _ in range(2)]
    adams = [torch.optim.Adam(net.parameters(), betas=(0.9, 0.99)) for net in nets]
    per_pair, per_component = (PlainTree(each, device) for each in (True, False))
    batch = uniform.selector.source.draw(SUPER_BATCH, torch.Generator().manual_seed(0)).to(device)
    x, sigma = batch.x, batch.sigma
    kept = torch.arange(KEPT, device=device)
    exact = task.source(device).distribution
    contestants: dict[str, Callable[[], object]] = {
        "uniform": uniform.step,
        "ajest": ajest.step,
        "per component": lambda: plain_step(per_component, nets[1], adams[1], x, sigma),
        "keep graph": lambda: keep_graph_step(per_component, nets[1], guide, adams[1], x, sigma, kept),
        "score": lambda: exact.score(x, sigma),
        "score per component": lambda: per_component.score(x, sigma),
    }
    if device == "cpu":  # two million eigen-problems of 2 x 2 are more than a batched solver of a GPU takes
        contestants |= {
            "per pair": lambda: plain_step(per_pair, nets[0], adams[0], x, sigma),
            "score per pair": lambda: per_pair.score(x, sigma),
        }
    found = timed(contestants, rounds, device)
    ms = {name: 1e3 * seconds for name, seconds in found.items()}

    def faster(name: str, mine: str, other: str, wanted: str = "") -> list[Row]:
        if other not in ms:
            return []
        ratio = f"{ms[other] / ms[mine]:.1f} times as fast{wanted}"
        return [(name, f"{ms[mine]:.1f} ms", f"{ms[other]:.0f} ms", ratio)]

    return [
        *faster("uniform step; an eigen-solve per pair", "uniform", "per pair", " (wanted: 20)"),
        *faster("uniform step; an eigen-solve per component", "uniform", "per component"),
        *faster("exact score; an eigen-solve per pair", "score", "score per pair"),
        *faster("exact score; an eigen-solve per component", "score", "score per component"),
        against_uniform("AJEST step; a uniform step", ms["ajest"], ms["uniform"]),
        ("straightforward AJEST step that keeps the whole graph; straightforward uniform step",
         f"{ms['keep graph']:.0f} ms", f"{ms['per component']:.0f} ms",
         f"{ms['keep graph'] / ms['per component']:.2f}"),
    ]  # fmt: skip


def one_thread_steps(device: str, rounds: int) -> list[Row]:
    """Steps on one core, as a bench runs them, one run a core."""
    torch.set_num_threads(1)
    uniform, ajest, _ = trainers(TreeTask(), device)
    found = timed({"uniform": uniform.step, "ajest": ajest.step}, 2 * rounds, device)
    return [
        against_uniform(
            "AJEST step on one core, as a bench runs it; a uniform step", 1e3 * found["ajest"], 1e3 * found["uniform"]
        )
    ]


def against_uniform(name: str, ajest: float, uniform: float) -> Row:
    return name, f"{ajest:.1f} ms", f"{uniform:.1f} ms", f"{ajest / uniform:.2f} (wanted: at most 1.0)"


def trainers(task: TreeTask, device: str) -> tuple[Trainer, Trainer, EnergyMLP]:
    guide = task.network("guide", 1).to(device).eval()
    guide.gain.data.fill_(0.3)

    def make(arm: str) -> Trainer:
        networks = Networks(task.network("learner", 0).to(device), guide)
        return Trainer(task.source(device), networks, Recipe(), ARMS[arm], Streams(0))

    return make("baseline"), make("ajest"), guide


def selections(device: str, rounds: int) -> list[Row]:
    generator = torch.Generator(device).manual_seed(0)
    rows = []
    for size, wanted in ((4096, 5), (65536, 60)):
        learner, reference = torch.rand(2, size, generator=generator, device=device).unbind()
        scores, count = Scores(learner, reference), round(size * 0.2)
        contestants: dict[str, Callable[[], object]] = {"closed": partial(select, scores, count, "jest", generator)}
        dense = size == 4096 and device == "cpu"
        if dense:
            contestants["dense"] = partial(dense_jest, scores, count, 16)
        found = timed(contestants, rounds, device)
        other = f"{1e3 * found['dense']:.0f} ms" if dense else "-"
        ratio = f"{found['dense'] / found['closed']:.0f} times as fast, " if dense else ""
        rows.append(
            (f"choosing {count:,} of {size:,}, N = 16; the dense rule", f"{1e3 * found['closed']:.1f} ms", other,
             f"{ratio}wanted: at most {wanted} ms")
        )  # fmt: skip
    return rows


def joint_selection(device: str, rounds: int) -> list[Row]:
    """Choosing with a coupling over features against the same draws without one."""
    generator = torch.Generator(device).manual_seed(0)
    learner, sigma = torch.rand(2, 4096, generator=generator, device=device).unbind()
    features = torch.randn(4096, 64, generator=generator, device=device)
    scores = Scores(learner, sigma=sigma, features=features)
    found = timed(
        {name: partial(select, scores, 819, name, generator) for name in ("joint-hard", "hard")},
        rounds,
        device,
    )
    return [
        ("choosing 819 of 4,096 with a coupling, 64 features, N = 16; `hard`, without one",
         f"{1e3 * found['joint-hard']:.1f} ms", f"{1e3 * found['hard']:.1f} ms", "wanted: at most 30 ms")
    ]  # fmt: skip


def shared_draws(device: str, rounds: int) -> list[Row]:
    """A step of each of 16 runs of one seed in turns, as a study makes them, against each by itself."""
    task, names = TreeTask(), ("random", "hard", "ajest", "recall")
    guide = task.network("guide", 1).to(device).eval()

    def made(source: Source) -> list[Trainer]:
        return [
            Trainer(
                source, Networks(task.network("learner", 0).to(device), guide), Recipe(), ARMS[names[i % 4]], Streams(0)
            )
            for i in range(16)
        ]

    def steps_of(trainers: list[Trainer]) -> Callable[[], None]:
        def work() -> None:
            for trainer in trainers:
                trainer.step()

        return work

    shared, alone = made(SharedDraws(task.source(device))), made(task.source(device))
    found = timed({"shared": steps_of(shared), "alone": steps_of(alone)}, max(3, rounds // 3), device)
    return [
        ("a step of 16 runs of one seed that share their draws, on one core; each by itself",
         f"{1e3 * found['shared']:.0f} ms", f"{1e3 * found['alone']:.0f} ms",
         f"{found['alone'] / found['shared']:.2f} times as fast")
    ]  # fmt: skip


def beside_others(device: str, rounds: int) -> list[Row]:
    """A step with one and with all threads, where another process keeps one core busy."""
    uniform, ajest, _ = trainers(TreeTask(), device)
    all_threads, rows = torch.get_num_threads(), []
    other = torch.multiprocessing.get_context("spawn").Process(target=_keep_busy, daemon=True)
    other.start()
    for name, step in (("uniform", uniform.step), ("AJEST", ajest.step)):

        def with_threads(threads: int, step: Callable[[], object] = step) -> object:
            torch.set_num_threads(threads)
            return step()

        one, more = (partial(with_threads, threads) for threads in (1, all_threads))
        found = timed({"one": one, "all": more}, rounds, device)
        rows.append(
            (f"{name} step on {all_threads} threads beside a process that takes a core; on one thread",
             f"{1e3 * found['all']:.1f} ms", f"{1e3 * found['one']:.1f} ms", f"{found['all'] / found['one']:.2f}")
        )  # fmt: skip
    other.terminate()
    other.join()
    return rows


def _keep_busy() -> None:
    while True:
        pass


def sampler(device: str, rounds: int) -> list[Row]:
    task = TreeTask()
    main, guide = (task.network(role, 0).to(device).eval() for role in ("learner", "guide"))
    start, sigmas = task.start(16384, 0, device), task.sigmas()
    side = 2048
    a = torch.randn(side, side, device=device)
    chunk = 4096 if device == "cpu" else None
    found = timed(
        {"guided": lambda: sample(autoguide(main, guide, 3.0), start, sigmas, chunk=chunk), "matmul": lambda: a @ a},
        max(3, rounds // 3),
        device,
    )
    flop = (main.flops() + guide.flops()) * 16384 * (2 * 32 - 1)
    rate, peak = flop / found["guided"], 2 * side**3 / found["matmul"]
    return [
        ("sampling 16,384 points, 32 Heun steps, guided; the float32 rate of a large matrix product",
         f"{found['guided']:.2f} s, {rate / 1e9:.0f} GFLOP/s", f"{peak / 1e9:.0f} GFLOP/s",
         f"{rate / peak:.2f} of that rate (wanted: at most 2 s)")
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    configure_threads()
    torch.set_num_threads(torch.multiprocessing.cpu_count())
    on_cores = (beside_others, one_thread_steps) if options.device == "cpu" else ()
    parts = (steps, sampler, *on_cores, selections, joint_selection, shared_draws)
    print_tables(parts, options.device, options.rounds)


if __name__ == "__main__":
    main()
