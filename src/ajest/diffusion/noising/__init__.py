"""How an arm noises its examples: levels, weights and targets (docs/method.md#noising)."""

from .levels import DENSITIES, Levels
from .noising import Noising
from .source import NoisedSource, noised
from .weights import WEIGHTS, Weighting

__all__ = ["DENSITIES", "WEIGHTS", "Levels", "NoisedSource", "Noising", "Weighting", "noised"]
