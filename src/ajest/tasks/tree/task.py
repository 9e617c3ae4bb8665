"""The tree as a task: its settings, and how a denoiser is judged on it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ajest.diffusion.batch import Batch
from ajest.diffusion.denoising import Denoiser, LogNormal, check_noise, per_example_loss
from ajest.diffusion.network import ExactDenoiser
from ajest.diffusion.noising.ingredients import Target
from ajest.diffusion.noising.noising import Noising
from ajest.diffusion.noising.source import noised
from ajest.diffusion.optimal import OptimalLoss, by_level, exact_optimum
from ajest.diffusion.sampling import sample, sigma_schedule
from ajest.diffusion.solvers import Solver, SolverKind
from ajest.errors import Corrupt, NotFinite, check
from ajest.runtime.distributed import in_chunks
from ajest.runtime.seeding import LARGE, Role, generator
from ajest.storage import checkpoint
from ajest.tasks.base import Evaluation, Guided, Measurement, Metric, RunTensors, Task, Tensors

from . import figures, metrics
from .distribution import PER_BRANCH, TreeDistribution, branches
from .network import EnergyMLP, GainSign
from .source import TreeSource

CHUNK = 4096  # points sampled at a time
SMALL_N = 16384  # mandala is also given for this many samples, because it depends on their number
TRAJECTORIES = 48
OPTIMAL_EXAMPLES = 1 << 17

METRICS = (
    Metric("energy_distance", "energy distance × 1000", "lower",
           "How far the samples are from fresh exact ones: 0 for the same distribution, up to noise of both signs. "
           "It saturates late: it sees mass in wrong places, but hardly a few stray points.",
           headline="unguided", scale=1000, perfect=0),
    Metric("mandala", "mandala", "higher",
           "Share of the grid's touched cells that hold at least one sample on the tree. It falls as samples are "
           "added, so it is compared at one n only, and it does not see mass that crowds onto few branches.",
           headline="guided", perfect=1),
    Metric("mandala_16k", "mandala at n = 16,384", "higher", "Mandala of the first 16,384 samples."),
    Metric("classification", "classification", "higher",
           "Share of samples that lie on the tree. It saturates first under guidance and does not see empty branches.",
           curve=True),
    Metric("loss", "loss", "lower", "Mean squared error of the score, weighted by sigma^2.", guided=False, curve=True),
    Metric("outer_loss", "outer loss", "lower", "The same for examples from the outer branches.", guided=False),
    Metric("rare_loss", "loss at rare places", "lower",
           "The same for the tenth of least density at each noise level.", guided=False),
    Metric("rare_bias", "bias at rare places", "lower",
           "By what share the score is too long or too short there on average. Errors of both signs cancel.",
           guided=False),
    Metric("l2", "L2 to the exact ODE", "lower",
           "Mean distance from where the exact sampler ends. Guidance moves points on purpose and raises it."),
    Metric("branch_tv", "branch imbalance", "lower", "Share of the mass that sits on the wrong branches."),
    Metric("depth_tv", "depth imbalance", "lower", "Share of the mass that sits at the wrong depth."),
    Metric("branches_reached", "branches reached", "higher",
           "Share of branches with at least half their mass. Saturates at 1 before the shares are right."),
)  # fmt: skip


@dataclass(frozen=True)
class TreeTask(Task):
    """Settings of the 2-D task (docs/method.md#tree-recipe); see `ajest.tasks.Task` for its methods.

    Attributes:
        label: the class that is learned.
        hidden, guide_hidden: widths of learner and guide.
        layers: hidden ones of both, after the first linear one.
        gain_sign: of both networks' gains: "negative", so that no verdict hangs on a coin, "positive", to see what the
            other side would have given, or "free", as published; see `EnergyMLP`.
        target: of training: the "exact" posterior mean, as published, or the clean example "x0", as real data have it.
            What is measured is exact in either case.
        p_mean, p_std: of ln sigma in training.
        sigma_data: standard deviation of the data.
        sampler_steps, sigma_max, sigma_min: of the sampler.
        solver, churn, shift: which way it goes, see `ajest.diffusion.solvers.Solver`.
    """

    name: str = "tree"
    label: str = "A"
    hidden: int = 64
    guide_hidden: int = 32
    layers: int = 4
    p_mean: float = -2.3
    p_std: float = 1.5
    sigma_data: float = 0.5
    sampler_steps: int = 32
    sigma_max: float = 5.0
    sigma_min: float = 0.002
    gain_sign: GainSign = "negative"
    target: Target = "exact"
    solver: SolverKind = "heun"
    churn: float = 0.0
    shift: float = 1.0

    def __post_init__(self) -> None:
        check_noise(self.p_mean, self.p_std, self.sigma_data)
        _ = self.sampler  # which checks its settings

    @property
    def domain(self) -> tuple[object, ...]:
        return self.name, self.label

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return METRICS

    def source(self, device: torch.device | str) -> TreeSource:
        return TreeSource(_distribution(self.label, str(device)), self._noise, self.sigma_data, self.target)

    @property
    def _noise(self) -> LogNormal:
        return LogNormal(self.p_mean, self.p_std)

    def network(self, role: Role, seed: int) -> EnergyMLP:
        hidden = self.hidden if role in LARGE else self.guide_hidden
        return EnergyMLP(hidden, self.layers, self.sigma_data, generator(seed, role, "weights"), self.gain_sign)

    def exact_denoiser(self, device: torch.device | str = "cpu") -> ExactDenoiser:
        distribution = _distribution(self.label, str(device))
        return ExactDenoiser(distribution.denoise, distribution.flops)

    @property
    def samples(self) -> int:
        return SMALL_N

    @property
    def sampled_from(self) -> float | None:
        return self.sampler.ode_from

    @property
    def guidance(self) -> float:
        return 3.0

    @property
    def costly_target(self) -> bool:
        return self.target == "exact"

    @property
    def subject(self) -> str:
        return f"class {self.label} of a fractal tree, known exactly"

    def example_names(self) -> Sequence[str]:
        """Each of the Gaussians that examples are drawn from."""
        return [f"component-{i:04d}" for i in range(PER_BRANCH * sum(b.label == self.label for b in branches()))]

    def other_guides(self) -> dict[str, Task]:
        """One whose gain has the other sign, where signs are given."""
        if self.gain_sign == "free":
            return {}
        other: GainSign = "positive" if self.gain_sign == "negative" else "negative"
        return {"of the other sign": replace(self, gain_sign=other)}

    @property
    def sampler(self) -> Solver:
        """How samples are drawn."""
        levels = self.sampler_steps, self.sigma_max, self.sigma_min
        return Solver(*levels, self.sigma_data, self.solver, self.churn, self.shift)

    def sigmas(self) -> list[float]:
        """Noise levels of Heun's method, by which the exact sampler goes."""
        return sigma_schedule(self.sampler_steps, self.sigma_max, self.sigma_min)

    def start(self, n: int, seed: int, device: torch.device | str) -> Tensor:
        """Start points of the sampler: exact samples at sigma_max, the same for all arms of a seed."""
        return self._exact(n, seed, "start", self.sigma_max, device)

    def exact(self, n: int, seed: int, device: torch.device | str, name: str = "exact") -> Tensor:
        """Fresh exact samples, shape (n, 2)."""
        return self._exact(n, seed, name, 0.0, device)

    def _exact(self, n: int, seed: int, name: str, sigma: float, device: torch.device | str) -> Tensor:
        stream = generator(seed, "evaluation", name)
        uniform, normal = torch.rand(n, generator=stream), torch.randn(n, 4, generator=stream)
        x, _ = _distribution(self.label, str(device)).sample(uniform.to(device), normal.to(device), sigma)
        return x

    def prepare(self, how: Measurement) -> Tensor:
        """End points of the exact ODE from `start(n, seed)`, kept in the folder `cache`."""
        n, seed, device = how.n, how.seed, how.device
        levels = f"steps{self.sampler_steps}-from{self.sigma_max:g}-to{self.sigma_min:g}"
        stem = how.cache / f"truth-{self.label}-seed{seed}-n{n}-{levels}"
        try:
            return checkpoint.load(stem).tensors["end"].to(device)
        except Corrupt:
            pass
        distribution = _distribution(self.label, str(device))
        end = sample(distribution.denoise, self.start(n, seed, device), self.sigmas())
        checkpoint.save(stem, {"end": end}, {"n": n, "seed": seed})
        return end

    def evaluate(self, model: Guided, how: Measurement) -> Evaluation:
        """Judge a denoiser on n samples; kept are `samples` (at most 16,384 of them) and `trajectories` (48 paths).

        Raises:
            NotFinite: some are NaN or infinite.
        """
        n, seed, device, denoiser = how.n, how.seed, how.device, model.denoiser
        distribution = _distribution(self.label, str(device))
        start, truth = self.start(n, seed, device), self.prepare(how)
        end = self._sample(denoiser, start, seed)
        if not bool(torch.isfinite(end).all()):
            raise NotFinite("samples are NaN or infinite: lower the learning rate or the guidance")
        hit = metrics.hits(distribution, end)
        x, on_tree = end.cpu().numpy(), hit.cpu().numpy()
        values = {
            "classification": float(on_tree.mean()),
            "mandala": metrics.mandala(x, on_tree),
            "mandala_16k": metrics.mandala(x[:SMALL_N], on_tree[:SMALL_N]),
            "l2": (end - truth).norm(dim=1).double().mean().item(),
            "energy_distance": metrics.energy_distance(x, self.exact(n, seed, device).cpu().numpy()),
            **metrics.branch_metrics(distribution, metrics.branch_shares(distribution, end)),
        }
        curve: Mapping[str, Sequence[float]] = {}
        if model.unguided:
            batch = self._loss_batch(n, seed, device)
            estimate = metrics.answers(denoiser, batch, CHUNK)
            values |= metrics.losses(distribution, estimate, batch)
            curve = by_level(self._noise, batch.sigma, {"excess": per_example_loss(estimate, batch)})
        if not how.keep_tensors:
            return Evaluation(values, by_level=curve)
        path: list[Tensor] = []
        stream = generator(seed, "evaluation", "churn", 0)
        self.sampler(denoiser, start[:TRAJECTORIES], None, stream, lambda _, state: path.append(state.clone()))
        return Evaluation(values, {"samples": end[:SMALL_N], "trajectories": torch.stack(path, 1)}, curve)

    def optimal_loss(self, how: Measurement) -> OptimalLoss:
        """The loss of the exact denoiser against clean points."""
        source = noised(self.source(how.device), Noising(target="x0"), OPTIMAL_EXAMPLES)
        batch = source.draw(OPTIMAL_EXAMPLES, generator(how.seed, "evaluation", "optimal loss"))
        return exact_optimum(self._noise, batch, self.exact_denoiser(how.device), CHUNK)

    def real_data_reference(self, how: Measurement) -> dict[str, float]:
        """The metrics of exact samples against other exact samples: as good as any model can look at this n."""
        n, seed = how.n, how.seed
        distribution = _distribution(self.label, "cpu")
        samples = self.exact(n, seed, "cpu", "floor")  # the name of the random stream
        x, hit = samples.numpy(), metrics.hits(distribution, samples).numpy()
        return {
            "classification": float(hit.mean()),
            "mandala": metrics.mandala(x, hit),
            "mandala_16k": metrics.mandala(x[:SMALL_N], hit[:SMALL_N]),
            "l2": 0.0,
            "loss": 0.0,
            "outer_loss": 0.0,
            "rare_loss": 0.0,
            "rare_bias": 0.0,
            "energy_distance": metrics.energy_distance(x, self.exact(n, seed, "cpu").numpy()),
            **metrics.branch_metrics(distribution, metrics.branch_shares(distribution, samples)),
        }

    def figures(self, run: RunTensors) -> list[tuple[str, Figure]]:
        return figures.of_run(self.label, run)

    def side_by_side(self, weight: float, arms: Mapping[str, Mapping[float, Tensors]]) -> list[tuple[str, Figure]]:
        return figures.side_by_side(self.label, weight, arms)

    def write_samples(
        self,
        denoiser: Denoiser,
        out: Path,
        n: int | None = None,
        seeds: tuple[int, ...] = (),
        classes: tuple[str, ...] = (),
        device: torch.device | str = "cpu",
    ) -> list[Path]:
        """A table of n points (16,384 if none are asked for) from the first seed, and an image of them."""
        n = SMALL_N if n is None else n
        check(n >= 1, f"at least 1 sample must be asked for, not {n}")
        check(not classes, "the tree has no classes to choose from: leave out --classes")
        check(len(seeds) <= 1, "the tree is sampled with one seed: name one")
        seed = seeds[0] if seeds else 0
        x = self._sample(denoiser, self.start(n, seed, device), seed).cpu().numpy()
        table, image = io.StringIO(), io.BytesIO()
        np.savetxt(table, x, fmt="%.7g", delimiter=",", header="x,y", comments="")
        shown = {"samples": x, "the truth": self.exact(n, seed, "cpu").numpy()}
        figures.samples(self.label, shown).savefig(image, format="png", dpi=120)
        checkpoint.write_atomic(out / "samples.csv", table.getvalue())
        checkpoint.write_atomic(out / "samples.png", image.getvalue())
        return [out / "samples.csv", out / "samples.png"]

    def _sample(self, denoiser: Denoiser, start: Tensor, seed: int) -> Tensor:
        def solved(part: slice) -> Tensor:
            return self.sampler(denoiser, start[part], None, generator(seed, "evaluation", "churn", part.start))

        return in_chunks(solved, len(start), CHUNK)

    def _loss_batch(self, n: int, seed: int, device: torch.device | str) -> Batch:
        source = replace(self, target="exact").source(device)
        return source.complete(source.draw(min(n, 4 * SMALL_N), generator(seed, "evaluation", "loss")))


@lru_cache(maxsize=4)
def _distribution(label: str, device: str) -> TreeDistribution:
    return TreeDistribution(label, device)
