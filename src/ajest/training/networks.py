"""The averaged networks of a run, to sample with, to guide or to compare with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ajest.diffusion.denoising import Denoiser
from ajest.diffusion.ema import TOLERANCE, average_of, posthoc_coefficients, posthoc_residual, reconstruct
from ajest.diffusion.guidance import relabelled
from ajest.diffusion.guides import Rule, dropped_out, noisier
from ajest.diffusion.noising.ingredients import has_ingredients
from ajest.diffusion.terms import WithTerm, with_term
from ajest.errors import UserError, check, listed
from ajest.runtime.seeding import generator
from ajest.storage import checkpoint
from ajest.tasks.base import Task

from .run_folder import RunConfig, check_followed, load_snapshot, read_config, snapshots

_MEAN_OF = 4096  # examples by which the mean of the data is known to 2 % of their standard deviation


@dataclass(frozen=True)
class Guidance:
    """Which network guides, and where.

    Attributes:
        run: folder of the guide's run.
        step: of its snapshot; None is the latest whole one.
        width: of its EMA; None is the first that was kept.
        interval: noise levels between which it guides; None is all.
        unconditional: it is asked without labels (classifier-free guidance).
        head: it is asked for its second answer (Internal Guidance, arXiv 2512.24176).
        noisier: it is told so many times the noise that there is.
        dropout: share of its activations that are dropped, see `guides.dropped_out`.
        rule: by which it steers.
        inexact: its width is taken however far it is off, see `check_width`.
    """

    run: Path
    step: int | None = None
    width: float | None = None
    interval: tuple[float, float] | None = None
    unconditional: bool = False
    noisier: float = 1.0
    dropout: float = 0.0
    rule: Rule = "autoguide"
    head: bool = False
    inexact: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if self.interval is not None:
            low, high = self.interval
            check(0 <= low < high, f"an interval goes from a lower to a higher noise level, not from {low} to {high}")
        check(0 < self.noisier < math.inf, f"a guide is told a number of times the noise, not {self.noisier}")

    @property
    def asked_otherwise(self) -> bool:
        """Whether it answers otherwise than the network that it is, so that this can guide itself."""
        return self.unconditional or self.head or self.noisier != 1 or self.dropout != 0


def network_of(config: RunConfig) -> nn.Module:
    """A run's network, untrained, with what the arm's loss asks of it beside its answer.

    Raises:
        UserError: see `terms.WithTerm`.
    """
    return with_term(config.task.network(config.role, config.seed), config.arm.updates.term)


def load_network(
    folder: Path,
    step: int | None = None,
    width: float | None = None,
    device: torch.device | str = "cpu",
    beside: Task | None = None,
    inexact: bool = False,
    say: Callable[[str], None] = print,
) -> tuple[nn.Module, int]:
    """(an averaged network of a run in evaluation mode, the step it was taken at).

    Args:
        folder: of the run.
        step: of the snapshot; None takes the latest whole one.
        width: of the EMA; None takes the first; a width that was not kept is reconstructed post hoc from all
            snapshots up to that step.
        device: where the network goes.
        beside: the task of a network that it is to be compared with.
        inexact: take a reconstructed width however far it is off, see `check_width`.
        say: told how far a reconstructed width is off.

    Raises:
        UserError: no such snapshot; a width that no average has, or that the snapshots are too few for; or the run
            learned something else than `beside`.
    """
    config = read_config(folder)
    if beside is not None:
        _same_domain(folder, config.task, beside)
        check(
            config.task.classes == beside.classes,
            f"{folder} learned {config.task.subject}, and what it is compared with learned {beside.subject}: both must "
            "have learned the same classes",
        )
        check(
            config.task.label_dropout > 0 or beside.label_dropout == 0,
            f"{folder} learned with every label, and what it is compared with drops some: train both with "
            "--label-dropout",
        )
    stored = load_snapshot(folder, step)
    kept = config.recipe.ema_widths
    width = kept[0] if width is None else width
    if width in kept:
        weights = average_of(stored.tensors, width)
    else:
        check_width(folder, int(stored.facts["step"]), width, inexact, say)
        weights = _posthoc(folder, int(stored.facts["step"]), kept, width)
    network = network_of(config).to(device)
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False), int(stored.facts["step"])


def sampled(network: Denoiser, config: RunConfig, task: Task) -> Denoiser:
    """A run's network as its arm has it sampled from: the network itself, or pushed by a contrast.

    Args:
        network: of the run.
        config: of the run.
        task: whose sampler is taken.

    Raises:
        UserError: the sampler cannot follow what the arm learned; or the task's source hands out no clean examples,
            whose mean a contrast takes.
    """
    check_followed(config.arm, task)
    if config.arm.pushed is None:
        return network
    source = config.task.source("cpu")
    check(has_ingredients(source), f"arm {config.arm.name!r} needs a source with ingredients, see docs/extending.md")
    assert has_ingredients(source)
    mean = source.ingredients(_MEAN_OF, generator(0, "mean")).x0.mean(0)
    return config.arm.pushed.pushed(network, mean, source.sigma_data)


def load_exported(folder: str | Path, device: torch.device | str = "cpu") -> tuple[nn.Module, Task]:
    """(the network of a folder that `ajest export` wrote, in evaluation mode; its task).

    Raises:
        UserError: it is no such folder, or its weights are of another network.
    """
    folder = Path(folder)
    path = folder / "model.safetensors"
    check(path.exists(), f"{folder} holds no exported network: it has no model.safetensors")
    config = read_config(folder)
    network = network_of(config)
    try:
        network.load_state_dict(safetensors.torch.load_file(path))
    except (RuntimeError, OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} is not the network of its config.json: {str(error).splitlines()[0]}") from error
    return network.to(device).eval().requires_grad_(False), config.task


def load_guide(
    guidance: Guidance, beside: Task, device: torch.device | str = "cpu", say: Callable[[str], None] = print
) -> tuple[Denoiser, int]:
    """(a run's averaged network, to be asked with the labels of what it guides; the step it was taken at).

    A guide of other classes is asked by their keys, one that learned no classes without labels
    (docs/method.md#guidance).

    Args:
        guidance: which.
        beside: the task of what it guides.
        device: where the network goes.
        say: see `load_network`.

    Raises:
        UserError: see `load_network`; or the guide lacks a class, or cannot answer without labels and is to.
    """
    task = read_config(guidance.run).task
    _same_domain(guidance.run, task, beside)
    network, step = load_network(guidance.run, guidance.step, guidance.width, device, None, guidance.inexact, say)
    guide: Denoiser = dropped_out(network, guidance.dropout) if guidance.dropout else network
    if guidance.head:
        check(
            isinstance(network, WithTerm) and network.head is not None and not guidance.dropout,
            f"{guidance.run} has no second answer to guide by: train it with --arm internal-head, and leave out "
            "--guide-dropout",
        )
        assert isinstance(network, WithTerm)
        guide = network.aside
    guide = guide if guidance.noisier == 1 else noisier(guide, guidance.noisier)
    if guidance.unconditional:
        check(
            beside.conditional,
            f"{guidance.run} guides what was learned without labels ({beside.subject}): leave out "
            "--unconditional-guide",
        )
    elif task.classes == beside.classes:
        return guide, step
    if guidance.unconditional or not task.classes or not beside.classes:
        _check_answers_without(guidance.run, task, "name another guide")
        return relabelled(guide, None), step
    missing = [c for c in beside.classes if c not in task.classes]
    check(
        not missing,
        f"{guidance.run} cannot guide: it has not learned {listed(missing, 5)}; name a guide of these classes, or of "
        "none",
    )
    return relabelled(guide, torch.tensor([task.classes.index(c) for c in beside.classes])), step


def check_classifier_free(run: Path, task: Task) -> None:
    """Make sure that a run's network can guide itself by what it answers without labels.

    Raises:
        UserError: it has learned none, or has learned with every one.
    """
    check(task.conditional, f"{run} learned without labels ({task.subject}): leave out --cfg")
    _check_answers_without(run, task, "leave out --cfg")


def _check_answers_without(run: Path, task: Task, otherwise: str) -> None:
    check(
        not task.conditional or task.label_dropout > 0,
        f"{run} learned with every label, so that it cannot be asked without one: train it with --label-dropout 0.1, "
        f"or {otherwise}",
    )


def _same_domain(folder: Path, task: Task, beside: Task) -> None:
    check(
        task.domain == beside.domain,
        f"{folder} learned {task.subject}, and the network beside it learned {beside.subject}: both must have learned "
        "the same task, at the same resolution",
    )


def check_width(
    folder: Path, step: int, width: float, inexact: bool = False, say: Callable[[str], None] = print
) -> None:
    """Say how far an average of a width that was not kept would be off, reconstructed from a run's snapshots up to a
    step; nothing where it was kept.

    Raises:
        UserError: more than 2 % (`ema.TOLERANCE`) and not `inexact`; or no average has such a width.
    """
    config = read_config(folder)
    kept = config.recipe.ema_widths
    if width in kept:
        return
    check(
        config.recipe.of(config.arm).optimizer != "schedule-free",
        f"{folder} keeps the average of its optimizer under every width, and no other can be made of it: name no width",
    )
    stems, times, widths = _stored(folder, step, kept)
    try:
        residual = posthoc_residual(times, widths, float(step), width)
    except ValueError as error:
        raise UserError(str(error)) from error
    made_of = "1 snapshot" if len(stems) == 1 else f"{len(stems)} snapshots"
    what = (
        f"{folder}: an EMA of width {width:g} at step {step}, made of {made_of} of {', '.join(f'{w:g}' for w in kept)}"
    )
    what += f", is {residual:.2%} off its profile"
    check(
        inexact or residual <= TOLERANCE,
        f"{what}, and more than {TOLERANCE:.0%} is another width: name one that was kept, or take it as it is with "
        "--allow-inexact-ema",
    )
    say(what)


def _posthoc(folder: Path, step: int, kept: tuple[float, ...], width: float) -> dict[str, Tensor]:
    stems, times, widths = _stored(folder, step, kept)
    each = (checkpoint.load(stem).tensors for stem in stems)
    coefficients = posthoc_coefficients(times, widths, float(step), width)
    return reconstruct((average_of(tensors, w) for tensors in each for w in kept), coefficients)


def _stored(folder: Path, step: int, kept: tuple[float, ...]) -> tuple[list[Path], list[float], list[float]]:
    """(the snapshots up to a step, time and width of each average in them)."""
    known = {at: stem for at, stem in snapshots(folder).items() if at <= step}
    return list(known.values()), [float(at) for at in known for _ in kept], list(kept) * len(known)
