"""The arms that come with the package, each differing in one thing from another."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ajest.diffusion.noising import Allocation, Contrast, Levels, Noising, Pairing, Weighting
from ajest.diffusion.terms import Term
from ajest.errors import UserError, check, listed, unknown

from .arm import Arm, Scoring
from .composed import AND, composed
from .keep_list import KeepList
from .memory import LossMemory
from .triggers import Trigger
from .updates import INVERSE_SQRT, Updates

KEEP = 0.2  # the paper's filter ratio of 0.8


_kept = partial(Arm, keep=KEEP)


_guided = partial(Arm, keep=KEEP, reference="guide")


def _noised(name: str, noising: Noising, paper: str, summary: str) -> Arm:
    """An arm that trains on every drawn example, noised in its own way."""
    return Arm(name, "uniform", noising=noising, paper=paper, summary=summary)


def _updated(name: str, updates: Updates, paper: str, summary: str) -> Arm:
    """An arm that trains on every drawn example and updates its weights in its own way."""
    return Arm(name, "uniform", updates=updates, paper=paper, summary=summary)


def _weight(name: str) -> Noising:
    return Noising(weight=Weighting(name))


def _paired(pairing: Pairing) -> Noising:
    return Noising(target="x0", pairing=pairing)


_ALL = (
    Arm("baseline", "uniform", summary="train on every drawn example"),
    _guided("early-ajest", "jest", paper="arXiv 2509.15267", trigger=Trigger("early"),
        summary="AJEST until the learner overtakes the guide, then every example"),
    _guided("ajest", "jest", paper="arXiv 2509.15267",
        summary="JEST with the guide of autoguidance as reference, on every step"),
    _kept("random", "random", summary="a random fifth of the examples, nothing scored"),
    _guided("late-ajest", "jest", paper="arXiv 2509.15267", trigger=Trigger("late"),
        summary="every example until the learner overtakes the guide, then AJEST"),
    _guided("inverted-ajest", "inverted-jest", paper="arXiv 2509.15267",
        summary="the least learnable examples: a control"),
    _guided("early-ajest-paper", "jest", paper="arXiv 2509.15267", trigger=Trigger("early", half_life=0),
        summary="early AJEST that decides on a single batch, as published"),
    _guided("ajest-zscore", "jest", normalise="zscore",
        summary="AJEST whose scores are normalised, so that the temperature means something"),
    _kept("jest-ema", "jest", paper="arXiv 2406.17711", reference="ema",
        summary="JEST with the learner's own average as reference"),
    _guided("rho", "learnability", paper="arXiv 2206.07137",
        summary="the most learnable fifth, no sampling (RHO-loss)"),
    _kept("high-loss", "high-loss", summary="the fifth of highest learner loss, no reference"),
    _guided("easy-reference", "easy-reference", paper="arXiv 2411.18674",
        summary="the fifth that the guide finds easiest"),
    # Within strata of the noise level (docs/method.md#stratified)
    _kept("hard", "hard", summary="softmax draws by the learner's loss within each noise level, no reference"),
    _kept("hard-rank", "hard", normalise="rank", temperature=0.25, summary="hard, by ranks"),
    _kept("hard-running", "hard", normalise="running", strata=1,
        summary="softmax draws by the loss less its running mean at that noise level: for small super-batches"),
    _kept("hard-cooling", "hard", cooling=True, summary="hard, fading to random towards the end"),
    _kept("hard-early", "hard", trigger=Trigger("share", share=0.25), summary="hard for a quarter of the run"),
    _kept("easy", "easy", summary="hard with the sign turned: a control"),
    _guided("learnable", "learnable", summary="learnability against the guide within each noise level"),
    _kept("learnable-ema", "learnable", reference="ema",
        summary="learnability against the learner's own average within each noise level"),
    _kept("learnable-strong", "learnable", reference="strong",
        summary="learnability against a strong reference within each noise level"),
    _kept("learnable-exact", "learnable", reference="exact",
        summary="the loss above that of the best denoiser there is, within each noise level; for data whose score is "
        "known"),
    # Several noise draws (docs/method.md#draws)
    _kept("hard-draws", "hard", scoring=Scoring(draws=2), summary="hard, scores averaged over two noise draws"),
    _guided("learnable-draws", "learnable", scoring=Scoring(draws=2),
        summary="learnable, scores averaged over two noise draws"),
    # Coupling (docs/method.md#coupling)
    _kept("joint-residual", "joint-hard", strata=16, summary="hard, less what points the way that is drawn already"),
    _kept("joint-gradient", "joint-hard", strata=16, scoring=Scoring(features="gradient"),
        summary="joint-residual with sketches of last-layer gradients"),
    # Unbiased (docs/method.md#unbiased)
    _kept("hard-unbiased", "hard", unbiased=True, summary="hard with importance weights"),
    _kept("proportional", "proportional", unbiased=True,
        summary="with replacement, proportional to the root of the loss, with importance weights"),
    # Nothing to score
    Arm("infobatch", "infobatch", paper="arXiv 2303.04947",
        keep=0.65, unbiased=True, memory=LossMemory("id"), normalise="running", trigger=Trigger("share", share=0.875),
        summary="random pruning of what was below the mean when last seen, rescaled; every example in the last eighth "
        "(InfoBatch)"),
    _kept("speed", "speed", paper="arXiv 2405.17403", summary="the noisiest levels a fifth as often (SpeeD)"),
    _kept("sigma-loss", "proportional", memory=LossMemory("sigma"),
        summary="noise levels in proportion to the root of their running loss"),
    _kept("sigma-loss-unbiased", "proportional", memory=LossMemory("sigma"), unbiased=True,
        summary="sigma-loss with importance weights"),
    # Cheap scores
    _kept("recall", "hard", memory=LossMemory("both"),
        summary="hard by losses remembered from training, by example and noise level"),
    _kept("recall-cooling", "hard", memory=LossMemory("both"), cooling=True,
        summary="recall, fading to random towards the end"),
    _kept("recall-id", "hard", memory=LossMemory("id"), summary="hard by losses remembered from training, by example"),
    _kept("stale", "hard", memory=LossMemory("both", every=8),
        summary="hard, scored on every 8th step, else remembered"),
    _kept("stale-cooling", "hard", memory=LossMemory("both", every=8), cooling=True,
        summary="stale, fading to random towards the end"),
    _kept("stale-id", "hard", memory=LossMemory("id", every=8), summary="stale, remembered by example alone"),
    _kept("evolved", "proportional", paper="arXiv 2509.23461", power=1.0,
        memory=LossMemory("id", every=1, half_life=6.58, blend=0.2),
        summary="in proportion to the loss, a fifth of which is an average of what was seen before (Evolved Sampling)"),
    _kept("by-loss", "proportional", power=1.0, summary="in proportion to the loss, with replacement: a control"),
    # In turns (docs/method.md#triggers)
    _kept("pods", "hard", paper="arXiv 2605.14773", trigger=Trigger("waves"),
        summary="hard and every example in turns, eight times a run (PODS)"),
    _kept("batch-warm-up", "random", paper="arXiv 2505.23971", trigger=Trigger("share", share=0.5),
        summary="random for half of the run, then every example: a batch that grows"),
    _kept("random-waves", "random", trigger=Trigger("waves"), summary="random and every example in turns: a control"),
    _guided("guide-hard", "guide-hard", summary="the guide's loss alone within each noise level"),
    _kept("proxy", "hard", scoring=Scoring(scorer="proxy"),
        summary="hard by the losses of a network of the guide's size that is trained along"),
    _kept("half-resolution", "hard", scoring=Scoring(half=True), summary="hard, images scored at half size"),
    # Noise levels (docs/method.md#levels)
    _noised("stratified", Noising(stratified=True), "arXiv 2107.00630",
        "one noise level from each of as many equally likely ranges as there are examples"),
    _noised("logit-normal", Noising(Levels("normal")), "arXiv 2403.03206",
        "levels of a flow's logit-normal time: ln(sigma / sigma_data) of mean 0 and standard deviation 1"),
    _noised("shift-3", Noising(Levels("normal", math.log(3))), "arXiv 2403.03206", "logit-normal, shifted by 3"),
    _noised("uniform-time", Noising(Levels("beta")), "arXiv 2209.03003", "levels of a flow's uniform time"),
    _noised("laplace", Noising(Levels("laplace", scale=0.25)), "arXiv 2407.03297",
        "levels whose log signal-to-noise ratio has a Laplace density"),
    _noised("cauchy", Noising(Levels("cauchy", scale=0.5)), "arXiv 2407.03297", "the same with a Cauchy density"),
    _noised("cosine-levels", Noising(Levels("sech")), "arXiv 2102.09672", "levels of the cosine schedule"),
    _noised("cosine-levels-same", Noising(Levels("sech"), same_objective=True), "arXiv 2102.09672",
        "cosine-levels with importance weights"),
    _noised("ddpm-levels", Noising(Levels("linear-ddpm")), "arXiv 2006.11239",
        "levels of DDPM's linear schedule: the baseline of much that is claimed"),
    _noised("levels-2", Noising(copies=2), "arXiv 2605.21489",
        "two noised copies of each of half as many examples"),
    _noised("levels-4", Noising(copies=4), "arXiv 2605.21489", "four of a quarter"),
    _noised("levels-4-stratified", Noising(copies=4, stratified=True), "arXiv 2605.21489",
        "levels-4, stratified over the copies of each example and over all"),
    # Levels allocated anew (docs/method.md#allocation)
    _noised("speed-paper", Noising(allocation=Allocation("speed"), weight=Weighting("speed-paper")),
        "arXiv 2405.17403",
        "levels below r = 11.9 five times as often, and the weight of SpeeD's paper, on the task's own levels"),
    _noised("speed-ddpm", Noising(Levels("linear-ddpm"), allocation=Allocation("speed"),
                                  weight=Weighting("speed-paper")), "arXiv 2405.17403",
        "the same on ddpm-levels, as published"),
    _noised("speed-code", Noising(Levels("speed-code"), weight=Weighting("speed-code")), "arXiv 2405.17403",
        "levels and weights of SpeeD's public code"),
    _noised("second-moment", Noising(allocation=Allocation("second-moment"), same_objective=True), "arXiv 2102.09672",
        "levels by the root of the second moment of their losses, with importance weights"),
    _noised("first-moment", Noising(allocation=Allocation("first-moment"), same_objective=True), "arXiv 2303.00848",
        "levels by their mean loss, with importance weights (VDM++'s adaptive schedule)"),
    _noised("adaptive-beta", Noising(allocation=Allocation("progress")), "arXiv 2411.09998",
        "a Beta density of levels that follows where the loss falls (the idea of adaptive non-uniform sampling)"),
    _noised("adaptive-beta-control", Noising(allocation=Allocation("progress", (0.0,))), "",
        "adaptive-beta held at Beta(1, 1), at the same cost"),
    _noised("infonoise-mmse", Noising(allocation=Allocation("infonoise", exact=True)), "arXiv 2602.18647",
        "levels by the information that is left at them (InfoNoise), from the error of the best denoiser"),
    # Weights (docs/method.md#weights)
    _noised("x0-weight", _weight("x0"), "arXiv 2202.00512", "the plain squared error of the denoised example"),
    _noised("eps-weight", _weight("eps"), "arXiv 2006.11239", "the squared error of the noise"),
    _noised("edm-weight", _weight("edm"), "arXiv 2206.00364", "EDM's weight, which is also that of v"),
    _noised("flow-weight", _weight("flow"), "arXiv 2210.02747", "the squared error of a straight flow's velocity"),
    _noised("min-snr", _weight("min-snr"), "arXiv 2303.09556", "the signal-to-noise ratio, at most 5"),
    _noised("soft-min-snr", _weight("soft-min-snr"), "arXiv 2401.11605",
        "min-snr at 1 without its corner; P2 at its defaults is the same"),
    # Objectives: levels and weight of a paper together (docs/method.md#objectives)
    _noised("flow-matching", Noising(Levels("beta"), weight=Weighting("flow")), "arXiv 2210.02747",
        "a straight flow's velocity at uniform times"),
    _noised("flow-logit-normal", Noising(Levels("normal"), weight=Weighting("flow")), "arXiv 2403.03206",
        "a straight flow's velocity at logit-normal times"),
    _noised("ddpm", Noising(Levels("linear-ddpm"), weight=Weighting("eps")), "arXiv 2006.11239",
        "the noise at uniform times of the linear schedule"),
    _noised("v-cosine", Noising(Levels("sech"), weight=Weighting("edm")), "arXiv 2202.00512",
        "v at uniform times of the cosine schedule"),
    # Targets (docs/method.md#target)
    _noised("x0-target", Noising(target="x0"), "arXiv 2006.11239",
        "the clean example as target, where the task's own is exact"),
    _noised("stable-target-16", Noising(target="x0", references=16), "arXiv 2302.00670",
        "the mean of 16 examples by how likely each is the one that was noised"),
    _noised("stable-target-256", Noising(target="x0", references=256), "arXiv 2302.00670", "the same of 256"),
    _noised("exact-target", Noising(target="exact"), "",
        "the exact posterior mean as target; for data whose score is known"),
    _noised("infonoise", Noising(allocation=Allocation("infonoise"), target="x0"), "arXiv 2602.18647",
        "levels by the information that is left at them (InfoNoise), from the learner's error"),
    # Contrasts (docs/method.md#contrast)
    _noised("contrastive", Noising(target="x0", contrast=Contrast("velocity")), "arXiv 2506.05350",
        "pushed away from the velocities of other examples (contrastive flow matching)"),
    Arm("contrastive-control", "uniform", noising=Noising(target="x0"), pushed=Contrast("velocity"),
        summary="contrastive without training for it: the same affine map of the denoiser, in sampling alone"),
    _noised("contrastive-denoiser", Noising(target="x0", contrast=Contrast("denoiser")), "",
        "pushed away from other examples themselves"),
    # Pairings (docs/method.md#pairing)
    _noised("assignment", _paired(Pairing("assignment", among=256)), "arXiv 2406.12303",
        "noise assigned to examples within 256 by the least squared distance in all (immiscible diffusion)"),
    _noised("assignment-norms", _paired(Pairing("assignment", among=256, norms_only=True)), "",
        "the lengths of noise that assignment gives, in random directions: a control"),
    _noised("nearest-4", _paired(Pairing("nearest", candidates=4)), "arXiv 2505.18521",
        "the nearest of four noises drawn for each example"),
    _noised("nearest-4-norms", _paired(Pairing("nearest", candidates=4, norms_only=True)), "",
        "the lengths of noise that nearest-4 gives, in random directions: a control"),
    _noised("minibatch-ot", _paired(Pairing("assignment", among=256, with_replacement=True)), "arXiv 2302.00482",
        "assignment, of which pairs are drawn with replacement (minibatch optimal transport)"),
    # Courses of the learning rate, optimizers (docs/method.md#updates)
    _updated("linear-to-zero", Updates("linear"), "arXiv 2502.15938",
        "a rate that falls linearly to zero over the whole run"),
    _updated("linear-to-tenth", Updates("linear-to-tenth"), "arXiv 2502.15938",
        "a rate that falls linearly to a tenth of its peak: a control"),
    _updated("wsd", Updates("linear", 0.2), "arXiv 2404.06395",
        "a rate that stays at its peak, then falls to zero over the last fifth of the run"),
    _updated("inverse-sqrt", Updates(INVERSE_SQRT, 1 / 8), "arXiv 2312.02696",
        "a rate that falls with the square root of the run from an eighth on, never to zero (EDM2)"),
    _updated("constant", Updates(INVERSE_SQRT, 0.0), "", "a rate that stays at its peak: a control"),
    _updated("schedule-free", Updates(INVERSE_SQRT, 0.0, optimizer="schedule-free"), "arXiv 2405.15682",
        "AdamW at a constant rate, sampled from by its own running mean"),
    _updated("muon", Updates(optimizer="muon"), "arXiv 2502.16982",
        "Muon for weights that are matrices or kernels, Adam for all others"),
    _updated("constant-ema-0.02", Updates(INVERSE_SQRT, 0.0, ema=0.02), "arXiv 2312.02696",
        "constant, judged by a shorter average of its weights"),
    _updated("constant-ema-0.2", Updates(INVERSE_SQRT, 0.0, ema=0.2), "arXiv 2312.02696",
        "constant, judged by a longer average of its weights"),
    _updated("beta2-0.95", Updates(beta2=0.95), "", "a shorter memory of squared gradients in Adam"),
    _updated("beta2-0.999", Updates(beta2=0.999), "arXiv 1412.6980", "a longer one, Adam's default"),
    # Terms beside the loss (docs/method.md#terms)
    Arm("internal-head", "uniform", paper="arXiv 2512.24176", updates=Updates(term=Term("head")),
        summary="a second answer from the network's middle is learned, too, and guides the first"),
    Arm("dispersive", "uniform", paper="arXiv 2506.09027", updates=Updates(term=Term("dispersive")),
        summary="hidden layers of different examples are pushed apart"),
)  # fmt: skip


ARMS: dict[str, Arm] = {arm.name: arm for arm in _ALL}
"""All arms by name, those that were registered too."""
_BUILT_IN = frozenset(ARMS)


def register_arm(arm: Arm) -> Arm:
    """Make an arm known by its name to the command line and to presets.

    Raises:
        UserError: another arm has the name.
    """
    check(arm.name not in _BUILT_IN, f"there is another arm {arm.name!r}: choose another name")
    ARMS[arm.name] = arm
    return arm


def variant_name(arm: str, dials: Mapping[str, float]) -> str:
    """The name of an arm with other dials, such as "random-keep-0.1"."""
    return "-".join([arm, *(f"{dial}-{value:g}" for dial, value in dials.items())])


def pruned(keep_list: KeepList) -> Arm:
    """The arm that trains on every drawn example, drawn from a keep-list alone."""
    file = Path(keep_list.file)
    name = re.sub(r"[^\w.-]+", "-", f"pruned-{file.stem}")
    return Arm(
        name, "uniform", examples=keep_list, summary=f"every drawn example of the {keep_list.count:,} of {file.name}"
    )


def random_at(keep: float) -> Arm:
    """Random choice at a keep fraction: the match of a rule that keeps as much."""
    arm = ARMS["random"]
    return arm if keep == arm.keep else replace(arm, name=variant_name(arm.name, {"keep": keep}), keep=keep)


def on_running_scale(arm: Arm) -> Arm:
    """A rule for super-batches that are too small for strata of their own: against what is usual at a noise level."""
    if "strata" not in arm.registered.dials:
        return arm
    return replace(arm, normalise="running", strata=1, summary=f"{arm.summary}; on a running scale")


def _named(name: str) -> Arm:
    """A known arm, one at a keep fraction that its name says, or one that is composed of such."""
    if name in ARMS:
        return ARMS[name]
    if AND in name:
        return composed([_named(part) for part in name.split(AND)])
    base, said, keep = name.rpartition("-keep-")
    if not said or base not in ARMS or ARMS[base].policy == "uniform":
        raise unknown("arm", name, ARMS)
    try:
        return replace(ARMS[base], name=name, keep=float(keep))
    except ValueError:
        raise UserError(f"arm {name!r}: {keep!r} is no keep fraction, such as 0.1") from None


def arms_named(
    names: tuple[str, ...], keep: float | None = None, chunks: int | None = None, within: int | None = None
) -> tuple[Arm, ...]:
    """The arms of these names, such as "random", "random-keep-0.1" or "random+muon", which is both at once; `keep`,
    `chunks` and `within` replace those of arms that have a use for them.

    Raises:
        UserError: an unknown name (with the nearest known one), a repeated one, a bad keep fraction, or parts that
            contradict each other.
    """
    found = []
    for name in names:
        arm = _named(name)
        if arm.policy != "uniform":
            arm = replace(arm, keep=arm.keep if keep is None else keep)
        if arm.scores:
            arm = replace(arm, chunks=arm.chunks if chunks is None else chunks, within=within)
        found.append(arm)
    return distinct(found)


def distinct(arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """The arms, of which no two have one name.

    Raises:
        UserError: two have.
    """
    names = [arm.name for arm in arms]
    repeated = sorted({name for name in names if names.count(name) > 1})
    check(not repeated, f"arms are named twice: {listed(repeated)}")
    return tuple(arms)
