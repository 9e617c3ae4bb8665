"""How an arm noises its examples: levels, weights, targets and pairings (docs/method.md#noising)."""

from .allocations import ALLOCATIONS, Allocation
from .levels import DENSITIES, Levels
from .noising import Noising
from .pairings import PAIRINGS, Pairing
from .source import NoisedSource, noised
from .weights import WEIGHTS, Weighting

__all__ = [
    "ALLOCATIONS",
    "DENSITIES",
    "PAIRINGS",
    "WEIGHTS",
    "Allocation",
    "Levels",
    "NoisedSource",
    "Noising",
    "Pairing",
    "Weighting",
    "noised",
]
