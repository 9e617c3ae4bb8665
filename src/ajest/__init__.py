"""An honest, fast, equal-budget test bench for training diffusion models.

The pieces an engineer takes into another training loop:

    batch, score, select, policy   what to train on (Batch, Scores, Trigger)
    autoguide, sample              how to sample
    PowerEMA                       averages of the weights
    Ledger                         what it cost
    keep_freed_memory              faster steps on a CPU
"""

from ajest.diffusion.batch import Batch, Source
from ajest.diffusion.denoising import Denoiser, LogNormal, per_example_loss
from ajest.diffusion.ema import PowerEMA, posthoc_coefficients, posthoc_residual, reconstruct
from ajest.diffusion.guidance import autoguide
from ajest.diffusion.sampling import sample, sigma_schedule
from ajest.runtime.threads import keep_freed_memory
from ajest.selection import (
    POLICIES,
    Policy,
    Scores,
    Trigger,
    TriggerState,
    importance,
    inclusion_of,
    policy,
    score,
    select,
)
from ajest.selection.counts import Counts
from ajest.training.ledger import Ledger

__version__ = "0.1.0"

__all__ = [
    "POLICIES",
    "Batch",
    "Counts",
    "Denoiser",
    "Ledger",
    "LogNormal",
    "Policy",
    "PowerEMA",
    "Scores",
    "Source",
    "Trigger",
    "TriggerState",
    "autoguide",
    "importance",
    "inclusion_of",
    "keep_freed_memory",
    "per_example_loss",
    "policy",
    "posthoc_coefficients",
    "posthoc_residual",
    "reconstruct",
    "sample",
    "score",
    "select",
    "sigma_schedule",
]
