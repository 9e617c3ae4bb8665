"""Autoguidance without a second network, and with its guide's training time charged.

Autoguidance, arXiv 2406.02507; docs/method.md#guidance, docs/method.md#budgets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ajest.bench.plan.config import BenchConfig, guide_folder, run_folder
from ajest.bench.read.folder import read_bench
from ajest.bench.read.statistics import BySeed, Comparison, paired
from ajest.bench.run.evaluation import key, measured
from ajest.bench.run.reached import identity_of, reached
from ajest.diffusion.denoising import Denoiser
from ajest.diffusion.guides import Rule, dropped_out, has_dropout, noisier
from ajest.jobs.pool import Report
from ajest.storage import jsonl
from ajest.tasks import base
from ajest.tasks.base import Measurement, Metric, Task
from ajest.training.networks import load_network
from ajest.training.run_folder import read_status

from .plan import GUIDE_BENCHES

WEIGHTS = (1.25, 1.5, 2.0, 3.0, 4.0)


@dataclass(frozen=True)
class Guide:
    """Where a guide comes from.

    Attributes:
        name: for people.
        share: of the run that is guided, whose snapshot guides it; None takes the trained guide.
        width: EMA width of the guide, one that is kept; None is the first of these.
        charged: whether the guided run was shorter by the guide's training time.
        other: which of `Task.other_guides` it is; "" is the task's own.
        curve: whether it is judged at every weight, and not at the best alone.
        noisier: it is told so many times the noise that there is.
        rule: by which it steers.
        dropout: share of its activations that are dropped, for networks that have dropout.
        between: noise levels over the standard deviation of the data between which it guides; None is all.
    """

    name: str
    share: float | None = None
    width: float | None = None
    charged: bool = False
    other: str = ""
    curve: bool = False
    noisier: float = 1.0
    rule: Rule = "autoguide"
    dropout: float = 0.0
    between: tuple[float, float] | None = None

    @property
    def passes(self) -> str:
        """Forward passes of the guided network for each answer, g is one of the trained guide; a backward pass counts
        as two."""
        if self.between is not None:
            return "1 to 2"
        return "1 + g" if self.trained else "4" if self.rule == "reg" else "2"

    def model(self, main: Denoiser, guiding: nn.Module, weight: float, sigma_data: float) -> base.Guided:
        """A denoiser as it is guided."""
        told: Denoiser = dropped_out(guiding, self.dropout) if self.dropout else guiding
        told = told if self.noisier == 1 else noisier(told, self.noisier)
        interval = None if self.between is None else (sigma_data * self.between[0], sigma_data * self.between[1])
        return base.Guided(main, told, weight, interval, rule=self.rule)

    @property
    def trained(self) -> bool:
        """Whether it is a network of its own, of which there may be several."""
        return self.share is None


GUIDES = (
    Guide("trained", curve=True),
    Guide("trained, its time charged", charged=True),
    Guide("own snapshot at 1/16", 1 / 16),
    Guide("own snapshot at 1/8", 1 / 8, curve=True),
    Guide("own snapshot at 1/4", 1 / 4),
    Guide("own shorter EMA, width 0.005", 1.0, 0.005),
    Guide("own longer EMA, width 0.10", 1.0, 0.1),
    Guide("own longer EMA, width 0.25", 1.0, 0.25),
    Guide("own snapshot at 1/4, width 0.25", 1 / 4, 0.25),
    Guide("own snapshot at 1/8, projected (APG)", 1 / 8, rule="apg"),
    Guide("own snapshot at 1/8, rectified (REG)", 1 / 8, rule="reg"),
    Guide("own snapshot at 1/8, at middle noise", 1 / 8, between=(0.56, 5.8)),  # EDM2-S's, arXiv 2404.07724
    Guide("itself, told 1.5 times the noise", 1.0, noisier=1.5),
    Guide("itself, told twice the noise", 1.0, noisier=2.0),
    Guide("itself, a tenth dropped", 1.0, dropout=0.1),
)


@lru_cache(maxsize=8)
def _drops(task: Task) -> bool:
    """Whether networks of a task have dropout; one is built for the answer."""
    return has_dropout(task.network("learner", 0))


def guides_of(task: Task) -> tuple[Guide, ...]:
    """All guides that a study of a task compares, the trained one first."""
    own = tuple(guide for guide in GUIDES if not guide.dropout or _drops(task))
    return (*own, *(Guide(f"trained, {name}", other=name, curve=True) for name in task.other_guides()))


def others_folder(stage: Path, name: str) -> Path:
    """Where the stage "guides" has the guides of `Task.other_guides` of a name."""
    return stage / f"guides-{name.replace(' ', '-')}"


@dataclass(frozen=True)
class GuideGain:
    """What one guide gives on one metric, with the weight that was best on other seeds.

    Attributes:
        guide: its name.
        charged: what its training time was: "yes", "no" or "free".
        passes: what sampling with it takes, see `Guide.passes`.
        metric, weight: what is compared, and how strongly it was guided.
        values: by seed, guided.
        unguided: those of the full-length run without a guide.
        gain: the first minus the second.
        trained: minus the trained guide uncharged, None for that itself.
    """

    guide: str
    charged: str
    passes: str
    metric: Metric
    weight: float
    values: BySeed
    unguided: BySeed
    gain: Comparison
    trained: Comparison | None


@dataclass(frozen=True)
class GuideCurve:
    """A guide at every weight.

    Attributes:
        guide: its name.
        metric: what is measured.
        gains: guided minus unguided, by weight.
    """

    guide: str
    metric: Metric
    gains: Mapping[float, Comparison]


@dataclass(frozen=True)
class GuidesResults:
    """What the stage "guides" measured.

    Attributes:
        gains: of every guide, at the weight that was best on other seeds.
        curves: of some guides, at every weight.
    """

    gains: tuple[GuideGain, ...] = ()
    curves: tuple[GuideCurve, ...] = ()


@dataclass(frozen=True)
class Guided:
    """The evaluations of one seed's run under all guides.

    Attributes:
        name: for people.
        bench, config: of the run.
        seed: of the run.
        weights: guidance weights by guide.
        charged: whether this bench is the one whose runs are shorter.
        truth: folder for what evaluations share.
    """

    name: str
    bench: Path
    config: BenchConfig
    seed: int
    weights: dict[str, tuple[float, ...]]
    charged: bool
    truth: Path
    device: str


def evaluate_guided(job: Guided, report: Report) -> list[str]:
    """Evaluate one run's end under each guide and weight; what is in guides.jsonl already is not repeated,
    unless a guide was trained anew."""
    config = job.config
    folder = run_folder(job.bench, config.baseline, job.seed)
    path = folder / "guides.jsonl"
    known = {_key(line) for line in jsonl.read(path)}
    complaints: list[str] = []
    status = read_status(folder)
    if status.get("state") != "done":
        return [f"{folder} is {status.get('state', 'not there')}: nothing of it is guided"]
    end = status["step"]
    main, _ = load_network(folder, end, device=job.device)
    own, scale = config.recipe.ema_widths[0], getattr(config.task, "sigma_data", 1.0)
    wanted = [
        (guide, number, weight)
        for guide in guides_of(config.task)
        if guide.charged == job.charged
        and not (guide.share == 1 and guide.width == own)  # an EMA is no guide of itself
        for number in range(1, (config.guides if guide.trained else 1) + 1)
        for weight in job.weights.get(guide.name, ())
    ]
    for i, (guide, number, weight) in enumerate(wanted):
        root = others_folder(job.bench.parent, guide.other) if guide.other else job.bench
        source, at = guide_folder(root, number), None
        if guide.share is not None:
            source, at = folder, reached(folder)["steps"][float(max(1, round(guide.share * config.iterations)))]
        line = {"guide": guide.name, "number": number, "weight": weight, "identity": identity_of(source, at)}
        if _key(line) in known:
            continue
        report("evaluating", i, len(wanted), guide.name)
        guiding, _ = load_network(source, at, guide.width, job.device)
        how = Measurement(config.n_final, job.seed, job.truth, job.device)
        judge = partial(config.task.evaluate, guide.model(main, guiding, weight, scale), how)
        found = measured(judge, f"{guide.name}, weight {weight:g}", complaints.append)
        jsonl.append(path, line | {"metrics": found.metrics})
    return complaints


def _key(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two evaluations the same one."""
    return tuple(line.get(name) for name in ("guide", "number", "weight", "identity"))


