"""Autoguidance without a second network, and with its guide's training time charged.

Autoguidance, arXiv 2406.02507; docs/method.md#guidance, docs/method.md#budgets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ajest.bench.plan.config import BenchConfig, run_folder
from ajest.bench.read.folder import read_bench
from ajest.bench.read.statistics import Comparison, paired
from ajest.bench.run.evaluation import key, measured
from ajest.bench.run.reached import identity_of, reached
from ajest.jobs.pool import Report
from ajest.storage import jsonl
from ajest.tasks import base
from ajest.tasks.base import Measurement, Metric
from ajest.training.networks import load_network
from ajest.training.run_folder import read_status

from .plan import GUIDE_BENCHES

WEIGHTS = (1.5, 2.0, 3.0, 4.0)


@dataclass(frozen=True)
class Guide:
    """Where a guide comes from.

    Attributes:
        name: for people.
        share: of the run that is guided, whose snapshot guides it; None takes the trained guide.
        width: EMA width of the guide, one that is kept; None is the first of these.
        charged: whether the guided run was shorter by the guide's training time.
    """

    name: str
    share: float | None = None
    width: float | None = None
    charged: bool = False


GUIDES = (
    Guide("trained"),
    Guide("trained, its time charged", charged=True),
    Guide("own snapshot at 1/16", 1 / 16),
    Guide("own snapshot at 1/8", 1 / 8),
    Guide("own snapshot at 1/4", 1 / 4),
    Guide("own shorter EMA, width 0.005", 1.0, 0.005),
    Guide("own longer EMA, width 0.10", 1.0, 0.1),
    Guide("own longer EMA, width 0.25", 1.0, 0.25),
    Guide("own snapshot at 1/4, width 0.25", 1 / 4, 0.25),
)


@dataclass(frozen=True)
class GuideGain:
    """What one guide gives on one metric, with the weight that was best on other seeds.

    Attributes:
        guide: its name.
        charged: what its training time was: "yes", "no" or "free".
        metric, weight: what is compared, and how strongly it was guided.
        value: mean over seeds, guided.
        gain: guided minus the full-length run unguided.
        trained: minus the trained guide uncharged, None for that itself.
    """

    guide: str
    charged: str
    metric: Metric
    weight: float
    value: float
    gain: Comparison
    trained: Comparison | None


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
    known = {(line["guide"], line["weight"], line.get("identity")) for line in jsonl.read(path)}
    complaints: list[str] = []
    end = read_status(folder)["step"]
    main, _ = load_network(folder, end, device=job.device)
    own = config.recipe.ema_widths[0]
    wanted = [
        (g, w)
        for g in GUIDES
        if g.charged == job.charged and not (g.share == 1 and g.width == own)  # itself is no guide
        for w in job.weights.get(g.name, ())
    ]
    for i, (guide, weight) in enumerate(wanted):
        source, at = job.bench / "guide", None
        if guide.share is not None:
            source, at = folder, reached(folder)["steps"][float(max(1, round(guide.share * config.iterations)))]
        identity = identity_of(source, at)
        if (guide.name, weight, identity) in known:
            continue
        report("evaluating", i, len(wanted), guide.name)
        guiding, _ = load_network(source, at, guide.width, job.device)
        how = Measurement(config.n_final, job.seed, job.truth, job.device)
        judge = partial(config.task.evaluate, base.Guided(main, guiding, weight), how)
        found = measured(judge, f"{guide.name}, weight {weight:g}", complaints.append)
        jsonl.append(path, {"guide": guide.name, "weight": weight, "identity": identity, "metrics": found.metrics})
    return complaints


def values(bench: Path, config: BenchConfig, guide: str, weight: float, metric: str) -> dict[int, float]:
    """A metric by seed, as last evaluated; unguided for weight 1."""
    found: dict[int, float] = {}
    for seed in config.seeds:
        folder = run_folder(bench, config.baseline, seed)
        if weight == 1:
            width, end = config.recipe.ema_widths[0], read_status(folder).get("step")
            plain = key({"step": end, "width": width, "weight": 1.0, "n": config.n_final})
            lines = [line for line in jsonl.read(folder / "metrics.jsonl") if key(line) == plain]
        else:
            known = jsonl.read(folder / "guides.jsonl")
            lines = [line for line in known if (line["guide"], line["weight"]) == (guide, weight)]
        for line in lines:
            if metric in line["metrics"]:
                found[seed] = line["metrics"][metric]
    return found


def best_weights(bench: Path, config: BenchConfig) -> dict[str, tuple[float, ...]]:
    """For each guide the weight that is best on average on the guided headline metric."""
    metric = next(m for m in config.metrics if m.headline in ("guided", "both"))
    best: dict[str, tuple[float, ...]] = {}
    for guide in GUIDES:
        source = "trained" if guide.charged else guide.name
        means = {}
        for weight in WEIGHTS:
            found = values(bench, config, source, weight, metric.name)
            if len(found) == len(config.seeds):  # a weight that fails on a seed is not chosen by the others
                means[weight] = metric.sign * sum(found.values()) / len(found)
        if means:
            best[guide.name] = (max(means, key=lambda w: means[w]),)
    return best


def read_gains(folder: Path) -> list[GuideGain]:
    """What each guide gives on the seeds that count, from the stage's folder; guides without evaluations are left out,
    and nothing is said before all benches are there."""
    if not all((folder / name / "bench.json").exists() for name in GUIDE_BENCHES):
        return []
    chosen, full, charged = ((folder / name, read_bench(folder / name)) for name in GUIDE_BENCHES)
    return list(_gains(full, charged, best_weights(*chosen)))


def _gains(
    full: tuple[Path, BenchConfig], charged: tuple[Path, BenchConfig], weights: dict[str, tuple[float, ...]]
) -> Iterator[GuideGain]:
    shown: Sequence[Metric] = [m for m in full[1].metrics if m.guided and (m.headline != "no" or m.curve)]
    for metric in shown:
        plain = values(*full, "", 1.0, metric.name)
        trained: dict[int, float] = {}
        for guide in GUIDES:
            if guide.name not in weights:
                continue
            (weight,) = weights[guide.name]
            mine = values(*(charged if guide.charged else full), guide.name, weight, metric.name)
            gain = paired(mine, plain, metric.sign, full[1].seeds)
            if gain is None:
                continue
            trained = trained or mine
            versus = None if guide is GUIDES[0] else paired(mine, trained, metric.sign, full[1].seeds)
            price = "yes" if guide.charged else "no" if guide.share is None else "free"
            yield GuideGain(guide.name, price, metric, weight, gain.value, gain, versus)
