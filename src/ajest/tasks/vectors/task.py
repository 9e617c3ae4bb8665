"""Vectors as a task: its settings, and how a denoiser is judged on them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ajest.diffusion.batch import Batch
from ajest.diffusion.denoising import Denoiser, LogNormal, check_noise
from ajest.diffusion.network import ExactDenoiser
from ajest.diffusion.objectives.parametrisations import weighting_of
from ajest.diffusion.optimal import OptimalLoss, by_level, dataset_optimum, exact_optimum
from ajest.diffusion.solvers import Solver, SolverKind
from ajest.errors import NotFinite, check, listed, unknown
from ajest.runtime.distributed import in_chunks
from ajest.runtime.seeding import LARGE, Role, generator
from ajest.storage import checkpoint
from ajest.tasks.base import Evaluation, Guided, Measurement, Metric, RunTensors, Task, Tensors
from ajest.tasks.sources import TensorSource, normals

from . import figures, metrics
from .builtin import mixture_of
from .data import Part, Standard, parts
from .figures import View
from .network import VectorDenoiser

CHUNK = 4096  # vectors sampled at a time
REFERENCES = 5000  # held-out vectors that samples are compared with, at most
SHOWN = 4096  # samples kept for figures
TRAJECTORIES = 48
LOSS_EXAMPLES = 8192
OPTIMAL_EXAMPLES = 1 << 17
OPTIMAL_REFERENCES = 4096
REFERENCE_CHUNK = 512  # vectors compared with all references at a time
_GOLDEN = (5**0.5 - 1) / 2
_PLANE = Standard((0.0, 0.0), (1.0, 1.0))


@dataclass(frozen=True)
class VectorsTask(Task):
    """Settings of a task on vectors; see `ajest.tasks.Task` for its methods. `vectors_task` makes one from a data set.

    Networks learn coordinates of mean 0 and standard deviation 1; samples are written in the user's.

    Attributes:
        data, validation: where the vectors are, as `data.opened` reads them; may change from machine to machine.
        digest, validation_digest: of the rows to learn and of those held out, which may not.
        size, held_out: numbers of these rows.
        standard: mean and standard deviation of the user's coordinates.
        columns: names of the coordinates.
        classes: key of each class; empty for an unconditional set.
        image: height and width where a vector is a grey image, for figures; or ().
        hidden, guide_hidden: widths of the networks.
        blocks: residual blocks of either.
        p_mean, p_std: of ln sigma in training (EDM, arXiv 2206.00364, table 1).
        sigma_data: standard deviation of a coordinate.
        label_dropout: share of training examples that lose their label, for classifier-free guidance.
        objective: what networks predict, and in whose squared error they learn: edm, eps, v, x0 or flow.
        sampler_steps, sigma_max, sigma_min: of the sampler.
        solver, churn, shift: which way it goes, see `ajest.diffusion.solvers.Solver`.
    """

    name: str = "vectors"
    data: tuple[str, ...] = field(default=("two-moons",), compare=False)
    validation: tuple[str, ...] = field(default=(), compare=False)
    digest: str = ""
    validation_digest: str = ""
    size: int = 0
    held_out: int = 0
    standard: Standard = _PLANE
    columns: tuple[str, ...] = ("x0", "x1")
    classes: tuple[str, ...] = ()
    image: tuple[int, ...] = ()
    hidden: int = 128
    guide_hidden: int = 64
    blocks: int = 4
    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_data: float = 1.0
    label_dropout: float = 0.0
    objective: str = "edm"
    sampler_steps: int = 32
    sigma_max: float = 80.0
    sigma_min: float = 0.002
    solver: SolverKind = "heun"
    churn: float = 0.0
    shift: float = 1.0

    def __post_init__(self) -> None:
        check_noise(self.p_mean, self.p_std, self.sigma_data)
        _ = self.sampler  # which checks its settings
        for what in ("hidden", "guide_hidden", "blocks"):
            check(getattr(self, what) >= 1, f"{what} must be at least 1, not {getattr(self, what)}")
        weighting_of(self.objective)  # which checks its name
        check(0 <= self.label_dropout < 1, f"label_dropout must lie in [0, 1), not {self.label_dropout}")
        check(
            self.label_dropout == 0 or bool(self.classes),
            "the vectors have no labels, so there is none to drop: leave out --label-dropout",
        )
        d, size = self.dimensions, self.image
        check(
            not size or (len(size) == 2 and min(size) > 0 and size[0] * size[1] == d),
            f"image {size} is no height and width of {d} numbers",
        )

    @property
    def dimensions(self) -> int:
        """Coordinates of a vector, d."""
        return len(self.standard.mean)

    @property
    def domain(self) -> tuple[object, ...]:
        return self.name, self.standard

    @property
    def subject(self) -> str:
        names = listed((Path(spec).name for spec in self.data), 2)
        conditional = f", {len(self.classes)} classes" if self.classes else ""
        return f"vectors of {self.dimensions} coordinates, {names}{conditional}"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return metrics.metrics_of(len(self.classes), self.exact_denoiser() is not None)

    @property
    def sampled_from(self) -> float | None:
        return self.sampler.ode_from

    @property
    def samples(self) -> int:
        return 4000

    def notes(self, n: int) -> tuple[str, ...]:
        shown = min(self.held_out, REFERENCES)
        return (
            f"Samples are compared with {shown:,} held-out vectors, in coordinates of standard deviation 1.",
            f"Real data: {min(n, self.size):,} of the {self.size:,} vectors to learn from, compared as samples are.",
        )

    def source(self, device: torch.device | str) -> TensorSource:
        rows = self._parts[0]
        exact = self.exact_denoiser(device)
        s, drops, weighting = self.sigma_data, self.label_dropout, weighting_of(self.objective)
        return TensorSource(rows.x, self._noise, s, rows.label, device, drops, exact, weighting)

    def network(self, role: Role, seed: int) -> nn.Module:
        hidden = self.hidden if role in LARGE else self.guide_hidden
        weights = generator(seed, role, "weights")
        classes, s, objective = len(self.classes), self.sigma_data, self.objective
        return VectorDenoiser(self.dimensions, classes, hidden, self.blocks, s, weights, objective)

    def exact_denoiser(self, device: torch.device | str = "cpu") -> ExactDenoiser | None:
        mixture = mixture_of(self.data[0]) if len(self.data) == 1 else None
        if mixture is None:
            return None
        mean, scale = (torch.tensor(v, dtype=torch.float64) for v in (self.standard.mean, self.standard.scale))
        mixture = mixture.standardised(mean, scale)
        return ExactDenoiser(mixture.denoise, mixture.flops)

    @property
    def tuned_by(self) -> str:
        return "loss" if self.exact_denoiser() is None else metrics.EXCESS.name

    def example_names(self) -> Sequence[str]:
        """The number in the data set of each row to learn."""
        return [f"row-{number}" for number in self._parts[0].number]

    @property
    def sampler(self) -> Solver:
        """How samples are drawn."""
        levels = self.sampler_steps, self.sigma_max, self.sigma_min
        return Solver(*levels, self.sigma_data, self.solver, self.churn, self.shift)

    def start(self, n: int, seed: int) -> Tensor:
        """Start noise of n samples, shape (n, d), the same for all arms of a seed; a smaller n is a prefix."""
        return self.sigma_max * normals(n, (self.dimensions,), generator(seed, "evaluation", "start"))

    def labels(self, n: int) -> Tensor | None:
        """Classes of n samples, int64 of shape (n,), in the shares of the rows to learn as nearly as can be; a smaller
        n is a prefix. None without classes."""
        label = self._parts[0].label
        if label is None:
            return None
        shares = torch.bincount(label, minlength=len(self.classes)).double().cumsum(0) / len(label)
        spread = torch.arange(1, n + 1, dtype=torch.float64).mul(_GOLDEN).frac()  # fills [0, 1) evenly at every n
        return torch.searchsorted(shares, spread, right=True).clamp_max(len(self.classes) - 1)

    def evaluate(self, model: Guided, how: Measurement) -> Evaluation:
        """Judge a denoiser on n samples; kept are, standardised, `samples` (at most 4,096), `real` (held-out vectors,
        as many) and `trajectories` (48 paths), and the samples' `labels`."""
        n, seed, denoiser = how.n, how.seed, model.denoiser
        held_out, labels = self._references, self.labels(n)
        found = self._sampled(denoiser, n, seed, labels, how.device)
        values = metrics.compared(found, held_out.x, labels, held_out.label)
        curve: Mapping[str, Sequence[float]] = {}
        if model.unguided:
            batch, exact = self._loss_batch(seed, how.device), self.exact_denoiser(how.device)
            losses = metrics.losses_of(denoiser, batch, CHUNK, exact)
            values |= metrics.loss_metrics(losses, batch.sigma)
            shown = "loss" if exact is None else "excess"
            curve = by_level(self._noise, batch.sigma, {shown: losses[shown]})
        if not how.keep_tensors:
            return Evaluation(values, by_level=curve)
        path: list[Tensor] = []
        some = slice(0, TRAJECTORIES)
        label = None if labels is None else labels[some].to(how.device)
        start = self.start(n, seed)[some].to(how.device)
        self.sampler(denoiser, start, label, self._churn(seed, 0), lambda _, state: path.append(state.cpu()))
        tensors = {"samples": found[:SHOWN], "real": held_out.x[:SHOWN], "trajectories": torch.stack(path, 1)}
        return Evaluation(values, tensors if labels is None else tensors | {"labels": labels[:SHOWN]}, curve)

    def optimal_loss(self, how: Measurement) -> OptimalLoss:
        """Exact where the distribution is known; else between what it lies."""
        labelled = replace(self, objective="edm", label_dropout=0.0)  # as held-out vectors are
        exact, source = self.exact_denoiser(how.device), labelled.source(how.device)
        streams = [generator(how.seed, "evaluation", "optimal loss", part) for part in ("learned", "references")]
        if exact is not None:
            return exact_optimum(self._noise, source.draw(OPTIMAL_EXAMPLES, streams[0]), exact, CHUNK)
        held_out, counts = self._loss_batch(how.seed, how.device), (LOSS_EXAMPLES, OPTIMAL_REFERENCES)
        learned, references = (source.draw(count, stream) for count, stream in zip(counts, streams, strict=True))
        return dataset_optimum(self._noise, learned, held_out, references, self.size, REFERENCE_CHUNK)

    def real_data_reference(self, how: Measurement) -> dict[str, float]:
        """The metrics of n rows to learn against the held-out ones. Where there are fewer rows, only metrics that do
        not depend on n."""
        learned, held_out = self._parts[0], self._references
        stream = generator(how.seed, "evaluation", "floor")  # whose name decides the numbers
        rows = torch.randperm(len(learned), generator=stream)[: how.n]
        label = None if learned.label is None else learned.label[rows]
        values = metrics.compared(learned.x[rows], held_out.x, label, held_out.label)
        return values if len(rows) == how.n else {k: v for k, v in values.items() if k in metrics.FREE_OF_N}

    def figures(self, run: RunTensors) -> list[tuple[str, Figure]]:
        return figures.of_run(self._view, run)

    def side_by_side(self, weight: float, arms: Mapping[str, Mapping[float, Tensors]]) -> list[tuple[str, Figure]]:
        return figures.side_by_side(self._view, weight, arms)

    def write_samples(
        self,
        denoiser: Denoiser,
        out: Path,
        n: int | None = None,
        seeds: tuple[int, ...] = (),
        classes: tuple[str, ...] = (),
        device: torch.device | str = "cpu",
    ) -> list[Path]:
        """A table of n vectors (4,000 if none are asked for) in the user's coordinates from the first seed, with the
        label of each if there are classes, and an image of them. Classes that are named take turns."""
        n = self.samples if n is None else n
        check(n >= 1, f"at least 1 sample must be asked for, not {n}")
        check(not classes or bool(self.classes), "the vectors have no classes to choose from: leave out --classes")
        check(len(seeds) <= 1, "vectors are sampled with one seed: name one")
        labels = self.labels(n)
        if classes:
            for key in classes:
                if key not in self.classes:
                    raise unknown("class", key, self.classes)
            labels = torch.tensor([self.classes.index(classes[i % len(classes)]) for i in range(n)])
        found = self._sampled(denoiser, n, seeds[0] if seeds else 0, labels, device)
        table, image = io.StringIO(), io.BytesIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow([*self.columns, "label"] if labels is not None else self.columns)
        keys = [[]] * n if labels is None else [[self.classes[k]] for k in labels.tolist()]
        rows = self.standard.undo(found.numpy())
        writer.writerows([*(f"{v:.9g}" for v in row), *key] for row, key in zip(rows.tolist(), keys, strict=True))
        held_out = self._references.x.numpy()
        figures.samples(self._view, {"samples": found.numpy()}, held_out).savefig(image, format="png", dpi=120)
        checkpoint.write_atomic(out / "samples.csv", table.getvalue())
        checkpoint.write_atomic(out / "samples.png", image.getvalue())
        return [out / "samples.csv", out / "samples.png"]

    def _sampled(
        self, denoiser: Denoiser, n: int, seed: int, labels: Tensor | None, device: torch.device | str
    ) -> Tensor:
        """Standardised samples (n, d) of a seed, on the CPU.

        Raises:
            NotFinite: some are NaN or infinite.
        """

        start = self.start(n, seed)

        def solved(part: slice) -> Tensor:
            label = None if labels is None else labels[part].to(device)
            return self.sampler(denoiser, start[part].to(device), label, self._churn(seed, part.start)).cpu()

        found = in_chunks(solved, n, CHUNK)
        if not bool(torch.isfinite(found).all()):
            raise NotFinite(
                "samples are NaN or infinite: the network overflows; lower the learning rate or the guidance"
            )
        return found

    @staticmethod
    def _churn(seed: int, first: int) -> torch.Generator:
        """The noise on the way of the samples that are solved for together, by the number of the first."""
        return generator(seed, "evaluation", "churn", first)

    @property
    def _noise(self) -> LogNormal:
        return LogNormal(self.p_mean, self.p_std)

    def _loss_batch(self, seed: int, device: torch.device | str) -> Batch:
        """Noised held-out vectors, with EDM's weight whatever the objective, so that losses can be compared."""
        rows = self._parts[1]
        source = TensorSource(rows.x, self._noise, self.sigma_data, rows.label)
        return source.draw(LOSS_EXAMPLES, generator(seed, "evaluation", "loss")).to(device)

    @property
    def _parts(self) -> tuple[Part, Part]:
        return parts(self.data, self.validation, (self.digest, self.validation_digest), self.standard)

    @property
    def _references(self) -> Part:
        """The held-out vectors that samples are compared with."""
        return self._parts[1].spread(REFERENCES)

    @property
    def _view(self) -> View:
        return View(self.standard, self.columns, self.image)
