"""Options that several verbs share, in groups, each defined once.

Fields are named as the settings that they change, and are None where nothing was asked for.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec, TypeVar

import tyro

from ajest.errors import UserError, check

if TYPE_CHECKING:
    from ajest.training import trackers
    from ajest.training.networks import Guidance

P = ParamSpec("P")
R = TypeVar("R")

Precision = Literal["float32", "bfloat16", "float16"]  # these stand in modules that take torch to import
NotFinite = Literal["stop", "skip", "zero"]
DrawingPlace = Literal["host", "device"]
Course = Literal["inverse-sqrt", "linear"]
GainSign = Literal["free", "negative", "positive"]
Target = Literal["exact", "x0"]
End = Literal["time", "time_without_target", "samples", "flops", "steps"]
Predicted = Literal["edm", "eps", "v", "x0", "flow"]
GuideRule = Literal["autoguide", "apg", "reg"]
Solving = Literal["heun", "flow-heun", "flow-euler"]
Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]


def shown(metavar: str) -> Any:
    """How an option stands in the help, which says itself what holds without it."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


Word = Annotated[str | None, shown("WORD")]
Words = Annotated[tuple[str, ...] | None, shown("WORD [WORD ...]")]
Whole = Annotated[int | None, shown("N")]
Wholes = Annotated[tuple[int, ...] | None, shown("N [N ...]")]
Number = Annotated[float | None, shown("X")]
Share = Annotated[str | None, shown("X%")]
Numbers = Annotated[tuple[float, ...] | None, shown("X [X ...]")]
Interval = Annotated[tuple[float, float] | None, shown("LOW HIGH")]
Folder = Annotated[Path | None, shown("DIR")]
File = Annotated[Path | None, shown("FILE")]
Files = Annotated[tuple[Path, ...] | None, shown("FILE [FILE ...]")]
Network = Annotated[str | None, shown("{nano,mini,xxs,xs,s,m,diffusers:PATH}")]
Predicts = Annotated[Prediction | None, shown("{epsilon,v_prediction,sample,flow}")]
YesNo = Annotated[bool | None, shown("{True,False}")]


@dataclass(frozen=True)
class Places:
    """Where the images lie now, if not where they were (images only).

    Attributes:
        data: those that were learned.
        validation: those that were held out.
        autoencoder: of latents, what decodes them: a folder of diffusers.
        embeddings: what networks are told in the place of classes.
    """

    data: Words = None
    validation: Words = None
    autoencoder: Word = None
    embeddings: Words = None


@dataclass(frozen=True)
class Data(Places):
    """What to learn (images and vectors; the tree makes its own examples).

    Attributes:
        data: images are a folder, .zip, .npz, .tar or .parquet file, a folder of such shards, hf:NAME[:split], or
            shapes, which is what is learned without it; see `ajest data describe`. Vectors are a .npy, .npz, .csv
            or .parquet file, or two-moons, checkerboard (as without it), swiss-roll, mixture-16d or digits.
            Several are one data set.
        validation: held-out examples of the same classes.
        autoencoder: of a folder of latents (ajest data encode), where what decodes them is, if not where it was.
        embeddings: .npz files of embeddings that networks are told in the place of classes: ids of the images, and a
            row of floats for each, such as features of its caption (images only).
        classes: learn these alone: names or keys with commas between them (in double quotes if they hold commas), or
            how many; "all" for all. Without it cpu-mini learns four, cpu-small ten, the others all.
        resolution: height and width, a multiple of 8 from 16 to 256. Without it that of the images if all are square
            and of one such size, else 64.
        grey: learn images in grey, of one channel.
        flip: mirror every second image.
        skip_bad: go on without images that cannot be read.
    """

    classes: Word = None
    resolution: Whole = None
    grey: bool = False
    flip: bool = False
    skip_bad: bool = False


@dataclass(frozen=True)
class Drawing:
    """Noise levels, labels, targets and objective of training examples; without these the preset's.

    Attributes:
        p_mean: mean of ln sigma.
        p_std: standard deviation of ln sigma.
        sigma_data: standard deviation of the data, for preconditioning and loss weights.
        label_dropout: share of examples that lose their label, so that the network also learns to answer without
            one (for classifier-free guidance; the tree has no labels).
        target: what the tree's networks are to return: the "exact" posterior mean, as published, or the clean example
            "x0", which is all that real data have (tree only).
        objective: what networks predict, and in whose squared error they learn; without it "edm". The tree has none;
            models of diffusers predict what --prediction says.
    """

    p_mean: Number = None
    p_std: Number = None
    sigma_data: Number = None
    label_dropout: Number = None
    target: Annotated[Target | None, shown("{exact,x0}")] = None
    objective: Annotated[Predicted | None, shown("{edm,eps,v,x0,flow}")] = None