def values(bench: Path, config: BenchConfig, guide: str, weight: float, metric: str) -> BySeed:
    """A metric by seed, as last evaluated: a value for each of several guides; unguided for weight 1. Seeds that lack
    one are left out."""
    found: dict[int, dict[int, float]] = {}
    for seed in config.seeds:
        folder = run_folder(bench, config.baseline, seed)
        if weight == 1:
            width, end = config.recipe.ema_widths[0], read_status(folder).get("step")
            plain = key({"step": end, "width": width, "weight": 1.0, "n": config.n_final})
            known = jsonl.read(folder / "metrics.jsonl")
            lines = [line for line in known if key(line | {"judges": None}) == plain]  # images name who judged them
        else:
            known = jsonl.read(folder / "guides.jsonl")
            lines = [line for line in known if (line["guide"], line["weight"]) == (guide, weight)]
        for line in lines:
            if metric in line["metrics"]:
                found.setdefault(seed, {})[line.get("number", 1)] = line["metrics"][metric]
    numbers = {number for by_number in found.values() for number in by_number}
    whole = {seed: by_number for seed, by_number in found.items() if by_number.keys() == numbers}
    if len(numbers) == 1:
        return {seed: next(iter(by_number.values())) for seed, by_number in whole.items()}
    return {seed: tuple(by_number[k] for k in sorted(numbers)) for seed, by_number in whole.items()}


