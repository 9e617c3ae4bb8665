"""An honest, fast, equal-budget test bench for training diffusion models.

The pieces an engineer takes into another training loop:

    batch, score, select, policy   what to train on (Batch, Scores, Trigger)
    LossSampler, select_across     the same for a DataLoader, and for several processes
    autoguide, sample              how to sample
    PowerEMA                       averages of the weights
    Ledger                         what it cost
    keep_freed_memory              faster steps on a CPU
    Trainer, Recipe, Networks      a whole step, for a network and a source of one's own (`Network` says what it needs)

A network, a data set and metrics of one's own are a `ajest.tasks.Task`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .diffusion.batch import Batch, Source
    from .diffusion.denoising import Denoiser, LogNormal, per_example_loss
    from .diffusion.ema import PowerEMA, posthoc_coefficients, posthoc_residual, reconstruct
    from .diffusion.guidance import autoguide
    from .diffusion.network import Network
    from .diffusion.sampling import sample, sigma_schedule
    from .runtime.seeding import Streams
    from .runtime.threads import keep_freed_memory
    from .selection.across import SharedChoice, select_across
    from .selection.counts import Counts
    from .selection.flow import Networks
    from .selection.kinds import StepKind
    from .selection.registry import POLICIES, Policy, importance, inclusion_of, policy, select
    from .selection.sampler import LossSampler
    from .selection.scoring import Scores, score
    from .selection.triggers import Trigger, TriggerState
    from .tasks.base import Task
    from .training.ledger import Ledger
    from .training.networks import load_exported, load_network
    from .training.recipe import LearningRate, Recipe
    from .training.trainer import Step, Trainer

__version__ = "0.1.0"

# Where each public name stands. It is imported at its first use, since torch takes a second to import and
# `ajest --help` does without.
_PLACES = {
    "diffusion.batch": ("Batch", "Source"),
    "diffusion.denoising": ("Denoiser", "LogNormal", "per_example_loss"),
    "diffusion.ema": ("PowerEMA", "posthoc_coefficients", "posthoc_residual", "reconstruct"),
    "diffusion.guidance": ("autoguide",),
    "diffusion.network": ("Network",),
    "diffusion.sampling": ("sample", "sigma_schedule"),
    "runtime.seeding": ("Streams",),
    "runtime.threads": ("keep_freed_memory",),
    "selection.across": ("SharedChoice", "select_across"),
    "selection.counts": ("Counts",),
    "selection.flow": ("Networks",),
    "selection.kinds": ("StepKind",),
    "selection.registry": ("POLICIES", "Policy", "importance", "inclusion_of", "policy", "select"),
    "selection.sampler": ("LossSampler",),
    "selection.scoring": ("Scores", "score"),
    "selection.triggers": ("Trigger", "TriggerState"),
    "tasks.base": ("Task",),
    "training.ledger": ("Ledger",),
    "training.networks": ("load_exported", "load_network"),
    "training.recipe": ("LearningRate", "Recipe"),
    "training.trainer": ("Step", "Trainer"),
}

__all__ = [
    "POLICIES",
    "Batch",
    "Counts",
    "Denoiser",
    "LearningRate",
    "Ledger",
    "LogNormal",
    "LossSampler",
    "Network",
    "Networks",
    "Policy",
    "PowerEMA",
    "Recipe",
    "Scores",
    "SharedChoice",
    "Source",
    "Step",
    "StepKind",
    "Streams",
    "Task",
    "Trainer",
    "Trigger",
    "TriggerState",
    "autoguide",
    "importance",
    "inclusion_of",
    "keep_freed_memory",
    "load_exported",
    "load_network",
    "per_example_loss",
    "policy",
    "posthoc_coefficients",
    "posthoc_residual",
    "reconstruct",
    "sample",
    "score",
    "select",
    "select_across",
    "sigma_schedule",
]


def __getattr__(name: str) -> Any:
    for place, names in _PLACES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{place}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