@dataclass(frozen=True)
class Training:
    """How networks are trained; without these as the preset says.

    Attributes:
        iterations: steps of every run (of the baseline where runs end at equal time); a bench takes 32 or more.
        super_batch: examples drawn for a step.
        learning_rate: its peak, of all arms; a preset that would tune it does not.
        course: of the learning rate's fall: "inverse-sqrt", or "linear" to zero over the whole run.
        not_finite: where a loss or gradient is not finite, "stop" the run, "skip" the step, or put "zero" in the place
            of such gradients. Each is counted.
        drawing: make the random numbers of examples on the "host", as without it, or on the "device", which is faster
            on GPUs. They are other numbers: compare only runs that draw alike.
    """

    iterations: Whole = None
    super_batch: Whole = None
    learning_rate: Number = None
    course: Annotated[Course | None, shown("{inverse-sqrt,linear}")] = None
    not_finite: Annotated[NotFinite | None, shown("{stop,skip,zero}")] = None
    drawing: Annotated[DrawingPlace | None, shown("{host,device}")] = None


@dataclass(frozen=True)
class Networks:
    """Networks; without these the preset's.

    Attributes:
        network: size of the networks that are compared, or a model of diffusers by its config.json or a folder that
            from_pretrained reads (images only). It brings the learning rate of its kind.
        guide_network: the same of the guide.
        prediction: what models of diffusers predict; without it what scheduler_config.json beside them says.
        guide_learning_rate: peak of the guide's learning rate.
    """

    network: Network = None
    guide_network: Network = None
    prediction: Predicts = None
    guide_learning_rate: Number = None


@dataclass(frozen=True)
class Computing:
    """How networks compute; without these as the preset says.

    Attributes:
        precision: in which networks of images compute; weights stay in float32. Presets' bfloat16 is float32 on
            processors and graphics cards that are slow with it.
        compiled: whether torch.compile makes them faster (images only).
        resident_bytes: keep decoded images of up to so many bytes on the GPU; without it a quarter of what is free
            on it. Of others those of the next step are read ahead.
        gain_sign: of the tree's networks: "free", which leaves it to the first steps, "negative" or "positive" (tree
            only).
    """

    precision: Annotated[Precision | None, shown("{float32,bfloat16,float16}")] = None
    compiled: YesNo = None
    resident_bytes: Whole = None
    gain_sign: Annotated[GainSign | None, shown("{free,negative,positive}")] = None


@dataclass(frozen=True)
class Sampling:
    """The sampler; without these the preset's or the run's own.

    Attributes:
        sampler_steps: of the solver.
        sigma_min: lowest noise level above 0, of "heun".
        sigma_max: highest noise level.
        solver: "heun" in sigma, as without it; "flow-heun" or "flow-euler" in a flow's time.
        churn: how much noise "heun" adds on the way, S_churn of EDM's algorithm 2; without it none.
        shift: of a flow's times, such as 3; without it they are uniform.
        chunk: images sampled or judged at a time (images only).
    """

    sampler_steps: Whole = None
    sigma_min: Number = None
    sigma_max: Number = None
    solver: Annotated[Solving | None, shown("{heun,flow-heun,flow-euler}")] = None
    churn: Number = None
    shift: Number = None
    chunk: Whole = None


@dataclass(frozen=True)
class Judging:
    """What images are judged by (images only); without these the preset's or the run's own.

    Attributes:
        extractors: feature networks, each NAME or NAME=PATH: lite0, inception, dinov2. The first decides a verdict.
        references: at most so many real training images are what samples are compared with; without it all.
        imagenet: JSON file that says which class of ImageNet each class is, for class accuracy, such
            as {"cat": 281, "teapot": "n04398044"}; without it they are found by WordNet ids and names.
    """

    extractors: Words = None
    references: Whole = None
    imagenet: File = None