def best_weights(bench: Path, config: BenchConfig) -> dict[str, tuple[float, ...]]:
    """For each guide the weight that is best on average on the guided headline metric."""
    metric = next(m for m in config.metrics if m.headline in ("guided", "both"))
    best: dict[str, tuple[float, ...]] = {}
    for guide in guides_of(config.task):
        source = "trained" if guide.charged else guide.name
        means = {}
        for weight in WEIGHTS:
            found = values(bench, config, source, weight, metric.name)
            if len(found) == len(config.seeds):  # a weight that fails on a seed is not chosen by the others
                means[weight] = metric.sign * float(np.mean(list(found.values())))
        if means:
            best[guide.name] = (max(means, key=lambda w: means[w]),)
    return best


def judged_weights(best: Mapping[str, tuple[float, ...]], task: Task) -> dict[str, tuple[float, ...]]:
    """The weights at which guides are judged: the best of each, and all of those whose curve is shown."""
    return {g.name: WEIGHTS if g.curve else best[g.name] for g in guides_of(task) if g.name in best}


def read_guides(folder: Path) -> GuidesResults:
    """What guides give on the seeds that count, from the stage's folder; guides without evaluations are left out, and
    nothing is said before all benches are there."""
    if not all((folder / name / "bench.json").exists() for name in GUIDE_BENCHES):
        return GuidesResults()
    chosen, full, charged = ((folder / name, read_bench(folder / name)) for name in GUIDE_BENCHES)
    return GuidesResults(tuple(_gains(full, charged, best_weights(*chosen))), tuple(_curves(*full)))


def _shown(config: BenchConfig) -> Sequence[Metric]:
    """What guidance buys and what it costs: the headlines of the task, whichever of them the study rests on."""
    return [m for m in config.task.metrics if m.guided and (m.headline != "no" or m.curve)]


def _gains(
    full: tuple[Path, BenchConfig], charged: tuple[Path, BenchConfig], weights: dict[str, tuple[float, ...]]
) -> Iterator[GuideGain]:
    for metric in _shown(full[1]):
        plain = values(*full, "", 1.0, metric.name)
        trained: BySeed = {}
        for guide in guides_of(full[1].task):
            if guide.name not in weights:
                continue
            (weight,) = weights[guide.name]
            mine = values(*(charged if guide.charged else full), guide.name, weight, metric.name)
            gain = paired(mine, plain, metric.sign, full[1].seeds)
            if gain is None:
                continue
            trained = trained or mine
            versus = None if guide is GUIDES[0] else paired(mine, trained, metric.sign, full[1].seeds)
            price = "yes" if guide.charged else "no" if guide.trained else "free"
            yield GuideGain(guide.name, price, guide.passes, metric, weight, mine, plain, gain, versus)


def _curves(folder: Path, config: BenchConfig) -> Iterator[GuideCurve]:
    for metric in _shown(config):
        plain = values(folder, config, "", 1.0, metric.name)
        for guide in guides_of(config.task):
            guided = {w: values(folder, config, guide.name, w, metric.name) for w in WEIGHTS} if guide.curve else {}
            gains = {w: paired(found, plain, metric.sign, config.seeds) for w, found in guided.items()}
            known = {w: gain for w, gain in gains.items() if gain is not None}
            if known:
                yield GuideCurve(guide.name, metric, known)
