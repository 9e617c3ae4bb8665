"""How an arm noises its examples: levels, weights, targets, pairings and contrasts (docs/method.md#noising)."""

from .allocations import ALLOCATIONS, Allocation
from .contrasts import CONTRASTS, Contrast
from .levels import DENSITIES, Levels
from .noising import Noising
from .pairings import PAIRINGS, Pairing
from .source import NoisedSource, noised
from .weights import WEIGHTS, Weighting

__all__ = [
    "ALLOCATIONS",
    "CONTRASTS",
    "DENSITIES",
    "PAIRINGS",
    "WEIGHTS",
    "Allocation",
    "Contrast",
    "Levels",
    "NoisedSource",
    "Noising",
    "Pairing",
    "Weighting",
    "noised",
]
