"""Can scores be trusted: do they repeat, do they measure more than the noise level, what do they leave of a batch?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ajest.diffusion.batch import Batch

from .arm import Arm, Scoring
from .flow import Scorer, draw_noised
from .normalisation import eta_squared, ranks
from .policies import value_of
from .scoring import Scores, score
from .selector import Selector
from .strata import LEAST_IN_STRATUM, strata_of

EXAMPLES = 512  # of a super-batch, on which scores are measured twice
_STREAM = "retest"  # the name of its random stream, of which all recorded numbers come
_SIGMA_STRATA = 16  # within which correlations are taken


def diagnose(selector: Selector, step: int, progress: float) -> dict[str, float]:
    """How far an arm's own scores can be trusted, measured on examples beside the training, at no cost to it.

    Args:
        selector: of the run.
        step: which names the examples.
        progress: share of the run that is done, by which some policies cool.

    Returns:
        By name: "test_retest", correlation of scores of the same examples and noise levels under new noise, within
        strata of sigma, of what is measured (a remembered score repeats by itself); "sigma_eta_squared", how much of
        the scores' variance the noise level alone explains; "sigma_eta_squared_of_ranks", the same of their ranks;
        "effective_sample_share", effective sample size of the choice over the super-batch, where its probabilities are
        known; "agreement", rank correlation within strata with full scoring (the learner's loss where no other is
        read), where the arm does not score fully.
        Empty for arms that score nothing, and on steps that do not select.
    """
    arm, criterion, memory = selector.arm, selector.arm.criterion, selector.memory
    if criterion is None or not selector.trigger.on:
        return {}
    count, draws = min(EXAMPLES, selector.super_batch), arm.scoring.draws
    drawn = (draw_noised(selector.source, selector.streams, count, step, k, _STREAM) for k in range(2 * draws))
    batches = [selector.source.complete(batch) for batch in drawn]
    stratum = strata_of(batches[0].sigma, min(_SIGMA_STRATA, max(1, count // LEAST_IN_STRATUM)))
    once, again = (_measured(selector.scorer, batches[k * draws : (k + 1) * draws]) for k in range(2))
    # What most of its steps choose by: where each scores, what is remembered has a share in that at most.
    scores_always = arm.memory is not None and arm.memory.every == 1
    own = memory.blended(batches[0], once) if scores_always else memory.recalled(batches[0], once)
    values = value_of(own, criterion)
    found = {
        "test_retest": rank_correlation(value_of(once, criterion), value_of(again, criterion), stratum),
        "sigma_eta_squared": eta_squared(values, stratum),
        "sigma_eta_squared_of_ranks": eta_squared(values.argsort().argsort(), stratum),
    }
    if memory.losses or arm.scoring != Scoring() or criterion == "reference":
        found["agreement"] = rank_correlation(values, _fully(selector, batches[0]), stratum)
    sample = _effective_sample(arm, memory.with_running_stats(own), progress)
    return found if sample is None else found | {"effective_sample_share": sample}


def _measured(scorer: Scorer, batches: Sequence[Batch]) -> Scores:
    """Losses as an arm takes them where it scores, over these noise draws."""
    learner = scorer.losses(scorer.network, batches) if "learner" in scorer.reads else None
    reference = scorer.losses(scorer.networks.reference, batches) if "reference" in scorer.reads else None
    return Scores(learner, reference, batches[0].sigma)


def _fully(selector: Selector, batch: Batch) -> Tensor:
    """The score that a cheap one stands for: the learner's own loss, less the reference's if that is read too."""
    networks, micro_batch = selector.networks, selector.scorer.micro_batch
    learner = score(networks.learner, batch, micro_batch)
    if selector.arm.criterion != "learnability" or networks.reference is None:
        return learner
    return learner - score(networks.reference, batch, micro_batch)


def _effective_sample(arm: Arm, scores: Scores, progress: float) -> float | None:
    kept = max(1, round(arm.keep * len(scores)))
    inclusion = replace(arm, chunks=min(arm.chunks, kept)).inclusion(progress)
    return None if inclusion is None else effective_sample_share(inclusion(scores, kept))


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of two vectors; 0 where one of them does not vary."""
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    scale = float(a.norm() * b.norm())
    return float(a @ b) / scale if scale > 0 else 0.0


def rank_correlation(a: Tensor, b: Tensor, stratum: Tensor | None = None) -> float:
    """Spearman's correlation; within strata by ranks there, if they are given."""
    stratum = torch.zeros(len(a), dtype=torch.int64, device=a.device) if stratum is None else stratum
    ranked = []
    for values in (a.double(), b.double()):
        place, size = ranks(values, stratum)
        ranked.append((place + 0.5) / size)
    return correlation(*ranked)


def effective_sample_share(probability: Tensor) -> float:
    """Effective sample size of a choice over the size of the super-batch: `(sum p)^2 / (B sum p^2)`, 1 for even odds
    (Kish 1965)."""
    p = probability.double()
    return float(p.sum().square() / (len(p) * p.square().sum()))
