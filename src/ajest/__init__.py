"""An honest, fast, equal-budget test bench for training diffusion models.

The pieces an engineer takes into another training loop:

    batch, score, select, policy   what to train on (Batch, Scores, Trigger)
    autoguide, sample              how to sample
    PowerEMA                       averages of the weights
    Ledger                         what it cost
    keep_freed_memory              faster steps on a CPU
"""

from .batch import Batch, Source
from .denoising import Denoiser, LogNormal, per_example_loss
from .ema import PowerEMA, posthoc_coefficients, posthoc_residual, reconstruct
from .guidance import autoguide
from .ledger import Counts, Ledger
from .sampling import sample, sigma_schedule
from .selection import POLICIES, Policy, Scores, Trigger, TriggerState, importance, inclusion_of, policy, score, select
from .threads import keep_freed_memory

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
