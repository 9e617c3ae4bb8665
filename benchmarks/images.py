"""Speed on images: every figure beside its yardstick, timed in turns within one run.

    python benchmarks/images.py [--device cuda] [--rounds 7] [--only steps loading] > table.md

Medians over rounds; a round times every contestant once, so a machine's drift hits all alike.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ajest import autoguide, per_example_loss, sample, score
from ajest.bench.plan.presets import CPU_MINI
from ajest.diffusion.denoising import objective
from ajest.runtime.seeding import Role, Streams
from ajest.runtime.threads import configure_threads
from ajest.selection.catalogue import arms_named
from ajest.selection.flow import Networks
from ajest.selection.scoring import Scores
from ajest.tasks.images.architecture import SIZES, Architecture
from ajest.tasks.images.data.packing import prepare
from ajest.tasks.images.denoiser import EDM2Denoiser
from ajest.tasks.images.extractors import extract, extractor
from ajest.tasks.images.setup import image_task
from ajest.tasks.images.task import ImageTask
from ajest.training.recipe import LearningRate, Recipe
from ajest.training.trainer import Trainer
from timing import Row, matrix_product, print_tables, timed

SHAPES = ("shapes:512",)


def architecture(channels: int) -> Architecture:
    """Configuration G at this width."""
    return replace(SIZES["xxs"], channels=channels)


def gradients(device: str, rounds: int) -> list[Row]:
    """Forward and backward of U-Nets of several widths against the rate of a large float32 matrix product."""
    product, operations = matrix_product(torch.float32, device, 2048)
    rows = []
    for channels, wanted in ((16, 0.35), (32, 0.60), (64, 0.60)):
        for precision in ("float32", "bfloat16"):
            network = architecture(channels).denoiser(64, 200, precision=precision).to(device).train()
            n = 8
            x, sigma = torch.randn(n, 3, 64, 64, device=device), torch.rand(n, device=device) + 0.1
            label = torch.arange(n, device=device)
            work = partial(_back_and_forth, network, x, sigma, label)
            t = timed({"ours": work, "product": product}, rounds, device)
            rate, top = 3 * n * network.flops() / t["ours"], operations / t["product"]
            bar = f" (wanted: {wanted})" if precision == "float32" else ""
            rows.append((
                f"forward and backward, {channels} channels, {precision}; the rate of a float32 matrix product",
                f"{t['ours'] / n * 1e3:.1f} ms an image, {rate / 1e9:.0f} GFLOP/s", f"{top / 1e9:.0f} GFLOP/s",
                f"{rate / top:.2f} of that rate{bar}",
            ))  # fmt: skip
    return rows


def _back_and_forth(network: nn.Module, *inputs: torch.Tensor) -> None:
    network(*inputs).square().mean().backward()


def operations_of(task: ImageTask, role: Role) -> int:
    """Operations of one of our networks on one image."""
    network = task.network(role, 0)
    assert isinstance(network, EDM2Denoiser)
    return network.flops()


def trainer_of(task: ImageTask, recipe: Recipe, device: str, name: str) -> Trainer:
    (arm,) = arms_named((name,), chunks=2)
    guide = task.network("guide", 1).to(device).eval().requires_grad_(False)
    networks = Networks(task.network("learner", 0).to(device), guide)
    return Trainer(task.source(device), networks, recipe, arm, Streams(0))


def trainers(task: ImageTask, recipe: Recipe, device: str) -> dict[str, Trainer]:
    """A trainer of each of two arms, and of the arm that is to keep the whole graph."""
    arms = {"baseline": "baseline", "ajest": "ajest", "plain": "ajest"}
    return {name: trainer_of(task, recipe, device, arm) for name, arm in arms.items()}


def whole_graph(trainer: Trainer) -> Callable[[], None]:
    """A selecting step as it is first written down: one forward with a graph, the chosen losses indexed out of it."""
    learner, guide, recipe = trainer.network, trainer.selector.networks.reference, trainer.recipe
    assert guide is not None
    choose, count = trainer.arm.choose(), trainer.arm.kept(recipe.super_batch)

    def work() -> None:
        batch = trainer.selector.source.draw(recipe.super_batch, torch.Generator().manual_seed(0))
        losses = per_example_loss(learner(batch.x, batch.sigma, batch.label), batch)
        scores = Scores(losses.detach(), score(guide, batch))
        kept = choose(scores, count, torch.Generator(batch.x.device).manual_seed(0))
        objective(losses[kept], batch[kept], learner).mean().backward()
        trainer.learner.step(finite=True)
        trainer.ema.update(1_000_000)

    return work


def steps(device: str, rounds: int) -> list[Row]:
    """An AJEST step against a uniform step on the same super-batch, the guide of a quarter of the learner's FLOPs."""
    rows = []
    # The narrower the network, the more images it takes until what is the same for each no longer counts.
    for channels, precision, size in ((32, "float32", 60), (32, "bfloat16", 60), (64, "float32", 60)):
        settings = CPU_MINI.settings(SHAPES) | {"precision": precision}
        settings |= {"learner": architecture(channels), "guide": architecture(channels // 2)}
        task = image_task(SHAPES, **settings)  # type: ignore[arg-type]
        made = trainers(task, Recipe(size, LearningRate(0.01, 0), ema_widths=(0.1,), not_finite="zero"), device)
        share = operations_of(task, "guide") / operations_of(task, "learner")
        work: dict[str, Callable[[], object]] = {
            "uniform": made["baseline"].step,
            "ajest": made["ajest"].step,
            "plain": whole_graph(made["plain"]),
        }
        t = timed(work, rounds, device)
        name = f"{channels} channels, {precision}, guide of {share:.2f} of the FLOPs, keep 0.2 of {size}"
        rows.append((
            f"AJEST step, {name}; a uniform step", f"{t['ajest'] * 1e3:.0f} ms", f"{t['uniform'] * 1e3:.0f} ms",
            f"{t['ajest'] / t['uniform']:.2f} (wanted: at most 0.65; by operations alone {0.2 + (1 + share) / 3:.2f})",
        ))  # fmt: skip
        rows.append((
            f"the same with the graph of the whole super-batch, {name}; a uniform step", f"{t['plain'] * 1e3:.0f} ms",
            f"{t['uniform'] * 1e3:.0f} ms", f"{t['plain'] / t['uniform']:.2f}",
        ))  # fmt: skip
    return rows


def loading(device: str, rounds: int) -> list[Row]:
    """What the steps of the smallest preset wait for their images, from a packed file mapped from the disk."""
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "packed.npz"
        prepare(("shapes:4096",), packed)
        data = (str(packed),)
        task = image_task(data, **CPU_MINI.settings(data))  # type: ignore[arg-type]
        trainer = trainers(task, CPU_MINI.bench(task).recipe, device)["baseline"]
        taken = [trainer.step().seconds for _ in range(4 * rounds + 2)][2:]
    draw, whole = (sum(s["draw"] for s in taken), sum(sum(s.values()) for s in taken))
    return [(f"drawing and noising in {len(taken)} uniform steps of `cpu-mini` from a packed file; the steps",
             f"{draw * 1e3:.0f} ms", f"{whole * 1e3:.0f} ms", f"{draw / whole:.2%} idle (wanted: under 2 %)",
    )]  # fmt: skip


def judging(device: str, rounds: int) -> list[Row]:
    """2,000 images through the default feature network."""
    images, network = torch.randint(256, (2000, 3, 64, 64), dtype=torch.uint8), extractor("lite0", device)
    extract(images[:64], network)
    t = timed({"lite0": lambda: extract(images, network)}, 1, device)["lite0"]
    return [("2,000 images through FD-Lite0", f"{t:.1f} s", "", f"{2000 / t:.0f} images/s (wanted: within 60 s)")]


def sampling(device: str, rounds: int) -> list[Row]:
    """Guided sampling by the networks of the smallest preset."""
    settings = CPU_MINI.settings(SHAPES) | {"sampler_steps": 32}
    task = image_task(SHAPES, **settings)  # type: ignore[arg-type]
    return [guided_sampling(task, 32, "mini guided by nano", device, max(1, rounds // 4))]


def guided_sampling(task: ImageTask, n: int, name: str, device: str, rounds: int) -> Row:
    """Images a second that a task's networks sample with guidance."""
    net, guide = (task.network(role, 0).to(device).eval().requires_grad_(False) for role in ("learner", "guide"))
    side = task.resolution
    x, label = 80 * torch.randn(n, 3, side, side, device=device), torch.arange(n, device=device) % len(task.classes)
    guided, sigmas = autoguide(net, guide, 2.2), task.sampler.sigmas()
    t = timed({"ours": lambda: sample(guided, x, sigmas, label)}, rounds, device)["ours"]
    what = f"guided sampling, {task.sampler_steps} Heun steps, {name}"
    return what, f"{t:.1f} s for {n}", "", f"{n / t:.2f} images/s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parts = {part.__name__: part for part in (gradients, steps, loading, judging, sampling)}
    parser.add_argument("--only", nargs="+", choices=parts, default=tuple(parts))
    options = parser.parse_args()
    configure_threads()
    print_tables([parts[name] for name in options.only], options.device, options.rounds)


if __name__ == "__main__":
    main()