@dataclass(frozen=True)
class Guiding:
    """Guidance.

    Attributes:
        guide: folder of the run that guides: a smaller, less trained one; or for classifier-free guidance any run, the
            very same too, by --unconditional-guide.
        guide_width: EMA width of the guide; without it the first that was kept.
        guide_step: of the guide's snapshot; without it the latest.
        interval: guide only between these two noise levels.
        unconditional_guide: ask the guide without labels, which it must have learned (see --label-dropout).
        guide_noisier: tell the guide so many times the noise that there is, such as 2: the very same run can guide so.
        guide_dropout: let the guide drop this share of its activations, such as 0.1: the very same run, too (images
            only).
        guide_head: ask the guide for its second answer, which runs of the arm internal-head have: the very same run can
            guide so.
        guide_rule: how it steers: along the line of "autoguide", projected by "apg" or rectified by "reg".
        cfg: weight of classifier-free guidance by the run itself, which must have learned to answer without labels;
            alone, or beside a guide and in the same interval.
    """

    guide: Folder = None
    guide_width: Number = None
    guide_step: Whole = None
    interval: Interval = None
    unconditional_guide: bool = False
    guide_noisier: Number = None
    guide_dropout: Number = None
    guide_head: bool = False
    guide_rule: Annotated[GuideRule | None, shown("{autoguide,apg,reg}")] = None
    cfg: Number = None

    def __post_init__(self) -> None:
        asked = [flag(name) for name in given(self) if name != "cfg"]
        check(self.cfg is None or math.isfinite(self.cfg), f"--cfg must be a number, not {self.cfg}")
        check(self.guide is not None or not asked, f"{', '.join(asked)} needs a guide: name its run with --guide")

    def chosen(self, inexact: bool) -> Guidance | None:
        """What guides, if anything; `inexact`: see `networks.Guidance`."""
        from ajest.training.networks import Guidance

        if self.guide is None:
            return None
        asked = {"noisier": self.guide_noisier, "dropout": self.guide_dropout, "rule": self.guide_rule}
        otherwise: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        where = (self.guide, self.guide_step, self.guide_width, self.interval, self.unconditional_guide)
        return Guidance(*where, head=self.guide_head, inexact=inexact, **otherwise)


@dataclass(frozen=True)
class Tracking:
    """Who is told of every run, beside its ledger.

    Attributes:
        track: tensorboard, wandb, trackio.
        track_project: what runs belong to at wandb and trackio; without it "ajest".
        track_entity: user or team at wandb.
        track_group: runs that wandb and trackio show together.
        track_tags: of the runs at wandb.
    """

    track: Words = None
    track_project: Word = None
    track_entity: Word = None
    track_group: Word = None
    track_tags: Words = None

    def checked(self) -> trackers.Tracking:
        """Who is told, if all are installed."""
        from ajest.training import trackers

        asked = {name.removeprefix("track_"): value for name, value in given(self).items()}
        return trackers.checked(trackers.Tracking(asked.pop("track", ()), **asked))


@dataclass(frozen=True)
class Launching:
    """Where the runs are made.

    Attributes:
        launch: on this machine, or by a Slurm cluster.
        workers: runs at the same time on this machine; without it one for each core, or on CUDA for each card that
            CUDA_VISIBLE_DEVICES leaves.
        partition: of the cluster.
        gpus_per_run: of each of the cluster's jobs.
        gpu_kind: what the cluster calls those cards, such as a100, where it has several kinds: a bench is fair on one
            kind alone.
        max_parallel: jobs of the cluster at the same time; without it 20.
        hours: that a job of the cluster may take before it goes on in another; without it 24.
    """

    launch: Literal["local", "slurm"] = "local"
    workers: Whole = None
    partition: Word = None
    gpus_per_run: Whole = None
    gpu_kind: Word = None
    max_parallel: Whole = None
    hours: Number = None


def given(*groups: Any) -> dict[str, Any]:
    """What was asked for in these groups of options, by name."""
    return {f.name: value for g in groups for f in fields(g) if (value := getattr(g, f.name)) != f.default}


def typed(*groups: Any, **others: Any) -> str:
    """What was asked for in these groups, and other options that are not None, as it would be typed."""
    switches = {f.name for g in groups for f in fields(g) if f.default is False}
    words = []
    for name, value in {**given(*groups), **{k: v for k, v in others.items() if v is not None}}.items():
        values = () if name in switches else value if isinstance(value, tuple) else (value,)
        words += [flag(name), *(f"{v:g}" if isinstance(v, float) else str(v) for v in values)]
    return shlex.join(words)


def share_of(text: str, option: str) -> float:
    """0.05 from "5%", as typed behind an option."""
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = math.nan
    check(0 < share < math.inf, f"{option} {text}: give a difference in per cent, such as 5%")
    return share


def flag(name: str) -> str:
    """An option as it is typed."""
    return f"--{name.replace('_', '-')}"


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """A verb of the command line, which refuses options that are there and name nothing: who types `--data $FILES` with
    an empty variable does not mean the default."""

    @wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> R:
        said = signature(function).bind(*args, **options).arguments
        groups = [value for value in said.values() if is_dataclass(value) and not isinstance(value, type)]
        for name, value in {**said, **given(*groups)}.items():
            if isinstance(value, str | tuple) and not value:
                raise UserError(f"{flag(name)} names nothing: give it a value, or leave it out")
        return function(*args, **options)

    return checked


def load_rules(files: tuple[Path, ...] | None) -> None:
    """Make the rules of the user's files known."""
    if files:
        from ajest.selection import load_rules as load

        for file in files:
            load(file)
