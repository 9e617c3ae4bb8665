"""What a network predicts, in which time: between denoisers and networks of noise, v, data or velocity
(docs/method.md#objectives)."""

from .adapters import Preconditioned, SeenAs, as_denoiser, as_network
from .parametrisations import PARAMETRISATIONS, Parametrisation
from .processes import EDM, CosineVP, DiscreteVP, LinearVP, Process, RectifiedFlow, VarianceExploding

__all__ = [
    "EDM",
    "PARAMETRISATIONS",
    "CosineVP",
    "DiscreteVP",
    "LinearVP",
    "Parametrisation",
    "Preconditioned",
    "Process",
    "RectifiedFlow",
    "SeenAs",
    "VarianceExploding",
    "as_denoiser",
    "as_network",
]
